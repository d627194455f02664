"""Times Pillow on the cases of `benches/kernels.rs`: microseconds a call, the fastest of 20 rounds.

    python benches/pillow_kernels.py
"""

import json
import pathlib
import re
import time

import PIL
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

RESAMPLE = {"nearest": Image.NEAREST, "bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}


def image(width, height):
    noise, pixels = 1, bytearray()
    for y in range(height):
        for x in range(width):
            for channel in range(3):
                noise = (noise * 1664525 + 1013904223) & 0xFFFFFFFF
                slope = x * 160 // width + y * (channel + 1) * 20 // height
                pixels.append(slope + (noise >> 27))
    return Image.frombytes("RGB", (width, height), bytes(pixels))


def function(operation):
    kind = operation["kind"]
    value = next((operation[key] for key in operation if key not in ("kind", "interpolation")), None)
    resample = RESAMPLE[operation.get("interpolation", "nearest")]

    def affine(matrix):
        return lambda im: im.transform(im.size, Image.AFFINE, matrix, resample)

    return {
        "FlipLR": lambda im: im.transpose(Image.FLIP_LEFT_RIGHT),
        "FlipUD": lambda im: im.transpose(Image.FLIP_TOP_BOTTOM),
        "AutoContrast": ImageOps.autocontrast,
        "Equalize": ImageOps.equalize,
        "Invert": ImageOps.invert,
        "Blur": lambda im: im.filter(ImageFilter.BLUR),
        "Smooth": lambda im: im.filter(ImageFilter.SMOOTH),
        "Rotate90": lambda im: im.rotate(90),
        "Rotate": lambda im: im.rotate(value, resample),
        "ShearX": affine((1, value, 0, 0, 1, 0)),
        "ShearY": affine((1, 0, 0, value, 1, 0)),
        "TranslateX": affine((1, 0, value, 0, 1, 0)),
        "TranslateY": affine((1, 0, 0, 0, 1, value)),
        "Posterize": lambda im: ImageOps.posterize(im, value),
        "Solarize": lambda im: ImageOps.solarize(im, value),
    }.get(kind) or (lambda im: getattr(ImageEnhance, kind)(im).enhance(value))


def microseconds(call):
    call()
    begin = time.perf_counter()
    call()
    repeats = max(1, int(0.01 / max(time.perf_counter() - begin, 1e-7)))
    times = []
    for _ in range(20):
        begin = time.perf_counter()
        for _ in range(repeats):
            call()
        times.append((time.perf_counter() - begin) / repeats * 1e6)
    return min(times)


def main():
    source = pathlib.Path(__file__).with_name("benches") / "kernels.rs"
    operations = [json.loads(text) for text in re.findall(r'r#"(.*?)"#', source.read_text())]
    print("Pillow", PIL.__version__)
    for side in (32, 224):
        im = image(side, side)
        for operation in operations:
            name = "-".join(filter(None, [operation["kind"], operation.get("interpolation")]))
            apply = function(operation)
            print(f"op={name}/size={side}x{side} {microseconds(lambda: apply(im)):.2f}")
    im = image(500, 375)
    for name in ("bilinear", "bicubic"):
        time_of = microseconds(lambda: im.resize((224, 224), RESAMPLE[name]))
        print(f"filter={name}/size=500x375to224x224 {time_of:.2f}")


if __name__ == "__main__":
    main()
