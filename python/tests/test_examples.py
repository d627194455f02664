"""The examples of `examples/`, run as a user runs them."""

from __future__ import annotations

import importlib
import json
import os
import socket
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


def ddp(loader_binary: Path, folder: Path, *arguments: object) -> tuple[str, list[dict[str, Any]]]:
    """Runs the example in two processes under torchrun: what it printed, and what each rank saw."""
    folder.mkdir()
    output = run_example(
        loader_binary, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2,
        EXAMPLES / "pytorch_ddp.py", *arguments, "--report", folder,
    )  # fmt: skip
    return output, [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


def alone(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: object) -> dict[str, Any]:
    """Runs the example as the only process of a group, this one: torch takes seconds to start."""
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in {"RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.syspath_prepend(str(EXAMPLES))
    command = ["pytorch_ddp.py", *map(str, arguments), "--checkpoint", str(folder), "--report", str(folder)]
    monkeypatch.setattr(sys, "argv", command)
    importlib.import_module("pytorch_ddp").main()
    report: dict[str, Any] = json.loads((folder / "rank0.json").read_text())
    return report


def union(reports: list[dict[str, Any]]) -> list[list[int]]:
    """The indices of every global batch, the ranks' parts in order."""
    return [sum(parts, []) for parts in zip(*(report["seen"] for report in reports), strict=True)]


def expected_batches(dataset: Dataset) -> list[list[int]]:
    """The indices of every batch of the run, each sample at most once an epoch."""
    with ddas.Loader(
        dataset.path, recipe="cifar", epochs=3, batch_size=16, seed=0, last="drop", environment=False
    ) as loader:
        expected = [batch.indices.tolist() for batch in loader]
    for epoch in range(3):
        indices = sum(expected[2 * epoch : 2 * epoch + 2], [])
        assert len(indices) == len(set(indices)) == 32
    return expected


def check_agreement(reports: list[dict[str, Any]], single: dict[str, Any]) -> None:
    """Ranks agree on every bit of gradient and weights, and end where one process with whole batches ends."""
    assert [(report["rank"], report["world_size"]) for report in reports] == [(0, 2), (1, 2)]
    for report in reports:
        assert report["gradient"] == reports[0]["gradient"] and report["weights"] == reports[0]["weights"]
    assert reports[0]["weights"] == pytest.approx(single["weights"], rel=1e-3, abs=1e-5)


def test_ddp_from_one_daemon(
    serve: Serve, dataset: Dataset, loader_binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(dataset, epochs=3, batch_size=16, seed=0, last="drop", world_size=2, dtype="f32")
    output, served = ddp(loader_binary, tmp_path / "served", "--daemon", "train")
    assert len(losses(output)) == 3
    assert "rank 1 of 2, from torchrun (RANK and WORLD_SIZE)" in output
    single = alone(monkeypatch, tmp_path / "single", "--dataset", dataset.path, "--epochs", 3, "--batch-size", 16)
    assert union(served) == single["seen"] == expected_batches(dataset)
    check_agreement(served, single)


def test_ddp_from_embedded_loaders_goes_on_with_more_processes(
    dataset: Dataset, loader_binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes go on from what one had after the first epoch, and end where the one ended."""
    settings = ["--dataset", dataset.path, "--epochs", 3, "--batch-size", 16]
    with monkeypatch.context() as patch:
        single = alone(patch, tmp_path / "single", *settings)
    output, resumed = ddp(loader_binary, tmp_path / "two", *settings, "--resume", tmp_path / "single" / "epoch0.pt")
    assert len(losses(output)) == 2
    assert "rank 0 of 2, from torchrun (RANK and WORLD_SIZE)" in output
    assert union(resumed) == expected_batches(dataset)[2:]
    check_agreement(resumed, single)
