"""PyTorch's side: epochs of (images, targets) tensors, from a running daemon or from this process.

    from ddas.torch import DataLoader

    loader = DataLoader("train")                             # what `ddas-loader serve --name train` serves
    loader = DataLoader("cifar10.lmdb", recipe="cifar", epochs=200, batch_size=128)     # made here
    for epoch in range(loader.epochs):
        loader.set_epoch(epoch)
        for images, targets in loader:
            ...
"""

from __future__ import annotations

import operator
import os
from typing import Any, Iterator, Literal, Mapping

import torch
from torch.utils.dlpack import from_dlpack

from ddas._errors import EpochMismatch, Error, StateError, StreamFinished
from ddas._loader import Loader
from ddas._pinning import pin
from ddas._state import place_in, state_of
from ddas._stream import Batch, Batches, Position, StreamInfo, connect

__all__ = ["DataLoader", "soft_targets"]

_DTYPES = {"u8": torch.uint8, "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}

# What torch's own DataLoader calls things, and what takes their place.
_ELSEWHERE = {
    "num_workers": "`threads`: workers are threads of this process",
    "drop_last": '`last="drop"`',
    "shuffle": "nothing: every epoch has its own order; `seed` decides which",
    "sampler": "nothing: ranks are dealt out by `rank` and `world_size`",
    "persistent_workers": "nothing: threads stay, and epochs change under them",
    "prefetch_factor": "`slots`: the batches there is room for",
    "generator": "`seed`",
    "worker_init_fn": "nothing: randomness comes from `seed`, epoch and sample alone",
}


class DataLoader:
    """Iterates over epochs of a daemon's stream, of a `ddas.Loader`, or of a dataset; one epoch for each `for` loop.

    `source` is the name of a running daemon, a `ddas.Loader` or `ddas.Stream`,
    or, with `recipe`, `epochs`, `batch_size` and whatever else `ddas.Loader`
    takes, the path of a packed dataset.

    Each item is `(images, targets)`: images of shape (samples, *info.shape) in
    the stream's dtype and layout, targets of dtype int64. The last batch of an
    epoch may be short. Where the recipe mixes batches (MixUp, CutMix), targets
    are `(labels, mixed_labels, weights)`, and the loss of a sample is
    `weight * loss(label) + (1 - weight) * loss(mixed_label)`; `targets="soft"`
    makes them one float tensor of shape (samples, info.classes) for
    `torch.nn.functional.cross_entropy`, mixed or not.

    An NHWC stream's `images.permute(0, 3, 1, 2)` is a channels-last tensor without copying.

    Tensors are copies in ordinary memory, made with the GIL released. PyTorch
    has no read-only tensors: an in-place operation on a view of a daemon's
    memory would end the process with SIGSEGV, and a tensor kept for long would
    hold the loader up. One memory copy buys tensors that behave like any other.
    For a CUDA device no such copy is made: the slots are page-locked
    where they are, and the device copies out of them.

    - `rank`: which of the stream's `world_size` parts to read. Left out, it is
      what the launcher says (torchrun, Slurm, Open MPI, Kubernetes) when there are several.
    - `timeout`: longest wait for a batch in seconds; None waits for as long as it takes. Left out, it is the source's own:
      60 s with a daemon's name, None with a dataset.
    - `device`: where the tensors are moved, if given; to a CUDA device asynchronously, on its current stream.
    - `pin_memory`: page-lock the slots (once, by registering them with CUDA), so that moving to a GPU needs no copy before
      it and overlaps with its work. Left out, it is done when `device` is a CUDA device. Without `device`, tensors
      are then the slots themselves, as with `copy=False`. With `copy=True`, or where CUDA refuses the memory (one
      warning says why), batches are copied into page-locked memory instead.
    - `wait`: how long to look for a daemon that has not started yet, in seconds.
    - `copy=False`: tensors are the slots themselves, given back when the last tensor made from one is gone. At most
      `slots` batches can be alive then. Tensors of a `Loader` may be changed in place, those of a daemon **never**.
      `copy=True`: never the slots. Left out: copies, unless the slots are page-locked.
    - `indices=True`: each item has a third tensor, the samples' numbers in the dataset (int64).
    - `repeat=True`: after the last epoch comes the first again, for validation say. Not with a daemon, which ends.
    - `environment=False`: no launcher is asked for the rank.
    - `targets`: "labels" or "soft", see above.
    - `start`: for a daemon, "current" or "next-epoch" as in `ddas.connect`; for a dataset, epoch and step.

    Leaving a `for` loop early is allowed: the next loop starts with the next
    epoch. (A daemon's batches in between are read and dropped.)
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | Batches,
        rank: int | None = None,
        timeout: float | None | Literal["default"] = "default",
        device: torch.device | str | int | None = None,
        pin_memory: bool | None = None,
        wait: float = 2.0,
        *,
        copy: bool | None = None,
        indices: bool = False,
        repeat: bool = False,
        environment: bool = True,
        targets: Literal["labels", "soft"] = "labels",
        start: Literal["current", "next-epoch"] | tuple[int, int] | None = None,
        **dataset: Any,
    ) -> None:
        if targets not in ("labels", "soft"):
            raise ValueError(f'`targets` must be "labels" or "soft", got {targets!r}')
        self._soft = targets == "soft"
        self._device = None if device is None else torch.device(device)
        on_cuda = self._device is not None and self._device.type == "cuda"
        if pin_memory is None:
            pin_memory = on_cuda
        if pin_memory and not torch.cuda.is_available():
            raise ValueError("pin_memory needs a CUDA device, and torch finds none; leave it out")
        self._with_indices = indices
        self._stream = _open(source, rank, timeout, wait, environment, start, dataset)
        if repeat and not isinstance(self._stream, Loader):
            raise ValueError("repeat=True needs a dataset or a ddas.Loader: a daemon's stream ends with its last epoch")
        self._repeat = repeat
        self._pinned = None
        if pin_memory and copy is not True:
            self._pinned = pin(self._stream, self._device if on_cuda else None, copying=copy is None)
        self._unpin = None if self._pinned is None else self._pinned.close_with(self)
        self._copying = self._pinned is None if copy is None else copy
        # Copies go into page-locked memory.
        self._pin_memory = pin_memory and self._copying
        # The batch that comes next; until a daemon's first one has come, what its start lets expect.
        self._next = self._stream.next_position
        self._epoch = self._next.epoch
        self._fresh = True
        self._expected: int | None = None
        self._resume: Position | None = None
        # A batch that was looked at and not wanted yet.
        self._held: Batch | None = None
        self._loops = 0

    @property
    def info(self) -> StreamInfo:
        """What is delivered."""
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
        """Makes sure that the next loop is over `epoch`.

        A loader of this process goes there, to the beginning of `epoch` unless the next loop is over it anyway (in the
        middle of an epoch after `load_state_dict`, say). A daemon alone moves its epochs on: with one, this can only
        agree or raise `EpochMismatch`, at once where the daemon's position is known, else at the first batch.
        """
        epoch = operator.index(epoch)
        if not 0 <= epoch < self.epochs:
            raise EpochMismatch(f"the stream has epochs 0 to {self.epochs - 1}, got epoch {epoch}")
        # An epoch that was left early is not gone back to.
        following = self._next.epoch + 1 if self._next.step and not self._fresh else self._next.epoch
        if isinstance(self._stream, Loader):
            if epoch != following:
                self._stream.seek(epoch)
                self._begin_at(Position(epoch, 0))
            return
        if not self._fresh and epoch != following:
            raise EpochMismatch(_mismatch(epoch, following))
        self._expected = epoch

    def state_dict(self) -> dict[str, Any]:
        """Where the trainer is, and in which stream, as plain numbers and text; less than 1 KiB as JSON.

        Taken between two batches it names the next one, on every rank the same. `load_state_dict` goes on there. A
        daemon must be served again with `--start EPOCH:STEP` of the state, or from any earlier place.
        """
        resume = self._resume or self._next
        return state_of(self.info, resume.epoch, resume.step)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Makes the next loop begin with the batch that `state` names.

        The world size may differ from the one the state was taken with. Raises `StateError` naming what else
        differs between the streams. With a daemon, it must come before the first loop, and at the first batch those
        before the place are read and dropped; `EpochMismatch` is raised if the daemon is past it.
        """
        place = Position(*place_in(self.info, state))
        if isinstance(self._stream, Loader):
            self._stream.seek(*place)
            self._begin_at(place)
            return
        if not self._fresh:
            raise StateError("load_state_dict must come before the first loop; make a new DataLoader")
        self._resume = place
        self._epoch = place.epoch

    def _begin_at(self, place: Position) -> None:
        self._loops += 1  # ends a loop under way
        self._next = place
        self._epoch = place.epoch
        self._fresh = True

    def close(self) -> None:
        """Leaves the stream, or ends the loader's threads."""
        self._held = None
        if self._unpin is not None:
            self._unpin()
            self._pinned = None
        self._stream.close()

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        self._loops += 1
        return self._one_epoch(self._loops)

    def _one_epoch(self, loop: int) -> Iterator[tuple[Any, ...]]:
        batch = self._first_batch()
        while True:
            tensors = [self._tensors(batch)]
            last = batch.is_last_of_epoch
            self._epoch = batch.epoch
            self._next = self._stream.next_position
            del batch  # the slot goes back before the trainer works on the copy
            yield tensors.pop()  # without a reference here that would outlive the trainer's
            if loop != self._loops:
                raise Error("another loop over this DataLoader was started before this one had finished")
            if last:
                self._epoch = self._next.epoch
                if self._pinned is not None:
                    self._pinned.settle()  # between epochs nobody is held up
                return
            batch = self._receive()

    def _first_batch(self) -> Batch:
        """The first batch of the next epoch, or of what the daemon delivers of it."""
        if not self._fresh and self._next.step:  # the loop before was left early
            if isinstance(self._stream, Loader):
                self._stream.seek(self._next.epoch + 1)
            while self._stream.next_position.step:
                self._receive()
        if self._repeat and isinstance(self._stream, Loader) and self._stream.next_position.epoch == self.epochs:
            self._stream.seek(0)
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
        if self._pinned is not None:
            self._pinned.make_room()
        batch = self._stream.receive()
        if batch is None:
            raise StreamFinished(f"all {self.epochs} epochs have been delivered; there is no further one")
        return batch

    def _tensors(self, batch: Batch) -> tuple[Any, ...]:
        """Images and targets (and numbers of the samples), where the trainer wants them."""
        tensors = self._copies(batch) if self._copying else self._views(batch)
        moved = False
        if self._pinned is not None:
            if self._device is not None and self._device.type == "cuda":
                tensors, moved = self._pinned.to_device(tensors, batch, self._device), True
            else:
                self._pinned.lend(batch)
        if self._with_indices:
            numbers = torch.from_numpy(batch.indices.astype("int64"))
            tensors.append(numbers.to(self._device) if moved else numbers)
        if self._device is not None and not moved:
            tensors = [tensor.to(self._device, non_blocking=self._pin_memory) for tensor in tensors]
        last = [tensors.pop()] if self._with_indices else []
        images, *targets = tensors
        if self._soft:
            return images, soft_targets(self.info.classes, *targets), *last
        return images, tuple(targets) if self.info.mixes else targets[0], *last

    def _views(self, batch: Batch) -> list[torch.Tensor]:
        arrays = [batch.array("images"), batch.array("labels")]
        if self.info.mixes:
            arrays += [batch.array("mixed_labels"), batch.array("weights")]
        return [from_dlpack(array) for array in arrays]

    def _copies(self, batch: Batch) -> list[torch.Tensor]:
        info = self.info
        samples = len(batch)
        kinds: list[tuple[tuple[int, ...], torch.dtype]] = [((samples, *info.shape), _DTYPES[info.dtype]), ((samples,), torch.int64)]
        if info.mixes:
            kinds += [((samples,), torch.int64), ((samples,), torch.float32)]
        tensors = [torch.empty(shape, dtype=dtype, pin_memory=self._pin_memory) for shape, dtype in kinds]
        batch.copy_into(*(tensor.view(-1).view(torch.uint8).numpy() for tensor in tensors))
        return tensors


def soft_targets(
    classes: int, labels: torch.Tensor, mixed_labels: torch.Tensor | None = None, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Labels as shares of each class: a float tensor of shape (samples, classes), each row of sum 1.

    With `mixed_labels` and `weights` of a mixed batch, each sample has both of its classes.
    """
    soft = torch.zeros((len(labels), classes), dtype=torch.float32, device=labels.device)
    if mixed_labels is None or weights is None:
        return soft.scatter_(1, labels[:, None], 1.0)
    soft.scatter_add_(1, labels[:, None], weights[:, None])
    return soft.scatter_add_(1, mixed_labels[:, None], 1.0 - weights[:, None])


def _open(
    source: str | os.PathLike[str] | Batches,
    rank: int | None,
    timeout: float | None | Literal["default"],
    wait: float,
    environment: bool,
    start: Any,
    dataset: dict[str, Any],
) -> Batches:
    if isinstance(source, Batches):
        given = [*(["rank"] if rank is not None else []), *(["start"] if start is not None else []), *dataset]
        if given:
            raise ValueError(f"`{given[0]}` belongs to the {type(source).__name__} that was given: set it there")
        return source
    for name in dataset.keys() & _ELSEWHERE.keys():
        raise TypeError(f"`{name}` is an argument of torch's DataLoader; here it is {_ELSEWHERE[name]}")
    patience: dict[str, Any] = {} if timeout == "default" else {"timeout": timeout}
    if dataset:
        if start is not None:
            dataset["start"] = start
        return Loader(source, rank=rank, environment=environment, **patience, **dataset)
    if not isinstance(source, str):
        raise ValueError("a dataset needs at least `recipe`, `epochs` and `batch_size`; without them, give a daemon's name")
    return connect(source, rank, wait=wait, start=start or "current", environment=environment, **patience)


def _mismatch(expected: int, delivered: int) -> str:
    return (
        f"set_epoch({expected}) was called, but the daemon delivers epoch {delivered} next; "
        "serve with --start to begin elsewhere, or set the trainer's epoch to the daemon's"
    )
