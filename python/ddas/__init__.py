"""Augmentation policies that change over training, and batches from a running daemon.

    import ddas

    with ddas.connect("train") as stream:            # `ddas-loader serve ... --name train`
        for batch in stream:
            batch.images, batch.labels               # NumPy arrays in shared memory, read-only

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
from ddas._ddas import Policy, Snapshot, __version__, search_space
from ddas._errors import (
    DaemonDied,
    DaemonFailed,
    EpochMismatch,
    Error,
    Evicted,
    ForkedProcess,
    HoldsAllSlots,
    NoSuchDaemon,
    PolicyError,
    Refused,
    StreamClosed,
    StreamFinished,
    TimedOut,
    VersionMismatch,
)
from ddas._stream import Batch, Normalization, Position, Stream, StreamInfo, connect

__all__ = [
    "Augment",
    "Batch",
    "DaemonDied",
    "DaemonFailed",
    "EpochMismatch",
    "Error",
    "Evicted",
    "ForkedProcess",
    "HoldsAllSlots",
    "NoSuchDaemon",
    "Normalization",
    "Policy",
    "PolicyError",
    "Position",
    "Refused",
    "Snapshot",
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
