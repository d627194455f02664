"""The exceptions of the package. Everything it raises on its own account is a `ddas.Error`.

Wrong arguments (a misspelt operation, an array of the wrong shape) raise the
built-in `ValueError` and `TypeError` instead.
"""


class Error(Exception):
    """Base of every exception this package raises on its own account."""


class PolicyError(Error, ValueError):
    """A policy or search space that cannot be read, written or accepted. Names the field and the rule."""


class DatasetError(Error, ValueError):
    """A dataset that cannot be opened: not packed, damaged, or of another version. Names the file and what is wrong."""


class LoaderFailed(Error):
    """An embedded loader stopped because of a sample or a thread; the text says which and why."""


class RankError(Error, ValueError):
    """Rank or world size is unknown, impossible, or contradicted by another source; names the sources."""


class NoSuchDaemon(Error):
    """No daemon serves under this name. Lists where it was looked for and which names are served."""


class Refused(Error):
    """The daemon answered but would not take this consumer (wrong rank, too many consumers, ...)."""


class VersionMismatch(Error):
    """The daemon speaks another version of the shared-memory protocol than this package."""


class DaemonDied(Error):
    """The daemon's process has ended without finishing its stream."""


class DaemonFailed(Error):
    """The daemon stopped the stream and said why (an unreadable sample, a full disk, ...)."""


class Evicted(Error):
    """This consumer held a batch for longer than the daemon's `--evict-after`; its data is no longer valid."""


class TimedOut(Error, TimeoutError):
    """Nothing arrived within the time-out."""


class HoldsAllSlots(Error):
    """Every slot is held by batches or arrays of this process, so none can be filled.

    Copy what must be kept (`batch.images.copy()`), drop or `release()` the batch,
    or serve with more `--slots` (give `Loader` more `slots`).
    """


class StreamClosed(Error):
    """The stream or loader was closed, by `close()` or by the end of its `with` block."""


class StreamFinished(Error):
    """There is no further batch: the last epoch is over, or the daemon was stopped before it."""


class StateError(Error, ValueError):
    """A saved state is no state, or belongs to another stream; names the field that differs."""


class EpochMismatch(Error, ValueError):
    """`set_epoch` asked for another epoch than the one the daemon delivers next."""


class ForkedProcess(Error):
    """A stream or loader was used in a fork of the process that made it. Make another one in the child."""


for _error in list(globals().values()):
    if isinstance(_error, type) and issubclass(_error, Error):
        _error.__module__ = "ddas"
del _error
