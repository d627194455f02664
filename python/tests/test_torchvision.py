"""torchvision's AutoAugment, RandAugment and TrivialAugmentWide on PIL images: the same draws, the same pixels.

The draws are handed to torchvision's own functions, of both of its generations.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode, autoaugment, v2

import ddas
from pillow_oracle import sample_images

IMAGES = {
    name: Image.fromarray(pixels)
    for name, pixels in sample_images().items()
    if name.split()[0] in ("random", "gradient", "low-contrast", "china", "flower", "constant", "two")
}
FACTORS = ("Brightness", "Color", "Contrast", "Sharpness")
# Those whose argument is a number of torch.linspace, and what it is called here.
ARGUMENTS = {"ShearX": "shear", "ShearY": "shear", "Rotate": "degrees", "Posterize": "bits", "Solarize": "threshold"}

Operation = dict[str, Any]


def of_torchvision(name: str, magnitude: float) -> Operation:
    """The operation that `_apply_op(image, name, magnitude, ...)` stands for."""
    if name in FACTORS:
        return {"kind": name, "factor": 1.0 + magnitude}
    if name.startswith("Translate"):  # positive moves the content right there, left here
        return {"kind": name, "pixels": -magnitude, "rounding": "truncate"}
    if name == "Posterize":
        magnitude = int(magnitude)
    return {"kind": name, **({ARGUMENTS[name]: magnitude} if name in ARGUMENTS else {})}


def in_torchvision(operation: Operation, image: Image.Image) -> tuple[str, float]:
    """The name and magnitude with which torchvision does `operation`."""
    kind = operation["kind"]
    if kind in FACTORS:
        return kind, operation["factor"] - 1.0
    if kind.startswith("Translate"):
        side = image.width if kind == "TranslateX" else image.height
        return kind, -(operation["pixels"] if "pixels" in operation else float(np.float32(operation["fraction"] * side)))
    return kind, operation[ARGUMENTS[kind]] if kind in ARGUMENTS else 0.0


def first_generation(image: Image.Image, name: str, magnitude: float) -> Image.Image:
    return autoaugment._apply_op(image, name, magnitude, interpolation=InterpolationMode.NEAREST, fill=None)


def second_generation(image: Image.Image, name: str, magnitude: float) -> Image.Image:
    transform = v2.RandAugment()
    if name == "Solarize":  # a share of the largest value there
        magnitude = magnitude / 255.0
    return transform._apply_image_or_video_transform(image, name, magnitude, transform.interpolation, transform._fill)


def ours(image: Image.Image, operation: Operation) -> Image.Image:
    arguments = dict(operation)
    arguments.pop("sign", None)
    return ddas.apply(image, arguments.pop("kind"), **arguments)


def assert_same(found: Image.Image, expected: Image.Image, what: object) -> None:
    assert found.size == expected.size and found.tobytes() == expected.tobytes(), what


FAMILIES = {
    "AutoAugment": lambda size: transforms.AutoAugment()._augmentation_space(10, size),
    "RandAugment": lambda size: transforms.RandAugment()._augmentation_space(31, size),
    "TrivialAugmentWide": lambda size: transforms.TrivialAugmentWide()._augmentation_space(31),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_bin_of_every_operation(family: str) -> None:
    for name, image in IMAGES.items():
        large = image.width * image.height > 10_000
        for kind, (magnitudes, signed) in FAMILIES[family]((image.height, image.width)).items():
            values = magnitudes.tolist() if magnitudes.ndim else [0.0]
            for magnitude in values[-1:] if large else values:
                for directed in (magnitude, -magnitude) if signed else (magnitude,):
                    expected = first_generation(image, kind, directed)
                    assert_same(ours(image, of_torchvision(kind, directed)), expected, (name, kind, directed))


def test_the_second_generation() -> None:
    for kind, (magnitudes, signed) in v2.RandAugment._AUGMENTATION_SPACE.items():
        for name in ("random 33x17", "gradient 64x48", "china 131x97"):
            image = IMAGES[name]
            values = magnitudes(31, image.height, image.width)
            for magnitude in [0.0] if values is None else values.tolist():
                # Its thresholds are 255 times a share: some are not the whole numbers of the first generation.
                given = 255.0 * magnitude if kind == "Solarize" else magnitude
                for directed in (magnitude, -magnitude) if signed else (magnitude,):
                    transform = v2.RandAugment()
                    expected = transform._apply_image_or_video_transform(
                        image, kind, directed, transform.interpolation, transform._fill
                    )
                    found = ours(image, of_torchvision(kind, given if kind == "Solarize" else directed))
                    assert_same(found, expected, (name, kind, directed))


@pytest.mark.parametrize("bins", [10, 31])
@pytest.mark.parametrize("kind", ["TranslateX", "TranslateY"])
def test_translations_by_a_fraction_at_every_side(kind: str, bins: int) -> None:
    """torchvision makes the offset in single precision and cuts it; 150/331 of 331 pixels is where that shows."""
    for side in range(1, 601):
        pixels = np.arange(side * 3).astype(np.uint8).reshape((1, side, 3) if kind == "TranslateX" else (side, 1, 3))
        offsets = torch.linspace(0.0, 150.0 / 331.0 * side, bins)
        for i, offset in enumerate(offsets.tolist()):
            shift = int(offset)
            fraction = 150 / 331 * i / (bins - 1)
            for sign in (1, -1):
                found = ddas.apply(pixels, kind, fraction=-sign * fraction, rounding="truncate").reshape(side, 3)
                expected = np.zeros((side, 3), np.uint8)
                line = pixels.reshape(side, 3)
                if sign == 1:
                    expected[shift:] = line[: side - shift]
                else:
                    expected[: side - shift] = line[shift:]
                assert np.array_equal(found, expected), (side, i, sign)


@pytest.mark.parametrize(
    "transform", [transforms.RandAugment(), transforms.TrivialAugmentWide(), *map(transforms.AutoAugment, autoaugment.AutoAugmentPolicy)]
)
def test_what_the_transforms_draw(transform: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole transforms run as they are; their draws are written down and done again here."""
    drawn: list[tuple[str, float]] = []
    apply_op = autoaugment._apply_op

    def recording(image: Image.Image, name: str, magnitude: float, **rest: Any) -> Image.Image:
        drawn.append((name, magnitude))
        return apply_op(image, name, magnitude, **rest)

    monkeypatch.setattr(autoaugment, "_apply_op", recording)
    torch.manual_seed(11)
    names = [name for name in IMAGES if name in ("random 32x32", "china 131x97", "random 17x33")]
    kinds = set()
    for _ in range(150):
        for name in names:
            drawn.clear()
            expected = transform(IMAGES[name])
            found = IMAGES[name]
            for kind, magnitude in drawn:
                kinds.add(kind)
                found = ours(found, of_torchvision(kind, magnitude))
            assert_same(found, expected, (name, drawn))
    assert len(kinds) > 8


def randaugment(magnitude: int) -> ddas.Policy:
    """RandAugment(2, magnitude) from torchvision's own table."""
    table = FAMILIES["RandAugment"]((1, 1))
    operations: list[Operation] = []
    for kind, (magnitudes, signed) in table.items():
        operation = of_torchvision(kind, magnitudes[magnitude].item() if magnitudes.ndim else 0.0)
        if kind.startswith("Translate"):
            operation = {"kind": kind, "fraction": 150 / 331 * magnitude / 30, "rounding": "truncate"}
        operations.append({**operation, **({"sign": "random"} if signed else {})})
    share = 1 / len(operations)
    return ddas.Policy.from_json(
        json.dumps(
            {
                "format": "ddas-policy",
                "version": 1,
                "search_space": {"name": "randaugment", "draws_per_sample": 2, "operations": operations},
                "snapshots": [{"total_probability": 1.0, "operation_probabilities": [share] * len(operations)}],
            }
        )
    )


@pytest.mark.parametrize("generation", [first_generation, second_generation])
@pytest.mark.parametrize("magnitude", [0, 4, 9, 11, 30])
def test_our_draws_in_torchvision(magnitude: int, generation: Any) -> None:
    augment = ddas.Augment(randaugment(magnitude), epochs=1, seed=magnitude)
    names = [name for name in IMAGES if name in ("random 32x32", "china 131x97", "random 17x33", "gradient 64x48")]
    kinds = set()
    for index in range(300):
        image = IMAGES[names[index % len(names)]]
        drawn = augment.drawn(index)
        assert len(drawn) == 2
        expected = image
        for operation in drawn:
            kinds.add(operation["kind"])
            expected = generation(expected, *in_torchvision(operation, image))
        assert_same(augment(image, index=index), expected, drawn)
    assert len(kinds) == 14
