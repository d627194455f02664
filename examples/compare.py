"""Policies beside one another under one code and one list of seeds: baseline, RandAugment, TrivialAugmentWide, DDAS.

    python examples/compare.py train.lmdb test.lmdb --ddas policy.json --seeds 0 1 2 --network wrn-40-2 --out compare

Every run is one of `examples/cifar/train.py`, with the same settings but for
policy and seed. `baseline` is crop, flip and Cutout 16 alone, as all the others
have besides. RandAugment runs with the values that its authors give for
CIFAR-10 (two operations, magnitude 5). Prints a Markdown table of the error on
the test data: mean and standard deviation over the seeds, and each seed's.
Finished runs found in `--out` are not run again.

A difference smaller than the spread over the seeds says nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

import ddas

sys.path.insert(0, str(Path(__file__).resolve().parent / "cifar"))
from train import parser as train_parser, train  # noqa: E402

BASELINE, RANDAUGMENT, TRIVIALAUGMENT, DDAS = "baseline", "randaugment", "trivialaugment-wide", "ddas"


def policy_of(method: str, ddas_policy: Path | None, out: Path) -> Path | None:
    """The policy file of a method; none for the baseline."""
    if method == BASELINE:
        return None
    if method == DDAS:
        return ddas_policy
    built_in = {
        RANDAUGMENT: lambda: ddas.Policy.builtin("randaugment-ildoonet", draws=2, magnitude=5),
        TRIVIALAUGMENT: lambda: ddas.Policy.builtin("trivialaugment-wide"),
    }
    path = out / f"{method}.json"
    built_in[method]().save(path)
    return path


def table(results: dict[str, list[dict[str, float]]], settings: str) -> str:
    """The results as Markdown."""
    lines = [settings, "", "| policy | test error, % | seeds | per seed |", "|---|---|---|---|"]
    for method, runs in results.items():
        errors = [100 * (1 - run["accuracy"]) for run in runs]
        spread = f" ± {statistics.stdev(errors):.2f}" if len(errors) > 1 else ""
        each = ", ".join(f"{error:.2f}" for error in errors)
        lines.append(f"| {method} | {statistics.mean(errors):.2f}{spread} | {len(errors)} | {each} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", help="packed training data")
    parser.add_argument("test", help="packed test data")
    parser.add_argument("--ddas", type=Path, help="policy file found by `ddas-search`; left out, DDAS is")
    parser.add_argument("--methods", nargs="+", default=[BASELINE, RANDAUGMENT, TRIVIALAUGMENT, DDAS],
                        choices=[BASELINE, RANDAUGMENT, TRIVIALAUGMENT, DDAS], help="default: all four")  # fmt: skip
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="default 0 1")
    parser.add_argument("--network", default="wrn-16-2", help="wrn-DEPTH-WIDTH (default wrn-16-2)")
    parser.add_argument("--epochs", type=int, default=30, help="default 30; the paper trains 200")
    parser.add_argument("--batch-size", type=int, default=128, help="default 128")
    parser.add_argument("--lr", type=float, default=0.1, help="default 0.1")
    parser.add_argument("--amp", action="store_true", help="compute in bfloat16")
    parser.add_argument("--device", help="cpu, cuda, cuda:N (default: cuda where there is one)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: every core)")
    parser.add_argument("--out", type=Path, default=Path("compare"), help="folder of the runs (default compare)")
    arguments = parser.parse_args()
    methods = [method for method in arguments.methods if method != DDAS or arguments.ddas]
    arguments.out.mkdir(parents=True, exist_ok=True)

    results: dict[str, list[dict[str, float]]] = {method: [] for method in methods}
    # Seed by seed: a comparison that is stopped early is still one of all methods.
    for seed in arguments.seeds:
        for method in methods:
            run_dir = arguments.out / f"{method}-seed{seed}"
            policy = policy_of(method, arguments.ddas, arguments.out)
            command = [
                arguments.train, arguments.test, "--network", arguments.network, "--epochs", str(arguments.epochs),
                "--batch-size", str(arguments.batch_size), "--lr", str(arguments.lr), "--seed", str(seed),
                "--threads", str(arguments.threads), "--run-dir", str(run_dir), "--test-every", str(arguments.epochs),
            ]  # fmt: skip
            command += ["--policy", str(policy)] if policy else []
            command += ["--amp"] if arguments.amp else []
            command += ["--device", arguments.device] if arguments.device else []
            done, record = run_dir / "result.json", run_dir / "command.json"
            if done.exists() and record.exists() and json.loads(record.read_text()) == command:
                results[method].append(json.loads(done.read_text()))
                continue
            print(f"{method}, seed {seed}", flush=True)
            results[method].append(train(train_parser().parse_args(command)))
            record.write_text(json.dumps(command))
    settings = f"{arguments.network}, {arguments.epochs} epochs, batch {arguments.batch_size}, seeds {arguments.seeds}"
    text = table(results, settings)
    (arguments.out / "table.md").write_text(text + "\n")
    print(f"\n{text}")


if __name__ == "__main__":
    main()
