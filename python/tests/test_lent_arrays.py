"""Arrays that are lent: who may write to them, how long they hold their slot, and how other libraries take them."""

from __future__ import annotations

import gc
import time

import numpy as np
import pytest
import torch

import ddas
from conftest import Dataset, Serve, make_loader


def test_arrays_hold_the_slot_and_may_be_written(dataset: Dataset) -> None:
    loader = make_loader(dataset, dtype="f32", slots=2, epochs=3)
    batch = next(loader)
    view = batch.images[2:4, 0]
    batch.images[:] = 7.0
    batch.labels[0] = -1
    assert (view == 7.0).all() and batch.labels[0] == -1, "one memory, the trainer's own"
    del batch
    for _ in range(6):
        other = next(loader)
        assert (other.images != 7.0).any()
        del other
    assert (view == 7.0).all()
    second = next(loader)
    begin = time.monotonic()
    with pytest.raises(ddas.HoldsAllSlots, match="you hold 2 of 2 slots"):
        next(loader)
    assert time.monotonic() - begin < 5
    step = second.step
    del view, second
    gc.collect()
    assert next(loader).step == step + 1, "no batch is lost"


@pytest.mark.parametrize("dtype", ["u8", "f32", "f16", "bf16"])
def test_dlpack_and_buffers_show_the_slot(dataset: Dataset, dtype: str) -> None:
    loader = make_loader(dataset, dtype=dtype, slots=2)
    batch = next(loader)
    address = batch.images.ctypes.data
    array = batch.array("images")
    assert (array.shape, array.dtype, array.readonly, len(array)) == ([8, 3, 32, 32], dtype, False, 8)
    tensor = torch.from_dlpack(array)
    assert tensor.data_ptr() == address and tensor.shape == (8, 3, 32, 32)
    assert tensor.dtype == {"u8": torch.uint8, "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[dtype]
    assert bytes(tensor.contiguous().view(-1).view(torch.uint8).numpy()) == batch.images.tobytes()
    view = memoryview(array)
    assert view.shape == (8, 3, 32, 32) and view.format == {"u8": "B", "f32": "f", "f16": "e", "bf16": "H"}[dtype]
    assert np.asarray(array).ctypes.data == address
    if dtype != "bf16":
        assert np.from_dlpack(array).ctypes.data == address
    labels = np.from_dlpack(batch.array("labels"))
    assert labels.dtype == np.int64 and np.array_equal(labels, batch.labels)
    assert np.array_equal(np.asarray(batch.array("indices")), batch.indices)
    copied = torch.from_dlpack(batch.array("images"), copy=True) if dtype == "u8" else None
    del view, batch, labels
    others = [next(loader)]
    with pytest.raises(ddas.HoldsAllSlots):
        next(loader)
    del array
    with pytest.raises(ddas.HoldsAllSlots):
        next(loader)  # the tensor alone still holds it
    tensor.zero_()
    del tensor
    gc.collect()
    others.append(next(loader))
    if copied is not None:
        assert copied.data_ptr() != address and copied.any(), "a copy of its own"


def test_a_capsule_that_nobody_takes_is_freed(dataset: Dataset) -> None:
    loader = make_loader(dataset, slots=2)
    batch = next(loader)
    capsules = [batch.array("images").__dlpack__(max_version=version) for version in (None, (0, 8), (1, 0), (1, 1))]
    assert ["versioned" in repr(capsule) for capsule in capsules] == [False, False, True, True]
    with pytest.raises(BufferError, match="4 arrays"):
        batch.release()
    capsules.append(batch.array("labels").__dlpack__(copy=True))
    del capsules[:4]
    batch.release()
    for wrong in ({"stream": 1}, {"dl_device": (2, 0)}):
        with pytest.raises(BufferError):
            next(loader).array("images").__dlpack__(**wrong)
    with pytest.raises(ValueError, match="weights"):
        next(loader).array("weights")  # type: ignore[arg-type]


def test_a_daemons_memory_is_lent_read_only(serve: Serve, dataset: Dataset) -> None:
    serve(dataset, dtype="f32")
    with ddas.connect("train") as stream:
        batch = next(stream)
        array = batch.array("images")
        assert array.readonly and array.__dlpack_device__() == (1, 0)
        lent = np.from_dlpack(array)
        assert not lent.flags.writeable and lent.ctypes.data == batch.images.ctypes.data
        with pytest.raises(BufferError, match="read-only.*copy=True"):
            array.__dlpack__()
        assert memoryview(array).readonly
        tensor = torch.from_dlpack(array)  # torch knows no read-only tensors
        assert tensor.data_ptr() == batch.images.ctypes.data
        own = np.from_dlpack(array, copy=True)
        own[:] = 0
        assert (batch.images != 0).any()
