"""A small packed dataset for the examples: noisy 32x32 images of three classes, each class with a colour of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"red": (190, 90, 90), "green": (90, 180, 90), "blue": (90, 90, 200)}


def tiny_dataset(folder: Path, samples: int = 96) -> Path:
    """Writes `samples` PNG files into class folders below `folder` and packs them; the dataset's path."""
    random = np.random.default_rng(0)
    for number in range(samples):
        name, colour = list(COLOURS.items())[number % len(COLOURS)]
        pixels = random.normal(colour, 40.0, (32, 32, 3)).clip(0, 255).astype(np.uint8)
        path = folder / "images" / name / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    packed = folder / "tiny.lmdb"
    program = os.environ.get("DDAS_LOADER", "ddas-loader")
    subprocess.run([program, "pack", "image-folder", folder / "images", packed], check=True, stderr=subprocess.DEVNULL)
    return packed
