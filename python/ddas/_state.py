"""Saved states: a place in a run, and which run it is a place in."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, Mapping

from ddas._errors import StateError

if TYPE_CHECKING:
    from ddas._stream import StreamInfo

FORMAT = "ddas-state"
VERSION = 1

# What must be the same for a place in one stream to be the same place in another: fields of StreamInfo.
IDENTITY = ("dataset_hash", "samples", "recipe_digest", "policy_digest", "seed", "epochs", "global_batch_size", "last")


def state_of(info: StreamInfo, epoch: int, step: int) -> dict[str, Any]:
    """The state of a run whose next batch is `step` of `epoch`."""
    place = {"format": FORMAT, "version": VERSION, "epoch": epoch, "step": step}
    return {**place, **{key: getattr(info, key) for key in IDENTITY}}


def place_in(info: StreamInfo, state: Mapping[str, Any]) -> tuple[int, int]:
    """Epoch and step that `state` names, if it is a state of this stream.

    Behind the last batch of an epoch stands the first of the next, the last epoch included. Raises `StateError`.
    """
    if not isinstance(state, Mapping):
        raise StateError(f"the state is {state!r}; expected what state_dict() returned")
    if state.get("format", FORMAT) != FORMAT or state.get("version", VERSION) != VERSION:
        raise StateError(
            f"the state has format {state.get('format')!r} and version {state.get('version')!r}, "
            f"this package reads {FORMAT!r} version {VERSION}"
        )
    for key in IDENTITY:
        if key not in state:
            raise StateError(f"the state has no `{key}`; expected what state_dict() returned")
        if state[key] != getattr(info, key):
            raise StateError(
                f"the state belongs to another stream: its `{key}` is {state[key]!r}, this one's is {getattr(info, key)!r}"
            )
    try:
        epoch, step = (operator.index(state[key]) for key in ("epoch", "step"))
    except (KeyError, TypeError) as error:
        raise StateError(f"the state's `epoch` and `step` must be whole numbers: {error}") from error
    within = 0 <= epoch < info.epochs and 0 <= step < info.steps_per_epoch
    if not within and (epoch, step) != (info.epochs, 0):
        raise StateError(
            f"the state names step {step} of epoch {epoch}; the stream has {info.epochs} epochs "
            f"of {info.steps_per_epoch} steps"
        )
    return epoch, step
