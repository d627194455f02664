"""Single operations, one thread: prints JSON, {"32": {operation: {library: microseconds}}, "224": ...}.

The image and the operations are those of `benches/kernels.rs`. A time is that of the fastest of many rounds, in which
the libraries take turns; every call makes a new image. Only operations that a library has are timed, also where its
pixels differ from Pillow's (OpenCV's and kornia-rs' always do, albumentations' mostly).
"""

import os

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import json
import pathlib
import re
import sys
import time

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import pillow_kernels

SECONDS, ROUNDS = 0.004, 12


def pillow(operation, image):
    call = pillow_kernels.function(operation)
    return lambda: call(image)


def argument(operation):
    return next((operation[key] for key in operation if key not in ("kind", "interpolation")), None)


def torchvision(operation, image):
    import torch
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as F

    torch.set_num_threads(1)
    tensor = torch.from_numpy(numpy.array(image)).permute(2, 0, 1).contiguous()
    value, side = argument(operation), image.width
    mode = InterpolationMode(operation.get("interpolation", "nearest"))

    def affine(**changes):
        settings = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0], "interpolation": mode}
        return lambda: F.affine(tensor, **{**settings, **changes})

    degrees = numpy.degrees(numpy.arctan(value)) if operation["kind"].startswith("Shear") else 0.0
    return {
        "FlipLR": lambda: F.horizontal_flip(tensor),
        "FlipUD": lambda: F.vertical_flip(tensor),
        "AutoContrast": lambda: F.autocontrast(tensor),
        "Equalize": lambda: F.equalize(tensor),
        "Invert": lambda: F.invert(tensor),
        "GaussianBlur": lambda: F.gaussian_blur(tensor, [9, 9], [value, value]),
        # Else a view comes back, with the pixels where they were.
        "Rotate90": lambda: F.rotate(tensor, 90).contiguous(),
        "Rotate180": lambda: F.rotate(tensor, 180).contiguous(),
        "Rotate270": lambda: F.rotate(tensor, 270).contiguous(),
        "Rotate": lambda: F.rotate(tensor, value, mode),
        "ShearX": affine(shear=[degrees, 0.0]),
        "ShearY": affine(shear=[0.0, degrees]),
        "TranslateX": affine(translate=[value, 0]),
        "TranslateY": affine(translate=[0, value]),
        "Posterize": lambda: F.posterize(tensor, value),
        "Solarize": lambda: F.solarize(tensor, value),
        "Color": lambda: F.adjust_saturation(tensor, value),
        "Contrast": lambda: F.adjust_contrast(tensor, value),
        "Brightness": lambda: F.adjust_brightness(tensor, value),
        "Sharpness": lambda: F.adjust_sharpness(tensor, value),
        "Cutout": lambda: F.erase(tensor, side // 4, side // 4, side // 4, side // 4, torch.zeros(3, 1, 1, dtype=torch.uint8)),
    }.get(operation["kind"])  # fmt: skip


def opencv(operation, image):
    import cv2

    cv2.setNumThreads(0)
    pixels, value = numpy.array(image), argument(operation)
    side = (image.width, image.height)
    flags = {"nearest": cv2.INTER_NEAREST, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}[
        operation.get("interpolation", "nearest")
    ]
    levels = numpy.arange(256)

    def warp(*rows):
        matrix = numpy.array(rows, dtype=numpy.float64).reshape(2, 3)
        return lambda: cv2.warpAffine(pixels, matrix, side, flags=flags | cv2.WARP_INVERSE_MAP)

    def table(values):
        values = numpy.clip(values, 0, 255).astype(numpy.uint8)
        return lambda: cv2.LUT(pixels, values)

    def each(function):
        return lambda: cv2.merge([function(channel) for channel in cv2.split(pixels)])

    def stretched(channel):
        low, high = cv2.minMaxLoc(channel)[:2]
        scale = 255 / max(high - low, 1)
        return cv2.convertScaleAbs(channel, alpha=scale, beta=-low * scale)

    def grey():
        return cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)

    def blend(factor):
        return lambda: cv2.addWeighted(pixels, factor, grey(), 1 - factor, 0)

    def contrast():
        mean = cv2.mean(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))[0]
        return cv2.addWeighted(pixels, value, pixels, 0, mean * (1 - value))

    def cut():
        copy, quarter = pixels.copy(), image.width // 4
        cv2.rectangle(copy, (quarter, quarter), (2 * quarter - 1, 2 * quarter - 1), fill, cv2.FILLED)
        return copy

    smooth = numpy.ones((3, 3), numpy.float32) / 13
    smooth[1, 1] = 5 / 13
    fill = tuple(operation.get("fill", ()))
    degrees = value if operation["kind"] == "Rotate" else 0
    turn = cv2.getRotationMatrix2D(((image.width - 1) / 2, (image.height - 1) / 2), degrees, 1)
    number = value if isinstance(value, (int, float)) else 0
    # Blending with the smoothed image, as one kernel.
    sharp = (1 - number) * smooth
    sharp[1, 1] += number
    mask = numpy.uint8(256 - (1 << (8 - int(number)))) if operation["kind"] == "Posterize" else 0
    return {
        "FlipLR": lambda: cv2.flip(pixels, 1),
        "FlipUD": lambda: cv2.flip(pixels, 0),
        "AutoContrast": each(stretched),
        "Equalize": each(cv2.equalizeHist),
        "Invert": lambda: cv2.bitwise_not(pixels),
        # A box of 5x5: not Pillow's ring, but what a user of OpenCV would take in its place.
        "Blur": lambda: cv2.blur(pixels, (5, 5)),
        "Smooth": lambda: cv2.filter2D(pixels, -1, smooth),
        "GaussianBlur": lambda: cv2.GaussianBlur(pixels, (9, 9), number),
        "Rotate90": lambda: cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE),
        "Rotate180": lambda: cv2.rotate(pixels, cv2.ROTATE_180),
        "Rotate270": lambda: cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE),
        "Rotate": lambda: cv2.warpAffine(pixels, turn, side, flags=flags),
        "ShearX": warp(1, number, 0, 0, 1, 0),
        "ShearY": warp(1, 0, 0, number, 1, 0),
        "TranslateX": warp(1, 0, number, 0, 1, 0),
        "TranslateY": warp(1, 0, 0, 0, 1, number),
        "Posterize": lambda: numpy.bitwise_and(pixels, mask),
        "Solarize": table(numpy.where(levels < number, levels, 255 - levels)),
        "SolarizeAdd": table(numpy.where(levels < operation.get("threshold", 128), levels + number, levels)),
        "Color": blend(number),
        "Desaturate": blend(1 - number),
        "Contrast": contrast,
        "Brightness": lambda: cv2.convertScaleAbs(pixels, alpha=number),
        "Sharpness": lambda: cv2.filter2D(pixels, -1, sharp),
        "CropBilinear": lambda: cv2.resize(pixels[number:-number, number:-number], side, interpolation=cv2.INTER_LINEAR),
        "Cutout": cut,
    }.get(operation["kind"])  # fmt: skip


def albumentations(operation, image):
    import albumentations.augmentations.geometric.functional as geometric
    import albumentations.augmentations.pixel.functional as pixel

    pixels, value = numpy.array(image), argument(operation)
    return {
        "FlipLR": lambda: geometric.hflip(pixels),
        "FlipUD": lambda: geometric.vflip(pixels),
        "AutoContrast": lambda: pixel.auto_contrast(pixels, 0, None, "pil"),
        "Equalize": lambda: pixel.equalize(pixels),
        "Invert": lambda: pixel.invert(pixels),
        "Posterize": lambda: pixel.posterize(pixels, value),
        "Solarize": lambda: pixel.solarize(pixels, value / 255),
        "Color": lambda: pixel.adjust_saturation_torchvision(pixels, value),
        "Contrast": lambda: pixel.adjust_contrast_torchvision(pixels, value),
        "Brightness": lambda: pixel.adjust_brightness_torchvision(pixels, value),
    }.get(operation["kind"])


def kornia(operation, image):
    from kornia_rs import imgproc

    pixels, value = numpy.array(image), argument(operation)
    side = (image.height, image.width)

    def warp(*matrix):
        # On bytes it interpolates linearly, whatever is asked for.
        if operation.get("interpolation") != "bilinear":
            return None
        return lambda: imgproc.warp_affine(pixels, list(map(float, matrix)), side, "bilinear")

    number = value if isinstance(value, (int, float)) else 0
    cos, sin = numpy.cos(numpy.radians(number)), numpy.sin(numpy.radians(number))
    middle = (image.width - 1) / 2
    found = {
        "FlipLR": lambda: imgproc.horizontal_flip(pixels),
        "FlipUD": lambda: imgproc.vertical_flip(pixels),
        "GaussianBlur": lambda: imgproc.gaussian_blur(pixels, (9, 9), (number, number)),
        "Rotate": warp(cos, sin, middle * (1 - cos - sin), -sin, cos, middle * (1 - cos + sin)),
        "ShearX": warp(1, number, 0, 0, 1, 0),
        "ShearY": warp(1, 0, 0, number, 1, 0),
        "TranslateX": warp(1, 0, number, 0, 1, 0),
        "TranslateY": warp(1, 0, 0, 0, 1, number),
    }
    return found.get(operation["kind"])


def ours(operation, image):
    import ddas

    pixels = numpy.array(image)
    arguments = {key: value for key, value in operation.items() if key != "kind"}
    return lambda: ddas.apply(pixels, operation["kind"], **arguments)


# A photo's size, and the part of it that becomes 224x224 (left, top, width, height): those of `kernels.rs`.
PHOTO, CROP = (500, 375), (62, 40, 375, 300)


def resized_crops():
    """RandomResizedCrop's crop and resize, bilinear with antialias; OpenCV's nearest to that averages areas."""
    import albumentations.augmentations.geometric.functional as geometric
    import cv2
    import torch
    from PIL import Image
    from torchvision.transforms.v2 import functional as F

    image = pillow_kernels.image(*PHOTO)
    pixels, (x, y, width, height) = numpy.array(image), CROP
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    planes = tensor.contiguous()
    box, crop = (x, y, x + width, y + height), (slice(y, y + height), slice(x, x + width))
    side = [224, 224]

    def torchvision_v2(source):
        return lambda: F.resized_crop(source, y, x, height, width, side, antialias=True)

    # A tensor in the order of a decoder is faster there than planes; the better of both counts.
    torchvision_times = fastest({"decoded": torchvision_v2(tensor), "planes": torchvision_v2(planes)})
    better = min(torchvision_times, key=torchvision_times.get, default="planes")
    return {
        "Pillow": lambda: image.resize((224, 224), Image.Resampling.BILINEAR, box),
        "torchvision v2": torchvision_v2(tensor if better == "decoded" else planes),
        "OpenCV": lambda: cv2.resize(pixels[crop], (224, 224), interpolation=cv2.INTER_AREA),
        "albumentations": lambda: geometric.resize(pixels[crop], (224, 224), cv2.INTER_AREA),
    }


LIBRARIES = {
    "Pillow": pillow,
    "torchvision v2": torchvision,
    "OpenCV": opencv,
    "albumentations": albumentations,
    "kornia-rs": kornia,
    "ddas.apply": ours,
}


def name(operation):
    return "-".join(filter(None, [operation["kind"], operation.get("interpolation")]))


def fastest(calls):
    """Microseconds of each call, the libraries taking turns; those that fail are left out, with a word on stderr."""
    repeats, best = {}, {}
    for library, call in calls.items():
        try:
            call()
            began = time.perf_counter()
            call()
            repeats[library] = max(1, int(SECONDS / max(time.perf_counter() - began, 1e-7)))
        except Exception as error:
            print(f"{library}: {error}", file=sys.stderr)
    for _ in range(ROUNDS):
        for library, count in repeats.items():
            call = calls[library]
            began = time.perf_counter()
            for _ in range(count):
                call()
            spent = (time.perf_counter() - began) / count * 1e6
            best[library] = min(spent, best.get(library, spent))
    return best


def main():
    source = pathlib.Path(__file__).resolve().parent.parent / "benches" / "kernels.rs"
    operations = [json.loads(text) for text in re.findall(r'r#"(.*?)"#', source.read_text())]
    found = {}
    for side in (32, 224):
        image = pillow_kernels.image(side, side)
        found[str(side)] = {}
        for operation in operations:
            calls = {}
            for library, make in LIBRARIES.items():
                try:
                    call = make(operation, image)
                except Exception as error:
                    print(f"{library}, {name(operation)}: {error}", file=sys.stderr)
                    continue
                if call is not None:
                    calls[library] = call
            found[str(side)][name(operation)] = fastest(calls)
    found["224"]["ResizedCrop"] = fastest(resized_crops())
    print(json.dumps(found))


if __name__ == "__main__":
    main()
