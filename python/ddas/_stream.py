"""Batches from a running daemon, as NumPy arrays over its shared memory."""

from __future__ import annotations

import dataclasses
import json
import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Any, Iterator, NamedTuple

from ddas import _ddas
from ddas._errors import StreamFinished

if TYPE_CHECKING:
    import numpy
    from _typeshed import WriteableBuffer
    from numpy.typing import NDArray


def connect(name: str, rank: int = 0, timeout: float | None = 60.0, wait: float = 2.0) -> Stream:
    """Joins the stream that a daemon serves under `name`.

    `rank` picks one of the stream's `world_size` parts. `timeout` is the longest
    wait for a batch in seconds; None waits for as long as the daemon lives.
    `wait` is how long to look for a daemon that has not started yet; 0 expects
    it to run now. All waiting releases the GIL and can be interrupted by Ctrl-C.

    Raises `NoSuchDaemon`, `Refused`, `VersionMismatch`, `DaemonDied` or `TimedOut`.
    """
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"`timeout` must be a number of seconds from 0 up, or None, got {timeout}")
    return Stream(_ddas.Consumer(name, rank, wait), timeout)


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
    """What the daemon says about its stream when a consumer joins."""

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
    """The daemon's process."""
    protocol: int
    """Version of the shared-memory protocol."""
    dataset_hash: str
    """Content hash of the dataset, hexadecimal; empty if the daemon does not know it."""

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
    """One batch in the daemon's shared memory.

    `images`, `labels` and `indices` are read-only views; no byte is copied. The
    batch's slot belongs to this process until the batch **and** every array made
    from it are gone, so an array never changes under its reader. Copy what is to
    be kept for long: the daemon waits for the slot.
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

    def copy_into(self, images: WriteableBuffer | NDArray[numpy.uint8], labels: WriteableBuffer | NDArray[numpy.uint8]) -> None:
        """Copies images and labels into writable, contiguous byte buffers of exactly their sizes.

        The GIL is released while copying. Raises `Evicted` if the daemon has
        taken the slot back meanwhile.
        """
        self._lease.copy_into(images, labels)

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


class Stream:
    """A consumer's connection to a daemon: an iterator over batches, epoch after epoch.

    Made by `connect`. Close it with `close()` or a `with` block.
    """

    def __init__(self, consumer: _ddas.Consumer, timeout: float | None) -> None:
        self._consumer = consumer
        self._timeout = timeout
        self._finished = False
        # The batch received last.
        self._last: Position | None = None
        # Batches that may still hold their slot.
        self._batches: weakref.WeakSet[Batch] = weakref.WeakSet()
        self.info = StreamInfo.from_json(consumer.info)

    def receive(self, timeout: float | None = None) -> Batch | None:
        """Waits for the next batch; None after the last batch of the last epoch.

        Raises `StreamFinished` if the daemon ends the stream before that, as on SIGTERM.

        `timeout` in seconds replaces the one given to `connect`. After
        `TimedOut` the same batch can be asked for again.
        """
        if self._finished:
            return None
        lease = self._consumer.receive(self._timeout if timeout is None else timeout)
        if lease is None:
            if not self._finished:
                raise StreamFinished(self._ended_early())
            return None
        self._last = Position(lease.epoch, lease.step)
        batch = Batch(lease, self.info)
        self._batches.add(batch)
        # Known here, not asked for: the daemon reports the end only when every
        # batch has been given back, and the caller still holds this one.
        self._finished = batch.is_last_of_epoch and batch.epoch + 1 == self.info.epochs
        return batch

    def _ended_early(self) -> str:
        info, last = self.info, self._last
        if last is None:
            return "the stream was over before this consumer received a batch: all had been taken, or the daemon was stopped"
        return (
            f"the daemon was stopped after step {last.step} of epoch {last.epoch}, of {info.epochs} epochs "
            f"of {info.steps_per_epoch} steps; serve again with --start to go on"
        )

    def close(self) -> None:
        """Leaves the stream.

        Releases every batch from which no array is left; arrays stay valid,
        and hold their slot, until they are dropped.
        """
        for batch in list(self._batches):
            try:
                batch.release()
            except BufferError:
                pass  # its arrays keep the slot
        self._consumer.close()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch = self.receive()
        if batch is None:
            raise StopIteration
        return batch

    def __len__(self) -> int:
        """Batches of the whole run, from the daemon's starting point to its end."""
        info = self.info
        return (info.epochs - info.start.epoch) * info.steps_per_epoch - info.start.step

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        info = self.info
        return (
            f"<ddas.Stream of {info.dataset}: {info.epochs} epochs of {info.steps_per_epoch} batches of "
            f"{info.batch_size}, {info.dtype} {info.layout} {info.shape}, rank {info.rank} of {info.world_size}>"
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
