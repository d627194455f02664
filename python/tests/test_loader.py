"""`ddas.Loader`: the batches of a daemon made in this process, and every way they can be held, left and resumed."""

from __future__ import annotations

import gc
import itertools
import json
import logging
import multiprocessing
import os
import pickle
import shutil
import signal
import struct
import threading
import time
from pathlib import Path
from typing import Any, Iterable

import numpy as np
import pytest
import xxhash

import ddas
from conftest import Dataset, Serve, make_loader, python, run


def digests(batches: Iterable[ddas.Batch]) -> list[tuple[int, int, str]]:
    """Epoch, step and hash of every batch, as `consume --hash` computes it."""
    found = []
    for batch in batches:
        content = batch.images.tobytes() + batch.labels.astype("<i8").tobytes()
        found.append((batch.epoch, batch.step, f"{xxhash.xxh3_64_intdigest(content):016x}"))
        del batch
    return found


def policy_file(folder: Path) -> Path:
    space = ddas.search_space("paper68")
    share = [1 / len(space["operations"])] * len(space["operations"])
    snapshots = [{"total_probability": total, "operation_probabilities": share} for total in (0.4, 0.9)]
    path = folder / "policy.json"
    path.write_text(json.dumps({"format": "ddas-policy", "version": 1, "search_space": space, "snapshots": snapshots}))
    return path


@pytest.mark.parametrize("dtype", ["u8", "f32", "f16", "bf16"])
def test_byte_for_byte_what_a_daemon_serves(
    serve: Serve, dataset: Dataset, loader_binary: Path, tmp_path: Path, dtype: str
) -> None:
    policy = policy_file(tmp_path)
    serve(dataset, policy=policy, dtype=dtype, epochs=2)
    printed = run(loader_binary, "consume", "train", "--hash")
    lines = [line.split() for line in printed.splitlines() if len(line.split()) == 3 and len(line.split()[2]) == 16]
    served = [(int(epoch), int(step), digest) for epoch, step, digest in lines if step != "all"]
    assert len(served) == 12
    for threads, slots in ((1, 2), (2, 3), (3, 16), (8, 4)):
        with make_loader(dataset, policy=policy, dtype=dtype, threads=threads, slots=slots) as loader:
            made = digests(loader)
        assert made == served, f"{threads} threads, {slots} slots"
    for epoch in range(2):
        joined = b"".join(struct.pack("<Q", int(digest, 16)) for at, _, digest in made if at == epoch)
        assert [str(epoch), "all", f"{xxhash.xxh3_64_intdigest(joined):016x}"] in lines


def test_info_and_batches_are_those_of_connect(serve: Serve, dataset: Dataset, tmp_path: Path) -> None:
    policy = ddas.Policy.load(policy_file(tmp_path))
    serve(dataset, policy=tmp_path / "policy.json", dtype="f32", layout="nhwc")
    loader = make_loader(dataset, policy=policy, dtype="f32", layout="nhwc")
    with ddas.connect("train") as stream, loader:
        assert loader.info.daemon_pid == os.getpid() != stream.info.daemon_pid
        assert len(loader) == len(stream) == 12
        for name in ddas.StreamInfo.__dataclass_fields__.keys() - {"daemon_pid"}:
            assert getattr(loader.info, name) == getattr(stream.info, name), name
        for mine, theirs in zip(loader, stream, strict=True):
            assert (mine.epoch, mine.step, mine.snapshot) == (theirs.epoch, theirs.step, theirs.snapshot)
            assert mine.is_last_of_epoch == theirs.is_last_of_epoch and len(mine) == len(theirs)
            for name in ("images", "labels", "indices"):
                ours, other = getattr(mine, name), getattr(theirs, name)
                assert ours.dtype == other.dtype and np.array_equal(ours, other), name
            assert mine.images.ctypes.data % 64 == 0


def test_epoch_by_epoch(dataset: Dataset) -> None:
    loader = make_loader(dataset, epochs=3)
    whole = digests(make_loader(dataset, epochs=3))
    found = []
    for epoch in range(3):
        loader.set_epoch(epoch)
        part = digests(loader.one_epoch())
        assert [at for at, _, _ in part] == [epoch] * 6
        found += part
    assert found == whole
    with pytest.raises(ddas.StreamFinished, match="all 3 epochs"):
        next(loader.one_epoch())
    assert loader.receive() is None and list(loader) == []


def test_set_epoch_and_seek_go_anywhere(dataset: Dataset) -> None:
    whole = digests(make_loader(dataset, epochs=3))
    loader = make_loader(dataset, epochs=3, threads=2)
    kept = loader.receive()
    assert kept is not None
    images = kept.images.copy()
    for epoch, step in ((2, 3), (0, 0), (1, 5), (0, 1)):
        loader.seek(epoch, step)
        assert loader.next_position == (epoch, step)
        assert digests(itertools.islice(loader, 8)) == whole[epoch * 6 + step :][:8]
    loader.seek(1, 2)
    loader.set_epoch(1)
    assert loader.next_position == (1, 2), "in that epoch already"
    loader.set_epoch(2)
    assert digests(loader) == whole[12:]
    assert np.array_equal(kept.images, images), "a batch that is held is nobody else's"
    for wrong in ((3, 1), (0, 6), (4, 0)):
        with pytest.raises(ValueError, match="epochs 0 to 2 of steps 0 to 5"):
            loader.seek(*wrong)
    with pytest.raises((ValueError, OverflowError)):
        loader.set_epoch(-1)


def test_release_and_close(dataset: Dataset) -> None:
    with make_loader(dataset) as loader:
        first, second = next(loader), next(loader)
        images = first.images
        with pytest.raises(BufferError, match="1 array"):
            first.release()
        second.release()
        with pytest.raises(BufferError, match="released"):
            second.labels
        copy = images.copy()
    assert np.array_equal(images, copy), "arrays outlive the loader"
    with pytest.raises(ddas.StreamClosed):
        next(loader)
    loader.close()


def loader_threads() -> int:
    """Threads of this process that belong to a loader, by their names."""
    names = []
    for task in Path("/proc/self/task").iterdir():
        try:
            names.append((task / "comm").read_text())
        except (FileNotFoundError, ProcessLookupError):
            pass  # it has just ended
    return sum(name.startswith(("ddas engine", "feeder ", "worker ")) for name in names)


def none_left() -> None:
    """Threads have nothing more to do after `close`; the kernel may take a moment to forget them."""
    deadline = time.monotonic() + 5
    while loader_threads():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_threads_end_with_the_loader(dataset: Dataset) -> None:
    gc.collect()
    assert loader_threads() == 0
    loader = make_loader(dataset, threads=5, epochs=1000)
    assert loader_threads() == 0, "nothing runs before the first batch"
    next(loader)
    assert loader_threads() == 7
    loader.close()
    none_left()
    loader = make_loader(dataset, threads=5, epochs=1000)
    next(loader)
    del loader
    gc.collect()
    none_left()


def test_back_pressure(dataset: Dataset) -> None:
    """Workers stop when every slot is full, and then take no CPU time."""
    loader = make_loader(dataset, epochs=1000, slots=3, threads=2)
    next(loader)
    deadline = time.monotonic() + 30
    while loader.progress()["batches"] < 4:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.3)
    progress = loader.progress()
    assert progress["batches"] == 4 and progress["samples"] == 32, "one taken, three ready"


def test_other_threads_run_while_waiting(photos: Dataset) -> None:
    """The GIL is released: a batch of large samples takes a while, and other threads go on meanwhile."""
    loader = make_loader(photos, recipe="imagenet", batch_size=13, epochs=60, threads=1, slots=2)
    next(loader)
    ticks, stop = 0, threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not stop.is_set():
            ticks += 1
            time.sleep(0.0005)

    thread = threading.Thread(target=tick)
    thread.start()
    waits = 0
    for _ in range(8):
        begin = ticks
        next(loader)
        waits += ticks > begin
    stop.set()
    thread.join()
    assert waits >= 4, "the ticking thread stood still while batches were waited for"


def test_time_out_is_typed_and_loses_nothing(photos: Dataset) -> None:
    loader = make_loader(photos, recipe="imagenet", batch_size=13, threads=1, timeout=0.0)
    with pytest.raises(ddas.TimedOut, match="threads") as caught:
        loader.receive()
    assert isinstance(caught.value, TimeoutError)
    batch = loader.receive(timeout=60)
    assert batch is not None and (batch.epoch, batch.step) == (0, 0)
    for timeout in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="timeout"):
            loader.receive(timeout)


def test_ctrl_c_while_waiting(photos: Dataset) -> None:
    script = """
import sys, ddas
with ddas.Loader(sys.argv[1], recipe="imagenet", epochs=100000, batch_size=13, threads=1, slots=2) as loader:
    print("waiting", flush=True)
    try:
        while True:  # quicker than one thread makes batches
            loader.receive()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""
    child = python(script, str(photos.path))
    assert child.stdout is not None and child.stdout.readline() == "waiting\n"
    time.sleep(0.3)
    child.send_signal(signal.SIGINT)
    output, errors = child.communicate(timeout=20)
    assert output == "interrupted\n" and child.returncode == 0, errors


def test_a_fork_is_refused_and_does_no_harm(dataset: Dataset) -> None:
    whole = digests(make_loader(dataset, epochs=4))
    loader = make_loader(dataset, epochs=4, slots=3, threads=3)
    found = digests(itertools.islice(loader, 2))
    batch = next(loader)
    images = batch.images
    found += digests([batch])
    del batch
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:  # only os._exit from here on
        status = b"no error"
        try:
            try:
                next(loader)
            except ddas.ForkedProcess as error:
                status = str(error).encode()
            images[:] = 0  # a copy of its own
            del images
            loader.close()
            del loader
            gc.collect()
            found_again = digests(ddas.Loader(dataset.path, recipe="cifar", epochs=4, batch_size=8, seed=5))
            status += b"; again" if found_again == whole else b"; differs"
        except BaseException as error:
            status = repr(error).encode()
        os.write(write_end, status)
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        message = pipe.read().decode()
    os.waitpid(child, 0)
    assert str(os.getpid()) in message and "make a loader in the child" in message and message.endswith("; again"), message
    assert (images != 0).any()
    del images
    assert found + digests(loader) == whole


def in_child(path: str, connection: Any) -> None:
    loader = ddas.Loader(path, recipe="cifar", epochs=2, batch_size=8, seed=5)
    connection.send(digests(loader))


def test_spawned_processes_make_their_own(dataset: Dataset) -> None:
    loader = make_loader(dataset)
    next(loader)
    with pytest.raises(TypeError, match="make one there"):
        pickle.dumps(loader)
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=in_child, args=(str(dataset.path), there))
    process.start()
    assert here.recv() == digests(make_loader(dataset))
    process.join(30)
    assert process.exitcode == 0


def test_state_goes_on_anywhere(dataset: Dataset) -> None:
    """Three restarts at odd places, with other threads, slots and types of state: the hashes of one whole run."""
    whole = digests(make_loader(dataset, epochs=3))
    found: list[tuple[int, int, str]] = []
    state: dict[str, Any] | None = None
    for number, threads in ((5, 1), (1, 2), (8, 3), (99, 8)):
        loader = make_loader(dataset, epochs=3, threads=threads, slots=threads + 1)
        if state is not None:
            loader.load_state_dict(state)
        found += digests(itertools.islice(loader, number))
        text = json.dumps(loader.state_dict())
        assert len(text) <= 1024
        state = json.loads(text)
        loader.close()
    assert found == whole
    assert state is not None and (state["epoch"], state["step"]) == (3, 0)
    loader = make_loader(dataset, epochs=3)
    loader.load_state_dict(state)
    assert loader.receive() is None, "a state behind the end stays there"


def test_state_of_another_run_is_refused_by_field(dataset: Dataset, photos: Dataset, tmp_path: Path) -> None:
    state = make_loader(dataset, policy=policy_file(tmp_path)).state_dict()
    policy = tmp_path / "policy.json"
    for field, other in {
        "dataset_hash": make_loader(photos, policy=policy),
        "policy_digest": make_loader(dataset),
        "recipe_digest": make_loader(dataset, policy=policy, recipe="imagenet"),
        "seed": make_loader(dataset, policy=policy, seed=6),
        "epochs": make_loader(dataset, policy=policy, epochs=3),
        "global_batch_size": make_loader(dataset, policy=policy, batch_size=4),
        "last": make_loader(dataset, policy=policy, last="drop"),
    }.items():
        with pytest.raises(ddas.StateError, match=f"`{field}` is"):
            other.load_state_dict(state)
    loader = make_loader(dataset, policy=policy, dtype="u8", layout="nhwc", threads=3, slots=7)
    loader.load_state_dict(state)
    for wrong, match in (
        ({"epoch": 0}, "no `dataset_hash`"),
        ({**state, "epoch": 7}, "epoch 7"),
        ({**state, "step": 6}, "step 6"),
        ({**state, "step": "one"}, "whole numbers"),
        ({**state, "format": "else"}, "format 'else'"),
        ({**state, "version": 2}, "version 2"),
    ):
        with pytest.raises(ddas.StateError, match=match):
            loader.load_state_dict(wrong)


def test_the_world_size_may_change_between_runs(dataset: Dataset) -> None:
    """A run on one rank goes on on 2, 3, 4 and 6: together they get what one would have got, each sample once."""
    settings = {"epochs": 2, "batch_size": 12, "dtype": "u8"}
    whole = [(batch.epoch, batch.step, batch.indices.tolist()) for batch in make_loader(dataset, **settings)]
    assert sorted(sum((indices for epoch, _, indices in whole if epoch == 0), [])) == list(range(43))
    single = make_loader(dataset, **settings)
    for _ in range(3):
        next(single)
    state = single.state_dict()
    for world_size in (2, 3, 4, 6):
        ranks = [make_loader(dataset, **settings, rank=rank, world_size=world_size) for rank in range(world_size)]
        for loader in ranks:
            loader.load_state_dict(state)
            assert loader.info.batch_size == 12 // world_size
        for epoch, step, indices in whole[3:]:
            batches = [next(loader) for loader in ranks]
            assert {(batch.epoch, batch.step) for batch in batches} == {(epoch, step)}
            assert sum((batch.indices.tolist() for batch in batches), []) == indices
        assert len({json.dumps(loader.state_dict()) for loader in ranks}) == 1
        state_of_two = ranks[1].state_dict()
        assert (state_of_two["epoch"], state_of_two["step"]) == (2, 0)
    with pytest.raises(ValueError, match="world size 5 does not divide.*legal world sizes: 1, 2, 3, 4, 6, 12"):
        make_loader(dataset, **settings, rank=0, world_size=5)


LAUNCHERS = {
    "torchrun (RANK and WORLD_SIZE)": {"RANK": "1", "WORLD_SIZE": "2"},
    "Slurm (SLURM_PROCID and SLURM_NTASKS)": {"SLURM_PROCID": "1", "SLURM_NTASKS": "2"},
    "Open MPI (OMPI_COMM_WORLD_RANK and OMPI_COMM_WORLD_SIZE)": {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"},
    "Kubernetes (JOB_COMPLETION_INDEX) and the arguments (world size)": {"JOB_COMPLETION_INDEX": "1"},
}


@pytest.mark.parametrize("source", LAUNCHERS)
def test_rank_and_world_size_of_the_launcher(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, source: str
) -> None:
    for name, value in LAUNCHERS[source].items():
        monkeypatch.setenv(name, value)
    given = {"world_size": 2} if "Kubernetes" in source else {}
    with caplog.at_level(logging.INFO, "ddas"):
        loader = make_loader(dataset, **given)
    assert (loader.info.rank, loader.info.world_size) == (1, 2)
    assert [record.getMessage() for record in caplog.records] == [f"rank 1 of 2, from {source}"]
    with pytest.raises(ddas.RankError, match=r"0 by the arguments \(rank\), but 1 by " + source.split()[0]):
        make_loader(dataset, rank=0, world_size=2)
    assert make_loader(dataset, environment=False).info.world_size == 1


def test_a_line_an_epoch_in_the_log(dataset: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ddas"):
        for batch in make_loader(dataset, epochs=3):
            del batch
    lines = [record.getMessage() for record in caplog.records if "images/s" in record.getMessage()]
    assert [line.partition(":")[0] for line in lines[:2]] == ["epoch 0", "epoch 1"]
    assert all("the limit was" in line for line in lines)


def test_a_damaged_sample_ends_the_stream_with_its_number(dataset: Dataset, tmp_path: Path) -> None:
    copy = tmp_path / "damaged.lmdb"
    shutil.copytree(dataset.path, copy)
    content = bytearray((copy / "data.mdb").read_bytes())
    signature = b"\x89PNG\r\n\x1a\n"
    content[content.index(signature, content.index(signature) + 1) + 500] ^= 0x10
    (copy / "data.mdb").write_bytes(content)
    loader = ddas.Loader(copy, recipe="cifar", epochs=2, batch_size=8)
    for _ in range(2):  # asked again, it says so again
        with pytest.raises(ddas.LoaderFailed, match=r"sample \d+ of .*damaged.*verify"):
            for batch in loader:
                del batch


def test_parts_mixtures_and_balance_are_those_of_serve(
    serve: Serve, dataset: Dataset, photos: Dataset, tmp_path: Path
) -> None:
    """Every setting about samples gives the daemon's batches; a state knows them by the hash."""
    train: dict[str, Any] = {"split": "train", "validation_fraction": 0.3, "split_seed": 4}
    cases: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("train", train, train),
        ("validation", {**train, "split": "validation"}, {**train, "split": "validation"}),
        ("balanced", {"sampling": "class-balanced", "epoch_samples": 30}, {"sampling": "class-balanced", "epoch_samples": 30}),
        ("mixed", {"mix": [(dataset.path, 0.5)]}, {"mix": f"{dataset.path}=0.5"}),
    ]
    hashes = set()
    for name, settings, flags in cases:
        serve(dataset, name=name, **flags)
        with ddas.connect(name) as stream, make_loader(dataset, **settings) as loader:
            assert loader.info.dataset_hash == stream.info.dataset_hash
            hashes.add(loader.info.dataset_hash)
            assert digests(loader) == digests(stream), name
    assert len(hashes) == 4
    parts = [
        {int(index) for batch in make_loader(dataset, epochs=1, **{**train, "split": part}) for index in batch.indices}
        for part in ("train", "validation")
    ]
    assert parts[0] | parts[1] == set(range(43)) and not parts[0] & parts[1] and parts[1]
    with pytest.raises(ddas.StateError, match="`dataset_hash`"):
        make_loader(dataset).load_state_dict(make_loader(dataset, **train).state_dict())


def test_a_damaged_sample_can_be_replaced(serve: Serve, dataset: Dataset, tmp_path: Path) -> None:
    copy = tmp_path / "damaged.lmdb"
    shutil.copytree(dataset.path, copy)
    content = bytearray((copy / "data.mdb").read_bytes())
    signature = b"\x89PNG\r\n\x1a\n"
    content[content.index(signature) + 500] ^= 0x10
    (copy / "data.mdb").write_bytes(content)
    damaged = Dataset.__new__(Dataset)
    damaged.path = copy
    serve(damaged, on_bad="substitute", max_bad=2, bad_log=tmp_path / "served.jsonl")
    with ddas.connect("train") as stream:
        expected = digests(stream)
    log = tmp_path / "made.jsonl"
    with make_loader(damaged, on_bad="substitute", max_bad=2, bad_log=log) as loader:
        assert digests(loader) == expected
        assert loader.progress()["bad_samples"] == 1
    assert log.read_text() == (tmp_path / "served.jsonl").read_text() != ""


def test_what_cannot_be_is_refused_by_name(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises((OSError, ddas.DatasetError), match="nothing.lmdb"):
        ddas.Loader(tmp_path / "nothing.lmdb", recipe="cifar", epochs=1, batch_size=8)
    (tmp_path / "empty.lmdb").mkdir()
    with pytest.raises((OSError, ddas.DatasetError), match="empty.lmdb"):
        ddas.Loader(tmp_path / "empty.lmdb", recipe="cifar", epochs=1, batch_size=8)
    with pytest.raises(FileNotFoundError, match="policy.json"):
        make_loader(dataset, policy=tmp_path / "policy.json")
    (tmp_path / "policy.json").write_text("{}")
    with pytest.raises(ddas.PolicyError):
        make_loader(dataset, policy=tmp_path / "policy.json")
    for settings, match in (
        ({"recipe": "cifra"}, "cifra"),
        ({"epochs": 0}, "epochs"),
        ({"epochs": -1}, "epochs"),
        ({"batch_size": 0}, "batch size"),
        ({"seed": -1}, "seed"),
        ({"threads": 0}, "threads"),
        ({"slots": 1}, "slots"),
        ({"dtype": "f64"}, "dtype.*f64"),
        ({"layout": "chw"}, "layout.*chw"),
        ({"last": "wrap"}, "last.*wrap"),
        ({"start": (2, 0)}, "epochs 0 to 1"),
        ({"rank": 2, "world_size": 2}, "rank 2"),
        ({"rank": 1}, "world size is not known"),
        ({"rank": -1, "world_size": 2}, "rank.*-1"),
        ({"rank": 0, "world_size": -2}, "world_size.*-2"),
        ({"start": (-1, 0)}, "epoch.*-1"),
        ({"epoch_samples": -3}, "epoch_samples.*-3"),
        ({"split_seed": 1 << 64}, "split_seed"),
        ({"timeout": -1}, "timeout"),
        ({"mix": [(dataset.path, 0.0)]}, "mix.*above 0"),
        ({"sampling": "balanced"}, "sampling.*class-balanced.*\"balanced\""),
        ({"split": "test"}, "split.*train or validation"),
        ({"split": "train", "validation_fraction": 1.0}, "validation_fraction"),
        ({"epoch_samples": 0}, "epoch_samples"),
        ({"on_bad": "skip"}, "on_bad.*\"skip\""),
        ({"on_bad": "substitute", "max_bad": "many"}, "max_bad.*many"),
    ):
        with pytest.raises(ValueError, match=match):
            make_loader(dataset, **settings)
    for settings, match in (
        ({"epochs": 1.5}, "epochs"),
        ({"policy": 3}, "policy"),
        ({"rank": 0.5}, "rank.*0.5"),
        ({"start": 1}, "start.*such as .3, 120.*got 1"),
        ({"mix": ["more.lmdb"]}, "mix.*pairs.*'more.lmdb'"),
        ({"mix": {"more.lmdb": 0.5}}, "mix.*pairs.*'more.lmdb'"),
    ):
        with pytest.raises(TypeError, match=match):
            make_loader(dataset, **settings)
    with pytest.raises(MemoryError, match="bytes are free"):
        make_loader(dataset, batch_size=1 << 31)
    with make_loader(dataset) as loader:
        with pytest.raises(ValueError, match="epoch.*-1"):
            loader.seek(-1)
        with pytest.raises(ddas.StateError, match="None"):
            loader.load_state_dict(None)  # type: ignore[arg-type]
        assert repr(loader).startswith(f"<ddas.Loader of {dataset.path}: {loader.info.epochs} epochs of ")
    with make_loader(dataset, epochs=1, batch_size=len(dataset.labels)) as loader:
        assert ": 1 epoch of 1 batch of " in repr(loader)


def test_an_early_exit_of_the_interpreter_is_quiet(dataset: Dataset) -> None:
    script = """
import sys, ddas
loader = ddas.Loader(sys.argv[1], recipe="cifar", epochs=1000, batch_size=8, threads=4)
batch = next(loader)
images = batch.images
"""
    child = python(script, str(dataset.path))
    output, errors = child.communicate(timeout=30)
    assert (child.returncode, output, errors) == (0, "", "")
