"""PyTorch's side of a running daemon: epochs of (images, targets) tensors.

    from ddas.torch import DataLoader

    loader = DataLoader("train")
    for epoch in range(loader.epochs):
        loader.set_epoch(epoch)
        for images, targets in loader:
            ...
"""

from __future__ import annotations

import os
from typing import Iterator

import torch

from ddas import _ddas
from ddas._errors import EpochMismatch, Error, StreamFinished
from ddas._stream import Batch, Stream, StreamInfo, connect

__all__ = ["DataLoader"]

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
        wait: float = 0.0,
    ) -> None:
        self._device = None if device is None else torch.device(device)
        if pin_memory is None:
            pin_memory = self._device is not None and self._device.type == "cuda"
        if pin_memory and not torch.cuda.is_available():
            raise ValueError("pin_memory needs a CUDA device, and torch finds none; leave it out")
        self._pin_memory = pin_memory
        self._stream = connect(name, _own_rank(name, wait) if rank is None else rank, timeout, wait)
        # The epoch being delivered, or the one the next loop delivers; a guess until the first batch says.
        self._epoch = self._stream.info.start.epoch
        self._steps_taken = 0
        self._expected: int | None = None
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
        if not 0 <= epoch < self.epochs:
            raise EpochMismatch(f"the stream has epochs 0 to {self.epochs - 1}, got epoch {epoch}")
        if self._loops > 0:
            following = self._epoch + 1 if self._steps_taken else self._epoch
            if epoch != following:
                raise EpochMismatch(_mismatch(epoch, following))
        self._expected = epoch

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
            self._steps_taken += 1
            del batch  # the slot goes back before the trainer works on the copy
            if last:
                self._epoch += 1
                self._steps_taken = 0
            yield images, targets
            if last:
                return
            if loop != self._loops:
                raise Error("another loop over this DataLoader was started before this one had finished")
            batch = self._receive()

    def _first_batch(self) -> Batch:
        """The first batch of the next epoch (of what the daemon delivers of it)."""
        if self._steps_taken:  # the loop before was left early
            while not self._receive().is_last_of_epoch:
                self._steps_taken += 1
            self._epoch += 1
            self._steps_taken = 0
        batch = self._held if self._held is not None else self._receive()
        self._epoch = batch.epoch
        if self._expected is not None and self._expected != batch.epoch:
            expected, self._expected = self._expected, None
            self._held = batch
            raise EpochMismatch(_mismatch(expected, batch.epoch))
        self._expected = None
        self._held = None
        return batch

    def _receive(self) -> Batch:
        batch = self._stream.receive()
        if batch is None:
            info = self.info
            if self._epoch >= info.epochs:
                raise StreamFinished(f"the daemon has delivered all {info.epochs} epochs; there is no epoch {self._epoch}")
            raise StreamFinished(
                f"the daemon ended the stream in epoch {self._epoch} of {info.epochs}, "
                f"after step {self._steps_taken} of {info.steps_per_epoch}"
            )
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
