"""The examples of `examples/`, run as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ddas
from conftest import REPOSITORY, Dataset, Serve

EXAMPLES = REPOSITORY / "examples"


def run_example(loader_binary: Path, *command: object) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE")}
    environment |= {"DDAS_LOADER": str(loader_binary), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, command)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=110
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def losses(output: str) -> list[float]:
    return [float(line.rpartition("loss ")[2]) for line in output.splitlines() if "loss " in line]


def test_numpy_loop(loader_binary: Path) -> None:
    found = losses(run_example(loader_binary, EXAMPLES / "numpy_loop.py"))
    assert len(found) == 5 and found[-1] < 0.2 * found[0], found


def ddp(loader_binary: Path, processes: int, *arguments: object) -> tuple[str, list[dict[str, Any]]]:
    folder = Path(str(arguments[-1]))
    folder.mkdir()
    output = run_example(
        loader_binary, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes,
        EXAMPLES / "pytorch_ddp.py", *arguments,
    )  # fmt: skip
    return output, [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(processes)]


def union(reports: list[dict[str, Any]]) -> list[list[int]]:
    """The indices of every global batch, the ranks' parts in order."""
    return [sum(parts, []) for parts in zip(*(report["seen"] for report in reports), strict=True)]


def test_ddp_from_a_daemon_and_from_embedded_loaders(
    serve: Serve, dataset: Dataset, loader_binary: Path, tmp_path: Path
) -> None:
    """Two processes from one daemon, one process, and two that go on from the one's checkpoint after an epoch.

    All get the same global batches, each sample once an epoch; ranks agree on every bit of gradient and weights; and
    all end with the weights of the one process that saw whole batches.
    """
    serve(dataset, epochs=3, batch_size=16, seed=0, last="drop", world_size=2, dtype="f32")
    settings = ["--dataset", dataset.path, "--epochs", 3, "--batch-size", 16]
    output, served = ddp(loader_binary, 2, "--daemon", "train", "--report", tmp_path / "served")
    assert len(losses(output)) == 3
    assert "rank 1 of 2, from torchrun (RANK and WORLD_SIZE)" in output
    _, single = ddp(loader_binary, 1, *settings, "--checkpoint", tmp_path, "--report", tmp_path / "single")
    output, resumed = ddp(
        loader_binary, 2, *settings, "--resume", tmp_path / "epoch0.pt", "--report", tmp_path / "resumed"
    )
    assert len(losses(output)) == 2
    assert "rank 0 of 2, from torchrun (RANK and WORLD_SIZE)" in output
    with ddas.Loader(dataset.path, recipe="cifar", epochs=3, batch_size=16, seed=0, last="drop", environment=False) as loader:
        expected = [batch.indices.tolist() for batch in loader]
    for epoch in range(3):
        indices = sum(expected[2 * epoch : 2 * epoch + 2], [])
        assert len(indices) == len(set(indices)) == 32
    assert union(single) == union(served) == expected and union(resumed) == expected[2:]
    for reports in (served, resumed, single):
        assert [report["rank"] for report in reports] == list(range(len(reports)))
        for report in reports:
            assert report["gradient"] == reports[0]["gradient"] and report["weights"] == reports[0]["weights"]
        assert reports[0]["weights"] == pytest.approx(single[0]["weights"], rel=1e-3, abs=1e-5)
