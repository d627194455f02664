"""The extension module. `Array`, `Policy`, `Snapshot` and `search_space` are public as `ddas.*`; the rest is internal."""

from collections.abc import Iterable
from os import PathLike
from typing import Any, final

import numpy
from _typeshed import ReadableBuffer, WriteableBuffer
from numpy.typing import NDArray

__version__: str

@final
class Policy:
    """The content of a policy file: a search space and one snapshot per search epoch."""

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Policy:
        """Reads a policy file. Raises `PolicyError` naming the field that is wrong, or `OSError`."""

    @classmethod
    def from_json(cls, text: str) -> Policy:
        """Reads the text of a policy file. Raises `PolicyError` naming the field that is wrong."""

    @classmethod
    def builtin(
        cls,
        name: str,
        *,
        draws: int | None = None,
        magnitude: int | None = None,
        image_size: int | None = None,
    ) -> Policy:
        """A policy known from elsewhere.

        `identity`, `randaugment`, `randaugment-timm`, `randaugment-ildoonet`, `randaugment-tf`,
        `trivialaugment-wide`, `uniformaugment`, `autoaugment-cifar10`, `autoaugment-svhn`,
        `autoaugment-imagenet`, `autoaugment-v0`, or a configuration string of timm such as
        `rand-m9-n3-mstd0.5-inc1`. `draws` (N) and `magnitude` (M) are RandAugment's, `image_size` is
        for `uniformaugment`. Raises `ValueError` for an unknown name and for an option that is out
        of range or that the policy does not have.
        """

    def to_json(self) -> str:
        """The text of the policy file."""

    def save(self, path: str | PathLike[str]) -> None:
        """Writes a policy file in one step: readers see the old file or the new one."""

    @property
    def search_space(self) -> str:
        """Name of the search space."""

    @property
    def operations(self) -> list[dict[str, Any]]:
        """The candidate operations, each as the dict that stands in the policy file.

        An operation; an operation with `varies` (how an argument is drawn for each sample) in an
        argument's place; or `{"kind": "Sequence", "steps": [{"probability": ..., "operation": ...}]}`.
        """

    @property
    def snapshots(self) -> list[Snapshot]:
        """One per search epoch, oldest first, with the values that stand in the file."""

    @property
    def draws_per_sample(self) -> int:
        """Operations drawn, with replacement, for one augmented sample."""

    @property
    def smoothing_window(self) -> int:
        """Snapshots over which the total probability is averaged at replay; 1 leaves it as it is."""

    @property
    def digest(self) -> str:
        """Fingerprint of what decides the pixels, 16 hexadecimal digits."""

    def snapshot(self, epoch: int, epochs: int) -> Snapshot:
        """What is in force in `epoch` (from 0) of a training run of `epochs` epochs, smoothed as at replay."""

    def __len__(self) -> int: ...
    def __eq__(self, other: object) -> bool:
        """Whether both files would hold the same."""
    def __hash__(self) -> int: ...

@final
class Snapshot:
    """Probabilities at the end of one search epoch, or in one training epoch."""

    def __new__(cls, index: int, total_probability: float, operation_probabilities: list[float]) -> Snapshot: ...
    def __eq__(self, other: object) -> bool: ...
    def __hash__(self) -> int: ...

    @property
    def index(self) -> int:
        """Number of the snapshot in the policy."""

    @property
    def total_probability(self) -> float:
        """Chance that a sample is augmented at all, 0 to 1.

        Smoothed as at replay from `Policy.snapshot`, raw in `Policy.snapshots`.
        """

    @property
    def operation_probabilities(self) -> list[float]:
        """Chance of each operation per draw, given that the sample is augmented; sums to one."""

def search_space(name: str) -> dict[str, Any]:
    """A named search space: `name`, `draws_per_sample` and `operations` as in a policy file."""

@final
class Operation:
    """One operation with resolved arguments."""

    def __new__(cls, kind: str, arguments: dict[str, Any]) -> Operation: ...
    def apply(self, pixels: ReadableBuffer, width: int, height: int, center: Iterable[float] | None) -> bytearray: ...

@final
class Augmenter:
    """A policy replayed on packed pixels."""

    def __new__(cls, policy: Policy, epochs: int, seed: int) -> Augmenter: ...
    @property
    def epochs(self) -> int: ...
    @property
    def seed(self) -> int: ...
    def apply(self, pixels: ReadableBuffer, width: int, height: int, epoch: int, index: int) -> bytearray: ...
    def drawn(self, epoch: int, index: int) -> list[dict[str, Any]]: ...

@final
class Consumer:
    """A connection to a running daemon."""

    def __new__(cls, name: str, rank: int, wait: float, start: str = "current") -> Consumer: ...
    @property
    def info(self) -> str: ...
    def receive(self, timeout: float | None) -> Lease | None: ...
    def memory(self) -> Memory: ...
    def close(self) -> None: ...

def world_size(name: str, wait: float) -> int:
    """Number of ranks of a running daemon's stream."""

@final
class Lease:
    """A batch whose slot this process holds until the object is dropped or released."""

    @property
    def epoch(self) -> int: ...
    @property
    def step(self) -> int: ...
    @property
    def samples(self) -> int: ...
    @property
    def snapshot(self) -> int | None: ...
    def images(self) -> Array: ...
    def labels(self) -> Array: ...
    def indices(self) -> Array: ...
    def mixed_labels(self) -> Array | None: ...
    def weights(self) -> Array | None: ...
    def copy_into(
        self,
        images: WriteableBuffer | NDArray[numpy.uint8],
        labels: WriteableBuffer | NDArray[numpy.uint8],
        mixed_labels: WriteableBuffer | NDArray[numpy.uint8] | None = None,
        weights: WriteableBuffer | NDArray[numpy.uint8] | None = None,
    ) -> None: ...
    @property
    def exports(self) -> int:
        """Buffers and capsules made from the batch and not yet given up."""

    def validate(self) -> None: ...
    def release(self) -> None: ...

@final
class Memory:
    """Where the batches of a stream lie, mapped for as long as the object lives."""

    @property
    def regions(self) -> list[tuple[int, int]]:
        """Address and bytes of each mapping."""

    @property
    def writable(self) -> bool:
        """Whether the pages may be written to."""

@final
class Array:
    """One of a batch's arrays, for the buffer protocol and DLPack; nothing is copied.

    It holds the batch's slot until it and everything made from it are gone.
    """

    @property
    def shape(self) -> list[int]:
        """Lengths of the axes."""

    @property
    def dtype(self) -> str:
        """"u8", "f32", "f16", "bf16", "i64" or "u64"."""

    @property
    def nbytes(self) -> int: ...
    @property
    def readonly(self) -> bool:
        """Whether the memory must not be written to: it is a daemon's."""

    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __dlpack_device__(self) -> tuple[int, int]:
        """(1, 0): the CPU."""

    def __dlpack__(
        self,
        *,
        stream: None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A DLPack capsule over the same memory, or over a copy with `copy=True`.

        Raises `BufferError` for read-only memory if the consumer does not speak version 1.0, which can mark it so.
        """

@final
class Embedded:
    """A dataset's batches, made by threads of this process."""

    def __new__(
        cls,
        dataset: str | PathLike[str],
        *,
        recipe: str,
        policy: str | PathLike[str] | Policy | None,
        epochs: int,
        batch_size: int,
        seed: int,
        threads: int | None,
        slots: int | None,
        dtype: str,
        layout: str,
        rank: int,
        world_size: int,
        start: tuple[int, int],
        last: str,
        samples: dict[str, Any],
    ) -> Embedded: ...
    @property
    def info(self) -> str: ...
    def receive(self, timeout: float | None) -> Lease | None: ...
    def seek(self, epoch: int, step: int) -> None: ...
    def position(self) -> tuple[int, int]: ...
    def memory(self) -> Memory: ...
    def progress(self) -> str | None: ...
    def reports(self) -> list[str]: ...
    def close(self) -> None: ...

def placement(
    rank: int | None, world_size: int | None, served: int | None, environment: bool
) -> tuple[int, int, str]:
    """Rank, world size, and where both come from."""
