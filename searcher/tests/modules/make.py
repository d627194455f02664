"""Writes the TorchScript modules that the tests of `--model` load.

    python searcher/tests/modules/make.py

Images are batch x 3 x 12 x 12, classes two, as in tests/cli/main.rs. The files are small and lie
beside this program, so the tests themselves need no Python.
"""

import io
import zipfile
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional


class Convolutions(nn.Module):
    """Batch normalisation and dropout: buffers that move, and draws at random."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.dropout = nn.Dropout(0.2)
        self.linear = nn.Linear(6, 2)
        # Its forward depends on a buffer that it writes itself.
        self.register_buffer("scale", torch.ones(()))

    def forward(self, images):
        if self.training:
            self.scale.mul_(0.99).add_(0.01 * images.detach().abs().mean())
        x = functional.relu(self.norm(self.convolution(images / self.scale)))
        return self.linear(self.dropout(x.mean(dim=(2, 3))))


class Losses(nn.Module):
    """Images and labels to losses, with label smoothing; one parameter is not trained."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(432, 8), nn.GELU(), nn.Linear(8, 2))
        self.unused = nn.Parameter(torch.zeros(3))
        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, images, labels):
        logits = self.layers(images) * self.frozen
        return functional.cross_entropy(logits, labels, reduction="none", label_smoothing=0.1)


class Tied(nn.Module):
    """A weight under two names, and a filter that is viewed as a matrix: its order in memory matters."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 6, bias=False)
        self.second = nn.Linear(6, 6, bias=False)
        self.second.weight = self.first.weight
        self.filter = nn.Parameter(torch.randn(6, 3, 4, 4) / 7)
        self.last = nn.Linear(6, 2)

    def forward(self, images):
        rows = self.filter.view(6, -1)
        filter = self.filter / rows.square().sum(dim=1).sqrt().view(6, 1, 1, 1)
        x = functional.conv2d(images, filter, stride=4).mean(dim=(2, 3))
        return self.last(self.second(functional.relu(self.first(x))))


class Constant(nn.Module):
    """Its logits depend on nothing: gradients of exactly 0."""

    def __init__(self, factor: float = 0.0):
        super().__init__()
        self.linear = nn.Linear(432, 2)
        self.factor = factor

    def forward(self, images):
        return self.linear(images.flatten(1)) * self.factor


class MeanLoss(nn.Module):
    """Wrong: one loss for the whole batch."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(432, 2)

    def forward(self, images, labels):
        return functional.cross_entropy(self.linear(images.flatten(1)), labels)


class Classes(nn.Module):
    """Wrong: one logit per image."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(432, 1)

    def forward(self, images):
        return self.linear(images.flatten(1))


class Detached(nn.Module):
    """Wrong: no gradient comes out."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(432, 2)

    def forward(self, images):
        return self.linear(images.flatten(1)).detach()


class Nothing(nn.Module):
    """Wrong: no parameters."""

    def forward(self, images):
        return images.mean(dim=(2, 3))[:, :2]


def save(module, path):
    """Without the debug records, which hold the paths of this machine."""
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    with zipfile.ZipFile(buffer) as full, zipfile.ZipFile(path, "w") as kept:
        for record in full.infolist():
            if not record.filename.endswith(".debug_pkl"):
                kept.writestr(zipfile.ZipInfo(record.filename), full.read(record))


def main():
    folder = Path(__file__).parent
    torch.manual_seed(0)
    for model in (Convolutions(), Losses(), MeanLoss(), Classes(), Detached(), Nothing()):
        name = type(model).__name__.lower()
        save(torch.jit.script(model), folder / f"{name}.pt")
    save(torch.jit.script(Constant()), folder / "constant.pt")
    # Gradients that are not 0, but far below what can change a weight.
    save(torch.jit.script(Constant(1e-12)), folder / "vanishing.pt")
    # Traced, not scripted.
    layers = nn.Sequential(nn.Flatten(), nn.Linear(432, 2))
    traced = torch.jit.trace(layers, torch.zeros(2, 3, 12, 12))
    save(traced, folder / "traced.pt")
    frozen = Classes()
    frozen.requires_grad_(False)
    save(torch.jit.script(frozen), folder / "untrainable.pt")
    save(torch.jit.script(Tied()), folder / "tied.pt")


if __name__ == "__main__":
    main()
