"""Writes pillow.txt: checksums of what Pillow makes of the test images.

    pip install pillow==13.0.0
    python runtime/tests/golden/pillow.py > runtime/tests/golden/pillow.txt

The table does not depend on the version: run with another Pillow from 9.5.0
on, the script must write the same lines (but for the first). Where the
versions differ, the script spells out what is meant: 0 bits of Posterize are
black (13.0 refuses them), and both orders of the resize passes are composed
from single passes, the installed version's own being checked against them.

`runtime/tests/golden.rs` reads the table; the images are those of
`runtime/src/kernels/test_images.rs`.
"""

import json
import sys
import zlib

import PIL
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

MAJOR = int(PIL.__version__.split(".")[0])
SIZES = [(1, 1), (1, 7), (9, 1), (2, 9), (3, 3), (5, 4), (33, 17), (32, 32), (64, 48), (224, 224)]
KINDS = ["random", "low-contrast", "constant", "gradient", "two-valued", "photographic"]
WORD = (1 << 64) - 1


def pixels(kind, width, height):
    length = width * height * 3
    stream = bytearray()
    state = KINDS.index(kind) << 48 | width << 24 | height
    while len(stream) < length:
        state = (state + 0x9E3779B97F4A7C15) & WORD
        word = state
        word = ((word ^ word >> 30) * 0xBF58476D1CE4E5B9) & WORD
        word = ((word ^ word >> 27) * 0x94D049BB133111EB) & WORD
        stream += (word ^ word >> 31).to_bytes(8, "little")
    stream = bytes(stream[:length])
    if kind == "random":
        return stream
    if kind == "low-contrast":
        return bytes(90 + byte % 30 for byte in stream)
    if kind == "constant":
        return stream[:3] * (width * height)
    if kind == "gradient":
        return bytes(
            value % 256
            for y in range(height)
            for x in range(width)
            for value in (7 * x, 9 * y, 3 * (x + y))
        )
    if kind == "two-valued":
        return bytes(200 if byte % 2 else 37 for byte in stream)
    return bytes(
        photographic(stream, x, y, channel, width)
        for y in range(height)
        for x in range(width)
        for channel in range(3)
    )


def photographic(stream, x, y, channel, width):
    """Soft patches, a hard edge, a little noise."""

    def corner(i, j):
        return stream[((y // 16 + j) * 97 + x // 16 + i) * 3 % len(stream) + channel]

    right, below = x % 16, y % 16
    upper = corner(0, 0) * (16 - right) + corner(1, 0) * right
    lower = corner(0, 1) * (16 - right) + corner(1, 1) * right
    patch = (upper * (16 - below) + lower * below) // 256
    noise = stream[(y * width + x) * 3 + channel] % 9 - 4
    edge = 60 if x + 2 * y > width else 0
    return max(0, min(255, patch + noise - edge))


RESAMPLE = {"nearest": Image.NEAREST, "bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}


def affine(image, matrix, arguments):
    fill = tuple(arguments.get("fill", (0, 0, 0)))
    resample = RESAMPLE[arguments.get("interpolation", "nearest")]
    return image.transform(image.size, Image.AFFINE, matrix, resample, fillcolor=fill)


def length(arguments, side, name="pixels"):
    value = arguments[name] if name in arguments else arguments["fraction"] * side
    return int(value) if arguments.get("rounding") == "truncate" else value


def cutout(image, arguments, center):
    width, height = image.size
    if arguments.get("shape") == "rectangle":
        return rectangle(image, arguments, center)
    side = int(length(arguments, width, "size"))
    x, y = center or (width // 2, height // 2)
    left, top = x - side // 2, y - side // 2
    box = (max(0, left), max(0, top), min(width, left + side), min(height, top + side))
    image = image.copy()
    if box[0] < box[2] and box[1] < box[3]:
        image.paste(tuple(arguments.get("fill", (0, 0, 0))), box)
    return image


def rectangle(image, arguments, center):
    """The rule of the Pillow versions of RandAugment, Fast AutoAugment and TrivialAugment."""
    width, height = image.size
    if arguments.get("fraction") == 0:
        return image
    side = length(arguments, width, "size")
    x, y = center or (width / 2, height / 2)
    left, top = int(max(0, x - side / 2)), int(max(0, y - side / 2))
    image = image.copy()
    corners = (left, top, min(width, left + side), min(height, top + side))
    if left <= width and top <= height:  # as is every centre that is drawn
        ImageDraw.Draw(image).rectangle(corners, tuple(arguments["fill"]))
    return image


def solarize_add(image, add, threshold, scope):
    def below(value):
        return max(0, min(255, value + add)) if value < threshold else value

    if scope == "all":
        added = image.point([max(0, min(255, value + add)) for value in range(256)] * 3)
        return ImageOps.solarize(added, threshold)
    return image.point([below(value) for value in range(256)] * 3)


def crop_bilinear(image, border):
    width, height = image.size
    if 2 * border >= min(width, height):
        return image
    rest = image.crop((border, border, width - border, height - border))
    return rest.resize(image.size, Image.BILINEAR)


def apply(image, operation, center):
    kind = operation["kind"]
    get = operation.get
    if kind == "Identity":
        return image
    if kind == "FlipLR":
        return image.transpose(Image.FLIP_LEFT_RIGHT)
    if kind == "FlipUD":
        return image.transpose(Image.FLIP_TOP_BOTTOM)
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
        return image.filter(ImageFilter.GaussianBlur(get("radius")))
    if kind in ("Rotate90", "Rotate180", "Rotate270"):
        return image.rotate(int(kind[6:]))
    if kind == "Rotate":
        resample = RESAMPLE[get("interpolation", "nearest")]
        return image.rotate(get("degrees"), resample, fillcolor=tuple(get("fill", (0, 0, 0))))
    if kind == "ShearX":
        return affine(image, (1, get("shear"), 0, 0, 1, 0), operation)
    if kind == "ShearY":
        return affine(image, (1, 0, 0, get("shear"), 1, 0), operation)
    if kind == "TranslateX":
        return affine(image, (1, 0, length(operation, image.width), 0, 1, 0), operation)
    if kind == "TranslateY":
        return affine(image, (1, 0, 0, 0, 1, length(operation, image.height)), operation)
    if kind == "Posterize":
        if get("bits") == 0:
            return Image.new("RGB", image.size)
        return ImageOps.posterize(image, get("bits"))
    if kind == "Solarize":
        return ImageOps.solarize(image, get("threshold"))
    if kind == "SolarizeAdd":
        return solarize_add(image, get("add"), get("threshold"), get("scope"))
    if kind == "CropBilinear":
        return crop_bilinear(image, get("pixels"))
    if kind == "Desaturate":
        return ImageEnhance.Color(image).enhance(1.0 - get("amount"))
    if kind == "Cutout":
        return cutout(image, operation, center)
    return getattr(ImageEnhance, kind)(image).enhance(get("factor"))


def operations():
    """Every case: operation, centre of the cutout or None, whether on the largest images."""
    for operation, center in plain_operations():
        yield operation, center, True
    yield from warps()


def plain_operations():
    for kind in (
        "Identity FlipLR FlipUD AutoContrast Equalize Invert Blur Smooth".split()
        + "Rotate90 Rotate180 Rotate270".split()
    ):
        yield {"kind": kind}, None
    for radius in (
        [0, 1e-3, 0.05, 0.1, 0.25, 0.29, 0.5, 0.67, 0.86, 1, 1.05, 1.24, 1.43, 1.62, 1.81, 2]
        + [2**0.5, 2.5, 3, 3.7, 5, 8, 13.3, 40, 333, 1000]
    ):
        yield {"kind": "GaussianBlur", "radius": radius}, None
    for amount in (0, 0.05, 0.1, 0.25, 0.29, 0.45, 0.5, 0.7, 1):
        yield {"kind": "Desaturate", "amount": amount}, None
    for pixels in (0, 1, 2, 3, 5, 7, 8, 10, 14, 15, 16, 20, 24, 111, 112, 1000):
        yield {"kind": "CropBilinear", "pixels": pixels}, None
    for bits in range(9):
        yield {"kind": "Posterize", "bits": bits}, None
    for threshold in (
        [0, 26, 51, 52, 77, 102, 103, 128, 154, 205, 256, 1, 255]
        + [-102, -460, 300, 127.5, 0.1, 254.9, 255.5, -0.5]
    ):
        yield {"kind": "Solarize", "threshold": threshold}, None
    for add in (0, 22, 44, 66, 88, 110, 255, -50, -255):
        yield {"kind": "SolarizeAdd", "add": add, "threshold": 128}, None
    for threshold in (-3, 0, 1, 255, 256, 300):
        for add in (60, -60):
            yield {"kind": "SolarizeAdd", "add": add, "threshold": threshold}, None
    for threshold in (-3, 0, 1, 128, 200, 255, 256, 300):
        for add in (0, 1, 22, 40, 110, 255, -60):
            operation = {"kind": "SolarizeAdd", "add": add, "threshold": threshold, "scope": "all"}
            yield operation, None
    factors = [round(0.18 * level + 0.1, 2) for level in range(11)] + [2.62, 5.14]
    factors += [0, 0.01, 0.19, 0.5, 0.9, 1.0000001, 0.9999999, 1.99, 2, -0.3, -2, 100, 1e6]
    for kind in ("Color", "Contrast", "Brightness", "Sharpness"):
        for factor in factors:
            yield {"kind": kind, "factor": factor}, None
    for side in (0, 1, 2, 4, 5, 7.9, 8, 12, 16, 18, 20, 56, 500):
        for center in (None, (0, 0), (1, 2), (31, 16), (300, 300)):
            fill = (125, 122, 113)
            yield {"kind": "Cutout", "size": side, "fill": fill}, center
    for fraction in (0.2, 0.6, 1):
        yield {"kind": "Cutout", "fraction": fraction}, (3, 3)
    rule = {"shape": "rectangle", "fill": (125, 123, 114)}
    for center in (None, (1, 1), (1.7, 2.2), (14.3, 15.99), (31.5, 16), (224, 3.5)):
        for side in (0, 1, 2, 3.5, 5, 16, 19.99, 40, 500):
            yield {"kind": "Cutout", "size": side, **rule}, center
        for fraction in (0, 0.05, 0.13, 0.2, 0.6):
            yield {"kind": "Cutout", "fraction": fraction, **rule}, center


def warps():
    warps = [{}, {"fill": (125, 122, 113)}, {"interpolation": "bilinear"}]
    warps += [{"interpolation": "bicubic", "fill": (128, 128, 128)}]
    levels = (2, 4, 5, 6, 7, 8, 9, 10, 14, 28)
    signs = (1, -1)
    arguments = [("Rotate", "degrees", sign * 3 * level) for level in levels for sign in signs]
    for degrees in (
        [0, 1, 13.7, 45, -45, 90, -90, 135, -135, 180, -180, 270, 360]
        + [-270, 359.9, 725.5, 1e-14, -1e-20, 180.00000000000003, 89.99999999999999, 60, 120]
    ):
        arguments.append(("Rotate", "degrees", degrees))
    shears = [sign * round(0.03 * level, 2) for level in levels for sign in signs]
    for shear in shears + [0, 0.99, -0.99, 1, -1, 0.333333333333, 1e-9, 2.5, -40, 150, -1000]:
        arguments.append(("ShearX", "shear", shear))
        arguments.append(("ShearY", "shear", shear))
    truncated = []
    offsets = [sign * level for level in levels for sign in signs]
    offsets += [0, 1, 32, 33, 224, -224, 300, -300, 1e6, 0.3, -0.3, 0.5, -0.5, -0.7, 0.7]
    offsets += [2.5, -2.5, 14.4, -14.4, 0.49999999999999994, -0.50000001, 22.75]
    for kind in ("TranslateX", "TranslateY"):
        arguments += [(kind, "pixels", offset) for offset in offsets]
        for fraction in (0.45, -0.45, 0.1, -0.01, 0.453172205438, 1, -1.5):
            arguments.append((kind, "fraction", fraction))
            truncated.append((kind, "fraction", fraction))
        truncated += [(kind, "pixels", offset) for offset in (0, 1, -2, 2.5, -2.5, 14.9, -14.9, 0.7, -0.7)]
    for kind, name, value in truncated:
        for warp in ({}, {"interpolation": "bilinear", "fill": (1, 2, 3)}):
            yield {"kind": kind, name: value, "rounding": "truncate", **warp}, None, not warp
    for i, (kind, name, value) in enumerate(arguments):
        for warp in warps:
            # Interpolation is slow: one in eight cases on the largest images.
            largest = "interpolation" not in warp or i % 8 == 0
            yield {"kind": kind, name: value, **warp}, None, largest


def resize(image, size, resample, order):
    """A resize of one pass an axis, composed of single passes."""
    width, height = size
    lost_columns, lost_rows = image.width - width, image.height - height
    vertical_first = order == "pillow13" and lost_rows > 0 and lost_rows > 2 * lost_columns
    between = (image.width, height) if vertical_first else (width, image.height)
    result = image.resize(between, resample).resize(size, resample)
    if order == ("pillow13" if MAJOR >= 13 else "horizontal-first"):
        assert result.tobytes() == image.resize(size, resample).tobytes()
    return result


def checksum(images):
    """CRC-32 of the bytes of all images in a row."""
    crc = 0
    for image in images:
        crc = zlib.crc32(image.tobytes(), crc)
    return f"{crc:08x}"


def inner(image):
    x, y = image.width // 4, image.height // 4
    return image.crop((x, y, x + max(1, image.width // 2), y + max(1, image.height // 2)))


def main():
    groups = [
        [Image.frombytes("RGB", (width, height), pixels(kind, width, height)) for kind in KINDS]
        for width, height in SIZES
    ]

    def row(*fields, change, largest=True):
        sizes = groups if largest else groups[:-1]
        sums = [checksum(map(change, images)) for images in sizes]
        print(*fields, " ".join(sums), sep="\t")
        return len(sizes) * len(KINDS)

    print(f"# Pillow {PIL.__version__}: python runtime/tests/golden/pillow.py")
    print("# Per size: CRC-32 of the results' RGB bytes, the kinds of image one after the other.")
    print("# Some lines leave out the last size.")
    print("kinds", " ".join(KINDS), sep="\t")
    print("sizes", " ".join(f"{width}x{height}" for width, height in SIZES), sep="\t")
    row("source", change=lambda image: image)
    count = 0
    for operation, center, largest in operations():
        text = json.dumps(operation, separators=(",", ":"))
        place = "-" if center is None else f"{center[0]},{center[1]}"
        change = lambda image: apply(image, operation, center)
        count += row("operation", text, place, change=change, largest=largest)
    for resample in ("bilinear", "bicubic"):
        for order in ("horizontal-first", "pillow13"):
            for size in ((1, 1), (32, 32), (17, 40), (7, 5), (40, 3), (224, 224)):
                for name, crop in (("whole", lambda image: image), ("inner", inner)):
                    count += row(
                        "resize",
                        resample,
                        order,
                        f"{size[0]}x{size[1]}",
                        name,
                        change=lambda image: resize(crop(image), size, RESAMPLE[resample], order),
                    )
    print(f"{count} cases, Pillow {PIL.__version__}", file=sys.stderr)


if __name__ == "__main__":
    main()
