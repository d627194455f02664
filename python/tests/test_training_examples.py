"""The training programs of `examples/` on a dataset of a few seconds: they run, resume and compare."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import REPOSITORY
from test_examples import run_example

EXAMPLES = REPOSITORY / "examples"
SMALL = ["--network", "wrn-10-1", "--batch-size", 32, "--lr", 0.05, "--threads", 1, "--device", "cpu"]


@pytest.fixture(scope="module")
def tiny(loader_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    program = "import sys; from pathlib import Path; from tiny_dataset import tiny_dataset; tiny_dataset(Path(sys.argv[1]))"
    run_example(loader_binary, "-c", f"import sys; sys.path.insert(0, {str(EXAMPLES)!r}); {program}", folder)
    return folder / "tiny.lmdb"


def test_cifar_trains_and_a_resumed_run_ends_like_a_whole_one(loader_binary: Path, tiny: Path, tmp_path: Path) -> None:
    train = [EXAMPLES / "cifar" / "train.py", tiny, tiny, *SMALL, "--policy", "trivialaugment-wide"]
    output = run_example(loader_binary, *train, "--epochs", 3, "--run-dir", tmp_path / "whole")
    assert "epoch 3/3" in output and "test accuracy" in output
    # A run that was stopped after its second epoch.
    program = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); import train; replace = train.Path.replace\n"
        "def stop(self, target):\n"
        "    replace(self, target)\n"
        "    stop.times += 1\n"
        "    if stop.times == 2: sys.exit(0)\n"
        "stop.times = 0; train.Path.replace = stop; train.train(train.parser().parse_args())"
    )
    run_example(
        loader_binary, "-c", program, EXAMPLES / "cifar", *train[1:], "--epochs", 3, "--run-dir", tmp_path / "stopped"
    )
    assert not (tmp_path / "stopped" / "result.json").exists()
    output = run_example(loader_binary, *train, "--epochs", 3, "--run-dir", tmp_path / "stopped", "--resume")
    assert "epoch 1/3" not in output and "epoch 3/3" in output
    whole, stopped = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "stopped"))
    assert whole["accuracy"] == stopped["accuracy"] > 1 / 3
    import torch

    states = [torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "stopped")]
    assert [line["loss"] for line in states[0]["history"]] == [line["loss"] for line in states[1]["history"]]


def test_imagenet_trains_and_resumes(loader_binary: Path, tiny: Path, tmp_path: Path) -> None:
    for name, text in {
        "train": '[[steps]]\nkind = "random-resized-crop"\n[[steps]]\nkind = "policy"\n',
        "eval": '[[steps]]\nkind = "resize"\nshorter = 36\n[[steps]]\nkind = "center-crop"\n',
    }.items():
        normalize = '[[steps]]\nkind = "normalize"\nmean = [0.5, 0.5, 0.5]\nstd = [0.25, 0.25, 0.25]\n'
        (tmp_path / f"{name}.toml").write_text(f"size = 32\n{text}{normalize}")
    train = [
        EXAMPLES / "imagenet" / "train.py", tiny, tiny, "--model", "resnet18", "--batch-size", 48, "--lr", 0.02, "--amp",
        "--threads", 1, "--device", "cpu", "--policy", "trivialaugment-wide", "--recipe", tmp_path / "train.toml",
        "--eval-recipe", tmp_path / "eval.toml", "--run-dir", tmp_path / "run", "--epochs", 2,
    ]  # fmt: skip
    output = run_example(loader_binary, *train)
    assert "epoch 2/2" in output and "top-5 100.00%" in output
    assert "epoch" not in run_example(loader_binary, *train, "--resume")


def test_compare_prints_a_table_and_keeps_finished_runs(loader_binary: Path, tiny: Path, tmp_path: Path) -> None:
    compare = [
        EXAMPLES / "compare.py", tiny, tiny, *SMALL, "--epochs", 1, "--seeds", 0, 1, "--methods", "baseline", "randaugment",
        "--out", tmp_path,
    ]  # fmt: skip
    output = run_example(loader_binary, *compare)
    assert "| policy | test error, % | seeds | per seed |" in output
    rows = [line for line in output.splitlines() if line.startswith(("| baseline |", "| randaugment |"))]
    assert len(rows) == 2 and all("±" in row and "| 2 |" in row for row in rows)
    again = run_example(loader_binary, *compare)
    assert "epoch" not in again.replace("epochs", "") and rows == [line for line in again.splitlines() if line in rows]


@pytest.mark.parametrize("program", ["cifar/train.py", "imagenet/train.py", "compare.py", "proxy/export_proxy.py"])
def test_help(loader_binary: Path, program: str) -> None:
    output = run_example(loader_binary, EXAMPLES / program, "--help")
    assert "usage:" in output and "default" in output


@pytest.mark.parametrize("network", ["vit", "cnn"])
def test_exported_proxies_are_trainable_modules(loader_binary: Path, tmp_path: Path, network: str) -> None:
    path = tmp_path / "proxy.pt"
    run_example(loader_binary, EXAMPLES / "proxy" / "export_proxy.py", network, "--classes", 3, "-o", path)
    import torch

    module = torch.jit.load(str(path))
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
    found = module(images) if network == "vit" else module(images, labels)
    assert module.training and found.shape == ((4, 3) if network == "vit" else (4,))
    found.sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_search_baseline_explains_itself() -> None:
    program = REPOSITORY / "benches" / "search_baseline.py"
    done = subprocess.run([sys.executable, program, "--help"], capture_output=True, text=True, check=True)
    assert "--device" in done.stdout and "seconds per step" in done.stdout
