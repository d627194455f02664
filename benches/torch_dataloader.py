"""DDAS beside torch's DataLoader: the same recipe and RandAugment, on the same images, in one run.

    python benches/torch_dataloader.py --cifar cifar10-jpeg.tar --imagenet imagenet-sample.tar

Needs torch, torchvision and Pillow beside the package `ddas`, and `ddas-loader`
from the PATH or $DDAS_LOADER (to pack). Each source is a folder or .tar of
class folders of images. Every measurement runs in processes of its own, one
after another, and the whole is repeated; the best of the repeats is printed, as
a Markdown table.

| column | what it is |
|---|---|
| images/s | samples of an epoch (or of `--samples`) by the time from its first batch asked for to its last received, with the workers running already |
| first batch | from the call of the program's main function, with torch imported and the data on disk, to the first batch as tensors |
| memory | the largest sum of PSS (private memory, and the share of what is shared) of the process and all its children |

torch's side: `ImageFolder`, torchvision's transforms on PIL images, `--threads`
workers, `persistent_workers`. DDAS's: the same number of threads embedded in
the process (`ddas.torch.DataLoader`), and as a daemon (`ddas-loader serve`) with its memory counted in.
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
from typing import Any, Callable, Iterable, Iterator

MEAN = {"cifar": (0.4914, 0.4822, 0.4465), "imagenet": (0.485, 0.456, 0.406)}
STD = {"cifar": (0.2470, 0.2435, 0.2616), "imagenet": (0.229, 0.224, 0.225)}


@dataclass
class Case:
    """One source with one loader, as it is handed to a process of its own."""

    loader: str  # "torch", "embedded" or "daemon"
    recipe: str  # "cifar" or "imagenet"
    images: str  # folder of class folders
    dataset: str  # the same, packed
    policy: str
    program: str
    samples: int
    batch_size: int
    threads: int


def torch_dataset(folder: Path, recipe: str) -> Any:
    """torch's side: a dataset and its transforms."""
    from torchvision import datasets, transforms

    finish = [transforms.ToTensor(), transforms.Normalize(MEAN[recipe], STD[recipe])]
    if recipe == "cifar":
        steps = [
            transforms.RandAugment(2, 9),
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            *finish,
            # A square of 16 pixels anywhere: cutout, as near as torchvision comes to it.
            transforms.RandomErasing(1.0, scale=(0.25, 0.25), ratio=(1.0, 1.0)),
        ]
    else:
        steps = [
            transforms.RandomResizedCrop(224),
            transforms.RandomHorizontalFlip(),
            transforms.RandAugment(2, 9),
            *finish,
        ]
    return datasets.ImageFolder(str(folder), transforms.Compose(steps))


def torch_batches(case: Case) -> Iterator[Any]:
    from torch.utils.data import DataLoader, RandomSampler

    dataset = torch_dataset(Path(case.images), case.recipe)
    sampler = RandomSampler(dataset, num_samples=case.samples + 3 * case.batch_size)
    return iter(
        DataLoader(
            dataset,
            case.batch_size,
            sampler=sampler,
            num_workers=case.threads,
            persistent_workers=True,
            drop_last=True,
        )
    )


def epochs_of(case: Case) -> int:
    """Epochs that contain enough full batches: small sources are gone through several times."""
    with open(Path(case.dataset) / "manifest.json") as manifest:
        present = json.load(manifest)["samples"]
    return 2 + -(-(case.samples + 3 * case.batch_size) // (present // case.batch_size * case.batch_size))


def chained(loader: Any, epochs: int) -> Iterator[Any]:
    for _ in range(epochs):
        yield from loader


def embedded_batches(case: Case) -> Iterator[Any]:
    from ddas.torch import DataLoader

    epochs = epochs_of(case)
    loader = DataLoader(
        case.dataset,
        recipe=case.recipe,
        policy=case.policy,
        epochs=epochs,
        batch_size=case.batch_size,
        threads=case.threads,
        last="drop",
        environment=False,
    )
    return chained(loader, epochs)


def daemon_batches(case: Case) -> Iterator[Any]:
    from ddas.torch import DataLoader

    epochs, name = epochs_of(case), f"bench-{os.getpid()}"
    command = [case.program, "serve", case.dataset, "--name", name, "--recipe", case.recipe, "--policy", case.policy,
               "--epochs", epochs, "--batch-size", case.batch_size, "--threads", case.threads, "--last", "drop",
               "--grace", "0.1"]  # fmt: skip
    subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return chained(DataLoader(name, wait=60), epochs)


LOADERS: dict[str, Callable[[Case], Iterator[Any]]] = {
    "torch": torch_batches,
    "embedded": embedded_batches,
    "daemon": daemon_batches,
}


def children(pid: int) -> list[int]:
    """`pid` and all that descend from it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            for child in task.read_text().split():
                found += children(int(child))
        except OSError:
            pass  # it has ended
    return found


def pss(pid: int) -> int:
    """Bytes of private memory and the share of shared memory, of a process and its descendants."""
    total = 0
    for process in children(pid):
        try:
            text = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:
            continue
        total += next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))
    return total


def measure(case: Case) -> dict[str, float]:
    """Runs in a process of its own."""
    import torch  # a trainer has it anyway, whatever loads the data

    peak, done = [pss(os.getpid())], threading.Event()
    base = peak[0]

    def watch() -> None:
        while not done.wait(0.2):
            peak[0] = max(peak[0], pss(os.getpid()))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    torch.set_num_threads(1)
    began = time.perf_counter()
    batches = LOADERS[case.loader](case)
    images = next(batches)[0]
    first = time.perf_counter() - began
    assert images.shape[0] == case.batch_size and images.dtype == torch.float32
    next(batches)
    counted, began = 0, time.perf_counter()
    while counted < case.samples:
        counted += len(next(batches)[0])
    seconds = time.perf_counter() - began
    peak[0] = max(peak[0], pss(os.getpid()))
    done.set()
    watcher.join()
    # Workers, threads and daemon end with this process.
    for process in children(os.getpid())[1:]:
        try:
            os.kill(process, 9)
        except ProcessLookupError:
            pass
    return {"rate": counted / seconds, "first": first, "memory": peak[0], "base": base}


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


def prepare(source: Path, recipe: str, folder: Path, program: str) -> tuple[Path, Path, Path]:
    """Class folders, the packed dataset, and RandAugment(2, 9) as a policy file."""
    images = unpacked(source, folder / f"{recipe}-images")
    dataset, policy = folder / f"{recipe}.lmdb", folder / f"{recipe}.json"
    subprocess.run([program, "pack", "image-folder", images, dataset], check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    size = 32 if recipe == "cifar" else 224
    policy.write_text(json.dumps(randaugment(size)))
    return images, dataset, policy


def randaugment(size: int) -> dict[str, Any]:
    """torchvision's RandAugment(2, 9) for images of `size`: 14 operations, uniformly, two of them always."""
    share = 9 / 30
    signed: list[dict[str, Any]] = [
        {"kind": "ShearX", "shear": 0.3 * share},
        {"kind": "ShearY", "shear": 0.3 * share},
        {"kind": "TranslateX", "pixels": float(int(150.0 / 331.0 * size * share))},
        {"kind": "TranslateY", "pixels": float(int(150.0 / 331.0 * size * share))},
        {"kind": "Rotate", "degrees": 30.0 * share},
        {"kind": "Brightness", "factor": 1 + 0.9 * share},
        {"kind": "Color", "factor": 1 + 0.9 * share},
        {"kind": "Contrast", "factor": 1 + 0.9 * share},
        {"kind": "Sharpness", "factor": 1 + 0.9 * share},
    ]
    operations = [{"kind": "Identity"}, *({**operation, "sign": "random"} for operation in signed)]
    operations += [
        {"kind": "Posterize", "bits": 8 - round(9 / (30 / 4))},
        {"kind": "Solarize", "threshold": int(255 - 255 * share)},
        {"kind": "AutoContrast"},
        {"kind": "Equalize"},
    ]
    shares = [1 / len(operations)] * len(operations)
    return {
        "format": "ddas-policy",
        "version": 1,
        "search_space": {"name": "randaugment", "draws_per_sample": 2, "operations": operations},
        "snapshots": [{"total_probability": 1.0, "operation_probabilities": shares}],
    }


def best(results: Iterable[dict[str, float]]) -> dict[str, float]:
    results = list(results)
    return {
        "rate": max(result["rate"] for result in results),
        "first": min(result["first"] for result in results),
        "memory": min(result["memory"] for result in results),
        "base": min(result["base"] for result in results),
    }


def in_own_process(case: Case) -> dict[str, float]:
    command = [sys.executable, __file__, "--case", json.dumps(asdict(case))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1800)
    if done.returncode != 0:
        raise SystemExit(f"{case.loader} with {case.recipe} ended with {done.returncode}:\n{done.stderr}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", type=Path, help="folder or .tar of class folders of 32x32 images")
    parser.add_argument("--imagenet", type=Path, help="folder or .tar of class folders of photos")
    parser.add_argument("--threads", type=int, default=2, help="torch's workers and DDAS's threads [default: 2]")
    parser.add_argument("--repeats", type=int, default=3, help="the best of so many is printed [default: 3]")
    parser.add_argument("--cifar-samples", type=int, default=40_000, help="counted in a measurement [default: 40000]")
    parser.add_argument("--imagenet-samples", type=int, default=2_000, help="counted in a measurement [default: 2000]")
    parser.add_argument("--cifar-batch", type=int, default=128)
    parser.add_argument("--imagenet-batch", type=int, default=32)
    parser.add_argument("--json", action="store_true", help="all measurements as JSON instead of the table")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(Case(**json.loads(arguments.case)))))
        return
    if not arguments.cifar and not arguments.imagenet:
        parser.error("give --cifar, --imagenet or both")
    program = shutil.which(os.environ.get("DDAS_LOADER", "ddas-loader"))
    if program is None:
        parser.error("no ddas-loader: set DDAS_LOADER, or put it on the PATH")
    found: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for recipe in ("cifar", "imagenet"):
            source = getattr(arguments, recipe)
            if source is None:
                continue
            images, dataset, policy = prepare(source, recipe, Path(folder), program)
            runs: dict[str, list[dict[str, float]]] = {loader: [] for loader in LOADERS}
            for repeat in range(arguments.repeats):
                for loader in LOADERS:  # in turn, so that a slow minute is everybody's
                    print(f"{recipe}: {loader}, {repeat + 1} of {arguments.repeats}", file=sys.stderr, flush=True)
                    case = Case(
                        loader=loader, recipe=recipe, images=str(images), dataset=str(dataset), policy=str(policy),
                        program=program, samples=getattr(arguments, f"{recipe}_samples"),
                        batch_size=getattr(arguments, f"{recipe}_batch"), threads=arguments.threads,
                    )  # fmt: skip
                    runs[loader].append(in_own_process(case))
            found[recipe] = {loader: best(results) for loader, results in runs.items()}
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    names = {
        "torch": f"torch DataLoader, {arguments.threads} workers",
        "embedded": f"`ddas.Loader`, {arguments.threads} threads",
        "daemon": f"`ddas-loader serve`, {arguments.threads} threads",
    }
    titles = {"cifar": "CIFAR-10 JPEGs 32x32", "imagenet": "ImageNet photos to 224x224"}
    print("| data, recipe + RandAugment(2, 9) | loader | images/s | first batch | memory (PSS) |")
    print("|---|---|---:|---:|---:|")
    for recipe, results in found.items():
        for loader, result in results.items():
            factor = result["rate"] / results["torch"]["rate"]
            print(
                f"| {titles[recipe]} | {names[loader]} | {result['rate']:.0f} ({factor:.1f}x) | "
                f"{result['first']:.2f} s | {result['memory'] / 2**20:.0f} MiB |"
            )
    base = min(result["base"] for results in found.values() for result in results.values())
    print(f"\nOf the memory, {base / 2**20:.0f} MiB are Python and torch before any loader is made.")


if __name__ == "__main__":
    main()
