"""FFCV, from its own files: CIFAR's pixels raw, the photos' JPEGs as they are (by itself it would encode them anew).

It has no RandAugment: torchvision's on PIL images is done on its batches, in this process.
"""

import numpy
import torch
from common import RATIO, SCALE, cut_out
from ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder, SimpleRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import Cutout, NormalizeImage, RandomHorizontalFlip, RandomTranslate, Squeeze, ToTensor, ToTorchImage
from PIL import Image


def batches(case):
    torch.set_num_threads(1)
    mean, std = 255 * numpy.array(case.mean), 255 * numpy.array(case.std)
    if case.recipe == "cifar":
        steps = [SimpleRGBImageDecoder()]
        if not case.augment:
            steps += [RandomHorizontalFlip(), RandomTranslate(padding=4), Cutout(16, tuple(map(int, mean)))]
    else:
        steps = [RandomResizedCropRGBImageDecoder((224, 224), SCALE, RATIO), RandomHorizontalFlip()]
    if case.augment or case.raw:
        steps += [ToTensor()]
    else:
        steps += [NormalizeImage(mean, std, numpy.float32), ToTensor(), ToTorchImage(channels_last=False)]
    loader = Loader(
        str(case.folder / f"{case.recipe}.beton"),
        batch_size=case.batch,
        num_workers=case.threads,
        order=OrderOption.RANDOM,
        os_cache=True,
        drop_last=True,
        pipelines={"image": steps, "label": [IntDecoder(), ToTensor(), Squeeze()]},
    )
    finish = finisher(case) if case.augment else lambda images: images
    while True:
        for images, _ in loader:
            yield finish(images)


def finisher(case):
    from torchvision import transforms

    after = [transforms.ToTensor(), transforms.Normalize(case.mean, case.std)]
    steps = [transforms.RandAugment(2, 9)]
    if case.recipe == "cifar":
        steps += [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
        after.append(cut_out)
    transform = transforms.Compose([*steps, *after])
    return lambda images: torch.stack([transform(Image.fromarray(image)) for image in images.numpy()])
