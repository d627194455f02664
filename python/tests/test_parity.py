"""Bit-exactness with the installed Pillow: every operation, every magnitude, every awkward image.

`test_other_pillow.py` runs this file once more, with another version of Pillow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

import ddas
from pillow_oracle import mirrored, oracle, sample_images

IMAGES = sample_images()
PLAIN = ["Identity", "FlipLR", "FlipUD", "AutoContrast", "Equalize", "Invert", "Blur", "Smooth"]
TURNS = ["Rotate90", "Rotate180", "Rotate270"]


def assert_equals_pillow(kind: str, images: dict[str, np.ndarray] = IMAGES, **arguments: Any) -> None:
    different = {}
    for name, pixels in images.items():
        image = Image.fromarray(pixels)
        centers: list[tuple[float, float] | None] = [None]
        if arguments.get("shape") == "rectangle":
            centers = [(image.width, image.height), (1 + 0.31 * image.width, 0.7), (0.49 * image.width, 0.83 * image.height)]
            centers = [(min(x, image.width), min(y, image.height)) for x, y in centers]
        elif kind == "Cutout":
            centers = [(0, 0), (image.width - 1, image.height - 1), (image.width // 2, image.height // 3)]
        for center in centers:
            extra = {} if center is None else {"center": center}
            expected = np.asarray(oracle(image, kind, center=center, **arguments))
            result = np.asarray(ddas.apply(image, kind, **arguments, **extra))
            assert result.shape == expected.shape, name
            if not np.array_equal(result, expected):
                wrong = np.argwhere(result != expected)
                different[name] = f"{len(wrong)} of {expected.size} values, first at {wrong[0].tolist()}"
    assert not different, f"{kind} {arguments} differs from Pillow on {different}"


def magnitudes(space: str) -> list[Any]:
    """Each operation of a search space, in both directions where it has two."""
    cases: dict[str, dict[str, Any]] = {}
    for operation in ddas.search_space(space)["operations"]:
        for turned in (operation, mirrored(operation)) if operation.get("sign") == "random" else (operation,):
            cases[str(turned)] = {key: value for key, value in turned.items() if key != "sign"}
    return [pytest.param(case, id="-".join(str(value) for value in case.values())) for case in cases.values()]


def test_the_search_space_is_the_papers() -> None:
    space = ddas.search_space("paper68")
    kinds = [operation["kind"] for operation in space["operations"]]
    assert len(kinds) == 68
    without_magnitude = [kind for kind in kinds if kinds.count(kind) == 1]
    assert without_magnitude == PLAIN
    assert all(kinds.count(kind) == 5 for kind in kinds if kind not in without_magnitude)
    assert len(set(kinds)) == 20


@pytest.mark.parametrize("operation", magnitudes("paper68"))
def test_paper68(operation: dict[str, Any]) -> None:
    assert_equals_pillow(**operation)


@pytest.mark.parametrize("operation", magnitudes("released52") + magnitudes("released52-as-run") + magnitudes("sanity"))
def test_other_search_spaces(operation: dict[str, Any]) -> None:
    assert_equals_pillow(**operation)


@pytest.mark.parametrize("kind", PLAIN + TURNS)
def test_operations_without_arguments(kind: str) -> None:
    assert_equals_pillow(kind)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("fill", [(0, 0, 0), (125, 122, 113), (255, 1, 128)], ids=str)
@pytest.mark.parametrize(
    ("kind", "argument", "values"),
    [
        ("Rotate", "degrees", [0.0, 1.0, 13.7, 21.0, 45.0, 90.0, 180.0, 270.0, 359.5, 720.25, -6.0, -30.0, -84.0, -135.0]),
        ("ShearX", "shear", [0.0, 0.06, 0.3, 0.84, -0.21, -1.5]),
        ("ShearY", "shear", [0.0, 0.06, 0.3, 0.84, -0.21, -1.5]),
        ("TranslateX", "pixels", [0.0, 2.0, 10.0, 28.0, -7.0, 2.5, -2.5, 14.4, -0.3, -0.7, 0.5, 400.0]),
        ("TranslateY", "pixels", [0.0, 2.0, 10.0, 28.0, -7.0, 2.5, -2.5, 14.4, -0.3, -0.7, 0.5, 400.0]),
        ("TranslateX", "fraction", [0.0, 0.1, 0.45, -0.3125, 1.0]),
        ("TranslateY", "fraction", [0.0, 0.1, 0.45, -0.3125, 1.0]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_geometry(kind: str, argument: str, values: list[float], fill: tuple[int, int, int], interpolation: str) -> None:
    small = {name: pixels for name, pixels in IMAGES.items() if pixels.size < 224 * 224 or "random" in name}
    for value in values:
        assert_equals_pillow(kind, small, **{argument: value}, fill=fill, interpolation=interpolation)


def test_solarize_at_every_threshold() -> None:
    images = {name: IMAGES[name] for name in ("random 33x17", "gradient 64x48", "constant 128", "two values")}
    for threshold in [*range(-3, 260), 0.5, 127.5, 254.99, -102.0, 460.0]:
        assert_equals_pillow("Solarize", images, threshold=threshold)


@pytest.mark.parametrize("bits", range(9))
def test_posterize(bits: int) -> None:
    assert_equals_pillow("Posterize", bits=bits)


@pytest.mark.parametrize("kind", ["Color", "Contrast", "Brightness", "Sharpness"])
def test_enhancers(kind: str) -> None:
    for factor in (0.0, 0.1, 0.19, 0.46, 0.5, 0.9, 0.999, 1.0, 1.001, 1.36, 1.9, 2.62, 5.14, -0.3, -2.0):
        assert_equals_pillow(kind, factor=factor)


def test_solarize_add_against_numpy() -> None:
    for add in (0, 1, 22, 110, 255, -40):
        for threshold in (0, 1, 128, 255, 256):
            assert_equals_pillow("SolarizeAdd", add=add, threshold=threshold)


def test_cutout_against_numpy() -> None:
    for size in (0, 1, 2, 5, 16, 20, 56):
        assert_equals_pillow("Cutout", size=size)
        assert_equals_pillow("Cutout", size=size, fill=(125, 122, 113))
    for fraction in (0.0, 0.1, 0.2, 0.5, 1.0):
        assert_equals_pillow("Cutout", fraction=fraction, fill=(1, 2, 3))


@pytest.mark.parametrize("radius", [0, 0.001, 0.1, 0.29, 0.48, 0.67, 0.86, 1, 1.05, 1.24, 1.43, 1.62, 1.81, 2, 2.5, 3.7, 9, 40, 1000])
def test_gaussian_blur(radius: float) -> None:
    assert_equals_pillow("GaussianBlur", radius=radius)


def test_desaturate() -> None:
    for level in range(11):
        assert_equals_pillow("Desaturate", amount=1 - min(max(0.5 + 0.05 * level, 0.5), 1.0))
    for amount in (0, 0.29, 1):
        assert_equals_pillow("Desaturate", amount=amount)


def test_crop_bilinear() -> None:
    # Up to borders that leave nothing, where the image stays as it is.
    for pixels in (0, 1, 2, 3, 5, 8, 10, 16, 47, 111, 112, 5000):
        assert_equals_pillow("CropBilinear", pixels=pixels)


def test_solarize_add_to_all() -> None:
    for add in (0, 1, 36, 110, 255, -40):
        for threshold in (0, 1, 128, 255, 256):
            assert_equals_pillow("SolarizeAdd", add=add, threshold=threshold, scope="all")


def test_cutout_rectangle() -> None:
    for size in (0, 1, 2, 5.5, 13.333333333333334, 16, 40):
        assert_equals_pillow("Cutout", size=size, fill=(125, 123, 114), shape="rectangle")
    for fraction in (0.0, 0.01, 0.1, 0.2, 0.6, 1.0):
        assert_equals_pillow("Cutout", fraction=fraction, shape="rectangle")


def test_truncated_translations() -> None:
    for kind in ("TranslateX", "TranslateY"):
        for pixels in (0.9, 1.0, 14.4, -0.9, -2.5, -31.99):
            assert_equals_pillow(kind, pixels=pixels, rounding="truncate", fill=(1, 2, 3))
        for fraction in (0.45, -0.45, 150 / 331 * 11 / 30, -150 / 331):
            assert_equals_pillow(kind, fraction=fraction, rounding="truncate")
