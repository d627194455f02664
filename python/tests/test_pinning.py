"""Page-locking the batches' memory, with a GPU that a test plays: lazy, so that every copy is as late as it may be."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import time
from pathlib import Path
from typing import Any, Callable, ContextManager

import pytest
import torch

import ddas
from conftest import Dataset, Serve, python
from ddas import _pinning
from ddas.torch import DataLoader

SETTINGS: dict[str, Any] = {"recipe": "cifar", "epochs": 3, "batch_size": 8, "seed": 5}
CUDA = torch.device("cuda")


class Runtime:
    """What is used of the CUDA runtime: a table of registered memory."""

    cudaError = int

    def __init__(self) -> None:
        self.registered: dict[int, tuple[int, int]] = {}
        self.calls: list[tuple[str, int]] = []
        self.refuses = 0

    def cudaHostRegister(self, address: int, length: int, flags: int) -> int:
        self.calls.append(("register", address))
        if self.refuses:
            return self.refuses
        if address in self.registered:
            return 712
        self.registered[address] = (length, flags)
        return 0

    def cudaHostUnregister(self, address: int) -> int:
        self.calls.append(("unregister", address))
        return 0 if self.registered.pop(address, None) else 713

    def cudaGetErrorString(self, code: int) -> str:
        return {1: "invalid argument", 801: "operation not supported"}[code]


class Gpu(_pinning.Cuda):
    """Does nothing before it is waited for. A copy knows an address only, as the hardware does."""

    def __init__(self) -> None:
        self.runtime = Runtime()
        self.begun: list[tuple[torch.Tensor, int, int]] = []
        self.done = 0
        self.errors_forgotten = 0
        self.fails_at = -1
        self.current: list[torch.device | None] = []

    def _runtime(self) -> Any:
        return self.runtime

    def on(self, device: torch.device | None) -> ContextManager[Any]:
        self.current.append(device)
        return contextlib.nullcontext()

    def forget_error(self) -> None:
        self.errors_forgotten += 1

    def to(self, tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        if len(self.begun) == self.fails_at:
            raise RuntimeError("CUDA out of memory")
        copy = torch.full_like(tensor, 77)
        self.begun.append((copy, tensor.data_ptr(), tensor.nbytes))
        return copy

    def mark(self, device: torch.device | None) -> list[_pinning.Event]:
        return [Event(self, len(self.begun))]

    def synchronize(self) -> None:
        self.work_until(len(self.begun))

    def work_until(self, end: int) -> None:
        for copy, address, length in self.begun[self.done : end]:
            if self.runtime.registered:
                inside = (start <= address and address + length <= start + size for start, (size, _) in self.runtime.registered.items())
                assert any(inside), "a copy out of memory that is not page-locked"
            ctypes.memmove(copy.data_ptr(), address, length)
        self.done = max(self.done, end)


class Event:
    def __init__(self, gpu: Gpu, behind: int) -> None:
        self._gpu, self._behind = gpu, behind

    def query(self) -> bool:
        return self._gpu.done >= self._behind

    def synchronize(self) -> None:
        self._gpu.work_until(self._behind)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    made = Gpu()
    monkeypatch.setattr(_pinning, "Cuda", lambda: made)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    empty = torch.empty

    def unpinned(*arguments: Any, pin_memory: bool = False, **keywords: Any) -> torch.Tensor:
        if pin_memory:
            made.runtime.calls.append(("pinned copy", 0))
        return empty(*arguments, **keywords)

    monkeypatch.setattr(torch, "empty", unpinned)
    return made


Batches = list[tuple[torch.Tensor, torch.Tensor]]


def copies(dataset: Dataset, epochs: int = 3) -> Batches:
    loader = DataLoader(dataset.path, **SETTINGS)
    return [batch for _ in range(epochs) for batch in loader]


def same(found: Batches, expected: Batches) -> bool:
    return len(found) == len(expected) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(found, expected)
    )


Make = Callable[..., DataLoader]


@pytest.fixture(params=["loader", "daemon"])
def make(request: pytest.FixtureRequest, serve: Serve, dataset: Dataset) -> Make:
    """DataLoaders of the same batches, made here or by a daemon."""

    def of_daemon(slots: int = 4, **keywords: Any) -> DataLoader:
        serve(dataset, epochs=3, slots=slots)
        return DataLoader("train", **keywords)

    def of_dataset(slots: int = 4, **keywords: Any) -> DataLoader:
        return DataLoader(dataset.path, slots=slots, threads=2, **SETTINGS, **keywords)

    return of_daemon if request.param == "daemon" else of_dataset


@pytest.mark.parametrize("slots", [2, 3, 4])
def test_a_slot_is_not_filled_before_its_copy_is_through(gpu: Gpu, make: Make, dataset: Dataset, slots: int) -> None:
    loader = make(slots, device=CUDA)
    found = [batch for _ in range(3) for batch in loader]
    gpu.synchronize()
    assert same(found, copies(dataset))
    loader.close()
    assert ("pinned copy", 0) not in gpu.runtime.calls


def test_the_played_gpu_would_find_a_slot_given_back_early(gpu: Gpu, make: Make, dataset: Dataset) -> None:
    gpu.mark = lambda device: []  # type: ignore[method-assign]
    loader = make(2, device=CUDA)
    found = [batch for _ in range(3) for batch in loader]
    gpu.synchronize()
    assert not same(found, copies(dataset))


@pytest.mark.parametrize("slots", [2, 4])
def test_copies_that_the_trainer_begins(gpu: Gpu, make: Make, dataset: Dataset, slots: int) -> None:
    """Without `device` the trainer moves page-locked slots itself, and lets go of them at once."""
    loader = make(slots, pin_memory=True)
    found = []
    for _ in range(3):
        for images, targets in loader:
            found.append((gpu.to(images, CUDA), gpu.to(targets, CUDA)))
            del images, targets
    gpu.synchronize()
    assert same(found, copies(dataset))


def test_copies_begun_one_batch_late(gpu: Gpu, make: Make, dataset: Dataset) -> None:
    """As Lightning's prefetching does it."""
    loader = make(3, pin_memory=True)
    found, waiting = [], []
    for _ in range(3):
        for batch in loader:
            waiting.append(batch)
            del batch
            if len(waiting) == 2:
                found.append(tuple(gpu.to(tensor, CUDA) for tensor in waiting.pop(0)))
        found += [tuple(gpu.to(tensor, CUDA) for tensor in batch) for batch in waiting]
        waiting.clear()
        batch = None
    gpu.synchronize()
    assert same(found, copies(dataset))  # type: ignore[arg-type]


def test_the_trainer_is_told_that_it_holds_every_slot(gpu: Gpu, make: Make) -> None:
    loader = make(2, pin_memory=True)
    with pytest.raises(ddas.HoldsAllSlots):
        list(loader)


def test_what_is_registered(gpu: Gpu, make: Make) -> None:
    loader = make(4, device=CUDA)
    memory = loader._stream._source.memory()
    assert gpu.runtime.registered == {
        address: (length, 1 if memory.writable else 9) for address, length in memory.regions
    }
    assert len(memory.regions) == (4 if memory.writable else 1)
    assert sum(length for _, length in memory.regions) >= 4 * 8 * (3 * 32 * 32 * 4 + 16)
    for _ in range(2):
        for _ in loader:
            pass
    assert len(gpu.runtime.calls) == len(memory.regions), "once, not for each batch"
    loader.close()
    loader.close()
    assert set(gpu.current) == {CUDA}, "no other device is touched"
    assert not gpu.runtime.registered
    assert sorted(call for call, _ in gpu.runtime.calls) == ["register"] * len(memory.regions) + ["unregister"] * len(memory.regions)


def test_a_loader_that_is_garbage(gpu: Gpu, make: Make) -> None:
    loader = make(3, device=CUDA)
    images, _ = next(iter(loader))
    del loader
    gc.collect()
    assert not gpu.runtime.registered
    assert gpu.done == 2 and not torch.all(images == 77), "copies under way were waited for"


def test_a_stream_closed_while_a_copy_is_under_way(gpu: Gpu, serve: Serve, dataset: Dataset) -> None:
    serve(dataset, epochs=3, slots=2, consumers=2)
    other = ddas.connect("train")
    with ddas.connect("train") as stream:
        loader = DataLoader(stream, device=CUDA)
        batch = next(iter(loader))
    for _ in range(5):  # the slot is filled again as soon as it can be
        try:
            other.receive(timeout=1.0)
        except ddas.TimedOut:
            break  # held back by the copy
    loader.close()
    assert same([batch], copies(dataset, 1)[:1])


def test_refused(gpu: Gpu, make: Make, dataset: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    gpu.runtime.refuses = 801
    monkey = gpu.begun
    loader = make(3, pin_memory=True)
    [record] = [record for record in caplog.records if record.name == "ddas" and record.levelno == logging.WARNING]
    assert "copied into page-locked memory" in record.message
    assert "operation not supported (CUDA error 801)" in record.message
    assert ("read-only" in record.message) == (loader.info.daemon_pid != os.getpid())
    assert gpu.errors_forgotten == 1, "or the next kernel would be blamed"
    found = [batch for _ in range(3) for batch in loader]
    assert same(found, copies(dataset)) and not monkey
    assert gpu.runtime.calls.count(("pinned copy", 0)) == 2 * 18
    loader.close()
    assert not any(call == "unregister" for call, _ in gpu.runtime.calls)


def test_refused_in_the_middle(gpu: Gpu, dataset: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    """Slots registered before the one that is refused are given back."""
    register = gpu.runtime.cudaHostRegister

    def third(address: int, length: int, flags: int) -> int:
        return 1 if len(gpu.runtime.registered) == 2 else register(address, length, flags)

    gpu.runtime.cudaHostRegister = third  # type: ignore[method-assign]
    loader = DataLoader(dataset.path, slots=4, copy=False, pin_memory=True, **SETTINGS)
    assert "tensors are not pinned" in caplog.text and "invalid argument" in caplog.text
    assert not gpu.runtime.registered
    assert same([next(iter(loader))], copies(dataset, 1)[:1])


def test_copies_on_request(gpu: Gpu, make: Make, dataset: Dataset) -> None:
    loader = make(3, pin_memory=True, copy=True)
    assert not gpu.runtime.registered
    assert same([batch for _ in range(3) for batch in loader], copies(dataset))
    assert ("pinned copy", 0) in gpu.runtime.calls


def test_memory_registered_already(gpu: Gpu, dataset: Dataset) -> None:
    """Two DataLoaders of one Loader share a registration; a stranger's serves, and stays."""
    source = ddas.Loader(dataset.path, slots=3, **SETTINGS)
    regions = source._source.memory().regions
    first, second = DataLoader(source, device=CUDA), DataLoader(source, device=CUDA)
    assert [call for call, _ in gpu.runtime.calls] == ["register"] * 3
    first._unpin()  # type: ignore[misc]
    assert len(gpu.runtime.registered) == 3
    second._unpin()  # type: ignore[misc]
    assert not gpu.runtime.registered

    address, length = regions[1]
    gpu.runtime.cudaHostRegister(address, length, 1)
    third = DataLoader(source, device=CUDA)
    found = [batch for _ in range(3) for batch in third]
    gpu.synchronize()
    assert same(found, copies(dataset)) and gpu.errors_forgotten == 1
    third.close()
    assert list(gpu.runtime.registered) == [address]


def test_a_ring_after_a_restart_of_the_daemon(gpu: Gpu, serve: Serve, dataset: Dataset) -> None:
    daemon = serve(dataset, epochs=3)
    loader = DataLoader("train", device=CUDA)
    iterator = iter(loader)
    found = [next(iterator)]
    before = set(gpu.runtime.registered)
    daemon.kill()
    with pytest.raises(ddas.DaemonDied):
        for batch in iterator:
            found.append(batch)
    state = loader.state_dict()
    serve(dataset, epochs=3, start=f"{state['epoch']}:{state['step']}")
    again = DataLoader("train", device=CUDA)
    again.load_state_dict(state)
    assert len(gpu.runtime.registered) == 2, "the new ring's memory beside the old one's"
    loader.close()
    assert len(gpu.runtime.registered) == 1 and not before & set(gpu.runtime.registered)
    found += [batch for _ in range(state["epoch"], 3) for batch in again]
    gpu.synchronize()
    assert same(found, copies(dataset))


def test_a_copy_that_cannot_begin(gpu: Gpu, dataset: Dataset) -> None:
    """Out of memory after the images were begun: their slot stays until they are through."""
    gpu.fails_at = 3
    loader = DataLoader(dataset.path, slots=2, device=CUDA, **SETTINGS)
    iterator = iter(loader)
    first = next(iterator)
    with pytest.raises(RuntimeError, match="out of memory"):
        next(iterator)
    images = gpu.begun[2][0]
    gpu.fails_at = -1
    for _ in range(2):
        next(iter(loader))
    whole = copies(dataset)
    gpu.synchronize()
    assert same([first], whole[:1]) and torch.equal(images, whole[1][0])


def test_eviction_is_told(gpu: Gpu, serve: Serve, dataset: Dataset) -> None:
    serve(dataset, epochs=3, slots=2, evict_after=1)
    loader = DataLoader("train", device=CUDA)
    iterator = iter(loader)
    next(iterator)
    time.sleep(2.5)
    gpu.synchronize()
    with pytest.raises(ddas.Evicted):
        next(iterator)


def test_the_end_of_the_process(dataset: Dataset) -> None:
    """Everything is unregistered by whoever registered it, and not by a fork."""
    script = """
import os, sys
sys.path.insert(0, sys.argv[2])
import torch
from test_pinning import Gpu, CUDA
from ddas import _pinning
from ddas.torch import DataLoader

class Loud(Gpu):
    def unregister(self, address):
        os.write(1, b"unregistered by %d\\n" % os.getpid())
        return super().unregister(address)

_pinning.Cuda = Loud
torch.cuda.is_available = lambda: True
loader = DataLoader(sys.argv[1], slots=3, device=CUDA, recipe="cifar", epochs=3, batch_size=8)
next(iter(loader))
child = os.fork()
if child == 0:
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    process = python(script, str(dataset.path), str(Path(__file__).parent))
    output, errors = process.communicate(timeout=90)
    assert process.returncode == 0, errors
    assert output.splitlines() == [f"unregistered by {process.pid}"] * 3
