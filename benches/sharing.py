"""The CPU that several trainers on one ring use, beside that of one: everything is decoded once.

    make bench-sharing [DATASET=photos.lmdb]
    python3 benches/sharing.py [--dataset D.lmdb --recipe imagenet] [--trainers 1 2 4]

A daemon serves the same epochs to one trainer, then to several (`ddas-loader consume`, each a process of its own that takes every batch).
Printed is the user and system time of daemon and trainers together, the median of `--repeats` runs in turn, and its
ratio to that of one trainer. Needs `ddas-loader` from the PATH or $DDAS_LOADER; without a dataset one is made of
pictures, with Pillow.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """Waits for a process; the CPU time it and its threads used."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{process.args} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def once(program: str, dataset: Path, recipe: str, epochs: int, trainers: int, folder: Path) -> tuple[float, float]:
    """CPU seconds of the daemon, and of all trainers together."""
    environment = {**os.environ, "DDAS_RUNTIME_DIR": str(folder)}

    def start(*words: object) -> subprocess.Popen[bytes]:
        command = [program, *map(str, words)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    # The first batch waits for all of them.
    daemon = start("serve", dataset, "--name", "sharing", "--recipe", recipe, "--epochs", epochs, "--batch-size", 32,
                   "--threads", 2, "--consumers", trainers)  # fmt: skip
    consumers = [start("consume", "sharing", "--connect-timeout", 30) for _ in range(trainers)]
    used = sum(cpu_seconds(consumer) for consumer in consumers)
    return cpu_seconds(daemon), used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, help="a packed dataset [default: 200 photos made here]")
    parser.add_argument("--recipe", default="imagenet")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--trainers", type=int, nargs="+", default=[1, 2, 4], help="[default: 1 2 4]")
    arguments = parser.parse_args()
    program = shutil.which(os.environ.get("DDAS_LOADER", "ddas-loader"))
    if program is None:
        parser.error("no ddas-loader: set DDAS_LOADER, or put it on the PATH")
    with tempfile.TemporaryDirectory(prefix="ddas-") as place:
        folder = Path(place)
        dataset = arguments.dataset
        if dataset is None:
            sys.path.insert(0, str(Path(__file__).parent))
            from torch_dataloader import made

            dataset = folder / "photos.lmdb"
            command = [program, "pack", "image-folder", made("imagenet", folder / "images"), dataset]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        runs: dict[int, list[tuple[float, float]]] = {trainers: [] for trainers in arguments.trainers}
        for _ in range(arguments.repeats):
            for trainers in arguments.trainers:  # in turn, so that a slow minute is everybody's
                runs[trainers].append(once(program, dataset, arguments.recipe, arguments.epochs, trainers, folder))
    print("| trainers on the ring | CPU of the daemon | of the trainers | together | beside one trainer |")
    print("|---:|---:|---:|---:|---:|")
    medians = {trainers: statistics.median(map(sum, found)) for trainers, found in runs.items()}
    base = medians[min(medians)]
    for trainers, found in runs.items():
        daemon, consumers = (statistics.median(column) for column in zip(*found))
        print(
            f"| {trainers} | {daemon:.2f} s | {consumers:.2f} s | {medians[trainers]:.2f} s | "
            f"{medians[trainers] / base:.2f} |"
        )


if __name__ == "__main__":
    main()
