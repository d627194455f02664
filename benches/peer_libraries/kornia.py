"""kornia-rs: its decoder on libjpeg-turbo and its resize (bilinear, without antialias) fused with normalising.

Only photos without RandAugment, for it has none; crop, flip and stacking are NumPy's.
"""

import math
import random

import numpy
import torch
from common import RATIO, SCALE, torch_loader
from kornia_rs import imgproc, io, pipeline


def random_crop(image):
    """The box of RandomResizedCrop, as torchvision draws it."""
    height, width = image.shape[:2]
    for _ in range(10):
        area = height * width * random.uniform(*SCALE)
        ratio = math.exp(random.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            y, x = random.randint(0, height - h), random.randint(0, width - w)
            return image[y : y + h, x : x + w]
    return image


class Files(torch.utils.data.Dataset):
    def __init__(self, case):
        self.files, self.case = case.files(), case

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        path, label = self.files[index]
        with open(path, "rb") as file:
            image = io.decode_image_jpegturbo(file.read(), "rgb")
        crop = random_crop(image)
        if random.random() < 0.5:
            crop = crop[:, ::-1]
        crop = numpy.ascontiguousarray(crop)
        if self.case.raw:
            return torch.from_numpy(imgproc.resize(crop, (224, 224), "bilinear")), label
        return torch.from_numpy(pipeline.resize_normalize_to_tensor(crop, (224, 224), self.case.mean, self.case.std)), label


def batches(case):
    for images, _ in torch_loader(Files(case), case):
        yield images
