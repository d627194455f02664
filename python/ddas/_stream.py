"""Batches from a running daemon, as NumPy arrays over its shared memory; what they share with `Loader`'s."""

from __future__ import annotations

import dataclasses
import json
import logging
import operator
import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Any, Iterator, Literal, Mapping, NamedTuple, SupportsIndex, TypeVar

from ddas import _ddas
from ddas._errors import EpochMismatch, StateError, StreamFinished
from ddas._state import place_in, state_of

if TYPE_CHECKING:
    import numpy
    from _typeshed import WriteableBuffer
    from numpy.typing import NDArray


logger = logging.getLogger("ddas")

BatchesT = TypeVar("BatchesT", bound="Batches")


def connect(
    name: str,
    rank: int | None = None,
    timeout: float | None = 60.0,
    wait: float = 2.0,
    *,
    start: Literal["current", "next-epoch"] = "current",
    environment: bool = True,
) -> Stream:
    """Joins the stream that a daemon serves under `name`.

    `rank` picks one of the stream's `world_size` parts. Left out, it is what the
    launcher (torchrun, Slurm, Open MPI, Kubernetes) says, for a stream of
    several ranks; `RankError` if that contradicts `rank` or the stream.
    `environment=False` does not ask the launcher: the rank is then 0 unless given.

    `timeout` is the longest wait for a batch in seconds; None waits for as long
    as the daemon lives. `wait` is how long to look for a daemon that has not
    started yet; 0 expects it to run now. All waiting releases the GIL and can be
    interrupted by Ctrl-C.

    `start` is where to begin in a stream under way: at its "current" batch (the
    oldest that is not lost), or at the first whole epoch from there on,
    "next-epoch". Whoever waits for that holds nobody back, and is `Refused` when
    there is no further epoch.

    Raises `NoSuchDaemon`, `Refused`, `VersionMismatch`, `DaemonDied` or `TimedOut`.
    """
    check_timeout(timeout)
    return Stream(_ddas.Consumer(name, _rank_in(name, rank, wait, environment), wait, start), timeout)


def counted(count: int, one: str, many: str) -> str:
    """`1 epoch`, `2 epochs`."""
    return f"{count} {one if count == 1 else many}"


def check_whole(name: str, number: SupportsIndex | None, most: int = 2**32 - 1) -> int | None:
    """`number` as an int from 0 to `most`; None stays None."""
    if number is None:
        return None
    try:
        whole = operator.index(number)
    except TypeError as error:
        raise TypeError(f"`{name}` must be a whole number, got {number!r}") from error
    if not 0 <= whole <= most:
        raise ValueError(f"`{name}` must lie in 0..{most}, got {whole}")
    return whole


def check_timeout(timeout: float | None) -> None:
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"`timeout` must be a number of seconds from 0 up, or None, got {timeout}")


def placement(
    rank: int | None, world_size: int | None, environment: bool, served: int | None = None
) -> tuple[int, int]:
    """Rank and world size from arguments or launcher; says in the log which. `served`: ranks of a stream to be joined."""
    rank, world_size = check_whole("rank", rank), check_whole("world_size", world_size)
    rank, world_size, source = _ddas.placement(rank, world_size, served, environment)
    logger.info("rank %d of %d, from %s", rank, world_size, source)
    return rank, world_size


def _rank_in(name: str, rank: int | None, wait: float, environment: bool) -> int:
    """The rank to read of the stream `name`. A stream of one rank is everybody's: no launcher is asked about it."""
    rank = check_whole("rank", rank)
    if not environment:
        return rank or 0
    ranks = _ddas.world_size(name, wait)
    if ranks == 1:
        return rank or 0
    return placement(rank, None, environment, served=ranks)[0]


class Normalization(NamedTuple):
    """value = (byte / 255 - mean) / std, for each channel."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Position(NamedTuple):
    """A place in a training run."""

    epoch: int
    step: int


@dataclasses.dataclass(frozen=True, slots=True)
class StreamInfo:
    """What the daemon says about its stream when a consumer joins; `Loader.info` is the same about its own."""

    dataset: str
    """Path of the dataset, as the daemon was given it."""
    samples: int
    """Samples in the dataset."""
    classes: int
    """Number of classes."""
    epochs: int
    """Epochs of the training run."""
    batch_size: int
    """Samples in a full batch of this rank."""
    global_batch_size: int
    """Samples in a full batch of all ranks together."""
    steps_per_epoch: int
    """Batches in an epoch, a short last one included."""
    world_size: int
    """Number of ranks; each has a ring of its own."""
    rank: int
    """The rank this consumer reads."""
    dtype: str
    """"u8", "f32", "f16" or "bf16"."""
    layout: str
    """"nchw" or "nhwc"."""
    shape: tuple[int, int, int]
    """Shape of one image, in the order of `layout`."""
    normalization: Normalization
    """Done already in float streams; u8 streams are not normalised."""
    recipe: str
    """Name of the recipe."""
    recipe_digest: str
    """Digest of what the recipe does, hexadecimal."""
    policy_digest: str | None
    """`Policy.digest` of the policy that is replayed, None without one."""
    seed: int
    """Seed of order and augmentation."""
    slots: int
    """Batches the ring has room for."""
    start: Position
    """Where the daemon began (`serve --start`)."""
    last: str
    """"pad": the last batch of an epoch is short; "drop": it is left out."""
    daemon_pid: int
    """The daemon's process; this one for a `Loader`."""
    protocol: int
    """Version of the shared-memory protocol."""
    dataset_hash: str
    """Content hash of the dataset, hexadecimal; empty if the daemon does not know it."""
    mixes: bool
    """Whether batches are mixed (MixUp, CutMix): `Batch.mixed_labels` and `Batch.weights` are there."""

    @classmethod
    def from_json(cls, text: str) -> StreamInfo:
        """Reads the daemon's JSON; fields of a later daemon that this version does not know are left out."""
        fields: dict[str, Any] = json.loads(text)
        normalization, start = fields["normalization"], fields["start"]
        fields["shape"] = tuple(fields["shape"])
        fields["normalization"] = Normalization(tuple(normalization["mean"]), tuple(normalization["std"]))
        fields["start"] = Position(start["epoch"], start["step"])
        return cls(**{field.name: fields[field.name] for field in dataclasses.fields(cls)})


class Batch:
    """One batch, in the slot where it was made.

    `images`, `labels` and `indices` are views; no byte is copied. The batch's
    slot belongs to this process until the batch **and** every array made from it
    are gone, so an array never changes under its reader. Copy what is to be kept
    for long: whoever fills the slots waits for this one.

    Views of a daemon's memory are read-only, for every consumer sees the same.
    Those of a `Loader` may be written to: nobody else sees them, and the slot is
    filled anew afterwards.
    """

    __slots__ = ("__weakref__", "_info", "_lease")

    def __init__(self, lease: _ddas.Lease, info: StreamInfo) -> None:
        self._lease = lease
        self._info = info

    @property
    def images(self) -> NDArray[Any]:
        """The images, of shape (samples, *stream.info.shape) and the stream's dtype.

        NumPy has no bfloat16 of its own: bf16 images have the dtype
        `ml_dtypes.bfloat16` where that package is installed, and uint16 holding
        the raw 16 bits otherwise.
        """
        import numpy

        flat = numpy.frombuffer(memoryview(self._lease.images()), numpy_dtype(self._info.dtype))
        return flat.reshape(self._lease.samples, *self._info.shape)

    @property
    def labels(self) -> NDArray[numpy.int64]:
        """The class of each sample, shape (samples,)."""
        import numpy

        return numpy.frombuffer(memoryview(self._lease.labels()), numpy.int64)

    @property
    def indices(self) -> NDArray[numpy.uint64]:
        """The number of each sample in the dataset, shape (samples,)."""
        import numpy

        return numpy.frombuffer(memoryview(self._lease.indices()), numpy.uint64)

    @property
    def mixed_labels(self) -> NDArray[numpy.int64] | None:
        """The class of each sample's partner, its own where it was not mixed; None in a stream that does not mix."""
        import numpy

        labels = self._lease.mixed_labels()
        return None if labels is None else numpy.frombuffer(memoryview(labels), numpy.int64)

    @property
    def weights(self) -> NDArray[numpy.float32] | None:
        """The share of `labels` in each sample, 0 to 1, the rest being `mixed_labels`; None in a stream that does not mix."""
        import numpy

        weights = self._lease.weights()
        return None if weights is None else numpy.frombuffer(memoryview(weights), numpy.float32)

    def array(self, name: Literal["images", "labels", "indices", "mixed_labels", "weights"]) -> _ddas.Array:
        """One of the arrays for whoever speaks DLPack or the buffer protocol, without copying.

            torch.from_dlpack(batch.array("images"))         # bf16 too
            jax.numpy.from_dlpack(batch.array("images"))
            numpy.asarray(batch.array("labels"))

        Like the NumPy views it holds the slot until it and all made from it are gone. DLPack can mark memory as
        read-only since version 1.0, and not every consumer heeds it: **never** change a tensor made from a daemon's
        batch in place, for that ends the process with SIGSEGV. `Array.__dlpack__(copy=True)` copies.
        """
        if name not in ("images", "labels", "indices", "mixed_labels", "weights"):
            raise ValueError(f'`name` must be "images", "labels", "indices", "mixed_labels" or "weights", got {name!r}')
        array: _ddas.Array | None = getattr(self._lease, name)()
        if array is None:
            raise ValueError(f"there are no {name}: recipe {self._info.recipe} does not mix batches")
        return array

    @property
    def epoch(self) -> int:
        return self._lease.epoch

    @property
    def step(self) -> int:
        """The batch's place in its epoch, from 0."""
        return self._lease.step

    @property
    def snapshot(self) -> int | None:
        """The number of the policy's snapshot in force, None without a policy."""
        return self._lease.snapshot if self._info.policy_digest is not None else None

    @property
    def is_last_of_epoch(self) -> bool:
        return self._lease.step + 1 == self._info.steps_per_epoch

    def copy_into(
        self,
        images: WriteableBuffer | NDArray[numpy.uint8],
        labels: WriteableBuffer | NDArray[numpy.uint8],
        mixed_labels: WriteableBuffer | NDArray[numpy.uint8] | None = None,
        weights: WriteableBuffer | NDArray[numpy.uint8] | None = None,
    ) -> None:
        """Copies images and labels into writable, contiguous byte buffers of exactly their sizes.

        Those of a mixed stream's other two arrays may be given, too.

        The GIL is released while copying. Raises `Evicted` if the daemon has
        taken the slot back meanwhile.
        """
        self._lease.copy_into(images, labels, mixed_labels, weights)

    def validate(self) -> None:
        """Raises `Evicted` if the daemon has taken the slot back, so that what was read may be torn.

        Only a daemon that was given `--evict-after` ever does that, and only to
        a consumer that kept the batch for longer.
        """
        self._lease.validate()

    def release(self) -> None:
        """Gives the slot back now instead of when the batch is garbage.

        Raises `BufferError` while an array made from the batch is still alive,
        because the daemon would write over what it shows. Releasing twice does
        nothing.
        """
        self._lease.release()

    def __len__(self) -> int:
        """Samples in the batch."""
        return self._lease.samples

    def __enter__(self) -> Batch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<ddas.Batch epoch={self.epoch} step={self.step} samples={len(self)}>"


class Batches:
    """Batches of a training run in order, epoch after epoch: what `Stream` and `Loader` share.

        for batch in batches: ...                # the whole run

        for epoch in range(batches.info.start.epoch, batches.info.epochs):
            for batch in batches.one_epoch(): ...
    """

    info: StreamInfo
    """What is delivered."""

    def __init__(self, source: _ddas.Consumer | _ddas.Embedded, timeout: float | None) -> None:
        self._source = source
        self._timeout = timeout
        # Batches that may still hold their slot. No WeakSet: its callbacks are Python code, in which a KeyboardInterrupt
        # would be swallowed.
        self._held: list[weakref.ref[Batch]] = []
        self.info = StreamInfo.from_json(source.info)
        # The place of the batch that comes next; what the start lets expect until the first one has come.
        self._next = self.info.start

    def receive(self, timeout: float | None = None) -> Batch | None:
        """Waits for the next batch; None after the last batch of the last epoch.

        `timeout` in seconds replaces the one given at the start. After
        `TimedOut` the same batch can be asked for again.
        """
        raise NotImplementedError

    def _receive(self, timeout: float | None) -> Batch | None:
        if timeout is not None:
            check_timeout(timeout)
        lease = self._source.receive(self._timeout if timeout is None else timeout)
        if lease is None:
            return None
        batch = Batch(lease, self.info)
        self._held = [held for held in self._held if held() is not None]
        self._held.append(weakref.ref(batch))
        self._next = Position(batch.epoch + 1, 0) if batch.is_last_of_epoch else Position(batch.epoch, batch.step + 1)
        return batch

    @property
    def next_position(self) -> Position:
        """Epoch and step of the batch that comes next; behind the last epoch at the end.

        For a `Stream` that joined late, its first batch tells.
        """
        return self._next

    def one_epoch(self) -> Iterator[Batch]:
        """Iterates over what is left of the epoch of the next batch.

        Raises `StreamFinished` when there is no further epoch.
        """
        while True:
            batch = self.receive()
            if batch is None:
                raise StreamFinished(f"all {self.info.epochs} epochs have been delivered; there is no further one")
            last = batch.is_last_of_epoch
            yield batch
            del batch
            if last:
                return

    def state_dict(self) -> dict[str, Any]:
        """Where the run is, and which run it is: plain numbers and text, less than 1 KiB as JSON.

        It names the next batch and is the same on every rank. `load_state_dict` of a `Loader`, a `Stream` and a
        `ddas.torch.DataLoader` go on from there, in a run of the same dataset, policy, recipe, seed,
        epochs and global batch size, and of any world size that divides that.
        """
        return state_of(self.info, self._next.epoch, self._next.step)

    def close(self) -> None:
        """Ends the connection or the threads.

        Releases every batch from which no array is left; arrays stay valid,
        and hold their slot, until they are dropped.
        """
        for held in self._held:
            batch = held()
            try:
                if batch is not None:
                    batch.release()
            except BufferError:
                pass  # its arrays keep the slot
        self._source.close()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch = self.receive()
        if batch is None:
            raise StopIteration
        return batch

    def __len__(self) -> int:
        """Batches of the whole run, from its starting point to its end."""
        info = self.info
        return (info.epochs - info.start.epoch) * info.steps_per_epoch - info.start.step

    def __enter__(self: BatchesT) -> BatchesT:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        info = self.info
        return (
            f"<ddas.{type(self).__name__} of {info.dataset}: {counted(info.epochs, 'epoch', 'epochs')} of "
            f"{counted(info.steps_per_epoch, 'batch', 'batches')} of "
            f"{info.batch_size}, {info.dtype} {info.layout} {info.shape}, rank {info.rank} of {info.world_size}>"
        )


class Stream(Batches):
    """A consumer's connection to a daemon: an iterator over batches, epoch after epoch.

    Made by `connect`. Close it with `close()` or a `with` block.
    """

    def __init__(self, consumer: _ddas.Consumer, timeout: float | None) -> None:
        super().__init__(consumer, timeout)
        self._finished = False
        # The batch received last.
        self._last: Position | None = None
        # Where a loaded state wants to go on.
        self._resume: Position | None = None

    def receive(self, timeout: float | None = None) -> Batch | None:
        """Waits for the next batch; None after the last batch of the last epoch.

        Raises `StreamFinished` if the daemon ends the stream before that, as on SIGTERM.

        `timeout` in seconds replaces the one given to `connect`. After
        `TimedOut` the same batch can be asked for again.
        """
        if self._finished:
            return None
        batch = self._receive(timeout)
        while batch is not None and self._resume is not None:
            place = Position(batch.epoch, batch.step)
            if place >= self._resume:
                resume, self._resume = self._resume, None
                if place != resume:
                    raise EpochMismatch(
                        f"the state's place is step {resume.step} of epoch {resume.epoch}, but the daemon is at "
                        f"step {place.step} of epoch {place.epoch}; serve with --start {resume.epoch}:{resume.step}"
                    )
                break
            self._finished = batch.is_last_of_epoch and batch.epoch + 1 == self.info.epochs
            batch = None  # its slot goes back
            if self._finished:
                return None
            batch = self._receive(timeout)
        if batch is None:
            if not self._finished:
                raise StreamFinished(self._ended_early())
            return None
        self._last = Position(batch.epoch, batch.step)
        # Known here, not asked for: the daemon reports the end only when every
        # batch has been given back, and the caller still holds this one.
        self._finished = batch.is_last_of_epoch and batch.epoch + 1 == self.info.epochs
        return batch

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Makes the next batch the one that `state` names: those before it are read and dropped.

        A daemon goes forward only, so it must have been started there or before (`serve --start EPOCH:STEP` of the state), and
        this must come before the first batch: `StateError` after it, or if the state is of another run, naming the
        field that differs. The first `receive` raises `EpochMismatch` if the daemon is past the place.
        """
        place = Position(*place_in(self.info, state))
        if self._last is not None:
            raise StateError(
                "load_state_dict must come before the first batch, for a daemon does not go back: serve with "
                f"--start {place.epoch}:{place.step}, connect again, and load the state there"
            )
        self._resume = self._next = place

    def _ended_early(self) -> str:
        info, last = self.info, self._last
        if last is None:
            return "the stream was over before this consumer received a batch: all had been taken, or the daemon was stopped"
        return (
            f"the daemon was stopped after step {last.step} of epoch {last.epoch}, of {info.epochs} epochs "
            f"of {info.steps_per_epoch} steps; serve again with --start to go on"
        )


def numpy_dtype(dtype: str) -> numpy.dtype[Any]:
    """NumPy's name for a stream's dtype."""
    import numpy

    if dtype != "bf16":
        return numpy.dtype({"u8": numpy.uint8, "f32": numpy.float32, "f16": numpy.float16}[dtype])
    try:
        import ml_dtypes  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return numpy.dtype(numpy.uint16)
    brain: numpy.dtype[Any] = numpy.dtype(ml_dtypes.bfloat16)
    return brain
