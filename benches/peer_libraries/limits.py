"""What this machine allows: `limits.py FOLDER` prints the rate of copying memory and of decoding the photos, as JSON.

Decoding is libjpeg-turbo's, whole images to RGB, by the libraries that contain it; every rate is the best of some.
"""

import io
import json
import sys
import time

import numpy
from common import Case


def fastest(call, seconds=1.5):
    times, until = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < until:
        began = time.thread_time()
        call()
        times.append(time.thread_time() - began)
    return min(times)


def main():
    case = Case("", "imagenet", False, False, 1, sys.argv[1])
    source = numpy.ones(256 << 20, numpy.uint8)
    target = numpy.zeros_like(source)
    copied = source.nbytes / fastest(lambda: numpy.copyto(target, source))
    stored = target.nbytes / fastest(lambda: target.fill(7))
    contents = [open(path, "rb").read() for path, _ in case.files()]
    # Every image once: copies have "-" in their names, and come behind.
    contents = list(dict.fromkeys(contents))
    decoders = {}
    try:
        import cv2

        cv2.setNumThreads(0)
        arrays = [numpy.frombuffer(content, numpy.uint8) for content in contents]
        decoders["OpenCV"] = lambda: [cv2.imdecode(array, cv2.IMREAD_COLOR_RGB) for array in arrays]
    except ImportError:
        pass
    try:
        import torch
        from torchvision.io import ImageReadMode, decode_jpeg

        torch.set_num_threads(1)
        tensors = [torch.frombuffer(bytearray(content), dtype=torch.uint8) for content in contents]
        decoders["torchvision"] = lambda: [decode_jpeg(tensor, ImageReadMode.RGB) for tensor in tensors]
    except ImportError:
        pass
    try:
        from kornia_rs import io as kornia

        decoders["kornia-rs"] = lambda: [kornia.decode_image_jpegturbo(content, "rgb") for content in contents]
    except ImportError:
        pass
    from PIL import Image

    decoders["Pillow"] = lambda: [Image.open(io.BytesIO(content)).convert("RGB").load() for content in contents]
    decoded = {name: len(contents) / fastest(call) for name, call in decoders.items()}
    print(json.dumps({"copied": copied, "stored": stored, "decoded": decoded}))


if __name__ == "__main__":
    main()
