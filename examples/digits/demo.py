"""The whole job on real images, in a few minutes: pack, search, serve, train.

The paper's sanity check (section 4.1): validation images are turned by 90
degrees, a quarter turn stands among the candidate operations, and the search
has to find that it is the one that helps. Then one small network is trained on
batches served with the found policy, one without, and both are tested on
turned images.

    python examples/digits/demo.py [--seed 0] [--out demo-run]

Every command is printed before it runs and can be repeated by hand. Exit
status 1 when the result falls short of what is promised.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# The quarter turn must be this much more probable than the next operation,
LEAST_FACTOR = 2.0
# and training with the policy must gain this much accuracy on turned images.
LEAST_GAIN = 0.15
TRAIN_EPOCHS = 40
BATCH_SIZE = 64
# A quick search: a small network and larger steps than the presets', since the
# paper's own settings move the probabilities little in so few steps.
SEARCH_SETTINGS = [
    word
    for setting in [
        "network=wrn-10-1", "epochs=10", "train_samples=640", "validation_samples=640",
        "train_batch=32", "validation_batch=128", "loss=mean", "learning_rate=0.05", "momentum=0.9",
        "operation_learning_rate=0.05", "total_learning_rate=0.05",
    ]
    for word in ("--set", setting)
]  # fmt: skip

START = time.monotonic()


def say(text: str) -> None:
    print(f"[{time.monotonic() - START:4.0f} s] {text}", flush=True)


def show(command: list) -> list[str]:
    """Prints a command as one would type it in the repository's root."""
    words = [str(word) for word in command]
    names = {str(ROOT) + os.sep: "", sys.executable: "python"}
    typed = shlex.join(words)
    for long, short in names.items():
        typed = typed.replace(long, short)
    say("$ " + typed)
    return words


def run(command: list, **options) -> subprocess.CompletedProcess:
    try:
        return subprocess.run(show(command), check=True, **options)
    except subprocess.CalledProcessError as error:
        sys.exit(f"demo: the command above ended with status {error.returncode}")


def train(dataset: Path, test: Path, policy: Path | None, seed: int) -> float:
    """Serves `dataset`, trains on it; accuracy on turned test images."""
    name = f"digits-{os.getpid()}"
    serve = [
        ROOT / "target/release/ddas-loader", "serve", dataset, "--name", name, "--recipe", "cifar",
        "--epochs", TRAIN_EPOCHS, "--batch-size", BATCH_SIZE, "--seed", seed,
    ]  # fmt: skip
    if policy is not None:
        serve += ["--policy", policy]
    daemon = subprocess.Popen(show(serve), stderr=subprocess.DEVNULL)
    try:
        trainer = run(
            [sys.executable, HERE / "train.py", name, test, "--turn", "--seed", seed], stdout=subprocess.PIPE, text=True
        )
        daemon.wait(timeout=30)
    finally:
        daemon.kill()
    return json.loads(trainer.stdout)["accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "demo-run")
    arguments = parser.parse_args()
    out, seed = arguments.out.resolve(), arguments.seed
    loader, search = ROOT / "target/release/ddas-loader", ROOT / "target/release/ddas-search"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)

    say("1/4 pack: scikit-learn's handwritten digits, 32x32 RGB, into LMDB")
    run([sys.executable, HERE / "digits.py", out / "digits"])
    dataset, test = out / "digits.lmdb", out / "digits" / "test"
    run([loader, "pack", "image-folder", out / "digits", dataset, "--root", "train"])

    say("2/4 search: which operations help on images turned by 90 degrees?")
    policy, run_dir = out / "policy.json", out / "search"
    run([search, "run", dataset, "--preset", "sanity", "--seed", seed, *SEARCH_SETTINGS, "--run-dir", run_dir, "-o", policy])
    found = json.loads(policy.read_text())
    kinds = [operation["kind"] for operation in found["search_space"]["operations"]]
    last = found["snapshots"][-1]
    ranked = sorted(zip(last["operation_probabilities"], kinds), reverse=True)
    factor = ranked[0][0] / ranked[1][0]
    for probability, kind in ranked[:5]:
        print(f"    {kind:<14} {probability:.3f}  {'#' * round(100 * probability)}")
    print(f"    total probability {last['total_probability']:.3f}", flush=True)

    report, plot, sheet = run_dir / "report.html", out / "policy.svg", out / "sheet.png"
    run([loader, "policy", "plot", policy, "-o", plot])
    run([loader, "preview", dataset, "--policy", policy, "--epoch", TRAIN_EPOCHS - 1, "--epochs", TRAIN_EPOCHS, "-o", sheet])

    say("3/4 train on served batches with the policy")
    with_policy = train(dataset, test, policy, seed)
    say("4/4 train on served batches without")
    without = train(dataset, test, None, seed)

    print()
    print(f"most probable operation    {ranked[0][1]}, {factor:.1f} times the next ({ranked[1][1]})")
    print(f"accuracy on turned digits  {with_policy:.1%} with the policy, {without:.1%} without")
    for name, path in [("report", report), ("plot", plot), ("contact sheet", sheet), ("policy", policy)]:
        print(f"{name:<26} {os.path.relpath(path)}")
    say("done")
    failures = []
    if ranked[0][1] != "Rotate90" or factor < LEAST_FACTOR:
        failures.append(f"Rotate90 should be the most probable operation by a factor of {LEAST_FACTOR}")
    if with_policy - without < LEAST_GAIN:
        failures.append(f"the policy should gain {LEAST_GAIN:.0%} of accuracy or more")
    for path in (report, plot, sheet):
        if not path.is_file():
            failures.append(f"{path} was not written")
    if failures:
        sys.exit("demo: " + "; ".join(failures))


if __name__ == "__main__":
    main()
