"""PyTorch's side of a running daemon: epochs of (images, targets) tensors.

    from ddas.torch import DataLoader

    loader = DataLoader("train")
    for epoch in range(loader.epochs):
        loader.set_epoch(epoch)
        for images, targets in loader:
            ...
"""

from __future__ import annotations

import operator
import os
from typing import Any, Iterator

import torch

from ddas import _ddas
from ddas._errors import EpochMismatch, Error, StreamFinished
from ddas._stream import Batch, Position, StreamInfo, connect

__all__ = ["DataLoader"]

# What must be the same for a place in one stream to be the same place in another.
_IDENTITY = ("dataset_hash", "samples", "recipe_digest", "policy_digest", "seed", "epochs", "global_batch_size", "last")

_DTYPES = {"u8": torch.uint8, "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


class DataLoader:
    """Iterates over the epochs that a daemon serves, one epoch for each `for` loop.

    Each item is `(images, targets)`: images of shape (samples, *info.shape) in
    the stream's dtype and layout, targets of dtype int64. The last batch of an
    epoch may be short. An NHWC stream's `images.permute(0, 3, 1, 2)` is a
    channels-last tensor without copying.

    Tensors are copies in ordinary memory (pinned with `pin_memory`), made with
    the GIL released. PyTorch has no read-only tensors: an in-place operation on
    a view of the daemon's memory would end the process with SIGSEGV, and a
    tensor kept for long would hold the ring up. One memory copy buys tensors
    that behave like any other. `ddas.connect` gives the views themselves.

    - `rank`: which of the stream's `world_size` parts to read. Left out, it is
      the environment's RANK (as torchrun sets it) when the stream has several,
      and 0 otherwise.
    - `timeout`: longest wait for a batch in seconds; None waits as long as the daemon lives.
    - `device`: where the tensors are moved after the copy, if given.
    - `pin_memory`: copy into page-locked memory, so that moving to a GPU overlaps
      with its work. Left out, it is done when `device` is a CUDA device.
    - `wait`: how long to look for a daemon that has not started yet, in seconds.

    Leaving a `for` loop early is allowed: the next loop first reads and drops
    what is left of that epoch, and so starts with the next one.
    """

    def __init__(
        self,
        name: str,
        rank: int | None = None,
        timeout: float | None = 60.0,
        device: torch.device | str | int | None = None,
        pin_memory: bool | None = None,
        wait: float = 2.0,
    ) -> None:
        self._device = None if device is None else torch.device(device)
        if pin_memory is None:
            pin_memory = self._device is not None and self._device.type == "cuda"
        if pin_memory and not torch.cuda.is_available():
            raise ValueError("pin_memory needs a CUDA device, and torch finds none; leave it out")
        self._pin_memory = pin_memory
        self._stream = connect(name, _own_rank(name, wait) if rank is None else rank, timeout, wait)
        # The batch the daemon delivers next; until the first one has come, what the daemon's start lets expect.
        self._next = self._stream.info.start
        self._epoch = self._next.epoch
        self._fresh = True
        self._expected: int | None = None
        self._resume: Position | None = None
        # A batch that was looked at and not wanted yet.
        self._held: Batch | None = None
        self._loops = 0

    @property
    def info(self) -> StreamInfo:
        """What the daemon says about the stream."""
        return self._stream.info

    @property
    def epochs(self) -> int:
        """Epochs of the training run."""
        return self.info.epochs

    @property
    def batch_size(self) -> int:
        """Samples in a full batch of this rank."""
        return self.info.batch_size

    @property
    def epoch(self) -> int:
        """The epoch being iterated over; between loops, the one that comes next."""
        return self._epoch

    def __len__(self) -> int:
        """Batches in an epoch, a short last one included."""
        return self.info.steps_per_epoch

    def set_epoch(self, epoch: int) -> None:
        """States which epoch the next loop must be.

        The daemon alone moves the epochs on, so this can only agree or raise
        `EpochMismatch`: at once where the daemon's position is known, else at
        the first batch.
        """
        epoch = operator.index(epoch)
        if not 0 <= epoch < self.epochs:
            raise EpochMismatch(f"the stream has epochs 0 to {self.epochs - 1}, got epoch {epoch}")
        if not self._fresh:
            # An epoch that was left early is not gone back to.
            following = self._next.epoch + 1 if self._next.step else self._next.epoch
            if epoch != following:
                raise EpochMismatch(_mismatch(epoch, following))
        self._expected = epoch

    def state_dict(self) -> dict[str, Any]:
        """Where the trainer is, and in which stream, as plain numbers and text.

        Taken between two batches it names the next one. To go on there, serve
        again with `--start EPOCH:STEP` of the state (or from any earlier
        place), and give the state to `load_state_dict`.
        """
        resume = self._resume or self._next
        return {"epoch": resume.epoch, "step": resume.step, **{key: getattr(self.info, key) for key in _IDENTITY}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Makes the first loop begin with the batch that `state` names.

        The world size may differ from the one the state was taken with. Raises
        `ValueError` naming what else differs between the streams. At the first
        batch: batches before the place are read and dropped; `EpochMismatch`
        is raised if the daemon is past it.
        """
        if not self._fresh:
            raise Error("load_state_dict must come before the first loop; make a new DataLoader")
        for key in _IDENTITY:
            if key not in state:
                raise ValueError(f"the state has no `{key}`; expected what DataLoader.state_dict() returned")
            if state[key] != getattr(self.info, key):
                raise ValueError(
                    f"the state belongs to another stream: its `{key}` is {state[key]!r}, "
                    f"the daemon's is {getattr(self.info, key)!r}"
                )
        self._resume = Position(int(state["epoch"]), int(state["step"]))
        self._epoch = self._resume.epoch

    def close(self) -> None:
        """Leaves the stream."""
        self._held = None
        self._stream.close()

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        self._loops += 1
        return self._one_epoch(self._loops)

    def _one_epoch(self, loop: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        batch = self._first_batch()
        while True:
            images, targets = self._copy(batch)
            last = batch.is_last_of_epoch
            self._epoch = batch.epoch
            self._next = _after(batch)
            del batch  # the slot goes back before the trainer works on the copy
            yield images, targets
            if loop != self._loops:
                raise Error("another loop over this DataLoader was started before this one had finished")
            if last:
                self._epoch = self._next.epoch
                return
            batch = self._receive()

    def _first_batch(self) -> Batch:
        """The first batch of the next epoch, or of what the daemon delivers of it."""
        if not self._fresh and self._next.step:  # the loop before was left early
            while self._next.step:
                self._next = _after(self._receive())
        batch = self._held if self._held is not None else self._receive()
        if self._resume is not None:
            while (batch.epoch, batch.step) < self._resume:
                batch = self._receive()
            if (batch.epoch, batch.step) != self._resume:
                self._held = batch
                raise EpochMismatch(
                    f"the state's place is step {self._resume.step} of epoch {self._resume.epoch}, but the daemon is at "
                    f"step {batch.step} of epoch {batch.epoch}; serve with --start {self._resume.epoch}:{self._resume.step}"
                )
        if self._expected is not None and self._expected != batch.epoch:
            expected, self._expected = self._expected, None
            self._held = batch
            raise EpochMismatch(_mismatch(expected, batch.epoch))
        self._fresh, self._expected, self._resume, self._held = False, None, None, None
        return batch

    def _receive(self) -> Batch:
        batch = self._stream.receive()
        if batch is None:
            raise StreamFinished(f"the daemon has delivered all {self.epochs} epochs; there is no further one")
        return batch

    def _copy(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        info = self.info
        samples = len(batch)
        images = torch.empty((samples, *info.shape), dtype=_DTYPES[info.dtype], pin_memory=self._pin_memory)
        targets = torch.empty(samples, dtype=torch.int64, pin_memory=self._pin_memory)
        batch.copy_into(images.view(-1).view(torch.uint8).numpy(), targets.view(torch.uint8).numpy())
        if self._device is not None:
            images = images.to(self._device, non_blocking=self._pin_memory)
            targets = targets.to(self._device, non_blocking=self._pin_memory)
        return images, targets


def _after(batch: Batch) -> Position:
    """The place of the batch that follows."""
    return Position(batch.epoch + 1, 0) if batch.is_last_of_epoch else Position(batch.epoch, batch.step + 1)


def _own_rank(name: str, wait: float) -> int:
    """RANK of the environment if the stream `name` has several ranks, else 0."""
    ranks = _ddas.world_size(name, wait)
    if ranks == 1:
        return 0
    given = os.environ.get("RANK")
    if given is None:
        raise Error(
            f"the stream `{name}` has {ranks} ranks and the environment has no RANK; "
            f"start with torchrun, or give DataLoader a rank from 0 to {ranks - 1}"
        )
    if not given.isdecimal():
        raise ValueError(f"RANK in the environment must be a number from 0 to {ranks - 1}, got {given!r}")
    return int(given)


def _mismatch(expected: int, delivered: int) -> str:
    return (
        f"set_epoch({expected}) was called, but the daemon delivers epoch {delivered} next; "
        "serve with --start to begin elsewhere, or set the trainer's epoch to the daemon's"
    )
