"""torchvision's AutoAugment, RandAugment and TrivialAugmentWide on PIL images: the same draws, the same pixels.

The draws are handed to torchvision's own functions, of both of its generations.
"""

from __future__ import annotations

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


@pytest.mark.parametrize("interpolation", [InterpolationMode.BILINEAR, InterpolationMode.BICUBIC])
def test_other_interpolations_and_fills(interpolation: InterpolationMode) -> None:
    fill = (125, 122, 113)
    for name in ("random 33x17", "gradient 64x48", "china 131x97", "random 1x1"):
        image = IMAGES[name]
        for kind, (magnitudes, signed) in FAMILIES["TrivialAugmentWide"]((image.height, image.width)).items():
            if not signed or kind in FACTORS:
                continue
            for magnitude in magnitudes.tolist()[::6]:
                for directed in (magnitude, -magnitude):
                    expected = autoaugment._apply_op(image, kind, directed, interpolation, list(fill))
                    operation = {**of_torchvision(kind, directed), "fill": fill, "interpolation": interpolation.value}
                    assert_same(ours(image, operation), expected, (name, kind, directed))


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


POLICIES = [
    *(pytest.param("randaugment", {"magnitude": magnitude}, id=f"randaugment-{magnitude}") for magnitude in (0, 4, 9, 11, 30)),
    *(pytest.param(name, {}, id=name) for name in ("trivialaugment-wide", "autoaugment-cifar10", "autoaugment-svhn", "autoaugment-imagenet")),
]


@pytest.mark.parametrize("generation", [first_generation, second_generation])
@pytest.mark.parametrize(("name", "options"), POLICIES)
def test_our_draws_in_torchvision(name: str, options: dict[str, int], generation: Any) -> None:
    """The other way round: built-in policies draw, torchvision's functions apply what was drawn."""
    augment = ddas.Augment(ddas.Policy.builtin(name, **options), epochs=1, seed=7)
    images = [IMAGES[image] for image in ("random 32x32", "china 131x97", "random 17x33", "gradient 64x48")]
    kinds = set()
    for index in range(300):
        image = images[index % len(images)]
        drawn = augment.drawn(index)
        expected = image
        for operation in drawn:
            kinds.add(operation["kind"])
            expected = generation(expected, *in_torchvision(operation, image))
        assert_same(augment(image, index=index), expected, drawn)
    assert len(kinds) > 8


SIDES = (32, 224, 331, 600)


def key_of_torchvision(kind: str, i: int, space: Any) -> tuple[Any, ...]:
    """What tells operations apart: the kind, whether the sign is drawn, and what the argument comes to.

    Of bin `i` of the table that `space` makes for an image's size.
    """
    magnitudes, signed = space((1, 1))[kind]
    if kind.startswith("Translate"):
        return (kind, signed, tuple(int(space((side, side))[kind][0][i].item()) for side in SIDES))
    if not magnitudes.ndim:
        return (kind, signed, None)
    magnitude = magnitudes[i].item()
    return (kind, signed, 1.0 + magnitude if kind in FACTORS else magnitude)


def key_of_ours(operation: Operation) -> tuple[Any, ...]:
    kind = operation["kind"]
    signed = operation.get("sign") == "random"
    if kind.startswith("Translate"):
        if "fraction" in operation:
            assert operation["rounding"] == "truncate"
            return (kind, signed, tuple(int(np.float32(operation["fraction"] * side)) for side in SIDES))
        return (kind, signed, tuple(int(operation["pixels"]) for _ in SIDES))
    return (kind, signed, operation["factor"] if kind in FACTORS else operation.get(ARGUMENTS.get(kind, "")))


def shares(entries: list[tuple[Any, float]]) -> dict[Any, float]:
    """The probability of each entry; equal ones are one."""
    sums: dict[Any, float] = {}
    for entry, share in entries:
        sums[entry] = sums.get(entry, 0.0) + share
    return {entry: pytest.approx(share, abs=1e-9) for entry, share in sums.items() if share > 0}


def of_policy(policy: ddas.Policy, entry_key: Any) -> dict[Any, float]:
    (snapshot,) = policy.snapshots
    assert snapshot.total_probability == 1.0
    entries = zip(policy.operations, snapshot.operation_probabilities, strict=True)
    sums: dict[Any, float] = {}
    for operation, share in entries:
        sums[entry_key(operation)] = sums.get(entry_key(operation), 0.0) + share
    return sums


@pytest.mark.parametrize("magnitude", [0, 9, 30])
def test_the_built_in_randaugment(magnitude: int) -> None:
    policy = ddas.Policy.builtin("randaugment", magnitude=magnitude)
    space = FAMILIES["RandAugment"]
    expected = [(key_of_torchvision(kind, magnitude, space), 1 / 14) for kind in space((1, 1))]
    assert policy.draws_per_sample == 2
    assert of_policy(policy, key_of_ours) == shares(expected)


def test_the_built_in_trivialaugment() -> None:
    policy = ddas.Policy.builtin("trivialaugment-wide")
    space = FAMILIES["TrivialAugmentWide"]
    expected = [(key_of_torchvision(kind, i, space), 1 / 14 / 31) for kind in space((1, 1)) for i in range(31)]
    assert policy.draws_per_sample == 1
    assert of_policy(policy, key_of_ours) == shares(expected)


@pytest.mark.parametrize("of", autoaugment.AutoAugmentPolicy)
def test_the_built_in_autoaugment(of: autoaugment.AutoAugmentPolicy) -> None:
    policy = ddas.Policy.builtin(f"autoaugment-{of.value}")
    space = FAMILIES["AutoAugment"]

    def pair(entry: dict[str, Any]) -> tuple[Any, ...]:
        assert entry["kind"] == "Sequence"
        return tuple((step["probability"], key_of_ours(step["operation"])) for step in entry["steps"] if step["probability"] > 0)

    pairs = transforms.AutoAugment(of).policies
    assert len(pairs) == 25
    expected = [
        (tuple((p, key_of_torchvision(kind, i or 0, space)) for kind, p, i in steps if p > 0), 1 / 25) for steps in pairs
    ]
    assert policy.draws_per_sample == 1
    assert of_policy(policy, pair) == shares(expected)
