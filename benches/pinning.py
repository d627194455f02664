"""Page-locked batches on a GPU: are they, are the bytes right, and what do they gain.

    DDAS_LOADER=target/release/ddas-loader python benches/pinning.py

Needs a CUDA device, the package `ddas` with torch, and `ddas-loader` (to pack and to serve). Makes a dataset of its own.
For a `ddas.Loader` and for a daemon it checks that

1. `pin_memory=True` gives tensors that CUDA calls pinned, without a copy;
2. a copy to the device returns while the device is still busy with something else (it is asynchronous);
3. every byte of `--epochs` epochs on the device is that of batches which were copied on the CPU, with the device kept so busy
   that copies begin long after the next batches were asked for;

and prints how fast batches reach the device: page-locked slots, copies into page-locked memory, and ordinary copies. Exit
status 1 if a check fails, 2 without a CUDA device. Where CUDA refuses the memory, says so and checks the rest.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

FAILED = []


def check(what: str, holds: bool, detail: str = "") -> None:
    print(f"{'ok    ' if holds else 'FAILED'} {what}{': ' if detail else ''}{detail}", flush=True)
    if not holds:
        FAILED.append(what)


def packed(program: str, folder: Path, samples: int) -> Path:
    """A dataset of photos with random content."""
    import numpy
    from PIL import Image

    random = numpy.random.default_rng(0)
    for number in range(samples):
        path = folder / "images" / f"class{number % 10}" / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (16, 16, 3), numpy.uint8))
        coarse.resize((256, 256), Image.Resampling.BICUBIC).save(path, quality=85)
    dataset = folder / "photos.lmdb"
    subprocess.run([program, "pack", "image-folder", folder / "images", dataset], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return dataset


class Sources:
    """Makes the same batches, in this process or by daemons."""

    def __init__(self, program: str, dataset: Path, epochs: int, batch_size: int, threads: int) -> None:
        self.program, self.dataset, self.threads = program, dataset, threads
        self.run = {"recipe": "imagenet-eval", "epochs": epochs, "batch_size": batch_size}
        self.daemons: list[subprocess.Popen[bytes]] = []

    def loader(self, kind: str, **keywords: Any) -> Any:
        from ddas.torch import DataLoader

        if kind == "ddas.Loader":
            return DataLoader(self.dataset, threads=self.threads, slots=4, environment=False, **self.run, **keywords)
        name = f"pinning-{os.getpid()}-{len(self.daemons)}"
        command: list[Any] = [self.program, "serve", self.dataset, "--name", name, "--slots", 4, "--threads", self.threads, "--grace", "0.5"]
        for flag, value in self.run.items():
            command += [f"--{flag.replace('_', '-')}", value]
        self.daemons.append(subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return DataLoader(name, wait=60, environment=False, **keywords)

    def end(self) -> None:
        for daemon in self.daemons:
            daemon.terminate()
            daemon.wait(30)


def busy(torch: Any, seconds: float) -> None:
    """Gives the device work for about so long, on its current stream."""
    cycles = int(seconds * 1.5e9)
    torch.cuda._sleep(cycles)


def examine(torch: Any, sources: Sources, kind: str, epochs: int) -> bool:
    """The three checks; whether the memory was registered."""
    lent = sources.loader(kind, pin_memory=True)
    registered = lent._pinned is not None
    if not registered:
        print(f"       {kind}: CUDA refuses the memory (the warning above says why); batches are copied")
    images, targets = next(iter(lent))
    check(f"{kind}: is_pinned()", images.is_pinned() and targets.is_pinned())
    torch.cuda.synchronize()
    busy(torch, 0.3)
    began = time.perf_counter()
    moved = images.to("cuda", non_blocking=True)
    returned = time.perf_counter() - began
    torch.cuda.synchronize()
    ended = time.perf_counter() - began
    check(f"{kind}: asynchronous", returned < 0.5 * ended, f"returned after {1e3 * returned:.2f} ms, done after {1e3 * ended:.0f} ms")
    check(f"{kind}: the same bytes", torch.equal(moved.cpu(), images.clone()))
    del images, targets, moved
    lent.close()

    plain = sources.loader(kind, device=None)
    on_device = sources.loader(kind, device="cuda")
    wrong = batches = 0
    for _ in range(epochs):
        pending = []
        for (expected, labels), (images, targets) in zip(plain, on_device, strict=True):
            pending.append((expected, labels, images, targets))
            busy(torch, 0.01)  # so that the copies that come next begin late
            batches += 1
        for expected, labels, images, targets in pending:
            wrong += not (torch.equal(images.cpu(), expected) and torch.equal(targets.cpu(), labels))
    check(f"{kind}: {batches} batches over {epochs} epochs on the device", wrong == 0, f"{wrong} differ")
    plain.close()
    on_device.close()
    return registered


def rates(torch: Any, sources: Sources, kind: str) -> None:
    """From a batch that is ready to its bytes on the device, best of 30: what the trainer's thread and the bus need."""
    print(f"\n| {kind}, batch ready | GB/s to the device | trainer's thread busy, ms/batch |\n|---|---:|---:|")
    ways: dict[str, dict[str, Any]] = {
        "page-locked slots": {"device": "cuda"},
        "copied into page-locked memory": {"device": "cuda", "copy": True},
        "copied into ordinary memory": {"device": "cuda", "copy": True, "pin_memory": False},
    }
    for name, keywords in ways.items():
        loader = sources.loader(kind, **keywords)
        batch = loader._receive()
        size = memoryview(batch.array("images")).nbytes
        best = thread = float("inf")
        for _ in range(30):
            torch.cuda.synchronize()
            began = time.perf_counter()
            images = loader._tensors(batch)[0]
            thread = min(thread, time.perf_counter() - began)
            torch.cuda.synchronize()
            best = min(best, time.perf_counter() - began)
            if loader._pinned is not None:
                loader._pinned._flights.clear()  # the same batch again: nothing goes back
        print(f"| {name} | {size / best / 1e9:.1f} | {1e3 * thread:.2f} |", flush=True)
        del images, batch
        loader.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=max(2, (os.cpu_count() or 2) // 2))
    arguments = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        print("no CUDA device: nothing to check here", file=sys.stderr)
        raise SystemExit(2)
    program = shutil.which(os.environ.get("DDAS_LOADER", "ddas-loader"))
    if program is None:
        parser.error("no ddas-loader: set DDAS_LOADER, or put it on the PATH")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        dataset = packed(program, Path(folder), arguments.samples)
        sources = Sources(program, dataset, arguments.epochs, arguments.batch_size, arguments.threads)
        try:
            for kind in ("ddas.Loader", "daemon"):
                examine(torch, sources, kind, arguments.epochs)
            for kind in ("ddas.Loader", "daemon"):
                rates(torch, sources, kind)
        finally:
            sources.end()
    if FAILED:
        raise SystemExit(f"{len(FAILED)} checks failed")


if __name__ == "__main__":
    main()
