"""Augmentation policies that change over training, and batches from a running daemon or from this process.

    import ddas

    with ddas.connect("train") as stream:            # `ddas-loader serve ... --name train`
        for batch in stream:
            batch.images, batch.labels               # NumPy arrays in shared memory, read-only

    with ddas.Loader("cifar10.lmdb", recipe="cifar", epochs=200, batch_size=128) as loader:
        for batch in loader: ...                     # the same batches, made in this process

    policy = ddas.Policy.load("policy.json")
    policy.snapshot(epoch=10, epochs=200).total_probability

    augment = ddas.Augment(policy, epochs=200, seed=0)
    augment.set_epoch(10)
    augment(image, index=3)                          # PIL image, NumPy HWC uint8 or torch CHW uint8

    ddas.apply(image, "Rotate", degrees=15.0)        # one operation, as Pillow computes it

PyTorch's loader is `ddas.torch.DataLoader`. Neither torch, Pillow nor NumPy is
imported before it is needed.
"""

from ddas._augment import Augment, apply
from ddas._ddas import Array, Policy, Snapshot, __version__, search_space
from ddas._errors import (
    DaemonDied,
    DaemonFailed,
    DatasetError,
    EpochMismatch,
    Error,
    Evicted,
    ForkedProcess,
    HoldsAllSlots,
    LoaderFailed,
    NoSuchDaemon,
    PolicyError,
    RankError,
    Refused,
    StateError,
    StreamClosed,
    StreamFinished,
    TimedOut,
    VersionMismatch,
)
from ddas._loader import Loader
from ddas._stream import Batch, Batches, Normalization, Position, Stream, StreamInfo, connect

__all__ = [
    "Array",
    "Augment",
    "Batch",
    "Batches",
    "DaemonDied",
    "DaemonFailed",
    "DatasetError",
    "EpochMismatch",
    "Error",
    "Evicted",
    "ForkedProcess",
    "HoldsAllSlots",
    "Loader",
    "LoaderFailed",
    "NoSuchDaemon",
    "Normalization",
    "Policy",
    "PolicyError",
    "Position",
    "RankError",
    "Refused",
    "Snapshot",
    "StateError",
    "Stream",
    "StreamClosed",
    "StreamFinished",
    "StreamInfo",
    "TimedOut",
    "VersionMismatch",
    "__version__",
    "apply",
    "connect",
    "search_space",
]
