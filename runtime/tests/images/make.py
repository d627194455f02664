"""Writes the images of this folder and golden.txt, what Pillow decodes them to.

Run with Pillow 13.0.0 (libjpeg-turbo 3.2.0) from any folder:
    python runtime/tests/images/make.py
golden.txt: name, width, height, 64-bit FNV-1a of the RGB8 pixels row by row.
plain.bin: small baseline JPEGs one after another, each after its length (4
bytes, little-endian), its width and height (2 bytes each) and the checksum of
its pixels (8 bytes).
"""

import io
import random
import struct
import zlib
from pathlib import Path

from PIL import Image

FOLDER = Path(__file__).parent
GOLDEN = []


def fnv1a(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def picture(width, height, seed):
    """Gradients, hard coloured edges and some noise: exercises chroma upsampling."""
    rng = random.Random(seed)
    image = Image.new("RGB", (width, height))
    for y in range(height):
        for x in range(width):
            pixel = [255 * x // width, 255 * y // height, 128 + (x * y) % 100]
            if (x // 7 + y // 5) % 3 == 0:
                pixel = [240, 20, 30] if x > y else [10, 60, 250]
            image.putpixel((x, y), tuple(max(0, min(255, v + rng.randint(-12, 12))) for v in pixel))
    return image


def record(name, pixels=None):
    path = FOLDER / name
    with Image.open(path) as image:
        width, height = image.size
        if pixels is None:
            pixels = image.convert("RGB").tobytes()
    GOLDEN.append(f"{name} {width} {height} {fnv1a(pixels):016x}")


def jpeg(name, image, **options):
    options.setdefault("quality", 85)
    image.save(FOLDER / name, "JPEG", **options)
    record(name)


def patched(name, source, edit):
    (FOLDER / name).write_bytes(edit((FOLDER / source).read_bytes()))
    record(name)


def replace_once(data, old, new):
    assert data.count(old) == 1
    return data.replace(old, new)


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(name, width, height, depth, color, interlace, rows):
    """rows: the raw image data with filter bytes, passes one after another."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlace)
    (FOLDER / name).write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(rows, 9))
        + png_chunk(b"IEND", b"")
    )


def jpegs():
    for name, subsampling in (("444", 0), ("422", 1), ("420", 2)):
        jpeg(f"yuv{name}.jpg", picture(45, 37, 1), subsampling=subsampling)
        jpeg(f"yuv{name}-progressive.jpg", picture(50, 31, 2), subsampling=subsampling, progressive=True)
    # The same blocks, named 4:4:0 (luminance 1x2) in the frame header.
    jpeg("yuv422-48.jpg", picture(48, 48, 3), subsampling=1)
    patched("yuv440.jpg", "yuv422-48.jpg", lambda data: replace_once(data, b"\x01\x21\x00", b"\x01\x12\x00"))
    jpeg("quality30.jpg", picture(64, 48, 4), quality=30)
    jpeg("restart.jpg", picture(70, 40, 5), subsampling=2, restart_marker_blocks=2)
    jpeg("rgb.jpg", picture(33, 21, 6), keep_rgb=True)
    jpeg("grey.jpg", picture(41, 30, 7).convert("L"))
    jpeg("grey-progressive.jpg", picture(41, 30, 8).convert("L"), progressive=True)
    jpeg("one-pixel.jpg", picture(1, 1, 9))
    jpeg("column.jpg", picture(1, 29, 10), subsampling=2)
    jpeg("row.jpg", picture(29, 1, 11), subsampling=2)
    noise = random.Random(12)
    inks = Image.frombytes("CMYK", (35, 26), bytes(noise.randint(0, 255) for _ in range(35 * 26 * 4)))
    jpeg("cmyk.jpg", inks, quality=60)
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
    patched("ycck.jpg", "cmyk.jpg", lambda data: replace_once(data, adobe + b"\x00", adobe + b"\x02"))
    patched("cmyk-unmarked.jpg", "cmyk.jpg", lambda data: replace_once(data, adobe + b"\x00", b""))


def pngs():
    image = picture(37, 23, 20)
    alpha = picture(37, 23, 21).convert("L")
    rgba = image.convert("RGBA")
    rgba.putalpha(alpha)
    grey_alpha = image.convert("LA")
    grey_alpha.putalpha(alpha)
    palette = image.quantize(colors=200)
    for name, variant, options in (
        ("rgb", image, {}),
        ("rgba", rgba, {}),
        ("grey", image.convert("L"), {}),
        ("grey-alpha", grey_alpha, {}),
        ("bilevel", image.convert("1"), {}),
        ("palette", palette, {}),
        ("palette-transparent", palette, {"transparency": 3}),
        ("palette-4-bit", image.quantize(colors=13), {"bits": 4}),
        ("rgb-transparent", image, {"transparency": image.getpixel((3, 3))}),
    ):
        variant.save(FOLDER / f"{name}.png", "PNG", **options)
        record(f"{name}.png")

    # Pillow clips 16-bit grey at 255 when converting; ours keeps the high byte.
    noise = random.Random(22)
    values = [[noise.randrange(65536) for _ in range(9)] for _ in range(7)]
    png("grey-16-bit.png", 9, 7, 16, 0, 0, b"".join(b"\0" + struct.pack(">9H", *row) for row in values))
    record("grey-16-bit.png", bytes(v >> 8 for row in values for v in row for _ in range(3)))
    values = [[noise.randrange(65536) for _ in range(15)] for _ in range(6)]
    png("rgb-16-bit.png", 5, 6, 16, 2, 0, b"".join(b"\0" + struct.pack(">15H", *row) for row in values))
    record("rgb-16-bit.png")
    levels = [[noise.randrange(4) for _ in range(12)] for _ in range(5)]
    packed = b"".join(
        b"\0" + bytes(a << 6 | b << 4 | c << 2 | d for a, b, c, d in zip(*[iter(row)] * 4)) for row in levels
    )
    png("grey-2-bit.png", 12, 5, 2, 0, 0, packed)
    record("grey-2-bit.png")

    width, height, source = 19, 13, picture(19, 13, 23)
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = b"".join(
        b"\0" + bytes(v for x in range(x0, width, dx) for v in source.getpixel((x, y)))
        for x0, y0, dx, dy in passes
        if x0 < width
        for y in range(y0, height, dy)
    )
    png("interlaced.png", width, height, 8, 2, 1, rows)
    record("interlaced.png")


def transposed_440(data):
    """A 4:2:2 file with as many units, named 4:4:0: sides exchanged."""
    at = data.index(b"\xff\xc0")
    height, width, sampling = data[at + 5 : at + 7], data[at + 7 : at + 9], data[at + 11]
    assert sampling == 0x21
    return data[: at + 5] + width + height + data[at + 9 : at + 11] + b"\x12" + data[at + 12 :]


def plain():
    """Every sampling, odd sizes, partial units, restarts, qualities, tables of
    their own, grey; flat, smooth and noisy."""
    rng = random.Random(40)
    files = []
    for i in range(120):
        width, height = rng.randint(1, 40), rng.randint(1, 40)
        if i % 10 == 0:
            width, height = rng.choice([8, 16, 17, 32]), rng.choice([1, 2, 8, 16, 33])
        image = picture(width, height, 100 + i)
        if i % 8 == 1:
            image = Image.new("RGB", (width, height), (rng.randint(0, 255), 90, 200))
        if i % 8 == 2:
            image = Image.frombytes("RGB", (width, height), rng.randbytes(width * height * 3))
        sampling = ("4:4:4", "4:2:2", "4:2:0", "4:2:0", "4:4:0", "grey")[i % 6]
        options = {"quality": rng.choice([1, 20, 50, 75, 90, 95, 100]), "optimize": i % 3 == 0}
        if i % 4 == 3:
            options["restart_marker_blocks"] = rng.randint(1, 5)
        if sampling == "grey":
            image = image.convert("L")
        else:
            options["subsampling"] = "4:2:2" if sampling == "4:4:0" else sampling
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", **options)
        data = buffer.getvalue()
        if sampling == "4:4:0":
            data = transposed_440(data)
        with Image.open(io.BytesIO(data)) as decoded:
            size, pixels = decoded.size, decoded.convert("RGB").tobytes()
        files.append(struct.pack("<IHHQ", len(data), *size, fnv1a(pixels)) + data)
    (FOLDER / "plain.bin").write_bytes(b"".join(files))


jpegs()
pngs()
plain()
(FOLDER / "golden.txt").write_text("\n".join(GOLDEN) + "\n")
