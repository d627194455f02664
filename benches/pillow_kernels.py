"""Every operation beside Pillow and the other libraries, one thread, in one run.

    pip install pillow
    python benches/pillow_kernels.py                  every operation at 32x32 and 224x224
    python benches/pillow_kernels.py --only Rotate    those with `Rotate` in the name
    DDAS_CPU=avx2 python benches/pillow_kernels.py    with the kernels of an older processor

Builds and runs `benches/kernels.rs`, whose cases these are, and then times the same calls in Pillow. All times are
microseconds of the fastest of many rounds, so that a busy machine disturbs them little.

  call    ours, from one image into another, as the libraries' calls return a new image
  alone   ours, changing the image itself, as inside a pipeline
  Pillow  the same on this machine, in this run
  best    the fastest of Pillow, torchvision v2 0.26, OpenCV, albumentations 2.0.8 and kornia-rs 0.2, measured once on a
          quiet AMD Zen 5 core: other machines are slower or faster than that as a whole
"""

import argparse
import json
import math
import os
import pathlib
import re
import subprocess
import time

import PIL
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

RESAMPLE = {"nearest": Image.NEAREST, "bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}

# Microseconds at 32x32 and 224x224.
BEST = {
    "FlipLR": (0.8, 4.3),
    "AutoContrast": (15.6, 109),
    "Equalize": (6.8, 90),
    "Invert": (0.6, 3.1),
    "Blur": (1.6, 13.7),
    "Rotate": (2.2, 44),
    "ShearX": (2.2, 43),
    "ShearY": (2.2, 43),
    "TranslateX": (2.1, 18.8),
    "TranslateY": (2.1, 18.8),
    "Posterize": (1.4, 6.0),
    "Solarize": (1.4, 21),
    "Color": (2.5, 30),
    "Contrast": (2.4, 25),
    "Brightness": (0.2, 2.6),
    "Sharpness": (4.0, 75),
    "Cutout": (1.4, 3.7),
}


def image(width, height):
    noise, pixels = 1, bytearray()
    for y in range(height):
        for x in range(width):
            for channel in range(3):
                noise = (noise * 1664525 + 1013904223) & 0xFFFFFFFF
                slope = x * 160 // width + y * (channel + 1) * 20 // height
                pixels.append(slope + (noise >> 27))
    return Image.frombytes("RGB", (width, height), bytes(pixels))


def solarize_add(im, add, threshold):
    table = [max(0, min(255, i + add)) if i < threshold else i for i in range(256)]
    return im.point(table * 3)


def crop_bilinear(im, border):
    width, height = im.size
    return im.crop((border, border, width - border, height - border)).resize(im.size, Image.BILINEAR)


def cutout(im, fraction, fill):
    im = im.copy()
    side = fraction * im.width
    corner = (im.width - side) // 2
    box = (corner, corner, corner + side - 1, corner + side - 1)
    ImageDraw.Draw(im).rectangle(box, fill)
    return im


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
        "GaussianBlur": lambda im: im.filter(ImageFilter.GaussianBlur(value)),
        "Rotate90": lambda im: im.rotate(90),
        "Rotate180": lambda im: im.rotate(180),
        "Rotate270": lambda im: im.rotate(270),
        "Rotate": lambda im: im.rotate(value, resample),
        "ShearX": affine((1, value, 0, 0, 1, 0)),
        "ShearY": affine((1, 0, 0, value, 1, 0)),
        "TranslateX": affine((1, 0, value, 0, 1, 0)),
        "TranslateY": affine((1, 0, 0, 0, 1, value)),
        "Posterize": lambda im: ImageOps.posterize(im, value),
        "Solarize": lambda im: ImageOps.solarize(im, value),
        "SolarizeAdd": lambda im: solarize_add(im, value, operation["threshold"]),
        "Desaturate": lambda im: ImageEnhance.Color(im).enhance(1 - value),
        "CropBilinear": lambda im: crop_bilinear(im, value),
        "Cutout": lambda im: cutout(im, value, tuple(operation["fill"])),
    }.get(kind) or (lambda im: getattr(ImageEnhance, kind)(im).enhance(value))


def microseconds(call):
    call()
    begin = time.perf_counter()
    call()
    repeats = max(1, int(0.005 / max(time.perf_counter() - begin, 1e-7)))
    times = []
    for _ in range(30):
        begin = time.perf_counter()
        for _ in range(repeats):
            call()
        times.append((time.perf_counter() - begin) / repeats * 1e6)
    return min(times)


def ours(only):
    command = ["cargo", "bench", "-q", "-p", "ddas-benches", "--bench", "kernels", "--", "--minima", only]
    root = pathlib.Path(__file__).resolve().parent.parent
    printed = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    return {
        line.split()[0]: tuple(float(field) for field in line.split()[1:])
        for line in printed.splitlines()
        if line.startswith("op=")
    }


def geometric_mean(ratios):
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="PART", help="only the operations with this in the name")
    only = parser.parse_args().only

    source = pathlib.Path(__file__).with_name("benches") / "kernels.rs"
    operations = [json.loads(text) for text in re.findall(r'r#"(.*?)"#', source.read_text())]
    measured = ours(only)
    print(f"Pillow {PIL.__version__}, DDAS_CPU={os.environ.get('DDAS_CPU', '(best)')}, microseconds")
    print(f"{'operation':18}{'size':>5}{'call':>9}{'alone':>9}{'Pillow':>9}{'best':>7}{'Pillow/call':>13}{'best/call':>11}")
    against_pillow, against_best = {32: [], 224: []}, {32: [], 224: []}
    for index, side in enumerate((32, 224)):
        im = image(side, side)
        for operation in operations:
            name = "-".join(filter(None, [operation["kind"], operation.get("interpolation")]))
            case = f"op={name}/size={side}x{side}"
            if case not in measured:
                continue
            apply = function(operation)
            pillow = microseconds(lambda: apply(im))
            call, alone = measured[case]
            best = BEST.get(name, (None, None))[index]
            against_pillow[side].append(pillow / call)
            line = f"{name:18}{side:5}{call:9.2f}{alone:9.2f}{pillow:9.2f}"
            if best is None:
                print(f"{line}{'-':>7}{pillow / call:13.1f}{'-':>11}")
            else:
                against_best[side].append(best / call)
                print(f"{line}{best:7.1f}{pillow / call:13.1f}{best / call:11.1f}")
    for name, ratios in (("Pillow/call", against_pillow), ("best/call", against_best)):
        every = ratios[32] + ratios[224]
        if every:
            means = [f"{side}: {geometric_mean(part):.1f}" for side, part in ratios.items() if part]
            print(f"geometric mean of {name}: {geometric_mean(every):.1f} ({', '.join(means)})")


if __name__ == "__main__":
    main()
