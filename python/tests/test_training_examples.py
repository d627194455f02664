"""The training programs of `examples/` on a dataset of a few seconds: they run, resume and compare."""

from __future__ import annotations

import json
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


# One process for several runs: starting PyTorch takes longer than training here.
RESUME = """
import json, runpy, sys
from pathlib import Path
import torch

program, folder, arguments = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
replace = Path.replace

def run(name, *more, after=None):
    written = 0
    def count(self, target):
        nonlocal written
        replace(self, target)
        written += 1
        if written == after:
            raise KeyboardInterrupt
    Path.replace = count
    print("##", name, *more)
    sys.argv = [program, *arguments, "--run-dir", str(folder / name), *more]
    try:
        runpy.run_path(program, run_name="__main__")
    except KeyboardInterrupt:
        print("stopped")

run("whole")
run("part", after=1)
run("part", "--resume")
states = [torch.load(folder / name / "checkpoint.pt", weights_only=True) for name in ("whole", "part")]
same = all(torch.equal(a, b) for a, b in zip(*(state["model"].values() for state in states), strict=True))
print("## same weights:", same)
"""


def stopped_and_resumed(loader_binary: Path, program: Path, folder: Path, *arguments: object) -> str:
    """A whole run, one that is stopped when its first checkpoint is written, and what goes on from that."""
    output = run_example(loader_binary, "-c", RESUME, program, folder, *arguments)
    _, whole, part, resumed, end = output.split("## ")
    assert "epoch 1/2" in whole and "epoch 2/2" in whole
    assert "epoch 2/2" not in part and "stopped" in part
    assert "epoch 1/2" not in resumed and "epoch 2/2" in resumed
    assert end.strip() == "same weights: True"
    return whole


def test_cifar_trains_and_a_resumed_run_ends_in_the_same_weights(loader_binary: Path, tiny: Path, tmp_path: Path) -> None:
    output = stopped_and_resumed(
        loader_binary, EXAMPLES / "cifar" / "train.py", tmp_path, tiny, tiny, *SMALL, "--epochs", 2, "--policy", "trivialaugment-wide"
    )
    assert "test accuracy" in output
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "part")]
    assert results[0]["accuracy"] == results[1]["accuracy"] and results[0]["policy"] == "trivialaugment-wide"


def test_imagenet_trains_and_a_resumed_run_ends_in_the_same_weights(
    loader_binary: Path, tiny: Path, tmp_path: Path
) -> None:
    for name, text in {
        "train": '[[steps]]\nkind = "random-resized-crop"\n[[steps]]\nkind = "policy"\n',
        "eval": '[[steps]]\nkind = "resize"\nshorter = 36\n[[steps]]\nkind = "center-crop"\n',
    }.items():
        normalize = '[[steps]]\nkind = "normalize"\nmean = [0.5, 0.5, 0.5]\nstd = [0.25, 0.25, 0.25]\n'
        (tmp_path / f"{name}.toml").write_text(f"size = 32\n{text}{normalize}")
    output = stopped_and_resumed(
        loader_binary, EXAMPLES / "imagenet" / "train.py", tmp_path, tiny, tiny, "--model", "resnet18", "--batch-size", 48,
        "--lr", 0.02, "--amp", "--threads", 1, "--device", "cpu", "--policy", "trivialaugment-wide", "--epochs", 2,
        "--recipe", tmp_path / "train.toml", "--eval-recipe", tmp_path / "eval.toml",
    )  # fmt: skip
    assert "top-5 100.00%" in output


COMPARE = """
import json, runpy, sys
from pathlib import Path

program, folder, arguments = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
replace = Path.replace

def run(*more):
    print("##", *more)
    sys.argv = [program, *arguments, "--out", str(folder), *more]
    try:
        runpy.run_path(program, run_name="__main__")
    except KeyboardInterrupt:
        print("stopped")

def stop_at_third_checkpoint(self, target):
    replace(self, target)
    written.append(target)
    if sum(path.name == "checkpoint.pt" for path in written) == 3:
        raise KeyboardInterrupt

written = []
Path.replace = stop_at_third_checkpoint
run()
Path.replace = replace
run()
run()
(folder / "mine.json").write_text((folder / "mine.json").read_text().replace('"total_probability": 0.5', '"total_probability": 0.25'))
run()
"""


def test_compare_prints_a_table_and_repeats_no_finished_epoch(loader_binary: Path, tiny: Path, tmp_path: Path) -> None:
    operations = '{"name": "mine", "draws_per_sample": 1, "operations": [{"kind": "Identity"}, {"kind": "Invert"}]}'
    (tmp_path / "mine.json").write_text(
        f'{{"format": "ddas-policy", "version": 1, "search_space": {operations}, '
        '"snapshots": [{"total_probability": 0.5, "operation_probabilities": [0.5, 0.5]}]}'
    )
    output = run_example(
        loader_binary, "-c", COMPARE, EXAMPLES / "compare.py", tmp_path, tiny, tiny, *SMALL, "--epochs", 2, "--seeds", 0, 1,
        "--methods", "baseline", "ddas", "--ddas", tmp_path / "mine.json", "--subset", 72, "--amp",
    )  # fmt: skip
    stopped, resumed, again, changed = output.split("##")[1:]
    # Stopped when the third epoch of eight was written and not yet told of.
    assert "4 runs, 0 of them" in stopped and stopped.count("epoch") == 2 and "stopped" in stopped
    assert "4 runs, 1 of them" in resumed and "run 1/3, ddas-mine, seed 0: epoch 2/2" in resumed
    assert "ddas-mine, seed 0: epoch 1/2" not in resumed and "to the end" in resumed
    rows = [line for line in resumed.splitlines() if line.startswith(("| baseline |", "| ddas-mine |"))]
    assert len(rows) == 2 and all("±" in row and "| 2 |" in row for row in rows)
    assert "of 64 samples" in resumed and "bfloat16" in resumed
    assert "4 runs, 4 of them" in again and "epoch 1/2" not in again and all(row in again for row in rows)
    assert rows[0] in (tmp_path / "table.md").read_text()
    # Another policy under the same name is another run, as far as the policy goes.
    assert "4 runs, 2 of them" in changed and changed.count("epoch 1/2") == 2 and rows[0] in changed
    runs = json.loads((tmp_path / "results.json").read_text())["runs"]
    assert [run["method"] for run in runs] == ["baseline", "ddas-mine"] * 2 + ["ddas-mine"] * 2


HELP = """
import runpy, sys
for program in sys.argv[1:]:
    sys.argv = [program, "--help"]
    print("##")
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        assert end.code == 0, program
"""


def test_programs_explain_themselves(loader_binary: Path) -> None:
    programs = ["cifar/train.py", "imagenet/train.py", "compare.py", "proxy/export_proxy.py"]
    paths = [*(EXAMPLES / program for program in programs), REPOSITORY / "benches" / "search_baseline.py"]
    parts = run_example(loader_binary, "-c", HELP, *paths).split("##")[1:]
    assert len(parts) == 5 and all("usage:" in part and "default" in part for part in parts)


EXPORT = """
import runpy, sys, torch
program, folder = sys.argv[1:]
for network in ("vit", "cnn"):
    path = f"{folder}/{network}.pt"
    sys.argv = [program, network, "--classes", "3", "-o", path]
    runpy.run_path(program, run_name="__main__")
    module = torch.jit.load(path)
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
    found = module(images) if network == "vit" else module(images, labels)
    assert module.training and found.shape == ((4, 3) if network == "vit" else (4,))
    found.sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
"""


def test_exported_proxies_are_trainable_modules(loader_binary: Path, tmp_path: Path) -> None:
    output = run_example(loader_binary, "-c", EXPORT, EXAMPLES / "proxy" / "export_proxy.py", tmp_path)
    assert "vit, " in output and "cnn, " in output
