"""A training loop without any framework: softmax regression in NumPy on batches made in this process.

    python examples/numpy_loop.py [DATASET.lmdb] [--epochs 5]

Without a dataset it packs a small one first, with `ddas-loader` from the PATH
or $DDAS_LOADER. The loss of every epoch is printed; it falls.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

import ddas
from tiny_dataset import tiny_dataset


def train(dataset: Path, epochs: int, seed: int) -> list[float]:
    """The mean loss of every epoch."""
    losses = []
    with ddas.Loader(dataset, recipe="cifar", epochs=epochs, batch_size=32, seed=seed) as loader:
        features, classes = int(np.prod(loader.info.shape)), loader.info.classes
        weights = np.zeros((features, classes), np.float32)
        for _ in range(epochs):
            total = 0.0
            for batch in loader.one_epoch():
                # Views of the loader's slot: nothing is copied, and the slot goes back when they are gone.
                images = batch.images.reshape(len(batch), features)
                scores = images @ weights
                scores -= scores.max(1, keepdims=True)
                shares = np.exp(scores)
                shares /= shares.sum(1, keepdims=True)
                rows = np.arange(len(batch))
                total += -np.log(shares[rows, batch.labels] + 1e-9).sum()
                shares[rows, batch.labels] -= 1
                weights -= 1e-4 * images.T @ shares
            losses.append(float(total / loader.info.samples))
            print(f"loss {losses[-1]:.4f}")
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?", type=Path, help="a dataset made by `ddas-loader pack` [default: a small one]")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dataset = arguments.dataset or tiny_dataset(Path(folder))
        losses = train(dataset, arguments.epochs, arguments.seed)
    if losses[-1] >= losses[0]:
        raise SystemExit(f"the loss did not fall: {losses}")


if __name__ == "__main__":
    main()
