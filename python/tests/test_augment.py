"""`ddas.Augment`: a policy replayed on single images."""

from __future__ import annotations

import copy
import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

import ddas
from pillow_oracle import mirrored, oracle

PIXELS = np.random.default_rng(5).integers(0, 256, (32, 32, 3), np.uint8)


def policy(totals: list[float], operations: list[dict[str, object]], draws: int = 1) -> ddas.Policy:
    share = 1 / len(operations)
    return ddas.Policy.from_json(
        json.dumps(
            {
                "format": "ddas-policy",
                "version": 1,
                "search_space": {"name": "mine", "draws_per_sample": draws, "operations": operations},
                "snapshots": [
                    {"total_probability": total, "operation_probabilities": [share] * len(operations)} for total in totals
                ],
            }
        )
    )


ROTATE = {"kind": "Rotate", "degrees": 12.0, "sign": "random"}
SPACE = ddas.search_space("paper68")
PAPER = policy([0.3, 0.9], SPACE["operations"], SPACE["draws_per_sample"])


def test_the_three_image_types_get_the_same_pixels() -> None:
    augment = ddas.Augment(PAPER, epochs=10, seed=1)
    augment.set_epoch(7)
    for index in range(40):
        expected = augment(PIXELS, index=index)
        assert isinstance(expected, np.ndarray)
        image = augment(Image.fromarray(PIXELS), index=index)
        assert isinstance(image, Image.Image) and np.array_equal(np.asarray(image), expected)
        tensor = augment(torch.from_numpy(PIXELS).permute(2, 0, 1), index=index)
        assert isinstance(tensor, torch.Tensor) and np.array_equal(tensor.permute(1, 2, 0).numpy(), expected)


def test_epoch_decides_how_often() -> None:
    augment = ddas.Augment(policy([0.0, 0.5, 1.0], [{"kind": "Invert"}]), epochs=30, seed=4)
    for epoch, low, high in ((0, 0, 0), (9, 0, 0), (10, 420, 580), (19, 420, 580), (20, 1000, 1000), (29, 1000, 1000)):
        augment.set_epoch(epoch)
        changed = sum(not np.array_equal(augment(PIXELS, index=index), PIXELS) for index in range(1000))
        assert low <= changed <= high, f"epoch {epoch}: {changed} of 1000 augmented"


def test_both_signs_occur_and_nothing_else() -> None:
    augment = ddas.Augment(policy([1.0], [ROTATE]), epochs=1, seed=0)
    arguments = {key: value for key, value in ROTATE.items() if key != "sign"}
    turned = [np.asarray(oracle(Image.fromarray(PIXELS), **side)) for side in (arguments, mirrored(arguments))]
    found = [[np.array_equal(augment(PIXELS, index=index), side) for side in turned] for index in range(400)]
    assert all(sum(pair) == 1 for pair in found)
    assert 150 < sum(pair[0] for pair in found) < 250


def test_draws_depend_on_seed_epoch_and_index_only() -> None:
    def images(augment: ddas.Augment, order: range, epoch: int) -> dict[int, bytes]:
        augment.set_epoch(epoch)
        return {index: augment(PIXELS, index=index).tobytes() for index in order}

    first = images(ddas.Augment(PAPER, epochs=4, seed=9), range(60), 2)
    assert images(ddas.Augment(PAPER, epochs=4, seed=9), range(59, -1, -1), 2) == first
    with ThreadPoolExecutor(8) as threads:
        augment = ddas.Augment(PAPER, epochs=4, seed=9)
        augment.set_epoch(2)
        assert dict(zip(range(60), threads.map(lambda index: augment(PIXELS, index=index).tobytes(), range(60)))) == first
    assert images(ddas.Augment(PAPER, epochs=4, seed=10), range(60), 2) != first
    assert images(ddas.Augment(PAPER, epochs=4, seed=9), range(60), 3) != first


def test_calls_without_an_index_are_numbered() -> None:
    augment = ddas.Augment(PAPER, epochs=2, seed=3)
    augment.set_epoch(1)
    unnumbered = [augment(PIXELS).tobytes() for _ in range(20)]
    assert unnumbered == [augment(PIXELS, index=index).tobytes() for index in range(20)]
    augment.set_epoch(1)
    assert augment(PIXELS).tobytes() == unnumbered[0]


class Images(torch.utils.data.Dataset):
    """A map-style dataset whose transform is an Augment, as users of torchvision write it."""

    def __init__(self, augment: ddas.Augment) -> None:
        self.augment = augment

    def __len__(self) -> int:
        return 48

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self.augment(PIXELS))


def test_workers_of_a_torch_loader_do_not_repeat_each_others_draws() -> None:
    augment = ddas.Augment(policy([1.0], [{"kind": "Cutout", "size": 9}]), epochs=1, seed=3)
    loader = torch.utils.data.DataLoader(Images(augment), batch_size=4, num_workers=2)
    images = [image.numpy().tobytes() for batch in loader for image in batch]
    # 48 centres among 1024: a pair of equal ones is likely once or twice, 24 pairs are not.
    assert len(set(images)) > 40
    assert set(images) == {augment(PIXELS, index=index).tobytes() for index in range(48)}


def spawned_loader(dataset: torch.utils.data.Dataset) -> torch.utils.data.DataLoader:
    return torch.utils.data.DataLoader(dataset, batch_size=4, num_workers=2, multiprocessing_context="spawn")


def test_spawned_workers_draw_what_forked_ones_do() -> None:
    augment = ddas.Augment(PAPER, epochs=4, seed=3)
    augment.set_epoch(3)
    images = [image.numpy().tobytes() for batch in spawned_loader(Images(augment)) for image in batch]
    assert set(images) == {augment(PIXELS, index=index).tobytes() for index in range(48)}


class Photos(torch.utils.data.Dataset):
    """A dataset as torchvision's are: PIL images, and one transform that is handed nothing but the image."""

    def __init__(self, transform: transforms.Compose) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(Image.fromarray(PIXELS))


def test_it_drops_into_a_compose() -> None:
    augment = ddas.Augment(PAPER, epochs=4, seed=8)
    augment.set_epoch(2)
    for augmented in (
        [augment, transforms.PILToTensor()],  # on PIL images
        [transforms.PILToTensor(), augment],  # on tensors
    ):
        compose = transforms.Compose([transforms.Resize(32), *augmented, transforms.Lambda(torch.clone)])
        assert "Augment" in repr(compose)
        augment.set_epoch(2)
        here = [image.numpy().transpose(1, 2, 0).tobytes() for image in map(Photos(compose).__getitem__, range(24))]
        assert here == [augment(PIXELS, index=index).tobytes() for index in range(24)]
        loader = torch.utils.data.DataLoader(Photos(transforms.Compose(augmented)), batch_size=3, num_workers=2)
        augment.set_epoch(2)
        there = [image.numpy().transpose(1, 2, 0).tobytes() for batch in loader for image in batch]
        assert sorted(there) == sorted(here)


def test_what_was_drawn_can_be_applied_by_hand() -> None:
    augment = ddas.Augment(PAPER, epochs=4, seed=9)
    augment.set_epoch(3)
    lengths = []
    for index in range(80):
        drawn = augment.drawn(index)
        lengths.append(len(drawn))
        if any(operation["kind"] == "Cutout" for operation in drawn):
            continue  # its centre is drawn with the pixels at hand
        expected = PIXELS
        for operation in drawn:
            arguments = {name: value for name, value in operation.items() if name not in ("kind", "sign")}
            expected = ddas.apply(expected, operation["kind"], **arguments)
        assert np.array_equal(augment(PIXELS, index=index), expected)
    assert set(lengths) == {0, SPACE["draws_per_sample"]}


def test_policies_and_snapshots_are_values() -> None:
    again = policy([0.3, 0.9], SPACE["operations"], SPACE["draws_per_sample"])
    other = policy([0.3, 0.8], SPACE["operations"], SPACE["draws_per_sample"])
    assert again == PAPER and hash(again) == hash(PAPER) and not again != PAPER
    assert other != PAPER and PAPER != "policy.json" and PAPER is not None
    assert pickle.loads(pickle.dumps(PAPER)) == PAPER and copy.deepcopy(PAPER) == PAPER
    first, second = PAPER.snapshots
    assert first == again.snapshots[0] and first != second and first != 0.3
    for snapshot in (first, second, PAPER.snapshot(epoch=1, epochs=3)):
        copied = pickle.loads(pickle.dumps(snapshot))
        assert copied == snapshot and hash(copied) == hash(snapshot)
        assert copied.operation_probabilities == snapshot.operation_probabilities


def test_copies_draw_the_same() -> None:
    augment = ddas.Augment(PAPER, epochs=5, seed=2**63 + 1)
    augment.set_epoch(3)
    for other in (pickle.loads(pickle.dumps(augment)), copy.deepcopy(augment)):
        assert other.epoch == 3 and other.seed == 2**63 + 1 and other.epochs == 5
        for index in range(20):
            assert np.array_equal(other(PIXELS, index=index), augment(PIXELS, index=index))


def test_wrong_use_is_refused() -> None:
    augment = ddas.Augment(PAPER, epochs=5, seed=0)
    with pytest.raises(TypeError, match="`index`"):
        augment.drawn("3")  # type: ignore[arg-type]
    for epoch in (-1, 5):
        with pytest.raises(ValueError, match="epoch"):
            augment.set_epoch(epoch)
    with pytest.raises(TypeError, match="`epoch` must be a whole number, got 1.5"):
        augment.set_epoch(1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="epoch"):
        ddas.Augment(PAPER, epochs=0)
    for number in (-1, 2**64):
        with pytest.raises(ValueError, match=f"`seed`.*got {number}"):
            ddas.Augment(PAPER, epochs=5, seed=number)
        with pytest.raises(ValueError, match=f"`index`.*got {number}"):
            augment(PIXELS, index=number)
    with pytest.raises(TypeError, match="`policy` must be a ddas.Policy, got str; ddas.Policy.load"):
        ddas.Augment("policy.json", epochs=5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="uint8"):
        augment(PIXELS.astype(float), index=0)
