"""`ddas.connect` with running daemons: what arrives, who holds what, and every way it can end."""

from __future__ import annotations

import gc
import itertools
import json
import os
import shutil
import signal
import struct
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import xxhash

import ddas
from conftest import Dataset, Serve, python, run


def crops(image: np.ndarray) -> np.ndarray:
    """Everything pad-crop by 4 and a flip can make of a 32x32 image: (2 * 81, 32, 32, 3)."""
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (32, 32, 3)).reshape(81, 32, 32, 3)
    return np.concatenate([windows, windows[:, :, ::-1]])


def is_crop_with_cutout(served: np.ndarray, original: np.ndarray) -> bool:
    """Whether `served` is a crop of `original` but for one constant square of at most 16x16."""
    for crop in crops(original):
        rows, columns = np.nonzero((crop != served).any(-1))
        if len(rows) == 0:
            return True
        top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
        hole = served[top:bottom, left:right]
        if bottom - top <= 16 and right - left <= 16 and (hole == hole[0, 0]).all():
            return True
    return False


def test_every_sample_once_an_epoch_with_its_pixels_and_label(serve: Serve, dataset: Dataset) -> None:
    serve(dataset, epochs=3, batch_size=8, dtype="u8", layout="nhwc")
    orders = []
    with ddas.connect("train") as stream:
        assert (stream.info.samples, stream.info.classes, stream.info.epochs) == (43, 3, 3)
        assert (stream.info.batch_size, stream.info.steps_per_epoch, stream.info.world_size) == (8, 6, 1)
        assert stream.info.shape == (32, 32, 3) and stream.info.dtype == "u8" and stream.info.layout == "nhwc"
        assert len(stream) == 18
        positions, order = [], []
        for batch in stream:
            positions.append((batch.epoch, batch.step))
            samples = 3 if batch.is_last_of_epoch else 8
            assert len(batch) == samples and batch.snapshot is None
            assert batch.images.shape == (samples, 32, 32, 3) and batch.images.dtype == np.uint8
            assert batch.labels.dtype == np.int64 and batch.labels.shape == (samples,)
            for image, label, index in zip(batch.images, batch.labels, batch.indices):
                assert label == dataset.labels[index]
                assert is_crop_with_cutout(image, dataset.pixels[index])
            order += batch.indices.tolist()
            if batch.is_last_of_epoch:
                assert sorted(order) == list(range(43))
                orders.append(order)
                order = []
    assert positions == [(epoch, step) for epoch in range(3) for step in range(6)]
    assert len({tuple(order) for order in orders}) == 3, "every epoch has its own order"


def test_the_imagenet_recipe(serve: Serve, photos: Dataset) -> None:
    serve(photos, recipe="imagenet", epochs=2, batch_size=4, dtype="u8", layout="nhwc")
    with ddas.connect("train") as stream:
        assert stream.info.shape == (224, 224, 3) and stream.info.recipe == "imagenet"
        indices = []
        for batch in stream:
            assert batch.images.shape == (len(batch), 224, 224, 3)
            assert np.array_equal(batch.labels, photos.labels[batch.indices])
            # Classes differ in brightness, whatever part of an image was cut out.
            assert np.array_equal(batch.images.mean((1, 2, 3)) > 127, batch.labels == 1)
            indices += batch.indices.tolist()
    assert sorted(indices[:13]) == sorted(indices[13:]) == list(range(13))


def test_a_policy_gives_the_images_of_augment(serve: Serve, dataset: Dataset, tmp_path: Path) -> None:
    space = ddas.search_space("paper68")
    share = 1 / len(space["operations"])
    snapshots = [
        f'{{"total_probability": {total}, "operation_probabilities": {[share] * 68}}}' for total in (0.5, 1.0)
    ]
    policy = ddas.Policy.from_json(
        f'{{"format": "ddas-policy", "version": 1, "search_space": {json.dumps(space)}, "snapshots": [{",".join(snapshots)}]}}'
    )
    policy.save(tmp_path / "policy.json")
    serve(dataset, epochs=2, batch_size=8, dtype="u8", layout="nhwc", seed=11, policy=tmp_path / "policy.json")
    augment = ddas.Augment(policy, epochs=2, seed=11)
    with ddas.connect("train") as stream:
        assert stream.info.policy_digest == policy.digest
        for batch in stream:
            assert batch.snapshot == batch.epoch
            augment.set_epoch(batch.epoch)
            for image, index in zip(batch.images, batch.indices):
                augmented = augment(dataset.pixels[index], index=int(index))
                assert is_crop_with_cutout(image, augmented), f"sample {index} of epoch {batch.epoch}"


def test_arrays_are_read_only_views(serve: Serve, dataset: Dataset) -> None:
    serve(dataset, dtype="f32")
    with ddas.connect("train") as stream:
        batch = next(stream)
        for array in (batch.images, batch.labels, batch.indices):
            assert not array.flags.writeable and not array.flags.owndata
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 0
            with pytest.raises(ValueError):
                array.flags.writeable = True
        assert batch.images.ctypes.data == batch.images.ctypes.data, "no copy is made"
        assert batch.images.ctypes.data % 64 == 0
        assert batch.images.dtype == np.float32 and batch.images.shape == (8, 3, 32, 32)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_floats_are_the_bytes_normalised(serve: Serve, dataset: Dataset, layout: str) -> None:
    """f32, f16 and bf16 streams against the u8 stream of the same seed, by torch's own arithmetic."""
    def normalised(images: np.ndarray, stream: ddas.Stream) -> torch.Tensor:
        shape = (3, 1, 1) if layout == "nchw" else (3,)
        mean = torch.tensor(stream.info.normalization.mean, dtype=torch.float32).reshape(shape)
        std = torch.tensor(stream.info.normalization.std, dtype=torch.float32).reshape(shape)
        # torchvision's ToTensor and Normalize.
        return torch.from_numpy(images.copy()).to(torch.float32).div(255).sub_(mean).div_(std)

    names = {"u8": "bytes", "f32": "single", "f16": "half", "bf16": "brain"}
    for dtype, name in names.items():
        serve(dataset, name=name, epochs=1, dtype=dtype, layout=layout)
    streams = {dtype: ddas.connect(name) for dtype, name in names.items()}
    compared = 0
    for plain in streams["u8"]:
        expected = normalised(plain.images, streams["u8"])
        single, half, brain = (next(streams[dtype]) for dtype in ("f32", "f16", "bf16"))
        for batch in (single, half, brain):
            assert np.array_equal(batch.indices, plain.indices) and np.array_equal(batch.labels, plain.labels)
        values = torch.from_numpy(single.images.copy())
        # Cutout comes after normalising: its square is zero, which no byte maps to.
        kept = values != 0
        assert torch.equal(values[kept], expected[kept])
        compared += int(kept.sum())
        assert half.images.dtype == np.float16
        assert np.array_equal(half.images, values.to(torch.float16).numpy())
        raw = torch.from_numpy(brain.images.view(np.int16).copy()).view(torch.bfloat16)
        assert torch.equal(raw, values.to(torch.bfloat16))
    assert compared > 0.7 * 43 * 3 * 32 * 32


def test_bf16_arrays_are_uint16_without_ml_dtypes(serve: Serve, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    serve(dataset, dtype="bf16")
    with ddas.connect("train") as stream:
        assert next(stream).images.dtype == np.uint16


def test_array_keeps_the_slot(serve: Serve, dataset: Dataset) -> None:
    """An array never changes, however long it is kept; needing a slot one holds is an error, not a wait."""
    serve(dataset, epochs=4, slots=3, dtype="u8")
    with ddas.connect("train", timeout=20) as stream:
        batch = next(stream)
        kept, copy = batch.images[2:5, 0].T, batch.images.copy()  # a view of a view counts, too
        del batch
        for _ in range(2):
            next(stream)
        time.sleep(0.3)  # the daemon has filled the two other slots anew by now
        begin = time.monotonic()
        with pytest.raises(ddas.HoldsAllSlots, match="you hold 1 of 3 slots.*--slots"):
            next(stream)
        assert time.monotonic() - begin < 5
        assert np.array_equal(kept, copy[2:5, 0].T)
        del kept
        gc.collect()
        assert next(stream).step == 3, "no batch is lost"
        with pytest.raises(ddas.HoldsAllSlots, match="you hold 3 of 3 slots"):
            list(stream)


def test_release(serve: Serve, dataset: Dataset) -> None:
    serve(dataset, slots=2, epochs=5)
    with ddas.connect("train") as stream:
        batch = next(stream)
        images = batch.images
        with pytest.raises(BufferError, match="1 array"):
            batch.release()
        assert len(images) == 8
        del images
        batch.release()
        batch.release()
        with pytest.raises(BufferError, match="released"):
            batch.images
        kept = [batch]
        for _ in range(8):
            with next(stream) as batch:
                assert batch.labels.sum() >= 0
            kept.append(batch)  # released: holds no slot
        assert [item.step for item in kept] == [0, 1, 2, 3, 4, 5, 0, 1, 2]


def test_arrays_outlive_the_stream(serve: Serve, dataset: Dataset) -> None:
    serve(dataset, epochs=50, slots=4)
    with ddas.connect("train") as stream:
        batch = next(stream)
        images = batch.images
    copy = images.copy()
    with pytest.raises(ddas.StreamClosed):
        next(stream)
    with ddas.connect("train") as other:
        for _ in range(3):
            next(other)
        time.sleep(0.3)  # the daemon fills every slot it may
        assert np.array_equal(images, copy)
        del batch, images
        gc.collect()
        for _ in range(20):  # and is held up no longer
            next(other)


def test_closing_releases_batches_without_arrays(serve: Serve, dataset: Dataset) -> None:
    serve(dataset, epochs=50, slots=2)
    with ddas.connect("train") as stream:
        batch = next(stream)
    with pytest.raises(BufferError, match="released"):
        batch.images
    with ddas.connect("train") as other:
        for _ in range(20):
            next(other)
    stream.close()


def test_end_of_the_stream(serve: Serve, dataset: Dataset) -> None:
    daemon = serve(dataset, epochs=1)
    with ddas.connect("train") as stream:
        begin = time.monotonic()
        batches = sum(1 for _ in stream)
        assert batches == 6 and stream.receive() is None
        with pytest.raises(StopIteration):
            next(stream)
    assert daemon.wait() == 0, daemon.log
    assert time.monotonic() - begin < 10


def test_a_stopped_daemon_is_not_the_end_of_training(serve: Serve, dataset: Dataset) -> None:
    """SIGTERM half-way: what is ready can be read, and then a loop must not end as if all epochs had come."""
    daemon = serve(dataset, epochs=400)
    stream = ddas.connect("train")
    received = [(batch.epoch, batch.step) for batch in itertools.islice(stream, 8)]
    daemon.process.terminate()
    with pytest.raises(ddas.StreamFinished, match=r"after step \d of epoch \d+, of 400 epochs of 6 steps.*--start"):
        for batch in stream:
            received.append((batch.epoch, batch.step))
            del batch
    assert received == [divmod(number, 6) for number in range(len(received))]
    with pytest.raises(ddas.StreamFinished):
        stream.receive()
    assert daemon.wait() == 0, daemon.log


def test_endless_timeouts(serve: Serve, dataset: Dataset) -> None:
    serve(dataset)
    for seconds in (float("inf"), 1e30):
        with ddas.connect("train", timeout=seconds, wait=seconds) as stream:
            assert len(next(stream)) == 8


def test_unknown_name(serve: Serve, dataset: Dataset) -> None:
    serve(dataset, name="other")
    with pytest.raises(ddas.NoSuchDaemon) as caught:
        ddas.connect("train")
    for part in ("train", os.environ["DDAS_RUNTIME_DIR"], "other"):
        assert part in str(caught.value)
    with pytest.raises(ValueError, match="name"):
        ddas.connect("../etc")


def test_wrong_rank_and_timeout(serve: Serve, dataset: Dataset) -> None:
    serve(dataset)
    with pytest.raises(ddas.Refused, match="rank"):
        ddas.connect("train", rank=1)
    with pytest.raises(ValueError, match="rank.*-1"):
        ddas.connect("train", rank=-1)
    for timeout in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="timeout"):
            ddas.connect("train", timeout=timeout)


def test_killed_daemon_is_reported_within_a_second(serve: Serve, dataset: Dataset) -> None:
    daemon = serve(dataset, epochs=1000, consumers=2)
    first = ddas.connect("train")
    second = ddas.connect("train")
    assert next(first) is not None
    kept = next(second).images
    copy = kept.copy()

    daemon.kill()
    begin = time.monotonic()
    with pytest.raises(ddas.DaemonDied):
        for _ in first:  # what was already in the ring may still come
            pass
    assert time.monotonic() - begin < 1.0
    assert np.array_equal(kept, copy), "what was received stays readable"


def test_killed_daemon_ends_a_wait(serve: Serve, dataset: Dataset) -> None:
    # The second consumer never comes, so the ring fills up and the first one waits.
    daemon = serve(dataset, epochs=1000, consumers=2, slots=2)
    ended: list[float] = []
    with ddas.connect("train") as stream:

        def wait() -> None:
            with pytest.raises(ddas.DaemonDied):
                for batch in stream:
                    batch.release()
            ended.append(time.monotonic())

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.5)
        killed = time.monotonic()
        daemon.kill()
        thread.join(20)
        assert ended and ended[0] - killed < 1.0


def test_waiting_for_a_daemon_to_start(serve: Serve, dataset: Dataset) -> None:
    begin = time.monotonic()
    with pytest.raises(ddas.NoSuchDaemon):
        ddas.connect("train", wait=0.3)
    assert time.monotonic() - begin >= 0.3
    steps: list[int] = []

    def read() -> None:
        with ddas.connect("train", wait=30) as stream:
            steps.extend(batch.step for batch in itertools.islice(stream, 6))

    thread = threading.Thread(target=read)
    thread.start()
    time.sleep(0.2)
    serve(dataset, epochs=400)  # so that it is still there when `serve` looks for it
    thread.join(30)
    assert steps == list(range(6))


def test_damaged_sample_ends_the_stream_with_its_number(
    serve: Serve, dataset: Dataset, tmp_path: Path
) -> None:
    copy = tmp_path / "damaged.lmdb"
    shutil.copytree(dataset.path, copy)
    content = bytearray((copy / "data.mdb").read_bytes())
    signature = b"\x89PNG\r\n\x1a\n"
    middle = content.index(signature, content.index(signature) + 1) + 500
    content[middle] ^= 0x10
    (copy / "data.mdb").write_bytes(content)
    damaged = Dataset.__new__(Dataset)
    damaged.path = copy
    daemon = serve(damaged, epochs=1000, slots=2)
    with ddas.connect("train") as stream:
        with pytest.raises(ddas.DaemonFailed, match="sample") as caught:
            for batch in stream:
                batch.release()
    assert daemon.wait() == 1
    assert str(caught.value).split(": ")[-1].strip() in daemon.log


def test_eviction(serve: Serve, dataset: Dataset) -> None:
    """A consumer that holds back others for too long is put out, and told so instead of being given torn bytes."""
    serve(dataset, epochs=200, slots=2, consumers=2, evict_after=0.5)
    with ddas.connect("train") as slow, ddas.connect("train") as quick:
        batch = next(slow)
        batch.validate()
        for _ in range(30):  # the quick one goes on
            next(quick).release()
        with pytest.raises(ddas.Evicted):
            batch.validate()
        with pytest.raises(ddas.Evicted):
            batch.copy_into(bytearray(batch.images.nbytes), bytearray(8 * len(batch)))
        with pytest.raises(ddas.Evicted):
            next(slow)


def test_copy_into(serve: Serve, dataset: Dataset) -> None:
    serve(dataset)
    with ddas.connect("train") as stream:
        batch = next(stream)
        images, labels = bytearray(batch.images.nbytes), np.zeros(8, np.int64)
        batch.copy_into(images, labels.view(np.uint8))
        assert images == batch.images.tobytes() and np.array_equal(labels, batch.labels)
        with pytest.raises(ValueError, match="buffer of 98304 bytes, got one of 5"):
            batch.copy_into(bytearray(5), labels.view(np.uint8))
        with pytest.raises(BufferError, match="writable"):
            batch.copy_into(bytes(98304), labels.view(np.uint8))
        batch.release()  # nothing is left of the copies


def test_time_out_and_the_gil_while_waiting(serve: Serve, dataset: Dataset) -> None:
    serve(dataset, epochs=1000, consumers=2, slots=2)
    with ddas.connect("train", timeout=1.0) as stream:
        ticks = 0
        stop = threading.Event()

        def tick() -> None:
            nonlocal ticks
            while not stop.wait(0.01):
                ticks += 1

        thread = threading.Thread(target=tick)
        thread.start()
        begin = time.monotonic()
        with pytest.raises(ddas.TimedOut, match="1 s") as caught:
            while True:
                stream.receive().release()  # type: ignore[union-attr]
        waited = time.monotonic() - begin
        stop.set()
        thread.join()
        assert 0.9 < waited < 5 and isinstance(caught.value, TimeoutError)
        assert ticks > 20, f"another thread ran {ticks} times in {waited:.1f} s"
        begin = time.monotonic()
        with pytest.raises(ddas.TimedOut):
            stream.receive(timeout=0.1)
        assert time.monotonic() - begin < 0.9


def test_ctrl_c_while_waiting(serve: Serve, dataset: Dataset) -> None:
    serve(dataset, epochs=1000, consumers=2, slots=2)
    script = """
import ddas, sys
with ddas.connect("train", timeout=None) as stream:
    print("connected", flush=True)
    try:
        while True:
            stream.receive().release()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""
    child = python(script)
    assert child.stdout is not None and child.stdout.readline() == "connected\n"
    time.sleep(0.5)
    begin = time.monotonic()
    child.send_signal(signal.SIGINT)
    output, errors = child.communicate(timeout=20)
    assert output == "interrupted\n" and child.returncode == 0, errors
    assert time.monotonic() - begin < 2.0


def test_killed_consumer_does_not_stop_another(serve: Serve, dataset: Dataset) -> None:
    serve(dataset, epochs=20, consumers=2, slots=3)
    script = """
import ddas, time
stream = ddas.connect("train")
batch = next(stream)
images = batch.images
print("holding", flush=True)
time.sleep(600)
"""
    with ddas.connect("train") as stream:
        child = python(script)
        assert child.stdout is not None and child.stdout.readline() == "holding\n"
        seen = [next(stream).indices.tolist() for _ in range(2)]
        child.kill()
        child.communicate()
        for batch in stream:
            seen.append(batch.indices.tolist())
    assert len(seen) == 20 * 6
    for epoch in range(20):
        indices = sum(seen[epoch * 6 : epoch * 6 + 6], [])
        assert sorted(indices) == list(range(43))


def test_two_consumers_see_the_same_batches(serve: Serve, dataset: Dataset) -> None:
    serve(dataset, consumers=2, dtype="f32")
    with ddas.connect("train") as first, ddas.connect("train") as second:
        for left, right in zip(first, second):
            assert (left.epoch, left.step) == (right.epoch, right.step)
            assert np.array_equal(left.images, right.images)


def test_ranks_share_an_epoch(serve: Serve, dataset: Dataset) -> None:
    serve(dataset, batch_size=8, world_size=2, epochs=1)
    streams = [ddas.connect("train", rank=rank) for rank in range(2)]
    assert [stream.info.rank for stream in streams] == [0, 1]
    assert [stream.info.batch_size for stream in streams] == [4, 4]
    indices: list[int] = []
    results: list[list[int]] = [[], []]

    def read(rank: int) -> None:
        for batch in streams[rank]:
            results[rank] += batch.indices.tolist()

    threads = [threading.Thread(target=read, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    indices = results[0] + results[1]
    assert sorted(indices) == list(range(43))


def test_a_fork_is_refused_and_does_no_harm(serve: Serve, dataset: Dataset) -> None:
    serve(dataset, epochs=4, slots=3)
    with ddas.connect("train") as stream:
        batch = next(stream)
        images = batch.images
        copy = images.copy()
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:  # only os._exit from here on
            status = b"no error"
            try:
                try:
                    next(stream)
                except ddas.ForkedProcess as error:
                    status = str(error).encode()
                # Dropping the parent's objects must not tell the daemon anything.
                del batch, images
                stream.close()
                del stream
                gc.collect()
            except BaseException as error:
                status = repr(error).encode()
            os.write(write_end, status)
            os._exit(0)
        os.close(write_end)
        with os.fdopen(read_end, "rb") as pipe:
            message = pipe.read().decode()
        os.waitpid(child, 0)
        assert str(os.getpid()) in message and "connect" in message
        indices = batch.indices.tolist()
        for _ in range(2):
            indices += next(stream).indices.tolist()
        time.sleep(0.3)  # if the child had given the batch back, it would be overwritten now
        assert np.array_equal(images, copy)
        del batch, images
        for batch in stream:
            indices += batch.indices.tolist()
        assert sorted(indices) == sorted(list(range(43)) * 4)


def test_the_hashes_of_consume(serve: Serve, dataset: Dataset, loader_binary: Path) -> None:
    """Python sees byte for byte what the reference consumer sees."""
    serve(dataset, epochs=2, consumers=2, dtype="f16")
    content: list[bytes] = []
    with ddas.connect("train") as stream:

        def read() -> None:
            for batch in stream:
                content.append(batch.images.tobytes() + batch.labels.astype("<i8").tobytes())

        thread = threading.Thread(target=read)
        thread.start()
        printed = run(loader_binary, "consume", "train", "--hash")
        thread.join(60)
    hashes = [line.split() for line in printed.splitlines() if len(line.split()) == 3 and len(line.split()[2]) == 16]
    batches = [fields for fields in hashes if fields[1] != "all"]
    assert [(int(epoch), int(step)) for epoch, step, _ in batches] == [(e, s) for e in range(2) for s in range(6)]
    assert [f"{xxhash.xxh3_64_intdigest(data):016x}" for data in content] == [digest for _, _, digest in batches]
    for epoch in range(2):
        joined = b"".join(struct.pack("<Q", int(digest, 16)) for e, s, digest in batches if int(e) == epoch)
        assert [epoch, "all", f"{xxhash.xxh3_64_intdigest(joined):016x}"] in [[int(e), s, digest] for e, s, digest in hashes]


def test_a_streams_state(serve: Serve, dataset: Dataset) -> None:
    """A stream goes on where a state says, if the daemon has not passed it; else it says what to do."""
    serve(dataset, name="first", epochs=3)
    with ddas.connect("first") as stream:
        batches = []
        for _ in range(8):
            batch = next(stream)
            batches.append((batch.epoch, batch.step, batch.images.copy()))
            del batch
            if len(batches) == 7:
                state = stream.state_dict()
        with pytest.raises(ddas.StateError, match="does not go back.*--start 1:1"):
            stream.load_state_dict(state)
    assert (state["epoch"], state["step"]) == (1, 1)
    for name, start in (("there", "1:1"), ("before", "0:4")):
        serve(dataset, name=name, epochs=3, start=start)
        with ddas.connect(name) as stream:
            stream.load_state_dict(state)
            assert stream.next_position == (1, 1) and stream.state_dict() == state
            batch = next(stream)
            assert (batch.epoch, batch.step) == (1, 1) and np.array_equal(batch.images, batches[7][2])
            del batch
            assert sum(1 for _ in stream) == 10
    serve(dataset, name="past", epochs=3, start="1:3")
    with ddas.connect("past") as stream:
        stream.load_state_dict(state)
        with pytest.raises(ddas.EpochMismatch, match="step 1 of epoch 1.*step 3 of epoch 1.*--start 1:1"):
            next(stream)
    serve(dataset, name="over", epochs=3, start="2:3")
    with ddas.connect("over") as stream:
        stream.load_state_dict({**state, "epoch": 3, "step": 0})
        assert list(stream) == []
    serve(dataset, name="other", epochs=3, seed=6)
    with ddas.connect("other") as stream:
        with pytest.raises(ddas.StateError, match="seed"):
            stream.load_state_dict(state)
