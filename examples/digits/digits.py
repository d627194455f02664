"""Writes scikit-learn's handwritten digits as a folder of PNG images.

    python digits.py OUT        OUT/train/<digit>/*.png and OUT/test/<digit>/*.png

The 1,797 scans of 8x8 pixels are enlarged to 32x32 RGB. Every fourth digit of
a class goes to the test set, so both sets hold all writers' shares alike.
"""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

SIDE = 32


def enlarge(scan: np.ndarray) -> Image.Image:
    """One 8x8 scan of levels 0..16 as a 32x32 RGB image, dark on white paper."""
    levels = np.round(255 - scan * (255 / 16)).astype(np.uint8)
    return Image.fromarray(levels).resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert("RGB")


def write_digits(out: Path) -> dict[str, int]:
    """Writes both sets under `out`; returns how many images each holds."""
    digits = load_digits()
    seen = Counter()
    written = Counter()
    for scan, label in zip(digits.images, digits.target):
        split = "test" if seen[label] % 4 == 3 else "train"
        folder = out / split / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        enlarge(scan).save(folder / f"{seen[label]:04d}.png")
        seen[label] += 1
        written[split] += 1
    return dict(written)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for split, count in write_digits(Path(sys.argv[1])).items():
        print(f"{split}: {count} images")
