"""A training loop in JAX: a linear classifier on batches made in this process, handed over by DLPack.

    pip install jax
    python examples/jax_loop.py [DATASET.lmdb] [--epochs 5]

Without a dataset it packs a small one first, with `ddas-loader` from the PATH
or $DDAS_LOADER. The loss of every epoch is printed; it falls.

JAX's arrays are immutable by contract, so an array must not change while JAX
may still read it. Two ways are right, and both are shown: `jnp.array(...)`
copies (`--copy`), and the slot is free at once; `jnp.from_dlpack(...)` shows
the slot itself, which stays lent until JAX has let go of it.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import ddas
from tiny_dataset import tiny_dataset


def loss_of(weights: jax.Array, images: jax.Array, labels: jax.Array) -> jax.Array:
    scores = images.reshape(len(images), -1).astype(jnp.float32) @ weights
    return -jnp.take_along_axis(jax.nn.log_softmax(scores), labels[:, None], 1).sum()


@jax.jit
def step(weights: jax.Array, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    loss, gradient = jax.value_and_grad(loss_of)(weights, images, labels)
    return weights - 1e-4 * gradient, loss


def train(dataset: Path, epochs: int, seed: int, dtype: str, copy: bool) -> list[float]:
    """The mean loss of every epoch."""
    losses = []
    # Every batch is full, so that `step` is compiled once.
    with ddas.Loader(
        dataset, recipe="cifar", epochs=epochs, batch_size=32, seed=seed, dtype=dtype, last="drop"
    ) as loader:
        weights = jnp.zeros((int(np.prod(loader.info.shape)), loader.info.classes))
        for _ in range(epochs):
            total = 0.0
            for batch in loader.one_epoch():
                if copy:
                    images = jnp.array(batch.images)
                else:
                    images = jnp.from_dlpack(batch.array("images"))  # bfloat16 as well
                labels = jnp.array(batch.labels.astype(np.int32))
                weights, loss = step(weights, images, labels)
                total += float(loss)  # waits for the step: the slot is not read any more
                del images
            losses.append(total / (loader.info.steps_per_epoch * loader.info.batch_size))
            print(f"loss {losses[-1]:.4f}")
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?", type=Path, help="a dataset made by `ddas-loader pack` [default: a small one]")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", default="f32", choices=["f32", "f16", "bf16"])
    parser.add_argument("--copy", action="store_true", help="copy batches instead of showing the slots")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dataset = arguments.dataset or tiny_dataset(Path(folder))
        losses = train(dataset, arguments.epochs, arguments.seed, arguments.dtype, arguments.copy)
    if losses[-1] >= losses[0]:
        raise SystemExit(f"the loss did not fall: {losses}")


if __name__ == "__main__":
    main()
