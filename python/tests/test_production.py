"""What a month of training relies on: memory that stays, and one decode for everybody."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ddas
from conftest import Dataset, Serve, python

MIB = 2**20

# Private memory: files and shared memory come and go with the page cache and the ring.
PRIVATE = """
def private():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("RssAnon:"))
"""


def status(loader_binary: Path) -> dict[str, Any]:
    done = subprocess.run([loader_binary, "status", "train", "--json"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def decoded(loader_binary: Path, serve: Serve, dataset: Dataset, trainers: int) -> tuple[int, int, list[list[bytes]]]:
    """Samples that went through the workers, batches published, and what every trainer received, for one whole run."""
    daemon = serve(dataset, consumers=trainers, epochs=5, slots=2, threads=1)
    streams = [ddas.connect("train") for _ in range(trainers)]
    received: list[list[bytes]] = [[] for _ in streams]
    for _ in range(5 * 6):
        batches = [next(stream) for stream in streams]
        for mine, batch in zip(received, batches):
            mine.append(batch.images.tobytes())
    # The last batch is still held, so the daemon is still there.
    found = status(loader_binary)
    del batches, batch
    for stream in streams:
        stream.close()
    assert daemon.wait() == 0, daemon.log
    return found["daemon"]["total"]["samples"], found["ranks"][0]["published"], received


def test_two_trainers_share_one_decode(loader_binary: Path, serve: Serve, dataset: Dataset) -> None:
    """As many samples are decoded for two trainers as for one."""
    samples, published, [alone] = decoded(loader_binary, serve, dataset, 1)
    assert samples == 5 * len(dataset) and published == 5 * 6
    shared = decoded(loader_binary, serve, dataset, 2)
    assert shared == (samples, published, [alone, alone])


GROWTH = PRIVATE + """
import sys, ddas
threads, epochs = int(sys.argv[2]), [int(epoch) for epoch in sys.argv[3].split(",")]
with ddas.Loader(sys.argv[1], recipe="imagenet", epochs=epochs[-1] + 1, batch_size=4, threads=threads, slots=3) as loader:
    for epoch in range(epochs[-1] + 1):
        for batch in loader.one_epoch():
            images = batch.images
            assert images.shape[1:] == (3, 224, 224)
            del images, batch
        if epoch in epochs:
            print(private())
"""


def growth(dataset: Dataset, threads: int, epochs: str) -> list[int]:
    """Private bytes of a process that embeds the loader, after each of the `epochs`."""
    child = python(GROWTH, str(dataset.path), str(threads), epochs)
    output, errors = child.communicate(timeout=110)
    assert child.returncode == 0, errors
    return [int(line) for line in output.split()]


def test_an_embedded_loaders_memory_stays_over_epochs(photos: Dataset) -> None:
    early, late = growth(photos, 2, "3,30")
    # A batch is 2.4 MB: one lost an epoch would make 65 MB.
    assert abs(late - early) < 3 * MIB, f"{early} bytes after epoch 3, {late} after epoch 30"


def test_an_embedded_loaders_memory_with_more_threads(photos: Dataset) -> None:
    [one], [nine] = growth(photos, 1, "10"), growth(photos, 9, "10")
    assert (nine - one) / 8 < 2 * MIB, f"{one} bytes with a thread, {nine} with 9"


@pytest.mark.parametrize("threads", [1, 5])
def test_memory_of_daemon_and_trainer_stays_over_epochs(
    loader_binary: Path, serve: Serve, photos: Dataset, threads: int
) -> None:
    serve(photos, recipe="imagenet", epochs=32, batch_size=4, threads=threads, slots=3)
    script = PRIVATE + """
import sys, ddas
with ddas.connect("train") as stream:
    for epoch in range(31):
        for batch in stream.one_epoch():
            images = batch.images
            del images, batch
        if epoch in (3, 30):
            print(private(), flush=True)
            sys.stdin.readline()
"""
    child = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdin and child.stdout and child.stderr
    trainer, daemon = [], []
    try:
        for _ in range(2):
            line = child.stdout.readline()
            assert line, child.stderr.read()
            trainer.append(int(line))
            daemon.append(status(loader_binary)["memory"]["private_bytes"])
            print("go on", file=child.stdin, flush=True)
        assert child.wait(60) == 0
    finally:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout, child.stderr):
            pipe.close()
    assert abs(trainer[1] - trainer[0]) < 2 * MIB, f"the trainer's private bytes: {trainer}"
    assert abs(daemon[1] - daemon[0]) < 3 * MIB, f"the daemon's private bytes: {daemon}"
