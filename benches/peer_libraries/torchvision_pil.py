"""torchvision's transforms on PIL images, with torch's DataLoader."""

import numpy
import torch
from common import RATIO, SCALE, cut_out, torch_loader
from PIL import Image
from torchvision import transforms


def randaugment(case):
    return [transforms.RandAugment(2, 9)] if case.augment else []


def transform(case):
    """From a PIL image to what the batch is made of."""
    finish = [transforms.ToTensor(), transforms.Normalize(case.mean, case.std)]
    if case.raw:
        finish = [lambda image: torch.from_numpy(numpy.array(image))]
    if case.recipe == "cifar":
        steps = [*randaugment(case), transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
        return transforms.Compose([*steps, *finish, cut_out])
    steps = [transforms.RandomResizedCrop(224, SCALE, RATIO), transforms.RandomHorizontalFlip(), *randaugment(case)]
    return transforms.Compose([*steps, *finish])


class Arrays(torch.utils.data.Dataset):
    def __init__(self, case):
        self.images, self.labels = case.arrays()
        self.transform = transform(case)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


class Files(torch.utils.data.Dataset):
    def __init__(self, case):
        self.files = case.files()
        self.transform = transform(case)

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        path, label = self.files[index]
        with Image.open(path) as image:
            return self.transform(image.convert("RGB")), label


def batches(case):
    dataset = Arrays(case) if case.recipe == "cifar" else Files(case)
    for images, _ in torch_loader(dataset, case):
        yield images
