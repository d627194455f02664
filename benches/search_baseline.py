"""A search step beside the same step written plainly in PyTorch: seconds per step of both, in one run.

    python benches/search_baseline.py --search target/release/ddas-search --loader target/release/ddas-loader

The baseline is the method as one would first write it: float32, PIL operations
in the training process, one `torch.autograd.grad` per copy of the batch, the
parameters' gradients as lists. Settings are those of the preset `cifar10` on
both sides: WRN-40-2, batches of 32 and 256, three augmented copies, two
operations each, crop, flip and Cutout 16. Rounds alternate, so that whatever
else the machine does falls on both; the ratio is of the medians. With a GPU,
`--device cuda` measures both there:

    python benches/search_baseline.py --device cuda --precision bf16 --steps 62 --rounds 3

Images are random unless `--images` names a folder of class folders of 32x32
images (4,000 at least): what they show does not matter to the time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor, nn

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
TRAIN_BATCH, VALIDATION_BATCH, BRANCHES, DRAWS, CUTOUT = 32, 256, 3, 2, 16
SAMPLES = 4000


def operations() -> list[Callable[[Image.Image], Image.Image]]:
    """68 operations: 8 without magnitude, 12 at five magnitudes each."""

    def affine(*matrix: float) -> Callable[[Image.Image], Image.Image]:
        return lambda image: image.transform(image.size, Image.Transform.AFFINE, matrix)

    def sign() -> int:
        return random.choice((-1, 1))

    def cutout(side: int) -> Callable[[Image.Image], Image.Image]:
        def apply(image: Image.Image) -> Image.Image:
            x, y = random.randrange(32), random.randrange(32)
            image = image.copy()
            image.paste((125, 123, 114), (x - side // 2, y - side // 2, x + side // 2, y + side // 2))
            return image

        return apply

    found: list[Callable[[Image.Image], Image.Image]] = [
        lambda image: image, ImageOps.mirror, ImageOps.flip, ImageOps.autocontrast, ImageOps.equalize, ImageOps.invert,
        lambda image: image.filter(ImageFilter.BLUR), lambda image: image.filter(ImageFilter.SMOOTH),
    ]  # fmt: skip
    for level in (0.2, 0.4, 0.6, 0.8, 0.9):
        found += [
            lambda image, level=level: image.rotate(sign() * 30 * level),
            lambda image, level=level: affine(1, sign() * 0.3 * level, 0, 0, 1, 0)(image),
            lambda image, level=level: affine(1, 0, 0, sign() * 0.3 * level, 1, 0)(image),
            lambda image, level=level: affine(1, 0, sign() * 10 * level, 0, 1, 0)(image),
            lambda image, level=level: affine(1, 0, 0, 0, 1, sign() * 10 * level)(image),
            lambda image, level=level: ImageOps.posterize(image, max(1, 8 - int(4 * level))),
            lambda image, level=level: ImageOps.solarize(image, int(256 * (1 - level))),
            lambda image, level=level: ImageEnhance.Color(image).enhance(1 + sign() * 0.9 * level),
            lambda image, level=level: ImageEnhance.Contrast(image).enhance(1 + sign() * 0.9 * level),
            lambda image, level=level: ImageEnhance.Brightness(image).enhance(1 + sign() * 0.9 * level),
            lambda image, level=level: ImageEnhance.Sharpness(image).enhance(1 + sign() * 0.9 * level),
            cutout(2 * int(8 * level)),
        ]
    return found


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if inputs != outputs or stride != 1 else None

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.norm1(x))
        inner = self.conv2(F.relu(self.norm2(self.conv1(activated))))
        return inner + (x if self.shortcut is None else self.shortcut(activated))


def wide_resnet(depth: int, width: int, classes: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1)]
    inputs = 16
    for group, channels in enumerate((16 * width, 32 * width, 64 * width)):
        for number in range((depth - 4) // 6):
            layers.append(Block(inputs, channels, 2 if group and not number else 1))
            inputs = channels
    head = [nn.BatchNorm2d(inputs), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes)]
    return nn.Sequential(*layers, *head)


class Baseline:
    def __init__(self, images: list[Image.Image], labels: list[int], device: str) -> None:
        self.images, self.labels, self.device = images, labels, device
        self.operations = operations()
        torch.manual_seed(0)
        self.model = wide_resnet(40, 2, max(labels) + 1).to(device).train()
        self.parameters = list(self.model.parameters())
        self.optimizer = torch.optim.SGD(self.parameters, lr=0.01)
        start = float(np.log(0.35 / 0.65))
        self.total_logit = torch.tensor(start, device=device, requires_grad=True)
        self.logits = torch.zeros(len(self.operations), device=device, requires_grad=True)
        betas = (0.5, 0.999)
        self.total_adam = torch.optim.Adam([self.total_logit], lr=0.001, betas=betas)
        self.adam = torch.optim.Adam([self.logits], lr=0.005, betas=betas)
        self.mean = torch.tensor(MEAN, device=device).view(3, 1, 1)
        self.std = torch.tensor(STD, device=device).view(3, 1, 1)

    def tensor(self, images: list[Image.Image]) -> Tensor:
        stacked = torch.from_numpy(np.stack([np.asarray(image) for image in images])).to(self.device)
        return (stacked.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std

    def copy(self, samples: list[int], policy: list[int]) -> Tensor:
        copies = []
        for sample in samples:
            image = self.images[sample]
            for operation in policy:
                image = self.operations[operation](image)
            x, y = random.randrange(9), random.randrange(9)
            image = ImageOps.expand(image, 4).crop((x, y, x + 32, y + 32))
            copies.append(ImageOps.mirror(image) if random.random() < 0.5 else image)
        batch = self.tensor(copies)
        for index in range(len(samples)):
            x, y = random.randrange(32), random.randrange(32)
            half = CUTOUT // 2
            batch[index, :, max(0, y - half) : y + half, max(0, x - half) : x + half] = 0
        return batch

    def gradient(self, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        loss = F.cross_entropy(self.model(images), labels, reduction="sum")
        return torch.autograd.grad(loss, self.parameters)

    def step(self) -> None:
        half = len(self.images) // 2
        samples = random.sample(range(half), TRAIN_BATCH)
        policies = [[random.randrange(len(self.operations)) for _ in range(DRAWS)] for _ in range(BRANCHES)]
        labels = torch.tensor([self.labels[sample] for sample in samples], device=self.device)
        gradients = [self.gradient(self.copy(samples, policy), labels) for policy in [[], *policies]]

        probabilities = self.logits.softmax(0)
        products = torch.stack([probabilities[policy].prod() for policy in policies])
        shares = products / products.sum().detach()
        total = self.total_logit.sigmoid()
        weights = [1 - total.item(), *(total * shares).tolist()]
        for index, parameter in enumerate(self.parameters):
            parameter.grad = sum(weight * gradient[index] for weight, gradient in zip(weights, gradients))
        self.optimizer.step()

        chosen = random.sample(range(half, len(self.images)), VALIDATION_BATCH)
        images = self.tensor([self.images[sample] for sample in chosen])
        at = self.gradient(images, torch.tensor([self.labels[sample] for sample in chosen], device=self.device))
        advantages = []
        for branch in gradients[1:]:
            dots = [((g - plain) * v).sum() for g, plain, v in zip(branch, gradients[0], at)]
            advantages.append(torch.stack(dots).sum())
        effect = torch.stack(advantages)
        loss = -(effect / effect.abs().sum() * total * shares).sum()
        self.adam.zero_grad()
        self.total_adam.zero_grad()
        loss.backward()
        self.adam.step()
        self.total_adam.step()

    def seconds(self, steps: int) -> list[float]:
        found = []
        for _ in range(steps):
            begun = time.perf_counter()
            self.step()
            if self.device != "cpu":
                torch.cuda.synchronize()
            found.append(time.perf_counter() - begun)
        return found


def ours(arguments: argparse.Namespace, dataset: Path, folder: Path) -> list[float]:
    """Seconds of each step but the first, the wait for its batch included."""
    settings = [f"train_samples={TRAIN_BATCH * (arguments.steps + 1)}", "validation_samples=512", "epochs=1"]
    command = [
        arguments.search, "run", dataset, "--preset", "cifar10", "--device", arguments.device, "--overwrite",
        "--precision", arguments.precision, "--engine", arguments.engine, "--threads", str(arguments.threads), "-o", folder / "policy.json",
    ]  # fmt: skip
    for setting in settings:
        command += ["--set", setting]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    lines = (folder / "policy-run" / "metrics.jsonl").read_text().splitlines()
    steps = [line for line in map(json.loads, lines) if line["kind"] == "step"]
    return [line["seconds"] + line["waited"] for line in steps[1:]]


def noise(folder: Path) -> Path:
    generator = np.random.default_rng(0)
    for number in range(SAMPLES):
        path = folder / f"{number % 10}" / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((32, 32), Image.Resampling.BICUBIC).save(path, compress_level=1)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--search", default=os.environ.get("DDAS_SEARCH", "target/release/ddas-search"), help="the program")
    parser.add_argument("--loader", default=os.environ.get("DDAS_LOADER", "target/release/ddas-loader"), help="packs the images")
    parser.add_argument("--images", type=Path, help="folder of class folders of 32x32 images (default: random images)")
    parser.add_argument("--steps", type=int, default=4, help="timed steps of each side in a round (default 4)")
    parser.add_argument("--rounds", type=int, default=2, help="rounds, each of both sides (default 2)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--precision", default="bf16", choices=("f32", "bf16"), help="of ours; the baseline is f32 (default bf16)")
    parser.add_argument("--engine", default="auto", choices=("auto", "native", "libtorch"), help="of ours (default auto)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of both (default: one per core)")
    parser.add_argument("--no-baseline", action="store_true", help="ours alone")
    arguments = parser.parse_args()
    if arguments.steps < 1 or arguments.rounds < 1:
        parser.error("--steps and --rounds must be at least 1")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.backends.cudnn.benchmark = True

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images_folder = arguments.images or noise(folder / "images")
        dataset = folder / "images.lmdb"
        packing = [arguments.loader, "pack", "image-folder", images_folder, dataset]
        subprocess.run(packing, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        paths = sorted(images_folder.glob("*/*"))
        random.seed(0)
        random.shuffle(paths)
        paths = paths[:SAMPLES]
        classes = sorted({path.parent.name for path in paths})
        labels = [classes.index(path.parent.name) for path in paths]
        images = [Image.open(path).convert("RGB") for path in paths]
        if len(images) < SAMPLES or any(image.size != (32, 32) for image in images):
            parser.error(f"{images_folder}: expected {SAMPLES} images of 32x32 pixels")
        baseline = Baseline(images, labels, arguments.device)
        if not arguments.no_baseline:
            baseline.step()  # warms up
        of_baseline: list[float] = []
        of_ours: list[float] = []
        for round_number in range(arguments.rounds):
            line = f"round {round_number + 1}:"
            if not arguments.no_baseline:
                found = baseline.seconds(arguments.steps)
                of_baseline += found
                line += f"  baseline {statistics.median(found):.3f} s a step,"
            found = ours(arguments, dataset, folder)
            of_ours += found
            print(f"{line}  ours ({arguments.precision}, {arguments.engine}) {statistics.median(found):.3f} s a step", flush=True)
    mine = statistics.median(of_ours)
    print(f"ours: median {mine:.3f} s, least {min(of_ours):.3f} s; 1,240 steps of the preset take {1240 * mine / 60:.1f} min")
    if of_baseline:
        theirs = statistics.median(of_baseline)
        print(f"baseline: median {theirs:.3f} s, least {min(of_baseline):.3f} s")
        print(f"ratio ours / baseline: {mine / theirs:.3f} of the medians, {min(of_ours) / min(of_baseline):.3f} of the least")


if __name__ == "__main__":
    main()
