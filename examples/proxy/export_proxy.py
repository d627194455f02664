"""Writes a network of one's own for `ddas-search run --model`: a small vision transformer or a small CNN.

    python examples/proxy/export_proxy.py vit --classes 10 --image-size 32 -o vit.pt
    ddas-search run cifar10.lmdb --preset cifar10 --model vit.pt --set learning_rate=0.001 -o policy.json

The search loads any TorchScript module whose `forward(images)` gives logits
(batch x classes), or whose `forward(images, labels)` gives one loss per sample.
Images are normalised float32, batch x 3 x size x size. What it needs:

- trainable parameters in float32 (those with `requires_grad=False` stay as they are);
- training mode: batch normalisation uses the batch, dropout draws (from seed
  and step alone); buffers are kept in the checkpoints;
- `torch.jit.script` rather than `torch.jit.trace` where control flow depends on
  the input. Do not freeze it (`torch.jit.freeze`): that makes constants of the parameters.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Attention and two linear layers, each after layer normalisation and around a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.layers = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        x = x + self.projection(attended.transpose(1, 2).reshape(batch, length, width))
        return x + self.layers(self.norm2(x))


class VisionTransformer(nn.Module):
    """Patches of 4x4 pixels, learned positions, the mean of the patches to logits."""

    def __init__(self, classes: int, image_size: int, width: int = 96, depth: int = 4, heads: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.positions = nn.Parameter(0.02 * torch.randn(1, (image_size // 4) ** 2, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.blocks(x)).mean(dim=1))


class SmallCnn(nn.Module):
    """Images and labels to losses: a loss of one's own, here with label smoothing."""

    def __init__(self, classes: int, smoothing: float = 0.1) -> None:
        super().__init__()
        self.smoothing = smoothing

        def stage(inputs: int, outputs: int) -> list[nn.Module]:
            return [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

        self.layers = nn.Sequential(*stage(3, 32), *stage(32, 64), *stage(64, 128), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(128, classes)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        logits = self.head(self.layers(images))
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.smoothing)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=("vit", "cnn"), help="vit gives logits, cnn losses")
    parser.add_argument("--classes", type=int, default=10, help="of the dataset (default 10)")
    parser.add_argument("--image-size", type=int, default=32, help="a multiple of 4 (default 32); the search's `image_size`")
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights (default 0)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file to write (.pt)")
    arguments = parser.parse_args()
    if arguments.image_size % 4:
        parser.error(f"--image-size must be a multiple of 4, not {arguments.image_size}")
    torch.manual_seed(arguments.seed)
    if arguments.network == "vit":
        model: nn.Module = VisionTransformer(arguments.classes, arguments.image_size)
    else:
        model = SmallCnn(arguments.classes)
    torch.jit.script(model.train()).save(str(arguments.output))
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{arguments.output}: {arguments.network}, {count:,} parameters, {arguments.classes} classes")


if __name__ == "__main__":
    main()
