"""Checksums of Pillow's RGB to HSV and back over every colour, for `kernels/hue.rs`.

    python hue.py
"""

import numpy as np
import PIL
from PIL import Image


def checksum(values: np.ndarray) -> int:
    flat = values.reshape(-1).astype(np.uint64)
    weights = (np.arange(flat.size, dtype=np.uint64) * np.uint64(2654435761)) & np.uint64(0xFFFFFFFF)
    return int((flat * weights).sum(dtype=np.uint64))


codes = np.arange(256**3, dtype=np.uint32)
colours = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=-1).astype(np.uint8).reshape(4096, 4096, 3)
print("Pillow", PIL.__version__)
print("HSV", checksum(np.asarray(Image.fromarray(colours, "RGB").convert("HSV"))))
print("RGB", checksum(np.asarray(Image.merge("HSV", [Image.fromarray(np.ascontiguousarray(colours[..., i])) for i in range(3)]).convert("RGB"))))
