"""Trains a small network on the batches of a running ddas-loader.

    ddas-loader serve train.lmdb --name digits --recipe cifar --policy policy.json --epochs 30 --batch-size 64 &
    python train.py digits TEST_FOLDER [--turn] [--seed 0]

Prints the accuracy on TEST_FOLDER (class folders of images) at the end, as JSON
on standard output; --turn turns the test images by 90 degrees first.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from ddas.torch import DataLoader


def network(classes: int) -> nn.Module:
    """Three convolutions with batch normalisation: 75 thousand weights."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]

    return nn.Sequential(
        *block(3, 32), *block(32, 64), *block(64, 96), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, classes)
    )


def read_test_set(folder: Path, mean, std, turn: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """All images of class folders, normalised as the training batches are: (N, 3, H, W) and labels."""
    images, labels = [], []
    for label, class_folder in enumerate(sorted(path for path in folder.iterdir() if path.is_dir())):
        for path in sorted(class_folder.iterdir()):
            image = Image.open(path).convert("RGB")
            images.append(np.asarray(image.rotate(90) if turn else image))
            labels.append(label)
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
    return (pixels - mean) / std, torch.tensor(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="name of the running daemon")
    parser.add_argument("test_folder", type=Path)
    parser.add_argument("--turn", action="store_true", help="turn the test images by 90 degrees")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)

    loader = DataLoader(arguments.name, wait=60)
    epochs = loader.info.epochs
    model = network(loader.info.classes)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=arguments.learning_rate, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(loader))
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        total, samples = 0.0, 0
        for images, targets in loader:
            loss = F.cross_entropy(model(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(targets)
            samples += len(targets)
        print(f"epoch {epoch + 1}/{epochs}: loss {total / samples:.3f} over {samples} samples", file=sys.stderr, flush=True)

    images, labels = read_test_set(
        arguments.test_folder, loader.info.normalization.mean, loader.info.normalization.std, arguments.turn
    )
    model.eval()
    with torch.no_grad():
        accuracy = (model(images).argmax(1) == labels).float().mean().item()
    print(json.dumps({"accuracy": accuracy, "test_images": len(labels), "epochs": epochs}))


if __name__ == "__main__":
    main()
