"""Trains ResNet-50 on ImageNet with any policy, by the recipe of the DDAS paper.

    python examples/imagenet/train.py train.lmdb val.lmdb --policy policy.json --amp --run-dir run
    torchrun --nproc-per-node 8 examples/imagenet/train.py train.lmdb val.lmdb --policy policy.json --amp --run-dir run

270 epochs, batch 512 over all processes, SGD with Nesterov's momentum 0.9,
learning rate 0.2 divided by 10 after epochs 90, 180 and 240, weight decay 1e-4;
random resized crops (bicubic), flips, the policy, colour jitter and lighting
(`--recipe imagenet-authors`). The network is torchvision's. `--policy` is a
policy file or the name of a built-in one (`ddas.Policy.builtin`).

Rank 0 writes `checkpoint.pt` after every epoch; `--resume` goes on from it with
the batches that the stopped run would have seen, on any number of processes
that divides the batch.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import ddas
from ddas.torch import DataLoader


def load_policy(policy: str | None) -> ddas.Policy | None:
    """A file, or the name of a built-in policy."""
    if policy is None:
        return None
    return ddas.Policy.load(policy) if os.path.exists(policy) or policy.endswith(".json") else ddas.Policy.builtin(policy)


def evaluate(model: nn.Module, loader: DataLoader, device: torch.device, amp: bool) -> tuple[float, float]:
    """Shares of samples whose class is the first, and among the first five."""
    model.eval()
    sums = torch.zeros(3, device=device)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=amp):
        for images, targets in loader:
            logits = model(images.permute(0, 3, 1, 2))
            hits = logits.topk(min(5, logits.shape[1]), 1).indices == targets[:, None]
            sums += torch.stack([hits[:, 0].sum(), hits.sum(), hits.new_tensor(len(targets), dtype=torch.long)])
    return float(sums[0] / sums[2]), float(sums[1] / sums[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", help="packed training data (`ddas-loader pack image-folder train/ train.lmdb`)")
    parser.add_argument("validation", help="packed validation data")
    parser.add_argument("--policy", help="policy file, or the name of a built-in policy (default: none)")
    parser.add_argument("--recipe", default="imagenet-authors", help="of training samples (default imagenet-authors)")
    parser.add_argument("--eval-recipe", default="imagenet-eval", help="of validation samples (default imagenet-eval)")
    parser.add_argument("--model", default="resnet50", help="name of a torchvision classifier (default resnet50)")
    parser.add_argument("--epochs", type=int, default=270, help="default 270; the rate falls at 1/3, 2/3 and 8/9 of them")
    parser.add_argument("--batch-size", type=int, default=512, help="of all processes together (default 512)")
    parser.add_argument("--lr", type=float, default=0.2, help="for --batch-size (default 0.2)")
    parser.add_argument("--weight-decay", type=float, default=1e-4, help="default 1e-4")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and augmentation (default 0)")
    parser.add_argument("--amp", action="store_true", help="compute in bfloat16")
    parser.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument("--threads", type=int, help="decoding threads of each process (default: every core)")
    parser.add_argument("--run-dir", type=Path, help="folder for the checkpoint")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --run-dir")
    arguments = parser.parse_args()

    distributed = int(os.environ.get("WORLD_SIZE", "1")) > 1
    kind = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(kind, int(os.environ.get("LOCAL_RANK", "0"))) if kind == "cuda" else torch.device(kind)
    if distributed:
        dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    rank = dist.get_rank() if distributed else 0

    shared = {"threads": arguments.threads, "layout": "nhwc", "device": device}
    loader = DataLoader(
        arguments.train,
        recipe=arguments.recipe,
        policy=load_policy(arguments.policy),
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        seed=arguments.seed,
        last="drop",
        **shared,
    )
    validation = DataLoader(
        arguments.validation, recipe=arguments.eval_recipe, epochs=1, batch_size=256, repeat=True, environment=False, **shared
    )
    torch.manual_seed(arguments.seed)
    plain = torchvision.models.get_model(arguments.model, num_classes=loader.info.classes)
    plain = plain.to(device, memory_format=torch.channels_last)
    model = DistributedDataParallel(plain) if distributed else plain
    optimizer = torch.optim.SGD(
        plain.parameters(), arguments.lr, 0.9, nesterov=True, weight_decay=arguments.weight_decay
    )
    falls = sorted({arguments.epochs * part // 9 for part in (3, 6, 8)})
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, falls, 0.1)
    first = 0
    checkpoint = arguments.run_dir / "checkpoint.pt" if arguments.run_dir else None
    if arguments.resume:
        if checkpoint is None or not checkpoint.exists():
            raise SystemExit("--resume: there is no checkpoint.pt in --run-dir")
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        for part, name in ((plain, "model"), (optimizer, "optimizer"), (schedule, "schedule"), (loader, "loader")):
            part.load_state_dict(state[name])
        first = state["epochs"]
    elif arguments.run_dir:
        arguments.run_dir.mkdir(parents=True, exist_ok=True)

    for epoch in range(first, arguments.epochs):
        begun = time.perf_counter()
        loader.set_epoch(epoch)
        model.train()
        total = torch.zeros((), device=device)
        steps = 0
        for images, targets in loader:
            # NHWC in memory: channels-last, without a copy.
            with torch.autocast(device.type, torch.bfloat16, enabled=arguments.amp):
                loss = F.cross_entropy(model(images.permute(0, 3, 1, 2)), targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach()
            steps += 1
        schedule.step()
        seconds = time.perf_counter() - begun
        if rank == 0:
            first_share, five_share = evaluate(plain, validation, device, arguments.amp)
            print(
                f"epoch {epoch + 1}/{arguments.epochs}: loss {float(total) / steps:.4f}, top-1 {100 * first_share:.2f}%, "
                f"top-5 {100 * five_share:.2f}%, {seconds:.1f} s",
                flush=True,
            )
            if checkpoint:
                parts = {"model": plain, "optimizer": optimizer, "schedule": schedule, "loader": loader}
                temporary = checkpoint.with_suffix(".tmp")
                torch.save({name: part.state_dict() for name, part in parts.items()} | {"epochs": epoch + 1}, temporary)
                temporary.replace(checkpoint)
        if distributed:
            dist.barrier()
    loader.close()
    validation.close()
    if distributed:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
