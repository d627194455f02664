"""Data-parallel training in PyTorch under torchrun: from one daemon, or from a loader in every process.

    torchrun --nproc-per-node 2 examples/pytorch_ddp.py --dataset DATASET.lmdb
    ddas-loader serve DATASET.lmdb --name train --recipe cifar --epochs 3 --batch-size 32 --last drop --world-size 2 &
    torchrun --nproc-per-node 2 examples/pytorch_ddp.py --daemon train

Rank and world size are torchrun's; nothing about them is said here. A
checkpoint holds the loader's state, which any number of processes can go on
from that divides the batch (`--resume`).

Rank 0 prints the loss of every epoch. With `--report FOLDER` every rank writes
what it saw and the gradient it ended with, for whoever wants to check.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ddas.torch import DataLoader


def network(classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * 16, classes)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--daemon", help="name of a running daemon")
    source.add_argument("--dataset", help="a packed dataset, for a loader in every process")
    parser.add_argument("--epochs", type=int, default=3, help="of the run, with --dataset")
    parser.add_argument("--batch-size", type=int, default=32, help="of all processes together, with --dataset")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", type=Path, help="folder; rank 0 writes epoch0.pt, epoch1.pt, ...")
    parser.add_argument("--resume", type=Path, help="a checkpoint to go on from")
    parser.add_argument("--report", type=Path, help="folder for what each rank saw")
    arguments = parser.parse_args()

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    dist.init_process_group("gloo")  # "nccl" with GPUs
    rank = dist.get_rank()
    if arguments.daemon:
        loader = DataLoader(arguments.daemon, indices=True)
    else:
        # Every batch is full on every rank: the mean of the ranks' gradients is then that of the whole batch.
        loader = DataLoader(
            arguments.dataset,
            recipe="cifar",
            epochs=arguments.epochs,
            batch_size=arguments.batch_size,
            seed=arguments.seed,
            last="drop",
            threads=1,
            indices=True,
        )
    torch.manual_seed(arguments.seed)  # the same weights on every rank
    model = DistributedDataParallel(network(loader.info.classes))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    if arguments.resume:
        checkpoint = torch.load(arguments.resume)
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        loader.load_state_dict(checkpoint["loader"])

    seen: list[list[int]] = []
    for epoch in range(loader.epoch, loader.epochs):
        loader.set_epoch(epoch)
        total = torch.zeros(2)
        for images, targets, indices in loader:
            loss = F.cross_entropy(model(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += torch.tensor([loss.item() * len(targets), len(targets)])
            seen.append(indices.tolist())
        dist.all_reduce(total)
        if rank == 0:
            print(f"epoch {epoch}: loss {total[0] / total[1]:.4f}", flush=True)
            if arguments.checkpoint:
                states = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "loader": loader.state_dict()}
                torch.save(states, arguments.checkpoint / f"epoch{epoch}.pt")
    if arguments.report:
        gradient = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
        report = {"rank": loader.info.rank, "world_size": loader.info.world_size, "seen": seen,
                  "gradient": gradient.tolist(), "weights": weights.tolist()}
        (arguments.report / f"rank{rank}.json").write_text(json.dumps(report))
    loader.close()
    # The network holds the group, too, in a cycle: left to the interpreter's end, gloo's threads would still run there and
    # could abort the process.
    del model, optimizer
    gc.collect()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
