"""Mixed batches (MixUp, CutMix) from a daemon and from a `ddas.Loader`, against the same batches unmixed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import ddas
from conftest import Dataset, Serve, run
from ddas.torch import DataLoader, soft_targets

MIXUP = "mixup = { alpha = 0.7 }"
CUTMIX = "cutmix = { alpha = 1.0 }"


@pytest.fixture
def recipe(loader_binary: Path, tmp_path: Path) -> Path:
    """The recipe `cifar`, ready for a table `[mix]` to be added."""
    path = tmp_path / "mixed.toml"
    path.write_text(run(loader_binary, "recipe", "show", "cifar"))
    return path


def add(recipe: Path, *lines: str) -> Path:
    recipe.write_text("\n".join([recipe.read_text(), "[mix]", *lines, ""]))
    return recipe


@pytest.mark.parametrize("per", ["batch", "pair"])
def test_mixtures_are_those_of_the_unmixed_neighbours(serve: Serve, dataset: Dataset, recipe: Path, per: str) -> None:
    serve(dataset, name="plain")
    serve(dataset, name="mixup", recipe=add(recipe, MIXUP, f'per = "{per}"'))
    weights_seen = set()
    with ddas.connect("plain") as plain, ddas.connect("mixup") as mixed:
        assert mixed.info.mixes and not plain.info.mixes
        for unmixed, batch in zip(plain, mixed, strict=True):
            assert unmixed.mixed_labels is None and unmixed.weights is None
            labels, partners, weights = batch.labels, batch.mixed_labels, batch.weights
            assert partners is not None and weights is not None
            assert partners.dtype == np.int64 and weights.dtype == np.float32
            assert np.array_equal(labels, unmixed.labels) and np.array_equal(batch.indices, unmixed.indices)
            count = len(batch)
            partner = np.array([i ^ 1 if i ^ 1 < count else i for i in range(count)])
            assert np.array_equal(partners, labels[partner])
            paired = partner != np.arange(count)
            assert np.all(weights[~paired] == 1)
            assert per == "pair" or len(set(weights[paired].tolist())) <= 1
            weights_seen.update(weights[paired].tolist())
            share = weights[:, None, None, None]
            expected = share * unmixed.images + (1 - share) * unmixed.images[partner]
            assert np.allclose(batch.images, expected, atol=1e-5)
    assert len(weights_seen) > 5


def test_rectangles_keep_the_share_that_the_weight_says(serve: Serve, dataset: Dataset, recipe: Path) -> None:
    serve(dataset, name="plain")
    serve(dataset, name="cutmix", recipe=add(recipe, CUTMIX, 'per = "pair"'))
    with ddas.connect("plain") as plain, ddas.connect("cutmix") as mixed:
        for unmixed, batch in zip(plain, mixed, strict=True):
            weights = batch.weights
            assert weights is not None
            for i in range(len(batch)):
                partner = i ^ 1 if i ^ 1 < len(batch) else i
                own = np.all(batch.images[i] == unmixed.images[i], axis=0)
                other = np.all(batch.images[i] == unmixed.images[partner], axis=0)
                assert np.all(own | other)
                # Pixels that both have alike (borders, cutout) may stand on either side of the rectangle.
                assert np.mean(~other) <= weights[i] + 1e-6 and np.mean(~own) <= 1 - weights[i] + 1e-6


@pytest.mark.parametrize("dtype", ["u8", "f16", "bf16"])
def test_a_loader_mixes_as_the_daemon_does(serve: Serve, dataset: Dataset, recipe: Path, dtype: str) -> None:
    serve(dataset, recipe=add(recipe, MIXUP, CUTMIX), dtype=dtype, layout="nhwc")
    loader = ddas.Loader(dataset.path, recipe=recipe, epochs=2, batch_size=8, seed=5, dtype=dtype, layout="nhwc")
    with ddas.connect("train") as stream, loader:
        for theirs, ours in zip(stream, loader, strict=True):
            for name in ("images", "labels", "mixed_labels", "weights", "indices"):
                assert getattr(theirs, name).tobytes() == getattr(ours, name).tobytes(), name


@pytest.mark.parametrize("copy", [True, False])
def test_targets_of_the_torch_loader(dataset: Dataset, recipe: Path, copy: bool) -> None:
    settings = {"recipe": add(recipe, MIXUP, CUTMIX), "epochs": 1, "batch_size": 8, "seed": 5, "copy": copy}
    hard = DataLoader(dataset.path, **settings)
    soft = DataLoader(dataset.path, **settings, targets="soft")
    classes = hard.info.classes
    torch.manual_seed(0)
    for (images, (labels, partners, weights)), (same, shares) in zip(hard, soft, strict=True):
        assert torch.equal(images, same)
        assert (labels.dtype, partners.dtype, weights.dtype) == (torch.int64, torch.int64, torch.float32)
        assert shares.shape == (len(labels), classes) and shares.dtype == torch.float32
        assert torch.allclose(shares.sum(1), torch.ones(len(labels)))
        logits = torch.randn(len(labels), classes)
        loss = torch.nn.functional.cross_entropy(logits, shares)
        each = torch.nn.functional.cross_entropy
        two = weights * each(logits, labels, reduction="none") + (1 - weights) * each(logits, partners, reduction="none")
        assert torch.allclose(loss, two.mean(), atol=1e-6)


def test_soft_targets_without_mixing(dataset: Dataset) -> None:
    settings = {"recipe": "cifar", "epochs": 1, "batch_size": 8, "seed": 5}
    hard, soft = DataLoader(dataset.path, **settings), DataLoader(dataset.path, **settings, targets="soft")
    for (_, labels), (_, shares) in zip(hard, soft, strict=True):
        assert torch.equal(shares, torch.nn.functional.one_hot(labels, hard.info.classes).float())
    assert torch.equal(soft_targets(3, torch.tensor([2])), torch.tensor([[0.0, 0.0, 1.0]]))


def test_what_cannot_be_is_refused(serve: Serve, dataset: Dataset, recipe: Path) -> None:
    settings = {"recipe": add(recipe, MIXUP), "epochs": 1, "seed": 5}
    with pytest.raises(ValueError, match="take an even batch size"):
        ddas.Loader(dataset.path, batch_size=7, **settings)
    with pytest.raises(ValueError, match="legal world sizes: 1, 2, 4"):
        ddas.Loader(dataset.path, batch_size=8, rank=0, world_size=8, **settings)
    with pytest.raises(ValueError, match='`targets` must be "labels" or "soft"'):
        DataLoader(dataset.path, recipe="cifar", epochs=1, batch_size=8, targets="hard")  # type: ignore[arg-type]
    with ddas.Loader(dataset.path, recipe="cifar", epochs=1, batch_size=8) as plain:
        batch = next(plain)
        with pytest.raises(ValueError, match="does not mix batches"):
            batch.array("weights")


def test_a_late_consumer_may_wait_for_the_next_epoch(serve: Serve, dataset: Dataset) -> None:
    serve(dataset, epochs=3, slots=2)
    with pytest.raises(ValueError, match='"current" or "next-epoch"'):
        ddas.connect("train", start="tomorrow")  # type: ignore[arg-type]
    with ddas.connect("train") as first:
        for _ in range(4):  # of 6 an epoch
            next(first)
        loader = DataLoader("train", start="next-epoch")
        for batch in first:
            if (batch.epoch, batch.step) == (1, 0):
                break
        del batch
        images, targets = next(iter(loader))
        assert loader.epoch == 1
        loader.close()
        for _ in first:
            pass
