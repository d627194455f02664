"""What every library's file shares: the case it is given, and the steps that libraries have no own version of."""

import json
import os
import pathlib
import random
from dataclasses import asdict, dataclass

MEAN = {"cifar": (0.4914, 0.4822, 0.4465), "imagenet": (0.485, 0.456, 0.406)}
STD = {"cifar": (0.2023, 0.1994, 0.2010), "imagenet": (0.229, 0.224, 0.225)}
SIDE = {"cifar": 32, "imagenet": 224}
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


@dataclass
class Case:
    """One library with one pipeline, as it is handed to a process of its own."""

    library: str  # name of a file of this folder
    recipe: str  # "cifar" or "imagenet"
    augment: bool  # RandAugment(2, 9) on every image
    raw: bool  # delivered as u8 NHWC; else f32 NCHW, normalised
    threads: int
    data: str  # the folder `prepare.py` filled
    batch: int = 128

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @property
    def folder(self) -> pathlib.Path:
        return pathlib.Path(self.data)

    @property
    def mean(self):
        return MEAN[self.recipe]

    @property
    def std(self):
        return STD[self.recipe]

    @property
    def side(self) -> int:
        return SIDE[self.recipe]

    def arrays(self):
        """CIFAR as (samples, 32, 32, 3) bytes, mapped from the page cache, and its labels."""
        import numpy

        return numpy.load(self.folder / "cifar.npy", mmap_mode="r"), numpy.load(self.folder / "cifar-labels.npy")

    def files(self):
        """Paths and labels of the photos."""
        folder = self.folder / "images"
        classes = sorted(entry.name for entry in os.scandir(folder))
        return [(str(path), label) for label, name in enumerate(classes) for path in sorted((folder / name).iterdir())]


def cut_out(image, side=16):
    """A square around a random pixel becomes zero, as far as it lies inside; `image` is (channels, height, width)."""
    height, width = image.shape[-2:]
    y, x = random.randrange(height), random.randrange(width)
    top, left = max(y - side // 2, 0), max(x - side // 2, 0)
    image[:, top : y + side // 2, left : x + side // 2] = 0
    return image


def torch_loader(dataset, case):
    """torch's DataLoader over an endless random order; in this process when one thread is measured."""
    import torch
    from torch.utils.data import DataLoader

    torch.set_num_threads(1)
    return DataLoader(
        dataset,
        batch_sampler=RandomBatches(len(dataset), case.batch),
        num_workers=0 if case.threads == 1 else case.threads,
    )


class RandomBatches:
    """Batches of indices, without end: epochs in random orders."""

    def __init__(self, samples, batch):
        self.samples, self.batch = samples, batch

    def __iter__(self):
        order = list(range(self.samples))
        while True:
            random.shuffle(order)
            for start in range(0, self.samples - self.batch + 1, self.batch):
                yield order[start : start + self.batch]
