"""`ddas.torch.DataLoader` over running daemons."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ddas
from conftest import Dataset, Serve, python
from ddas.torch import DataLoader

DTYPES = {"u8": torch.uint8, "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_are_the_streams_batches(serve: Serve, dataset: Dataset, dtype: str, layout: str) -> None:
    serve(dataset, consumers=2, dtype=dtype, layout=layout, epochs=2)
    loader = DataLoader("train")
    assert len(loader) == 6 and loader.epochs == 2 and loader.batch_size == 8
    with ddas.connect("train") as stream:
        for epoch in range(2):
            assert loader.epoch == epoch
            steps = 0
            for images, targets in loader:
                batch = next(stream)
                samples = 3 if steps == 5 else 8
                shape = (samples, 3, 32, 32) if layout == "nchw" else (samples, 32, 32, 3)
                assert images.dtype == DTYPES[dtype] and images.shape == shape and images.is_contiguous()
                assert targets.dtype == torch.int64 and targets.shape == (samples,)
                assert images.view(-1).view(torch.uint8).numpy().tobytes() == batch.images.tobytes()
                assert np.array_equal(targets.numpy(), batch.labels)
                images.zero_()  # ordinary memory: writing is allowed
                steps += 1
            assert steps == len(loader)
    loader.close()


def test_epochs_in_the_usual_loop(serve: Serve, dataset: Dataset) -> None:
    serve(dataset, epochs=3)
    loader = DataLoader("train")
    for epoch in range(loader.epochs):
        loader.set_epoch(epoch)
        labels = []
        for step, (_, targets) in enumerate(loader):
            labels += targets.tolist()
        assert step + 1 == len(loader)
        assert sorted(labels) == sorted(dataset.labels.tolist()), f"epoch {epoch}"
    with pytest.raises(ddas.StreamFinished, match="all 3 epochs"):
        next(iter(loader))


def test_set_epoch_must_agree(serve: Serve, dataset: Dataset) -> None:
    serve(dataset, epochs=3)
    loader = DataLoader("train")
    loader.set_epoch(2)
    with pytest.raises(ddas.EpochMismatch, match=r"set_epoch\(2\).*epoch 0"):
        next(iter(loader))
    loader.set_epoch(0)
    assert sum(1 for _ in loader) == 6, "the batch looked at is not lost"
    for wrong in (0, 2):
        with pytest.raises(ddas.EpochMismatch, match=rf"set_epoch\({wrong}\).*epoch 1"):
            loader.set_epoch(wrong)
    for wrong in (-1, 3):
        with pytest.raises(ValueError, match="epochs 0 to 2"):
            loader.set_epoch(wrong)
    loader.set_epoch(1)
    assert sum(1 for _ in loader) == 6


def test_start_in_the_middle(serve: Serve, dataset: Dataset) -> None:
    serve(dataset, epochs=4, start="2:4")
    loader = DataLoader("train")
    assert loader.epoch == 2
    loader.set_epoch(2)
    assert sum(1 for _ in loader) == 2, "what is left of the epoch"
    loader.set_epoch(3)
    assert sum(1 for _ in loader) == 6


def test_leaving_a_loop_early(serve: Serve, dataset: Dataset) -> None:
    serve(dataset, epochs=3)
    loader = DataLoader("train")
    for images, _ in loader:
        break
    assert loader.epoch == 0
    loader.set_epoch(1)
    assert sum(1 for _ in loader) == 6
    first = iter(loader)
    next(first)
    assert loader.epoch == 2
    with pytest.raises(ddas.StreamFinished):
        next(iter(loader))
    with pytest.raises(ddas.Error, match="another loop"):
        next(first)


def test_epoch_while_the_last_batch_is_worked_on(serve: Serve, dataset: Dataset) -> None:
    serve(dataset, epochs=3)
    loader = DataLoader("train")
    for epoch in range(2):
        # zip takes the last batch and never asks the loader for more.
        for _, (images, _) in zip(range(6), loader):
            assert loader.epoch == epoch
    loader.set_epoch(2)
    assert sum(1 for _ in loader) == 6
    assert loader.epoch == 3


def test_state(serve: Serve, dataset: Dataset) -> None:
    """A run that is stopped after any batch goes on with the next one, in a daemon that starts there or before."""
    serve(dataset, epochs=3, dtype="f32")
    loader = DataLoader("train")
    states, batches = [], []
    for _ in range(3):
        for images, targets in loader:
            batches.append((images, targets))
            states.append(json.loads(json.dumps(loader.state_dict())))
    assert [(state["epoch"], state["step"]) for state in states[:7]] == [*((0, s) for s in range(1, 6)), (1, 0), (1, 1)]
    for number, (taken, start) in enumerate([(0, "0:0"), (5, "1:0"), (6, "0:3"), (9, "1:4"), (9, "1:2"), (16, "2:5")]):
        state = states[taken]
        serve(dataset, name=f"again{number}", epochs=3, dtype="f32", start=start)
        again = DataLoader(f"again{number}")
        again.load_state_dict(state)
        assert again.epoch == state["epoch"] and again.state_dict() == state
        again.set_epoch(state["epoch"])
        rest = [batch for _ in range(state["epoch"], 3) for batch in again]
        assert len(rest) == 17 - taken
        for (images, targets), (expected, labels) in zip(rest, batches[taken + 1 :]):
            assert torch.equal(images, expected) and torch.equal(targets, labels)


def test_state_of_another_stream(serve: Serve, dataset: Dataset) -> None:
    serve(dataset, name="first")
    serve(dataset, name="other-seed", seed=6)
    serve(dataset, name="later", start="1:0")
    first = DataLoader("first")
    state = first.state_dict()
    with pytest.raises(ValueError, match="seed.*5.*6"):
        DataLoader("other-seed").load_state_dict(state)
    with pytest.raises(ValueError, match="dataset_hash"):
        first.load_state_dict({"epoch": 0, "step": 0})
    later = DataLoader("later")
    later.load_state_dict(state)
    with pytest.raises(ddas.EpochMismatch, match="step 0 of epoch 0.*step 0 of epoch 1.*--start 0:0"):
        next(iter(later))
    next(iter(first))
    with pytest.raises(ddas.Error, match="before the first loop"):
        first.load_state_dict(state)


def test_drop_leaves_full_batches_only(serve: Serve, dataset: Dataset) -> None:
    serve(dataset, epochs=2, last="drop")
    loader = DataLoader("train")
    assert len(loader) == 5
    for _ in range(2):
        assert [len(targets) for _, targets in loader] == [8] * 5


def test_device_and_pinning(serve: Serve, dataset: Dataset) -> None:
    serve(dataset, epochs=2)
    loader = DataLoader("train", device="cpu", pin_memory=False)
    images, targets = next(iter(loader))
    assert images.device.type == "cpu" and targets.device.type == "cpu"
    loader.close()
    loader = DataLoader("train", device="meta")
    images, targets = next(iter(loader))
    assert images.device.type == "meta" and images.shape == (8, 3, 32, 32)
    assert targets.device.type == "meta" and targets.dtype == torch.int64


def test_pinning_needs_cuda(serve: Serve, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    serve(dataset)
    with pytest.raises(ValueError, match="pin_memory.*CUDA"):
        DataLoader("train", pin_memory=True)


def test_rank_comes_from_the_environment_when_there_are_several(
    serve: Serve, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    serve(dataset, name="two", world_size=2)
    serve(dataset, name="one")
    assert DataLoader("two").info.rank == 1
    assert DataLoader("two", rank=1).info.rank == 1
    with pytest.raises(ddas.RankError, match=r"rank is 0 by the arguments \(rank\), but 1 by torchrun \(RANK\)"):
        DataLoader("two", rank=0)
    assert DataLoader("two", rank=0, environment=False).info.rank == 0
    assert DataLoader("one").info.rank == 0
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ddas.RankError, match=r"2 by the stream \(world size\), but 4 by torchrun \(WORLD_SIZE\)"):
        DataLoader("two")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "7")
    with pytest.raises(ddas.Error, match="7"):
        DataLoader("two")
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(ValueError, match="RANK.*first"):
        DataLoader("two")
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")
    with pytest.raises(ddas.RankError, match="the rank is not known: give the rank, or start with torchrun"):
        DataLoader("two")


def test_killed_daemon(serve: Serve, dataset: Dataset) -> None:
    daemon = serve(dataset, epochs=1000)
    loader = DataLoader("train")
    iterator = iter(loader)
    next(iterator)
    daemon.kill()
    begin = time.monotonic()
    with pytest.raises(ddas.DaemonDied):
        while True:
            for _ in iterator:
                pass
            iterator = iter(loader)
    assert time.monotonic() - begin < 1.0


def test_a_network_learns(serve: Serve, dataset: Dataset, tmp_path: Path) -> None:
    """Three epochs over batches with a policy: the loss falls and the clean images are told apart."""
    policy = tmp_path / "policy.json"
    operations = [{"kind": "FlipLR"}, {"kind": "Rotate", "degrees": 20.0, "sign": "random"}]
    policy.write_text(
        json.dumps(
            {
                "format": "ddas-policy",
                "version": 1,
                "search_space": {"name": "mine", "draws_per_sample": 2, "operations": operations},
                "snapshots": [{"total_probability": 0.5, "operation_probabilities": [0.5, 0.5]}],
            }
        )
    )
    serve(dataset, epochs=3, batch_size=4, dtype="f32", policy=policy)
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, stride=2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 3)
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    loader = DataLoader("train")
    losses = []
    for epoch in range(loader.epochs):
        loader.set_epoch(epoch)
        total = 0.0
        for images, targets in loader:
            loss = torch.nn.functional.cross_entropy(network(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(targets)
        losses.append(total / len(dataset))
    assert losses[2] < 0.5 * losses[0], losses
    clean = torch.from_numpy(dataset.pixels).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (loader.info.normalization.mean, loader.info.normalization.std))
    accuracy = (network((clean - mean) / std).argmax(1).numpy() == dataset.labels).mean()
    assert accuracy > 0.9, f"accuracy {accuracy}, losses {losses}"


def test_two_ddp_processes_share_an_epoch(serve: Serve, dataset: Dataset) -> None:
    serve(dataset, epochs=2, world_size=2, batch_size=8)
    script = """
import os, sys, json
from ddas.torch import DataLoader
os.environ["RANK"] = sys.argv[1]
loader = DataLoader("train")
print(json.dumps([[targets.tolist() for _, targets in loader] for _ in range(loader.epochs)]))
"""
    children = [python(script, str(rank)) for rank in range(2)]
    outputs = []
    for child in children:
        output, errors = child.communicate(timeout=90)
        assert child.returncode == 0, errors
        outputs.append(json.loads(output))
    for epoch in range(2):
        labels = [label for rank in outputs for batch in rank[epoch] for label in batch]
        assert sorted(labels) == sorted(dataset.labels.tolist())


SETTINGS: dict[str, Any] = {"recipe": "cifar", "epochs": 3, "batch_size": 8, "seed": 5}


def pairs(loader: DataLoader, epochs: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [batch for _ in range(epochs) for batch in loader]


def equal(left: list[tuple[torch.Tensor, torch.Tensor]], right: list[tuple[torch.Tensor, torch.Tensor]]) -> bool:
    return len(left) == len(right) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(left, right)
    )


def test_a_daemon_a_loader_and_a_dataset_give_the_same(serve: Serve, dataset: Dataset) -> None:
    serve(dataset, epochs=3)
    whole = pairs(DataLoader("train"), 3)
    assert len(whole) == 18
    assert equal(pairs(DataLoader(dataset.path, **SETTINGS), 3), whole)
    assert equal(pairs(DataLoader(str(dataset.path), threads=1, slots=2, **SETTINGS), 3), whole)
    with ddas.Loader(dataset.path, **SETTINGS) as source:
        loader = DataLoader(source)
        assert (len(loader), loader.epochs, loader.batch_size) == (6, 3, 8)
        assert equal(pairs(loader, 3), whole)
        with pytest.raises(ddas.StreamFinished, match="all 3 epochs"):
            next(iter(loader))


def test_an_embedded_loader_goes_to_any_epoch(dataset: Dataset) -> None:
    whole = pairs(DataLoader(dataset.path, **SETTINGS), 3)
    loader = DataLoader(dataset.path, **SETTINGS)
    for epoch in (2, 0, 1, 1):
        loader.set_epoch(epoch)
        assert loader.epoch == epoch
        assert equal(list(loader), whole[epoch * 6 : epoch * 6 + 6])
    for batch in loader:
        break
    assert equal([batch], whole[12:13]), "without set_epoch the next one comes"
    loader.set_epoch(2)
    assert equal(list(loader), whole[12:]), "an epoch that was left early can be asked for again"
    loader.set_epoch(0)
    first = iter(loader)
    next(first)
    loader.set_epoch(2)
    with pytest.raises(ddas.Error, match="another loop"):
        next(first)
    for wrong in (-1, 3):
        with pytest.raises(ValueError, match="epochs 0 to 2"):
            loader.set_epoch(wrong)
    loader.close()


def test_an_embedded_loaders_state(serve: Serve, dataset: Dataset) -> None:
    """States go from a daemon's loader to an embedded one and back, and can be loaded at any time."""
    serve(dataset, name="before", epochs=3)
    served = DataLoader("before")
    whole, states = [], []
    for _ in range(3):
        for batch in served:
            whole.append(batch)
            states.append(served.state_dict())
    loader = DataLoader(dataset.path, **SETTINGS)
    for taken in (7, 2, 11, 16):
        loader.load_state_dict(states[taken])
        assert loader.state_dict() == states[taken]
        loader.set_epoch(states[taken]["epoch"])  # as a training script does
        found = [batch for _ in range(loader.epoch, 3) for batch in loader]
        assert equal(found, whole[taken + 1 :]), f"after batch {taken}"
    loader.load_state_dict(states[4])
    next(iter(loader))
    serve(dataset, name="after", epochs=3, start="1:0")
    again = DataLoader("after")
    again.load_state_dict(loader.state_dict())
    assert equal(pairs(again, 2), whole[6:])


@pytest.mark.parametrize("dtype", DTYPES)
def test_without_copies(dataset: Dataset, dtype: str) -> None:
    whole = pairs(DataLoader(dataset.path, dtype=dtype, **SETTINGS), 1)
    loader = DataLoader(dataset.path, dtype=dtype, slots=2, copy=False, **SETTINGS)
    addresses = set()
    for (images, targets), (expected, labels) in zip(loader, whole):
        assert images.dtype == DTYPES[dtype] and torch.equal(images, expected) and torch.equal(targets, labels)
        addresses.add(images.data_ptr())
        images.mul_(0)  # the trainer's own memory
        del images, targets
    assert len(addresses) <= 2, "the slots themselves"
    with pytest.raises(ddas.HoldsAllSlots, match="slots"):
        list(loader)


@pytest.mark.parametrize("copy", [True, False])
def test_indices(dataset: Dataset, copy: bool) -> None:
    loader = DataLoader(dataset.path, indices=True, copy=copy, **SETTINGS)
    found = []
    for images, targets, indices in loader:
        assert indices.dtype == torch.int64 and len(images) == len(indices)
        assert np.array_equal(targets.numpy(), dataset.labels[indices.numpy()])
        found += indices.tolist()
        del images, targets
    assert sorted(found) == list(range(43))


def test_repeat(serve: Serve, dataset: Dataset) -> None:
    """A validation loader: one epoch, the same in every loop, also after a loop that was left early."""
    loader = DataLoader(dataset.path, repeat=True, **{**SETTINGS, "epochs": 1})
    first = list(loader)
    assert len(first) == len(loader) == 6
    for _ in loader:
        break
    assert equal(list(loader), first) and equal(list(loader), first)
    serve(dataset)
    with pytest.raises(ValueError, match="repeat.*daemon"):
        DataLoader("train", repeat=True)


def test_the_timeout_is_the_sources_own_unless_given(serve: Serve, dataset: Dataset) -> None:
    serve(dataset, consumers=2)
    for source, keywords, own in [(dataset.path, SETTINGS, None), ("train", {}, 60.0)]:
        left_out = DataLoader(source, **keywords)
        assert left_out._stream._timeout == own
        given = DataLoader(source, timeout=7.0, **keywords)
        assert given._stream._timeout == 7.0
        left_out.close()
        given.close()
    without = DataLoader(dataset.path, timeout=None, **SETTINGS)
    assert without._stream._timeout is None
    with pytest.raises(ValueError, match="timeout"):
        DataLoader(dataset.path, timeout=-1.0, **SETTINGS)


def test_arguments_that_do_not_fit(serve: Serve, dataset: Dataset) -> None:
    with pytest.raises(TypeError, match="`num_workers`.*`threads`"):
        DataLoader(dataset.path, num_workers=2, **SETTINGS)
    with pytest.raises(TypeError, match="`shuffle`.*own order"):
        DataLoader("train", shuffle=True)
    with pytest.raises(ValueError, match="`recipe`, `epochs` and `batch_size`"):
        DataLoader(dataset.path)
    with pytest.raises(TypeError, match="batch_size"):
        DataLoader(dataset.path, recipe="cifar", epochs=3)
    source = ddas.Loader(dataset.path, **SETTINGS)
    with pytest.raises(ValueError, match="`rank` belongs to the Loader"):
        DataLoader(source, rank=0)
