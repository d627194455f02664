"""The three image types operations work on, as packed RGB bytes and back."""

from __future__ import annotations

import sys
from typing import Any, Callable, TypeVar, cast

ImageT = TypeVar("ImageT")

# What an operation does to the packed pixels: (pixels, width, height) -> pixels.
PixelFunction = Callable[[Any, int, int], bytearray]


def through_pixels(image: ImageT, function: PixelFunction) -> ImageT:
    """Runs `function` on the pixels of `image` and returns a new image of the same type and shape.

    A library that has not been imported cannot have made the image, so looking
    in `sys.modules` is enough and imports nothing.
    """
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(image, numpy.ndarray):
        return cast(ImageT, _through_numpy(image, function))
    pillow = sys.modules.get("PIL.Image")
    if pillow is not None and isinstance(image, pillow.Image):
        return cast(ImageT, _through_pillow(image, function))
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(image, torch.Tensor):
        return cast(ImageT, _through_torch(image, function))
    raise TypeError(
        "expected a PIL image, a NumPy uint8 array of shape (height, width, 3) or a torch uint8 "
        f"tensor of shape (3, height, width), got {type(image).__name__}"
    )


def _through_pillow(image: Any, function: PixelFunction) -> Any:
    if image.mode != "RGB":
        raise ValueError(
            f'expected a PIL image of mode "RGB", got mode "{image.mode}"; convert it with image.convert("RGB")'
        )
    width, height = image.size
    _check_size(width, height)
    pixels = function(image.tobytes(), width, height)
    return sys.modules["PIL.Image"].frombytes("RGB", (width, height), bytes(pixels))


def _through_numpy(array: Any, function: PixelFunction) -> Any:
    import numpy

    if array.dtype != numpy.uint8:
        raise TypeError(f"expected an array of dtype uint8, got {array.dtype}")
    if array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"expected an array of shape (height, width, 3), got {array.shape}")
    height, width = array.shape[:2]
    _check_size(width, height)
    pixels = function(numpy.ascontiguousarray(array), width, height)
    return numpy.frombuffer(pixels, numpy.uint8).reshape(array.shape)


def _through_torch(tensor: Any, function: PixelFunction) -> Any:
    import torch

    if tensor.dtype != torch.uint8:
        raise TypeError(f"expected a tensor of dtype torch.uint8, got {tensor.dtype}")
    if tensor.dim() != 3 or tensor.shape[0] != 3:
        hint = "; channels come first in torch" if tensor.dim() == 3 and tensor.shape[2] == 3 else ""
        raise ValueError(f"expected a tensor of shape (3, height, width), got {tuple(tensor.shape)}{hint}")
    if tensor.device.type != "cpu":
        raise ValueError(f"expected a tensor in CPU memory, got one on {tensor.device}; use tensor.cpu()")
    height, width = tensor.shape[1], tensor.shape[2]
    _check_size(width, height)
    packed = tensor.detach().permute(1, 2, 0).contiguous()
    pixels = function(packed.numpy(), width, height)
    return torch.frombuffer(pixels, dtype=torch.uint8).reshape(height, width, 3).permute(2, 0, 1).contiguous()


def _check_size(width: int, height: int) -> None:
    if width == 0 or height == 0:
        raise ValueError(f"expected at least one pixel, got an image {width} wide and {height} high")
