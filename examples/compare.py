"""Policies beside one another under one code and one list of seeds: baseline, RandAugment, TrivialAugmentWide, DDAS.

    python examples/compare.py train.lmdb test.lmdb --ddas policy.json --seeds 0 1 2 --network wrn-40-2 --out compare
    python examples/compare.py train.lmdb test.lmdb --ddas policy.json --seeds 0 1 \\
        --network wrn-16-2 --subset 4000 --epochs 30 --batch-size 64 --lr 0.05 --amp --threads 1

The second command takes about an hour of one core with bfloat16 instructions.

Every run is one of `examples/cifar/train.py`, with the same settings but for
policy and seed. `baseline` is crop, flip and Cutout 16 alone, as all the others
have besides. RandAugment runs with three operations of magnitude 5 of 30, which
`pytorch-randaugment` gives for CIFAR-10 and WRN-28-10 (`--randaugment`);
TrivialAugmentWide has nothing to choose. No method's settings are tuned here.

`--out` keeps `results.json`, one entry for each finished run with everything
that decides it, the contents of datasets and policy included. A run that is
found there is not repeated; one that was stopped goes on from its last epoch.
Other settings, or another `ddas.json`, are other runs. Prints a Markdown table
of the error on the test data: mean and standard deviation over the seeds, and
each seed's; it stands in `table.md`, too.

A difference smaller than the spread over the seeds says nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import ddas

sys.path.insert(0, str(Path(__file__).resolve().parent / "cifar"))
from train import parser as train_parser, train  # noqa: E402

BASELINE, RANDAUGMENT, TRIVIALAUGMENT, DDAS = "baseline", "randaugment", "trivialaugment-wide", "ddas"

# Files of a method: its row's name, and its policy if it has one.
Methods = dict[str, Path | None]


def methods_of(arguments: argparse.Namespace) -> Methods:
    """The rows of the table; policies that are built in are written into `--out`."""
    draws, magnitude = arguments.randaugment
    built_in = {
        RANDAUGMENT: lambda: ddas.Policy.builtin("randaugment-ildoonet", draws=draws, magnitude=magnitude),
        TRIVIALAUGMENT: lambda: ddas.Policy.builtin("trivialaugment-wide"),
    }
    methods: Methods = {}
    for method in arguments.methods:
        if method == BASELINE:
            methods[method] = None
        elif method == DDAS:
            for path in arguments.ddas:
                name = DDAS if path.stem == DDAS else f"{DDAS}-{path.stem}"
                if name in methods:
                    raise SystemExit(f"--ddas {path}: another policy's row is called {name} already; rename the file")
                methods[name] = path
        else:
            methods[method] = arguments.out / f"{method}.json"
            built_in[method]().save(methods[method])
    return methods


def dataset_hash(path: str) -> str:
    """Hash of a packed dataset's contents."""
    with ddas.Loader(path, recipe="cifar-eval", epochs=1, batch_size=1, environment=False) as loader:
        return str(loader.info.dataset_hash)


class Results:
    """The finished runs of a folder, in one file that is replaced as a whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs: list[dict[str, Any]] = json.loads(path.read_text())["runs"] if path.exists() else []

    def find(self, settings: dict[str, Any]) -> dict[str, Any] | None:
        return next((run for run in self.runs if run["settings"] == settings), None)

    def add(self, run: dict[str, Any]) -> None:
        self.runs.append(run)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"runs": self.runs}, indent=2) + "\n")
        temporary.replace(self.path)


class Progress:
    """Lines that say which run is under way, and when all are done if epochs go on taking as long."""

    def __init__(self, runs: int, epochs: int) -> None:
        self.runs, self.epochs = runs, epochs
        self.done, self.begun = 0, time.monotonic()
        self.name, self.number = "", 0

    def start(self, name: str) -> None:
        self.name, self.number = name, self.number + 1

    def epoch(self, epochs_done: int, text: str) -> None:
        self.done += 1
        left = (self.runs - self.number) * self.epochs + self.epochs - epochs_done
        seconds = (time.monotonic() - self.begun) / self.done * left
        print(f"run {self.number}/{self.runs}, {self.name}: {text}; about {duration(seconds)} to the end", flush=True)


def duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min" if minutes else f"{seconds:.0f} s"


def table(results: dict[str, list[dict[str, Any]]], settings: str) -> str:
    """The results as Markdown."""
    lines = [settings, "", "| policy | test error, % | seeds | per seed |", "|---|---|---|---|"]
    for method, runs in results.items():
        errors = [100 * (1 - run["accuracy"]) for run in runs]
        if not errors:
            continue
        spread = f" ± {statistics.stdev(errors):.2f}" if len(errors) > 1 else ""
        each = ", ".join(f"{error:.2f}" for error in errors)
        lines.append(f"| {method} | {statistics.mean(errors):.2f}{spread} | {len(errors)} | {each} |")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", help="packed training data")
    parser.add_argument("test", help="packed test data")
    parser.add_argument("--ddas", type=Path, nargs="+", default=[], metavar="FILE",
                        help="policy files found by `ddas-search`, a row for each; left out, DDAS is")  # fmt: skip
    parser.add_argument("--methods", nargs="+", default=[BASELINE, RANDAUGMENT, TRIVIALAUGMENT, DDAS],
                        choices=[BASELINE, RANDAUGMENT, TRIVIALAUGMENT, DDAS], help="default: all four")  # fmt: skip
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="default 0 1")
    parser.add_argument("--network", default="wrn-16-2", help="wrn-DEPTH-WIDTH (default wrn-16-2)")
    parser.add_argument("--subset", type=int, metavar="N", help="train on about N samples, the same ones always (default: on all)")
    parser.add_argument("--epochs", type=int, default=30, help="default 30; the paper trains 200")
    parser.add_argument("--batch-size", type=int, default=128, help="default 128")
    parser.add_argument("--lr", type=float, default=0.1, help="default 0.1")
    parser.add_argument("--randaugment", type=int, nargs=2, default=[3, 5], metavar=("N", "M"),
                        help="operations, and their magnitude of 30 (default 3 5)")  # fmt: skip
    parser.add_argument("--amp", action="store_true", help="compute in bfloat16")
    parser.add_argument("--device", help="cpu, cuda, cuda:N (default: cuda where there is one)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: every core)")
    parser.add_argument("--out", type=Path, default=Path("compare"), help="folder of the runs (default compare)")
    return parser


def main() -> None:
    arguments = parser().parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    methods = methods_of(arguments)
    if not methods:
        sys.exit("nothing to compare: --methods ddas needs policies, --ddas POLICY.json")
    common = {
        "network": arguments.network, "epochs": arguments.epochs, "batch_size": arguments.batch_size, "lr": arguments.lr,
        "subset": arguments.subset, "amp": arguments.amp, "device": arguments.device, "threads": arguments.threads,
        "train": dataset_hash(arguments.train), "test": dataset_hash(arguments.test),
    }  # fmt: skip
    results = Results(arguments.out / "results.json")
    # Seed by seed: a comparison that is stopped early is still one of all methods.
    runs = []
    for seed in arguments.seeds:
        for method, policy in methods.items():
            content = hashlib.sha256(policy.read_bytes()).hexdigest() if policy else None
            runs.append((method, policy, {**common, "seed": seed, "policy": content}))
    todo = [run for run in runs if results.find(run[2]) is None]
    print(f"{len(runs)} runs, {len(runs) - len(todo)} of them finished before", flush=True)

    progress = Progress(len(todo), arguments.epochs)
    for method, policy, settings in todo:
        if results.find(settings):
            continue  # the same policy under two names
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
        run_dir = arguments.out / f"{method}-seed{settings['seed']}-{digest}"
        command = [
            arguments.train, arguments.test, "--network", arguments.network, "--epochs", str(arguments.epochs),
            "--batch-size", str(arguments.batch_size), "--lr", str(arguments.lr), "--seed", str(settings["seed"]),
            "--threads", str(arguments.threads), "--run-dir", str(run_dir), "--test-every", str(arguments.epochs),
        ]  # fmt: skip
        command += ["--subset", str(arguments.subset)] if arguments.subset is not None else []
        command += ["--policy", str(policy)] if policy else []
        command += ["--amp"] if arguments.amp else []
        command += ["--device", arguments.device] if arguments.device else []
        command += ["--resume"] if (run_dir / "checkpoint.pt").exists() else []
        progress.start(f"{method}, seed {settings['seed']}")
        found = train(train_parser().parse_args(command), progress.epoch)
        results.add({"method": method, "settings": settings, **found})

    rows: dict[str, list[dict[str, Any]]] = {method: [] for method in methods}
    for method, _, settings in runs:
        run = results.find(settings)
        assert run is not None
        rows[method].append(run)
    samples = next(run["samples_per_epoch"] for runs_of_method in rows.values() for run in runs_of_method)
    text = table(rows, f"{arguments.network}, {arguments.epochs} epochs of {samples} samples, batch {arguments.batch_size}, "
                       f"rate {arguments.lr}, {'bfloat16' if arguments.amp else 'float32'}, seeds {arguments.seeds}")  # fmt: skip
    (arguments.out / "table.md").write_text(text + "\n")
    print(f"\n{text}")


if __name__ == "__main__":
    main()
