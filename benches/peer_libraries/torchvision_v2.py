"""torchvision's transforms v2 on tensors, decoded by torchvision.io, with torch's DataLoader."""

import torch
from common import RATIO, SCALE, cut_out, torch_loader
from torchvision.io import ImageReadMode, decode_image, read_file
from torchvision.transforms import v2


def transform(case):
    finish = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(case.mean, case.std)]
    if case.raw:
        finish = [lambda image: image.permute(1, 2, 0).contiguous()]
    augment = [v2.RandAugment(2, 9)] if case.augment else []
    if case.recipe == "cifar":
        steps = [*augment, v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()]
        return v2.Compose([*steps, *finish, cut_out])
    steps = [v2.RandomResizedCrop(224, SCALE, RATIO, antialias=True), v2.RandomHorizontalFlip(), *augment]
    return v2.Compose([*steps, *finish])


class Arrays(torch.utils.data.Dataset):
    def __init__(self, case):
        images, self.labels = case.arrays()
        # Planar, as the tensors are wanted: that is done once and not measured.
        self.images = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
        self.transform = transform(case)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.transform(self.images[index]), int(self.labels[index])


class Files(torch.utils.data.Dataset):
    def __init__(self, case):
        self.files = case.files()
        self.transform = transform(case)

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        path, label = self.files[index]
        return self.transform(decode_image(read_file(path), ImageReadMode.RGB)), label


def batches(case):
    dataset = Arrays(case) if case.recipe == "cifar" else Files(case)
    for images, _ in torch_loader(dataset, case):
        yield images
