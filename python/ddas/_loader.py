"""Batches made in this process: threads, no daemon, no shared memory."""

from __future__ import annotations

import json
import operator
import os
from typing import Any, Iterable, Mapping, NoReturn

from ddas import _ddas
from ddas._state import place_in
from ddas._stream import Batch, Batches, Position, check_timeout, check_whole, logger, placement


class Loader(Batches):
    """Augmented batches of a packed dataset, made by threads of this process.

        loader = ddas.Loader("cifar10.lmdb", recipe="cifar", policy="policy.json", epochs=200, batch_size=128)
        for batch in loader:                     # epoch after epoch
            batch.images, batch.labels

    The batches are those of `ddas-loader serve` with the same settings, byte for byte, for any number of threads,
    slots and ranks.

    - `recipe`: what is done to every sample, as `serve --recipe`: a name, or a file that ends in `.toml`.
    - `policy`: a path, a `ddas.Policy`, or None for the recipe's own augmentation alone.
    - `epochs`: of the whole training run; a policy's snapshots are spread over them.
    - `batch_size`: samples of a global batch. Each of `world_size` ranks gets its part; `world_size` must divide it.
    - `seed`: of order and augmentation.
    - `threads`: workers, every core by default. `slots`: batches there is room for, 4 by default (fewer if memory
      is short): the workers stay that far ahead, and wait when the trainer holds them back.
    - `dtype`: "u8" (not normalised), "f32", "f16" or "bf16"; `layout`: "nchw" or "nhwc".
    - `rank`, `world_size`: left out, they are what the launcher says (torchrun, Slurm, Open MPI, Kubernetes), else 0
      and 1; the logger `ddas` tells which. `RankError` when two of these sources disagree. `environment=False` asks
      no launcher: for a validation loader that every rank runs in full, say.
    - `start`: epoch and step to begin with.
    - `last`: "pad" for a short last batch in every epoch, "drop" to leave its samples out.
    - `timeout`: longest wait for a batch in seconds; None waits for as long as it takes.
    - `mix`: further datasets of the same classes and their weights, [("more.lmdb", 0.5)]: one of its samples for two
      of `dataset`. `sampling`: "uniform", or "class-balanced" for each class as often as any other. `split`: "train" or
      "validation", told apart by a hash of the sample's number, with `validation_fraction` and `split_seed`.
      `epoch_samples`: samples of an epoch, as many as there are by default.
    - `on_bad`: "fail", or "substitute" to put another sample of the epoch in the place of one that cannot be read:
      at most `max_bad` different ones ("12" or "0.1%", the default), each noted in the file `bad_log`.

    Threads start with the first batch. Waiting releases the GIL and can be interrupted by Ctrl-C. `close()`, a `with`
    block or the end of the object's life ends them within the time of a few samples.

    A `Loader` belongs to the process that made it: in a fork every use raises `ForkedProcess`, and the parent goes
    on undisturbed. Processes that are spawned make their own.

    Raises `DatasetError`, `PolicyError` or `OSError` for what cannot be opened, `ValueError` for what does not fit,
    `MemoryError` when the slots would not fit into memory. A sample that cannot be read ends the stream with
    `LoaderFailed`.
    """

    def __init__(
        self,
        dataset: str | os.PathLike[str],
        *,
        recipe: str | os.PathLike[str],
        policy: str | os.PathLike[str] | _ddas.Policy | None = None,
        epochs: int,
        batch_size: int,
        seed: int = 0,
        threads: int | None = None,
        slots: int | None = None,
        dtype: str = "f32",
        layout: str = "nchw",
        rank: int | None = None,
        world_size: int | None = None,
        start: tuple[int, int] = (0, 0),
        last: str = "pad",
        timeout: float | None = None,
        environment: bool = True,
        mix: Iterable[tuple[str | os.PathLike[str], float]] = (),
        sampling: str = "uniform",
        split: str | None = None,
        validation_fraction: float = 0.1,
        split_seed: int = 0,
        epoch_samples: int | None = None,
        on_bad: str = "fail",
        max_bad: str | int | None = None,
        bad_log: str | os.PathLike[str] | None = "bad_samples.jsonl",
    ) -> None:
        check_timeout(timeout)
        epoch, step = _place(start)
        rank, world_size = placement(rank, world_size, environment)
        engine = _ddas.Embedded(
            dataset,
            recipe=os.fspath(recipe),
            policy=policy,
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            threads=threads,
            slots=slots,
            dtype=dtype,
            layout=layout,
            rank=rank,
            world_size=world_size,
            start=(epoch, step),
            last=last,
            samples={
                "mix": _mixture(mix),
                "sampling": sampling,
                "split": split,
                "validation_fraction": validation_fraction,
                "split_seed": check_whole("split_seed", split_seed, 2**64 - 1),
                "epoch_samples": check_whole("epoch_samples", epoch_samples, 2**64 - 1),
                "on_bad": on_bad,
                "max_bad": None if max_bad is None else str(max_bad),
                "bad_log": bad_log,
            },
        )
        self._engine = engine
        super().__init__(engine, timeout)

    def receive(self, timeout: float | None = None) -> Batch | None:
        """Waits for the next batch; None after the last batch of the last epoch.

        `timeout` in seconds replaces the loader's own. After `TimedOut` the same
        batch can be asked for again.
        """
        batch = self._receive(timeout)
        for line in self._engine.reports():
            logger.info(line)
        return batch

    def seek(self, epoch: int, step: int = 0) -> None:
        """Makes `step` of `epoch` the next batch, whatever came before; batches already received stay valid.

        Step 0 of epoch `epochs` is the end of the run.
        """
        self._engine.seek(*_place((epoch, step)))
        self._next = Position(*self._engine.position())

    def set_epoch(self, epoch: int) -> None:
        """Makes sure that the next batch is one of `epoch`.

        Nothing happens if it is already, also in the middle of that epoch (after `load_state_dict`, say); else the
        loader goes to the beginning of `epoch`. `seek(epoch)` goes there in any case.
        """
        epoch = operator.index(epoch)
        if epoch != self._next.epoch:
            self.seek(epoch)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on with the batch that `state` names, at once and from any place; see `state_dict`.

        The world size may differ from the one the state was taken with. Raises `StateError` naming the field in
        which the state's run differs from this one.
        """
        epoch, step = place_in(self.info, state)
        self.seek(epoch, step)

    def progress(self) -> dict[str, Any]:
        """How far the workers are and what they spent their time on: the fields of `daemon` in `ddas-loader status --json`.

        They cover this rank alone, and begin anew where the loader is sent to another place.
        """
        text = self._engine.progress()
        progress: dict[str, Any] = {} if text is None else json.loads(text)
        return progress

    def __reduce__(self) -> NoReturn:
        raise TypeError("a ddas.Loader cannot be sent to another process: make one there, with the same arguments")


def _place(place: tuple[int, int]) -> tuple[int, int]:
    """Epoch and step, whole numbers from 0 up."""
    try:
        epoch, step = place
    except (TypeError, ValueError) as error:
        raise TypeError(f"`start` must be an epoch and a step, such as (3, 120), got {place!r}") from error
    # Both were given: neither is None.
    return check_whole("epoch", epoch) or 0, check_whole("step", step, 2**64 - 1) or 0


def _mixture(mix: Iterable[tuple[str | os.PathLike[str], float]]) -> list[tuple[str, float]]:
    """The pairs of `mix`."""
    pairs = []
    for pair in mix:
        try:
            path, weight = pair
            pairs.append((os.fspath(path), float(weight)))
        except (TypeError, ValueError) as error:
            raise TypeError(
                f'`mix` must be pairs of a path and a weight, such as [("more.lmdb", 0.5)], got {pair!r}'
            ) from error
    return pairs
