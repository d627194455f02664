"""Writes the JPEGs of this folder: smooth colours, edges and grain, 4:2:0.

python benches/benches/images/make.py (Pillow 13.0.0)
"""

import random
from pathlib import Path

from PIL import Image, ImageDraw


def picture(width, height, seed):
    rng = random.Random(seed)
    corners = Image.new("RGB", (6, 5))
    corners.putdata([tuple(rng.randrange(256) for _ in range(3)) for _ in range(30)])
    image = corners.resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = rng.randrange(width), rng.randrange(height)
        draw.ellipse((x, y, x + width // 6, y + height // 5), tuple(rng.randrange(256) for _ in range(3)))
    grain = Image.frombytes("L", (width, height), rng.randbytes(width * height)).convert("RGB")
    return Image.blend(image, grain, 0.08)


for width, height, quality in ((32, 32, 90), (500, 375, 90)):
    path = Path(__file__).parent / f"{width}x{height}.jpg"
    picture(width, height, 1).save(path, "JPEG", quality=quality, subsampling=2)
