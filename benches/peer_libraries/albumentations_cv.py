"""albumentations on OpenCV, with torch's DataLoader. Its resize has no antialias."""

import math
import os

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # else importing it asks the network for news

import albumentations as A
import cv2
import torch
from albumentations.pytorch import ToTensorV2
from common import RATIO, SCALE, cut_out, torch_loader

cv2.setNumThreads(0)


def randaugment(side):
    """The 14 operations of RandAugment at level 9 of 30, two of them drawn: albumentations has no such transform."""
    share = 9 / 30
    change, shear, shift = 0.9 * share, math.degrees(math.atan(0.3 * share)), int(150 / 331 * side * share)
    same, nearest = (1, 1), {"interpolation": cv2.INTER_NEAREST, "p": 1}
    operations = [
        A.NoOp(p=1),
        A.Affine(shear={"x": (-shear, shear), "y": (0, 0)}, **nearest),
        A.Affine(shear={"x": (0, 0), "y": (-shear, shear)}, **nearest),
        A.Affine(translate_px={"x": (-shift, shift), "y": (0, 0)}, **nearest),
        A.Affine(translate_px={"x": (0, 0), "y": (-shift, shift)}, **nearest),
        A.Rotate((-30 * share, 30 * share), border_mode=cv2.BORDER_CONSTANT, **nearest),
        A.RandomBrightnessContrast((-change, change), (0, 0), p=1),
        A.ColorJitter(brightness=same, contrast=same, saturation=(1 - change, 1 + change), hue=(0, 0), p=1),
        A.RandomBrightnessContrast((0, 0), (-change, change), p=1),
        A.Sharpen(alpha=(change, change), lightness=(1, 1), p=1),
        A.Posterize(num_bits=(7, 7), p=1),
        A.Solarize(threshold_range=(1 - share, 1 - share), p=1),
        A.AutoContrast(p=1),
        A.Equalize(p=1),
    ]
    return A.SomeOf(operations, n=2, replace=True, p=1)


def transform(case):
    augment = [randaugment(case.side)] if case.augment else []
    if case.recipe == "cifar":
        steps = [*augment, A.Pad(4), A.RandomCrop(32, 32), A.HorizontalFlip()]
    else:
        steps = [A.RandomResizedCrop((224, 224), SCALE, RATIO, p=1), A.HorizontalFlip(), *augment]
    if not case.raw:
        steps += [A.Normalize(case.mean, case.std), ToTensorV2()]
    return A.Compose(steps)


class Arrays(torch.utils.data.Dataset):
    def __init__(self, case):
        self.images, self.labels = case.arrays()
        self.transform = transform(case)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return cut_out(self.transform(image=self.images[index])["image"]), int(self.labels[index])


class Files(torch.utils.data.Dataset):
    def __init__(self, case):
        self.files = case.files()
        self.raw, self.transform = case.raw, transform(case)

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        path, label = self.files[index]
        image = self.transform(image=cv2.imread(path, cv2.IMREAD_COLOR_RGB))["image"]
        return torch.from_numpy(image) if self.raw else image, label


def batches(case):
    dataset = Arrays(case) if case.recipe == "cifar" else Files(case)
    for images, _ in torch_loader(dataset, case):
        yield images
