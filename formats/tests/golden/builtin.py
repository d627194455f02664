"""Writes builtin.txt: what torchvision and timm make of their magnitudes.

    pip install torchvision==0.26.0 timm==1.0.31
    python formats/tests/golden/builtin.py > formats/tests/golden/builtin.txt

Each line is a family, a kind and the argument at each magnitude, as floats that read back exactly.
"""

import random

import torch
from timm.data import auto_augment as timm_augment
from torchvision.transforms import autoaugment


def line(family, kind, values):
    print(family, kind, *[repr(float(value)) for value in values])


def torchvision_tables():
    side = 331 * 8
    spaces = [
        ("randaugment", autoaugment.RandAugment(), 31, (side, side)),
        ("autoaugment", autoaugment.AutoAugment(), 10, (side, side)),
        ("wide", autoaugment.TrivialAugmentWide(), 31, None),
    ]
    for family, transform, bins, size in spaces:
        space = transform._augmentation_space(bins, size) if size else transform._augmentation_space(bins)
        for kind, (magnitudes, signed) in space.items():
            values = magnitudes.tolist() if magnitudes.ndim else [0.0] * bins
            line(family, kind + ("+-" if signed else ""), values)
    for name in ("CIFAR10", "SVHN", "IMAGENET"):
        policies = autoaugment.AutoAugment(getattr(autoaugment.AutoAugmentPolicy, name)).policies
        for pair in policies:
            print("pairs", name, *[f"{kind}:{probability!r}:{bin or 0}" for kind, probability, bin in pair])


def timm_tables():
    # random.random() > 0.5 negates.
    random.random = lambda: 0.0
    levels = [0, 0.3, 1, 2.5, 2.9, 3, 5, 7, 7.5, 9, 9.99, 10]
    line("timm", "levels", levels)
    for kind, function in timm_augment.LEVEL_TO_ARG.items():
        if function is not None and not kind.endswith("Rand"):
            line("timm", kind, [function(level, {"translate_const": 250})[0] for level in levels])


torch.set_num_threads(1)
torchvision_tables()
timm_tables()
