"""Page-locks the memory that batches lie in, so that a GPU copies out of it while everything else goes on.

Each mapping is registered with CUDA once. A copy to the device then reads the slot itself, and is still under way when
the call that began it returns: a slot must not be filled again before its copy is through, whoever has let go of it
by then. So a batch stays here, after it was delivered, until

1. every array made from it is gone, or the loader itself has moved it to the device; then CUDA events are recorded
   behind everything that was begun before;
2. these events have passed.

Whether they have is looked at whenever the next batch is wanted. No slot is lost in between: when all would be in
flight, the oldest is waited for.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import weakref
from dataclasses import dataclass
from typing import Any, Callable, ContextManager, Protocol

import torch

from ddas import _ddas
from ddas._stream import Batch, Batches

logger = logging.getLogger("ddas")

# cudaHostRegisterPortable: page-locked for every device. cudaHostRegisterReadOnly: for pages mapped without writing.
_PORTABLE, _READ_ONLY = 1, 8
# cudaErrorHostMemoryAlreadyRegistered, cudaErrorNotSupported.
_ALREADY, _NOT_SUPPORTED = 712, 801


class Event(Protocol):
    """What is used of a `torch.cuda.Event`."""

    def query(self) -> bool: ...
    def synchronize(self) -> None: ...


class Cuda:
    """The few calls that are made of CUDA; a test puts something else here."""

    def on(self, device: torch.device | None) -> ContextManager[Any]:
        """Makes `device` the current one: the calls below would begin to use device 0 otherwise, whichever is meant."""
        return contextlib.nullcontext() if device is None else torch.cuda.device(device)

    def register(self, address: int, length: int, flags: int) -> int:
        """cudaHostRegister; its error code, 0 for success."""
        return int(self._runtime().cudaHostRegister(address, length, flags))

    def unregister(self, address: int) -> int:
        """cudaHostUnregister; its error code."""
        return int(self._runtime().cudaHostUnregister(address))

    def explain(self, code: int) -> str:
        """CUDA's words for an error code."""
        runtime = self._runtime()
        try:
            return f"{runtime.cudaGetErrorString(runtime.cudaError(code))} (CUDA error {code})"
        except Exception:  # no words for it
            return f"CUDA error {code}"

    def forget_error(self) -> None:
        """Takes the error of a refused call off the thread: the next kernel that is started would be blamed for it."""
        try:
            torch.empty(1, device="cuda").fill_(0.0)
        except RuntimeError:
            pass

    def to(self, tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        """Begins a copy to the device, on its current stream."""
        return tensor.to(device, non_blocking=True)

    def mark(self, device: torch.device | None) -> list[Event]:
        """Events behind what was begun on the current and the default stream of `device`, or of every device in use."""
        if device is None:
            devices = [index for index in range(torch.cuda.device_count()) if _in_use(index)]
        else:
            devices = [torch.cuda.current_device() if device.index is None else device.index]
        events: list[Event] = []
        for index in devices:
            for stream in {torch.cuda.current_stream(index), torch.cuda.default_stream(index)}:
                event = torch.cuda.Event()
                with torch.cuda.device(index):
                    event.record(stream)
                events.append(event)
        return events

    def synchronize(self) -> None:
        """Waits for everything on every device in use."""
        for index in range(torch.cuda.device_count()):
            if _in_use(index):
                torch.cuda.synchronize(index)

    def _runtime(self) -> Any:
        return torch.cuda.cudart()


def _in_use(index: int) -> bool:
    """Whether this process has done anything on a device; asking the device itself would begin to."""
    try:
        return bool(torch._C._cuda_hasPrimaryContext(index))
    except AttributeError:
        return True


class Refused(Exception):
    """CUDA does not page-lock the memory; the text says why."""


class _Registry:
    """The mappings that this process has registered, each once, however many loaders use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Users and whether it was registered here, by address.
        self._users: dict[int, tuple[int, bool]] = {}

    def add(self, cuda: Cuda, address: int, length: int, flags: int) -> None:
        with self._lock:
            users, ours = self._users.get(address, (0, True))
            if users == 0:
                code = cuda.register(address, length, flags)
                if code:
                    cuda.forget_error()
                if code and code != _ALREADY:
                    raise Refused(_why(cuda, code, length, flags))
                # Somebody else's registration serves as well, and is theirs to end.
                ours = code == 0
            self._users[address] = (users + 1, ours)

    def remove(self, cuda: Cuda, address: int) -> None:
        with self._lock:
            users, ours = self._users.pop(address)
            if users > 1:
                self._users[address] = (users - 1, ours)
            elif ours and cuda.unregister(address):
                cuda.forget_error()


def _why(cuda: Cuda, code: int, length: int, flags: int) -> str:
    why = f"registering {length} bytes: {cuda.explain(code)}"
    if code == _NOT_SUPPORTED and flags & _READ_ONLY:
        why += (
            "; this device or driver registers no read-only memory, which a daemon's ring is (the memory of a "
            "ddas.Loader is writable)"
        )
    return why


_registry = _Registry()


@dataclass
class _Flight:
    """A batch that may be read by a copy that is under way."""

    batch: Batch
    # A view of our own, so that the slot does not go back when the stream is closed over our head.
    hold: memoryview
    # None until all other arrays made from it are gone.
    events: list[Event] | None = None

    @classmethod
    def of(cls, batch: Batch) -> _Flight:
        return cls(batch, memoryview(batch.array("images")))

    @property
    def in_use(self) -> bool:
        """Whether anybody else has an array of it."""
        return self.batch._lease.exports > 1

    def land(self) -> None:
        """Gives the slot back."""
        self.hold.release()
        self.batch.release()


class Pinned:
    """The registered memory of a stream or loader, and the batches of it that a device may still be reading.

    Raises `Refused` if CUDA will not have the memory.
    """

    def __init__(self, source: Batches, cuda: Cuda, device: torch.device | None) -> None:
        self._cuda = cuda
        self._device = device
        self._slots = source.info.slots
        self._flights: list[_Flight] = []
        self._owner = os.getpid()
        self._registered: list[int] = []
        # Keeps it mapped until it is unregistered.
        self._memory: _ddas.Memory | None = source._source.memory()
        flags = _PORTABLE if self._memory.writable else _PORTABLE | _READ_ONLY
        try:
            with cuda.on(device):
                for address, length in self._memory.regions:
                    _registry.add(cuda, address, length, flags)
                    self._registered.append(address)
        except Exception:
            self._unregister()
            raise

    def close_with(self, owner: object) -> Callable[[], object]:
        """Closes this when `owner` is gone or the interpreter ends; the call returned does so now, once."""
        return weakref.finalize(owner, self.close)

    def to_device(self, tensors: list[torch.Tensor], batch: Batch, device: torch.device) -> list[torch.Tensor]:
        """Begins copies of `batch`'s arrays, and keeps its slot until they are through."""
        flight = _Flight.of(batch)
        # Before the first copy begins: an exception in the middle must not let the slot go.
        self._flights.append(flight)
        moved = [self._cuda.to(tensor, device) for tensor in tensors]
        flight.events = self._cuda.mark(device)
        return moved

    def lend(self, batch: Batch) -> None:
        """Keeps the slot of a batch whose arrays go to the trainer."""
        self._flights.append(_Flight.of(batch))

    def make_room(self) -> None:
        """Gives back what can be; if no slot is left to fill, waits for the oldest copy."""
        if os.getpid() != self._owner:
            return
        self._land()
        while len(self._flights) >= self._slots:
            oldest = next((flight.events for flight in self._flights if flight.events is not None), None)
            if oldest is None:
                return  # the trainer has them all: whoever asks for more is told so
            for event in oldest:
                event.synchronize()
            self._land()

    def settle(self) -> None:
        """Waits for the copies under way and gives their slots back; batches in the trainer's hands stay."""
        if os.getpid() != self._owner:
            return
        self._land()
        for flight in self._flights:
            for event in flight.events or ():
                event.synchronize()
        self._land()

    def _land(self) -> None:
        """Gives back the slots of copies that are through."""
        flights, self._flights = self._flights, []
        landed: list[_Flight] = []
        for flight in flights:
            if flight.events is None and not flight.in_use:
                flight.events = self._cuda.mark(self._device)
            through = flight.events is not None and all(event.query() for event in flight.events)
            (landed if through and not flight.in_use else self._flights).append(flight)
        try:
            for flight in landed:
                # Where the daemon evicts: this batch may have been torn while it was copied.
                flight.batch.validate()
        finally:
            for flight in landed:
                flight.land()

    def close(self) -> None:
        """Waits for the devices, gives everything back, and unregisters the memory."""
        if os.getpid() != self._owner:
            return  # a fork has neither the device nor the registration
        try:
            # Copies that the trainer began are waited for, too: nothing is known about them.
            if self._registered:
                self._cuda.synchronize()
        except Exception as error:  # a device in ruins must not keep the program from ending
            logger.warning("waiting for the GPU before its page-locked memory is given back: %s", error)
        while self._flights:
            flight = self._flights.pop()
            flight.hold.release()
            if not flight.in_use:
                flight.batch.release()
        self._unregister()

    def _unregister(self) -> None:
        while self._registered:
            try:
                with self._cuda.on(self._device):
                    _registry.remove(self._cuda, self._registered.pop())
            except Exception as error:
                logger.warning("giving back page-locked memory: %s", error)
        self._memory = None


def pin(source: Batches, device: torch.device | None, copying: bool) -> Pinned | None:
    """Registers the memory of `source`; None, and one warning, if that is not possible.

    `copying`: what the warning says comes instead.
    """
    try:
        return Pinned(source, Cuda(), device)
    except Exception as error:  # whatever it is, batches can be had without
        logger.warning(
            "the memory of %s's batches cannot be page-locked where it is, so %s: %s",
            source.info.dataset,
            "batches are copied into page-locked memory (slower, otherwise the same)" if copying else "tensors are not pinned",
            error,
        )
        return None
