"""DDAS beside torch's DataLoader: the same recipe on the same images into the same loop, in one run.

    make bench-torch [CIFAR=cifar10-jpeg.tar] [IMAGENET=photos.tar]
    python benches/torch_dataloader.py [--cifar FOLDER|TAR] [--imagenet FOLDER|TAR] [--randaugment]

Needs torch, torchvision and Pillow beside the package `ddas`, and `ddas-loader`
from the PATH or $DDAS_LOADER (to pack). A source is a folder or .tar of
class folders of images; what is not given is made here. Every measurement runs in processes of its own, one
after another, and rounds are repeated while `--limit` seconds allow; of each figure the best is printed, as
a Markdown table.

| column | what it is |
|---|---|
| images/s | images received in `--seconds`, across the ends of epochs, by the time they took; after the first epoch, or as long a run-up |
| images per CPU second | the same images by the user and system time of the process, its workers and, for the daemon, the daemon |
| first batch | from the first call of the loader's library, with torch imported and the data on disk, to the first batch as tensors |
| memory | the largest sum of PSS (private memory, and the share of what is shared) of the process and all its children |

torch's side: `ImageFolder`, torchvision's transforms v2 on PIL images (decode, crop and flip as PIL images, then to a tensor and normalise: the
order torchvision recommends for PIL), `--threads` workers, `persistent_workers`. DDAS's: the same number of threads
embedded in the process (`ddas.torch.DataLoader`), and as a daemon (`ddas-loader serve`) with its memory and time counted
in. All deliver f32 NCHW batches of the same size in a new random order each epoch; the consuming loop reads a number of each image.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Iterator

# Those of DDAS's recipes `cifar` and `imagenet`.
MEAN = {"cifar": (0.4914, 0.4822, 0.4465), "imagenet": (0.485, 0.456, 0.406)}
STD = {"cifar": (0.2023, 0.1994, 0.201), "imagenet": (0.229, 0.224, 0.225)}


@dataclass
class Case:
    """One source with one loader, as it is handed to a process of its own."""

    loader: str  # "torch", "embedded" or "daemon"
    recipe: str  # "cifar" or "imagenet"
    images: str  # folder of class folders
    dataset: str  # the same, packed
    policy: str  # empty without RandAugment
    program: str
    seconds: float
    batch_size: int
    threads: int


def torch_dataset(folder: Path, recipe: str, randaugment: bool) -> Any:
    import torch
    from torchvision import datasets
    from torchvision.transforms import v2

    augment = [v2.RandAugment(2, 9)] if randaugment else []
    finish = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN[recipe], STD[recipe])]
    if recipe == "cifar":
        steps = [
            *augment,
            v2.RandomCrop(32, padding=4),
            v2.RandomHorizontalFlip(),
            *finish,
            # A square of 16 pixels anywhere: cutout, as near as torchvision comes to it.
            v2.RandomErasing(1.0, scale=(0.25, 0.25), ratio=(1.0, 1.0)),
        ]
    else:
        steps = [v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip(), *augment, *finish]
    return datasets.ImageFolder(str(folder), v2.Compose(steps))


def torch_loader(case: Case) -> Any:
    from torch.utils.data import DataLoader

    return DataLoader(
        torch_dataset(Path(case.images), case.recipe, bool(case.policy)),
        case.batch_size,
        shuffle=True,
        num_workers=case.threads,
        persistent_workers=True,
        drop_last=True,
    )


# More than can be gone through; a loader of DDAS wants to know.
EPOCHS = 10_000


def embedded_loader(case: Case) -> Any:
    from ddas.torch import DataLoader

    return DataLoader(
        case.dataset,
        recipe=case.recipe,
        policy=case.policy or None,
        epochs=EPOCHS,
        batch_size=case.batch_size,
        threads=case.threads,
        last="drop",
        environment=False,
    )


def daemon_loader(case: Case) -> Any:
    from ddas.torch import DataLoader

    name = f"bench-{os.getpid()}"
    command = [case.program, "serve", case.dataset, "--name", name, "--recipe", case.recipe, "--epochs", EPOCHS,
               "--batch-size", case.batch_size, "--threads", case.threads, "--last", "drop", "--grace", "0.1"]  # fmt: skip
    if case.policy:
        command += ["--policy", case.policy]
    subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return DataLoader(name, wait=60)


LOADERS: dict[str, Callable[[Case], Any]] = {
    "torch": torch_loader,
    "embedded": embedded_loader,
    "daemon": daemon_loader,
}


def family(pid: int) -> list[int]:
    """`pid` and all that descend from it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            for child in task.read_text().split():
                found += family(int(child))
        except OSError:
            pass  # it has ended
    return found


def pss(pid: int) -> int:
    """Bytes of private memory and the share of shared memory, of a process and its descendants."""
    total = 0
    for process in family(pid):
        try:
            text = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:
            continue
        total += next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))
    return total


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its living descendants."""
    ticks = 0
    for process in family(pid):
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def consumed(loader: Any) -> Iterator[tuple[int, bool]]:
    """The loop that all loaders feed, epoch after epoch: a trainer that looks at every image and does nothing else.

    Images of each batch, and whether the first epoch is over.
    """
    import torch

    for epoch in range(EPOCHS):
        for images, targets in loader:
            assert images.dtype == torch.float32 and images.shape[1] == 3 and len(images) == len(targets)
            assert torch.isfinite(images[:, 0, 0, 0].sum()) and targets.sum() >= 0
            yield len(images), epoch > 0


def measure(case: Case) -> dict[str, float]:
    """Runs in a process of its own."""
    import torch  # a trainer has it anyway, whatever loads the data

    if case.loader == "torch":
        from torchvision.transforms import v2  # noqa: F401  (imports are not the loader's start)
    peak, done = [pss(os.getpid())], threading.Event()
    base = peak[0]

    def watch() -> None:
        while not done.wait(0.25):
            peak[0] = max(peak[0], pss(os.getpid()))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    torch.set_num_threads(1)
    began = time.perf_counter()
    batches = consumed(LOADERS[case.loader](case))
    next(batches)
    first = time.perf_counter() - began
    for _, warm in batches:  # everybody starts, and reads the files
        if warm or time.perf_counter() - began > case.seconds:
            break
    counted, seconds, cpu, began = 0, 0.0, cpu_seconds(os.getpid()), time.perf_counter()
    for images, _ in batches:
        counted += images
        seconds = time.perf_counter() - began
        if seconds >= case.seconds:
            break
    cpu = cpu_seconds(os.getpid()) - cpu
    peak[0] = max(peak[0], pss(os.getpid()))
    done.set()
    watcher.join()
    # Workers, threads and daemon end with this process.
    for process in family(os.getpid())[1:]:
        try:
            os.kill(process, 9)
        except ProcessLookupError:
            pass
    return {
        "rate": counted / seconds, "per_cpu": counted / max(cpu, 0.01), "cpu": cpu, "images": counted,
        "first": first, "memory": peak[0], "base": base,
    }  # fmt: skip


def unpacked(source: Path, folder: Path) -> Path:
    """The folder of class folders that `source` is, or holds as .tar."""
    if source.is_dir():
        return source
    with tarfile.open(source) as archive:
        archive.extractall(folder, filter="data")
    while True:
        inside = [path for path in folder.iterdir() if path.is_dir()]
        if len(inside) != 1:
            return folder
        folder = inside[0]


def made(recipe: str, folder: Path) -> Path:
    """JPEGs of random content in class folders, some 1 KB of 32x32 or 100 KB of 500x375 each."""
    import numpy
    from PIL import Image

    random = numpy.random.default_rng(0)
    count, size, coarse = (10_000, (32, 32), (8, 8)) if recipe == "cifar" else (200, (500, 375), (50, 38))
    for number in range(count):
        path = folder / f"class{number % 10}" / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(random.integers(0, 256, (*reversed(coarse), 3), numpy.uint8))
        image.resize(size, Image.Resampling.BICUBIC).save(path, quality=95)
    return folder


def prepare(source: Path | None, recipe: str, folder: Path, program: str, augment: bool) -> tuple[Path, Path, str]:
    """Class folders, the packed dataset, and RandAugment(2, 9) as a policy file if wanted."""
    place = folder / f"{recipe}-images"
    images = made(recipe, place) if source is None else unpacked(source, place)
    dataset, policy = folder / f"{recipe}.lmdb", folder / f"{recipe}.json"
    subprocess.run([program, "pack", "image-folder", images, dataset], check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    if not augment:
        return images, dataset, ""
    command = [program, "policy", "builtin", "randaugment", "--draws", "2", "--magnitude", "9", "-o", policy]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return images, dataset, str(policy)


def best(results: list[dict[str, float]]) -> dict[str, float]:
    largest = {name: max(result[name] for result in results) for name in ("rate", "per_cpu")}
    return {**largest, **{name: min(result[name] for result in results) for name in ("first", "memory", "base")}}


def in_own_process(case: Case) -> dict[str, float]:
    command = [sys.executable, __file__, "--case", json.dumps(asdict(case))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    if done.returncode != 0:
        raise SystemExit(f"{case.loader} with {case.recipe} ended with {done.returncode}:\n{done.stderr}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    began = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", type=Path, help="folder or .tar of class folders of 32x32 images [default: made here]")
    parser.add_argument("--imagenet", type=Path, help="folder or .tar of class folders of photos [default: made here]")
    parser.add_argument("--only", choices=["cifar", "imagenet"], help="one of the two")
    parser.add_argument("--randaugment", action="store_true", help="RandAugment(2, 9) on both sides")
    parser.add_argument("--threads", type=int, default=2, help="torch's workers and DDAS's threads [default: 2]")
    parser.add_argument("--seconds", type=float, default=5.0, help="each measurement takes, and at most as much before it [default: 5]")
    parser.add_argument("--repeats", type=int, default=3, help="rounds, at most [default: 3]")
    parser.add_argument("--limit", type=float, default=220, help="seconds after which no further round is begun that would pass it [default: 220]")
    parser.add_argument("--cifar-batch", type=int, default=128)
    parser.add_argument("--imagenet-batch", type=int, default=32)
    parser.add_argument("--json", action="store_true", help="all measurements as JSON instead of the table")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(Case(**json.loads(arguments.case)))))
        return
    program = shutil.which(os.environ.get("DDAS_LOADER", "ddas-loader"))
    if program is None:
        parser.error("no ddas-loader: set DDAS_LOADER, or put it on the PATH")
    recipes = [arguments.only] if arguments.only else ["cifar", "imagenet"]
    runs: dict[str, dict[str, list[dict[str, float]]]] = {recipe: {loader: [] for loader in LOADERS} for recipe in recipes}
    rounds = 0
    with tempfile.TemporaryDirectory() as folder:
        sources = {
            recipe: prepare(getattr(arguments, recipe), recipe, Path(folder), program, arguments.randaugment)
            for recipe in recipes
        }
        for rounds in range(1, arguments.repeats + 1):
            round_began = time.monotonic()
            for recipe in recipes:
                images, dataset, policy = sources[recipe]
                for loader in LOADERS:  # in turn, so that a slow minute is everybody's
                    print(f"round {rounds}, {recipe}: {loader}", file=sys.stderr, flush=True)
                    case = Case(
                        loader=loader, recipe=recipe, images=str(images), dataset=str(dataset), policy=policy,
                        program=program, seconds=arguments.seconds,
                        batch_size=getattr(arguments, f"{recipe}_batch"), threads=arguments.threads,
                    )  # fmt: skip
                    runs[recipe][loader].append(in_own_process(case))
            now = time.monotonic()
            if now - began + (now - round_began) > arguments.limit:
                break
    if arguments.json:
        print(json.dumps(runs, indent=2))
        return
    titles = {
        "cifar": "CIFAR-10 JPEGs, 32x32" if arguments.cifar else "10,000 made JPEGs, 32x32",
        "imagenet": "photos to 224x224" if arguments.imagenet else "200 made photos to 224x224",
    }
    recipe_names = {"cifar": "pad-crop 4, flip, normalise, cutout", "imagenet": "random resized crop, flip, normalise"}
    names = {
        "torch": f"torch `DataLoader`, {arguments.threads} workers",
        "embedded": f"`ddas.Loader`, {arguments.threads} threads",
        "daemon": f"`ddas-loader serve`, {arguments.threads} threads",
    }
    print("| data and recipe | loader | images/s | images per CPU second | first batch | memory (PSS) |")
    print("|---|---|---:|---:|---:|---:|")
    found = {recipe: {loader: best(results) for loader, results in loaders.items()} for recipe, loaders in runs.items()}
    for recipe, results in found.items():
        title = f"{titles[recipe]}: {recipe_names[recipe]}" + (", RandAugment(2, 9)" if arguments.randaugment else "")
        for loader, result in results.items():
            factor = result["rate"] / results["torch"]["rate"]
            print(
                f"| {title} | {names[loader]} | {result['rate']:,.0f} ({factor:.1f}x) | {result['per_cpu']:,.0f} | "
                f"{result['first']:.2f} s | {result['memory'] / 2**20:.0f} MiB |"
            )
    base = min(result["base"] for results in found.values() for result in results.values())
    print(
        f"\nBest of {rounds} rounds. Of the memory, {base / 2**20:.0f} MiB are Python and torch before any loader is made. "
        f"{os.cpu_count()} cores. The whole took {time.monotonic() - began:.0f} s."
    )


if __name__ == "__main__":
    main()
