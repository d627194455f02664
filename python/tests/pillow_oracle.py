"""Every operation as Pillow itself computes it; plain NumPy where Pillow has none.

Nothing here calls ddas. Operations are dicts as they stand in a policy file.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}

ENHANCERS = {
    "Color": ImageEnhance.Color,
    "Contrast": ImageEnhance.Contrast,
    "Brightness": ImageEnhance.Brightness,
    "Sharpness": ImageEnhance.Sharpness,
}


def oracle(image: Image.Image, kind: str, center: tuple[float, float] | None = None, **arguments: Any) -> Image.Image:
    """`image` (mode RGB) after one operation."""
    if kind == "Identity":
        return image.copy()
    if kind == "FlipLR":
        return ImageOps.mirror(image)
    if kind == "FlipUD":
        return ImageOps.flip(image)
    if kind == "AutoContrast":
        return ImageOps.autocontrast(image)
    if kind == "Equalize":
        return ImageOps.equalize(image)
    if kind == "Invert":
        return ImageOps.invert(image)
    if kind == "Blur":
        return image.filter(ImageFilter.BLUR)
    if kind == "Smooth":
        return image.filter(ImageFilter.SMOOTH)
    if kind == "GaussianBlur":
        return image.filter(ImageFilter.GaussianBlur(arguments["radius"]))
    if kind in ("Rotate90", "Rotate180", "Rotate270"):
        return image.rotate(int(kind.removeprefix("Rotate")))
    if kind == "Posterize":
        # Pillow 13 refuses 0 bits; before, it was a black image.
        return ImageOps.posterize(image, arguments["bits"]) if arguments["bits"] else image.point(lambda value: 0)
    if kind == "Solarize":
        return ImageOps.solarize(image, arguments["threshold"])
    if kind in ENHANCERS:
        return ENHANCERS[kind](image).enhance(arguments["factor"])
    if kind == "Desaturate":
        return ImageEnhance.Color(image).enhance(1.0 - arguments["amount"])
    if kind == "CropBilinear":
        border = arguments["pixels"]
        if 2 * border >= min(image.size):
            return image.copy()
        rest = image.crop((border, border, image.width - border, image.height - border))
        return rest.resize(image.size, Image.Resampling.BILINEAR)
    if kind == "SolarizeAdd":
        pixels = np.asarray(image).astype(np.int64)
        raised = np.clip(pixels + arguments["add"], 0, 255)
        if arguments.get("scope") == "all":
            return ImageOps.solarize(Image.fromarray(raised.astype(np.uint8)), arguments["threshold"])
        return Image.fromarray(np.where(pixels < arguments["threshold"], raised, pixels).astype(np.uint8))
    if kind == "Cutout":
        assert center is not None
        if arguments.get("shape") == "rectangle":
            return _rectangle(image, center, arguments)
        size = int(arguments["size"] if "size" in arguments else arguments["fraction"] * image.width)
        pixels = np.array(image)
        left, top = center[0] - size // 2, center[1] - size // 2
        pixels[max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)] = arguments.get("fill", (0, 0, 0))
        return Image.fromarray(pixels)
    return _warp(image, kind, **arguments)


def _rectangle(image: Image.Image, center: tuple[float, float], arguments: dict[str, Any]) -> Image.Image:
    """As RandAugment's, Fast AutoAugment's and TrivialAugment's code for Pillow draws it."""
    if arguments.get("fraction") == 0:
        return image.copy()
    size = arguments["size"] if "size" in arguments else arguments["fraction"] * image.width
    left, top = (int(max(0, middle - size / 2.0)) for middle in center)
    image = image.copy()
    far_corner = (min(image.width, left + size), min(image.height, top + size))
    ImageDraw.Draw(image).rectangle((left, top, *far_corner), tuple(arguments.get("fill", (0, 0, 0))))
    return image


def _warp(
    image: Image.Image,
    kind: str,
    *,
    fill: tuple[int, int, int] | list[int] = (0, 0, 0),
    interpolation: str = "nearest",
    degrees: float = 0.0,
    shear: float = 0.0,
    pixels: float | None = None,
    fraction: float = 0.0,
    rounding: str = "none",
) -> Image.Image:
    def offset(side: int) -> float:
        value = fraction * side if pixels is None else pixels
        return int(np.float32(value)) if rounding == "truncate" else value

    resample, fill = RESAMPLING[interpolation], tuple(fill)
    if kind == "Rotate":
        return image.rotate(degrees, resample=resample, fillcolor=fill)
    if kind == "ShearX":
        matrix = (1, shear, 0, 0, 1, 0)
    elif kind == "ShearY":
        matrix = (1, 0, 0, shear, 1, 0)
    elif kind == "TranslateX":
        matrix = (1, 0, offset(image.width), 0, 1, 0)
    elif kind == "TranslateY":
        matrix = (1, 0, 0, 0, 1, offset(image.height))
    else:
        raise AssertionError(f"no oracle for {kind}")
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample=resample, fillcolor=fill)


def mirrored(operation: dict[str, Any]) -> dict[str, Any]:
    """The operation with the other sign, by the definition of the sign rule: -x, or 2 - factor."""
    turned = dict(operation)
    for argument in ("degrees", "shear", "pixels", "fraction"):
        if argument in turned and turned["kind"] not in ("Cutout", "CropBilinear"):
            turned[argument] = -turned[argument]
    if "factor" in turned:
        turned["factor"] = 2.0 - turned["factor"]
    return turned


def _gradient(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([(columns * 7) % 256, (rows * 9) % 256, ((rows + columns) * 3) % 256], -1).astype(np.uint8)


def sample_images() -> dict[str, np.ndarray]:
    """Images on which implementations differ if they differ at all."""
    from sklearn.datasets import load_sample_image  # here: workers of a DataLoader need not wait for it

    random = np.random.default_rng(7)
    images: dict[str, np.ndarray] = {}
    for height, width in [(32, 32), (33, 17), (17, 33), (64, 48), (5, 5), (4, 6), (3, 3), (2, 9), (1, 1), (1, 13), (13, 1)]:
        images[f"random {height}x{width}"] = random.integers(0, 256, (height, width, 3), np.uint8)
        images[f"low-contrast {height}x{width}"] = random.integers(90, 120, (height, width, 3), np.uint8)
        images[f"gradient {height}x{width}"] = _gradient(height, width)
    for value in (0, 1, 127, 128, 255):
        images[f"constant {value}"] = np.full((19, 23, 3), value, np.uint8)
    images["two values"] = np.where(random.random((32, 32, 1)) < 0.3, [10, 0, 255], [12, 255, 254]).astype(np.uint8)
    images["random 224x224"] = random.integers(0, 256, (224, 224, 3), np.uint8)
    images["gradient 224x224"] = _gradient(224, 224)
    smooth = random.integers(0, 256, (8, 8, 3), np.uint8)
    images["smooth 224x224"] = np.asarray(Image.fromarray(smooth).resize((224, 224), Image.Resampling.BICUBIC))
    for name in ("china", "flower"):
        photo = load_sample_image(f"{name}.jpg")
        images[f"{name} 131x97"] = np.ascontiguousarray(photo[150:281, 200:297])
        images[f"{name} 96x224"] = np.ascontiguousarray(photo[200:296, 100:324])
    images["smooth 61x37"] = np.asarray(Image.fromarray(smooth).resize((37, 61), Image.Resampling.BICUBIC))
    return images
