"""`ddas.apply`: the three image types, and what it says about wrong calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ddas

PIXELS = np.random.default_rng(3).integers(0, 256, (21, 34, 3), np.uint8)
ROTATED = np.asarray(Image.fromarray(PIXELS).rotate(15.0))


def test_pil_image() -> None:
    image = Image.fromarray(PIXELS)
    result = ddas.apply(image, "Rotate", degrees=15.0)
    assert isinstance(result, Image.Image) and result.mode == "RGB"
    assert np.array_equal(np.asarray(result), ROTATED)
    assert np.array_equal(np.asarray(image), PIXELS), "the argument was changed"


def test_numpy_array() -> None:
    original = PIXELS.copy()
    result = ddas.apply(original, "Rotate", degrees=15.0)
    assert isinstance(result, np.ndarray) and result.dtype == np.uint8
    assert np.array_equal(result, ROTATED)
    assert np.array_equal(original, PIXELS), "the argument was changed"
    result[0, 0, 0] = 7  # an ordinary, writable array


@pytest.mark.parametrize("view", ["transposed", "strided", "reversed", "read-only"])
def test_numpy_views(view: str) -> None:
    if view == "transposed":
        array = np.ascontiguousarray(PIXELS.transpose(2, 0, 1)).transpose(1, 2, 0)
    elif view == "strided":
        array = np.repeat(PIXELS, 2, axis=1)[:, ::2]
    elif view == "reversed":
        array = PIXELS[::-1].copy()[::-1]
    else:
        array = PIXELS.copy()
        array.flags.writeable = False
    assert np.array_equal(ddas.apply(array, "Rotate", degrees=15.0), ROTATED)


def test_torch_tensor() -> None:
    tensor = torch.from_numpy(PIXELS).permute(2, 0, 1)
    result = ddas.apply(tensor, "Rotate", degrees=15.0)
    assert isinstance(result, torch.Tensor) and result.dtype == torch.uint8
    assert result.shape == (3, 21, 34) and result.is_contiguous()
    assert np.array_equal(result.permute(1, 2, 0).numpy(), ROTATED)
    result.add_(1)  # an ordinary, writable tensor


def test_numbers_of_every_kind() -> None:
    for degrees in (15, 15.0, np.float64(15), np.float32(15), np.int64(15), torch.tensor(15.0)):
        assert np.array_equal(ddas.apply(PIXELS, "Rotate", degrees=degrees), ROTATED)
    for fill in ((1, 2, 3), [1, 2, 3], np.array([1, 2, 3], np.uint8)):
        result = ddas.apply(PIXELS, "TranslateX", pixels=100, fill=fill)
        assert np.array_equal(result, np.broadcast_to(np.array([1, 2, 3], np.uint8), PIXELS.shape))


def test_cutout_is_centred_where_told() -> None:
    changed = np.argwhere((ddas.apply(np.full((20, 30, 3), 9, np.uint8), "Cutout", size=4, center=(12, 5)) == 0)[..., 0])
    assert changed.min(0).tolist() == [3, 10] and changed.max(0).tolist() == [6, 13]
    middle = ddas.apply(PIXELS, "Cutout", size=4)
    assert np.array_equal(middle, ddas.apply(PIXELS, "Cutout", size=4, center=(17, 10)))


@pytest.mark.parametrize(
    ("operation", "arguments", "names"),
    [
        ("Rotat", {"degrees": 1.0}, ["Rotat", "Rotate"]),
        ("rotate", {"degrees": 1.0}, ["rotate"]),
        ("", {}, ["operation"]),
        ("Rotate", {}, ["Rotate", "degrees"]),
        ("Rotate", {"angle": 1.0}, ["Rotate", "angle"]),
        ("Rotate", {"degrees": 1.0, "factor": 1.0}, ["Rotate", "factor"]),
        ("Rotate", {"degrees": 1.0, "center": (1, 1)}, ["Rotate", "center"]),
        ("Rotate", {"degrees": 1.0, "sign": "random"}, ["Rotate", "sign"]),
        ("Rotate", {"degrees": "15"}, ["Rotate: argument `degrees` must be a number, got str"]),
        ("Rotate", {"degrees": [15.0]}, ["Rotate: argument `degrees` must be a number, got list"]),
        ("Rotate", {"degrees": 15.0, "fill": "red"}, ["`fill` must be three whole numbers from 0 to 255, got 'red'"]),
        ("Rotate", {"degrees": 15.0, "interpolation": 2}, ["`interpolation` must be a text, got int"]),
        ("GaussianBlur", {"radius": -1.0}, ["GaussianBlur", "radius", "-1"]),
        ("GaussianBlur", {"sigma": 1.0}, ["GaussianBlur", "sigma", "it takes `radius`"]),
        ("Desaturate", {"amount": 1.5}, ["Desaturate", "amount", "between 0 and 1"]),
        ("CropBilinear", {"pixels": 1.5}, ["CropBilinear", "pixels", "whole number"]),
        ("CropBilinear", {"pixels": -1}, ["CropBilinear", "pixels", "negative"]),
        ("Rotate180", {"degrees": 180}, ["Rotate180", "degrees", "no arguments"]),
        ("SolarizeAdd", {"add": 1, "threshold": 2, "scope": "above"}, ["SolarizeAdd", "scope", "above", "below"]),
        ("TranslateX", {"pixels": 1, "rounding": "nearest"}, ["TranslateX", "rounding", "truncate"]),
        ("ShearX", {"shear": 1, "rounding": "truncate"}, ["ShearX", "rounding"]),
        ("Cutout", {"size": 3, "shape": "rectangle", "center": (35, 0)}, ["Cutout", "center", "34 wide", "(35, 0)"]),
        ("Cutout", {"size": 3, "shape": "rectangle", "center": "12"}, ["Cutout", "center", "two numbers"]),
        ("Rotate", {"degrees": None}, ["Rotate", "degrees"]),
        ("Rotate", {"degrees": True}, ["Rotate", "degrees"]),
        ("Rotate", {"degrees": float("nan")}, ["Rotate", "degrees"]),
        ("Rotate", {"degrees": float("inf")}, ["Rotate", "degrees"]),
        ("Rotate", {"degrees": 1.0, "fill": (1, 2)}, ["Rotate", "fill"]),
        ("Rotate", {"degrees": 1.0, "fill": (1, 2, 256)}, ["Rotate", "fill"]),
        ("Rotate", {"degrees": 1.0, "fill": 3}, ["Rotate", "fill"]),
        ("Rotate", {"degrees": 1.0, "interpolation": "lanczos"}, ["Rotate", "interpolation"]),
        ("Posterize", {"bits": 9}, ["Posterize", "bits"]),
        ("Posterize", {"bits": -1}, ["Posterize", "bits"]),
        ("Posterize", {"bits": 4.5}, ["Posterize: argument `bits` must be a whole number, got 4.5"]),
        ("Solarize", {}, ["Solarize", "threshold"]),
        ("SolarizeAdd", {"add": 10}, ["SolarizeAdd", "threshold"]),
        ("TranslateX", {}, ["TranslateX", "pixels", "fraction"]),
        ("TranslateX", {"pixels": 1, "fraction": 0.1}, ["TranslateX", "pixels", "fraction"]),
        ("Color", {"factor": 1.0, "fill": (0, 0, 0)}, ["Color", "fill"]),
        ("Cutout", {"size": -1}, ["Cutout", "size"]),
        ("Cutout", {"size": 3, "center": (34, 0)}, ["Cutout", "center"]),
        ("Cutout", {"size": 3, "center": (0, -1)}, ["Cutout", "center"]),
        ("Cutout", {"size": 3, "center": 5}, ["Cutout", "center", "(x, y)"]),
        ("Cutout", {"size": 3, "center": (1, 2, 3)}, ["Cutout", "center", "(1, 2, 3)"]),
        ("Cutout", {"size": 3, "center": (1.5, 2)}, ["Cutout", "center", "1.5"]),
        ("Cutout", {"size": 3, "centre": (1, 2)}, ["Cutout", "centre", "`size`, `fraction`, `shape`, `fill`, `center`"]),
        ("Rotate", {"angle": 15}, ["Rotate", "angle", "`degrees`, `fill`, `interpolation`"]),
        ("Rotate", {"degrees": 15, "sign": "random"}, ["Rotate", "sign"]),
        ("Rotate", {"degrees": 15, "center": (1, 1)}, ["Rotate", "center"]),
        ("Identity", {"degrees": 1.0}, ["Identity", "degrees", "no arguments"]),
    ],
)
def test_wrong_arguments_are_named(operation: str, arguments: dict[str, Any], names: list[str]) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        ddas.apply(PIXELS, operation, **arguments)
    for name in names:
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("image", "error", "names"),
    [
        (PIXELS.astype(np.float32), TypeError, ["uint8", "float32"]),
        (PIXELS[..., 0], ValueError, ["(height, width, 3)", "(21, 34)"]),
        (PIXELS.transpose(2, 0, 1), ValueError, ["(height, width, 3)", "(3, 21, 34)"]),
        (PIXELS[:0], ValueError, ["0 high"]),
        (torch.zeros(3, 4, 4), TypeError, ["torch.uint8", "torch.float32"]),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), ValueError, ["(3, height, width)", "channels come first"]),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), ValueError, ["(1, 3, 4, 4)"]),
        (torch.zeros(3, 0, 4, dtype=torch.uint8), ValueError, ["0 high"]),
        (Image.new("L", (4, 4)), ValueError, ["RGB", "L"]),
        (Image.new("RGBA", (4, 4)), ValueError, ["RGB", "RGBA"]),
        ([[1, 2, 3]], TypeError, ["PIL", "NumPy", "torch", "list"]),
        (b"abc", TypeError, ["bytes"]),
        (None, TypeError, ["NoneType"]),
    ],
)
def test_wrong_images_are_named(image: Any, error: type[Exception], names: list[str]) -> None:
    with pytest.raises(error) as caught:
        ddas.apply(image, "Invert")
    for name in names:
        assert name in str(caught.value)


def test_the_operation_is_a_name() -> None:
    for operation in (None, 3, ddas.apply):
        with pytest.raises(TypeError, match="`operation` must be the name of one"):
            ddas.apply(PIXELS, operation)  # type: ignore[arg-type]


@pytest.mark.parametrize("center", [[20, 12], np.array([20, 12]), (np.int64(20), np.uint8(12)), torch.tensor([20, 12])])
def test_a_center_is_any_pair_of_whole_numbers(center: Any) -> None:
    expected = ddas.apply(PIXELS, "Cutout", size=7, center=(20, 12))
    assert not np.array_equal(expected, PIXELS)
    assert np.array_equal(ddas.apply(PIXELS, "Cutout", size=7, center=center), expected)
