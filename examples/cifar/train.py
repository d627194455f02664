"""Trains a Wide-ResNet on CIFAR with any policy, by the recipe of the DDAS paper.

    python examples/cifar/train.py train.lmdb test.lmdb --policy policy.json --network wrn-28-10 --run-dir run
    python examples/cifar/train.py train.lmdb test.lmdb --run-dir run --resume
    python examples/cifar/train.py train.lmdb test.lmdb --network wrn-16-2 --subset 4000 --epochs 30 --amp --threads 2

`--policy` is a policy file or the name of a built-in one (`randaugment`,
`trivialaugment-wide`, ...: see `ddas.Policy.builtin`); without it, images are
cropped, flipped and cut out alone. SGD with Nesterov's momentum 0.9, batch 128,
200 epochs, learning rate 0.1 along a cosine, weight decay 5e-4 (2e-4 for
wrn-40-2), gradients clipped at norm 5, Cutout 16: the paper's settings.

`--run-dir` gets `checkpoint.pt` after every epoch and `result.json` at the end.
A resumed run sees the very batches that the stopped one would have seen.
`--amp` computes in bfloat16 where that pays: on CPUs with AMX or AVX512-BF16
and on GPUs from Ampere on. Memory is channels-last, and algorithms are
deterministic: a run with the same settings, number of threads included, on the
same machine ends in the same weights.

`--subset N` trains on about N samples, drawn from all by `--subset-seed` and a
hash of the sample's number. Recipes were made for the whole: with a few
thousand samples, smaller batches and more epochs learn more.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ddas
from ddas.torch import DataLoader

WEIGHT_DECAY = {"wrn-40-2": 2e-4}
SECONDS_BETWEEN_LINES = 30.0


class Block(nn.Module):
    """Two 3x3 convolutions, each after normalisation and rectification, around a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.norm1(x))
        inner = self.conv2(F.relu(self.norm2(self.conv1(activated))))
        return inner + (x if self.shortcut is None else self.shortcut(activated))


def wide_resnet(name: str, classes: int) -> nn.Module:
    """`wrn-DEPTH-WIDTH`, DEPTH being 6n + 4."""
    kind, _, sizes = name.partition("-")
    try:
        depth, width = map(int, sizes.split("-"))
    except ValueError:
        depth = width = 0
    if kind != "wrn" or depth < 10 or depth % 6 != 4 or width < 1:
        raise SystemExit(f"--network {name}: expected wrn-DEPTH-WIDTH with DEPTH = 6n + 4, such as wrn-40-2")
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False)]
    inputs = 16
    for group, outputs in enumerate((16 * width, 32 * width, 64 * width)):
        for number in range((depth - 4) // 6):
            layers.append(Block(inputs, outputs, 2 if group and not number else 1))
            inputs = outputs
    head = [nn.BatchNorm2d(inputs), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes)]
    return nn.Sequential(*layers, *head)


def load_policy(policy: str | None) -> ddas.Policy | None:
    """A file, or the name of a built-in policy."""
    if policy is None:
        return None
    return ddas.Policy.load(policy) if os.path.exists(policy) or policy.endswith(".json") else ddas.Policy.builtin(policy)


def evaluate(model: nn.Module, loader: DataLoader, device: torch.device, amp: bool) -> float:
    """Share of correct predictions."""
    model.eval()
    correct = count = 0
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=amp):
        for images, targets in loader:
            images, targets = images.to(device), targets.to(device)
            correct += int((model(images).argmax(1) == targets).sum())
            count += len(targets)
    return correct / count


def subset_of(dataset: str, samples: int | None, seed: int) -> dict[str, Any]:
    """What to ask the loader for, so that it takes about `samples` of the dataset's samples."""
    if samples is None:
        return {}
    with ddas.Loader(dataset, recipe="cifar-eval", epochs=1, batch_size=1, environment=False) as loader:
        available = loader.info.samples
    if not 0 < samples < available:
        raise SystemExit(f"--subset {samples}: expected 1 to {available - 1}, {dataset} has {available} samples")
    # The loader tells two parts of a dataset apart, for training and validation; the subset is the second.
    return {"split": "validation", "validation_fraction": samples / available, "split_seed": seed}


def deterministic() -> None:
    """The same numbers from the same seed, on GPUs as well."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)


def train(arguments: argparse.Namespace, after_epoch: Callable[[int, str], None]) -> dict[str, Any]:
    """A whole training run; what it came to. `after_epoch` gets the number of epochs done, and a line about the last."""
    device = torch.device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    deterministic()
    torch.manual_seed(arguments.seed)
    shared = {"threads": arguments.threads or None, "dtype": "f32", "layout": "nhwc"}
    loader = DataLoader(
        arguments.train,
        recipe="cifar",
        policy=load_policy(arguments.policy),
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        seed=arguments.seed,
        last="drop",
        device=device,
        **shared,
        **subset_of(arguments.train, arguments.subset, arguments.subset_seed),
    )
    steps_per_epoch = loader.info.steps_per_epoch
    test = DataLoader(
        arguments.test, recipe="cifar-eval", epochs=1, batch_size=256, repeat=True, device=device, environment=False, **shared
    )
    model = wide_resnet(arguments.network, loader.info.classes).to(device, memory_format=torch.channels_last)
    weight_decay = arguments.weight_decay
    if weight_decay is None:
        weight_decay = WEIGHT_DECAY.get(arguments.network, 5e-4)
    optimizer = torch.optim.SGD(model.parameters(), arguments.lr, 0.9, nesterov=True, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, arguments.epochs * steps_per_epoch)

    checkpoint = arguments.run_dir / "checkpoint.pt" if arguments.run_dir else None
    history: list[dict[str, float]] = []
    if arguments.resume:
        if checkpoint is None or not checkpoint.exists():
            raise SystemExit("--resume: there is no checkpoint.pt in --run-dir")
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        for part, name in ((model, "model"), (optimizer, "optimizer"), (schedule, "schedule"), (loader, "loader")):
            part.load_state_dict(state[name])
        history = state["history"]
    elif arguments.run_dir:
        arguments.run_dir.mkdir(parents=True, exist_ok=True)

    for epoch in range(len(history), arguments.epochs):
        begun = told = time.perf_counter()
        loader.set_epoch(epoch)
        model.train()
        total = torch.zeros((), device=device)
        for step, (images, targets) in enumerate(loader, 1):
            images = images.permute(0, 3, 1, 2)  # NHWC in memory: channels-last, without a copy
            with torch.autocast(device.type, torch.bfloat16, enabled=arguments.amp):
                loss = F.cross_entropy(model(images), targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            schedule.step()
            total += loss.detach()
            if time.perf_counter() - told > SECONDS_BETWEEN_LINES and step < steps_per_epoch:
                told = time.perf_counter()
                loss_so_far = float(total) / step
                print(f"epoch {epoch + 1}/{arguments.epochs} step {step}/{steps_per_epoch}: loss {loss_so_far:.4f}", flush=True)
        mean = float(total) / steps_per_epoch
        if mean != mean:
            raise SystemExit(f"epoch {epoch}: the loss is NaN; lower --lr")
        line = {"epoch": epoch, "loss": mean, "seconds": time.perf_counter() - begun}
        if epoch + 1 == arguments.epochs or (epoch + 1) % arguments.test_every == 0:
            line["accuracy"] = evaluate(model, Channels(test), device, arguments.amp)
        history.append(line)
        accuracy = f", test accuracy {100 * line['accuracy']:.2f}%" if "accuracy" in line else ""
        if checkpoint:
            parts = {"model": model, "optimizer": optimizer, "schedule": schedule, "loader": loader}
            temporary = checkpoint.with_suffix(".tmp")
            torch.save({name: part.state_dict() for name, part in parts.items()} | {"history": history}, temporary)
            temporary.replace(checkpoint)
        after_epoch(epoch + 1, f"epoch {epoch + 1}/{arguments.epochs}: loss {mean:.4f}{accuracy}, {line['seconds']:.1f} s")
    loader.close()
    test.close()
    result = {
        "network": arguments.network,
        "policy": arguments.policy,
        "seed": arguments.seed,
        "epochs": arguments.epochs,
        "samples_per_epoch": steps_per_epoch * arguments.batch_size,
        "accuracy": history[-1]["accuracy"],
        "seconds": sum(line["seconds"] for line in history),
    }
    if arguments.run_dir:
        (arguments.run_dir / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    return result


class Channels:
    """A loader of NHWC batches as one of channels-last tensors."""

    def __init__(self, loader: DataLoader) -> None:
        self.loader = loader

    def __iter__(self) -> Any:
        for images, targets in self.loader:
            yield images.permute(0, 3, 1, 2), targets


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", help="packed training data (`ddas-loader pack cifar SRC train.lmdb --split train`)")
    parser.add_argument("test", help="packed test data")
    parser.add_argument("--policy", help="policy file, or the name of a built-in policy (default: none)")
    parser.add_argument("--network", default="wrn-28-10", help="wrn-DEPTH-WIDTH (default wrn-28-10)")
    parser.add_argument("--epochs", type=int, default=200, help="default 200")
    parser.add_argument("--batch-size", type=int, default=128, help="default 128")
    parser.add_argument("--lr", type=float, default=0.1, help="learning rate at the start (default 0.1)")
    parser.add_argument("--weight-decay", type=float, help="default 5e-4, for wrn-40-2 2e-4")
    parser.add_argument("--subset", type=int, metavar="N", help="train on about N samples (default: on all)")
    parser.add_argument("--subset-seed", type=int, default=0, help="which samples a subset has (default 0)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and augmentation (default 0)")
    parser.add_argument("--amp", action="store_true", help="compute in bfloat16")
    parser.add_argument("--device", help="cpu, cuda, cuda:N (default: cuda where there is one)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: every core)")
    parser.add_argument("--test-every", type=int, default=10, metavar="EPOCHS", help="epochs between tests (default 10)")
    parser.add_argument("--run-dir", type=Path, help="folder for checkpoint and result")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --run-dir")
    return parser


if __name__ == "__main__":
    found = train(parser().parse_args(), lambda _, line: print(line, flush=True))
    print(f"test accuracy {100 * found['accuracy']:.2f}% after {found['epochs']} epochs, {found['seconds']:.0f} s of training")
