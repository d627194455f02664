"""The searcher's meta-gradient step against PyTorch's autograd, number by number."""

import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from reference_step import reference_step

SEARCH = Path(os.environ.get("DDAS_SEARCH", Path(__file__).parents[2] / "target/release/ddas-search"))


@pytest.fixture(autouse=True)
def keep_default_dtype():
    before = torch.get_default_dtype()
    yield
    torch.set_default_dtype(before)


def check(tensors: dict, folder: Path) -> subprocess.CompletedProcess:
    path = folder / "step.safetensors"
    save_file(tensors, path)
    return subprocess.run([SEARCH, "check-step", path], capture_output=True, text=True, timeout=120)


CASES = [
    {"seed": 0},
    {"seed": 1},
    {"seed": 2, "operations": 3, "draws": 1, "branches": 1},
    {"seed": 3, "operations": 5, "draws": 4, "branches": 6, "eta": 0.01},  # the same operation more than once
    {"seed": 4, "batch": 3, "val_batch": 5, "size": 7, "classes": 4},
    {"seed": 5, "eta": 2.0, "noise": 3.0},
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"seed{case['seed']}")
def test_step_equals_autograd(case, tmp_path):
    done = check(reference_step(**case), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("grad_p_o", "grad_p_tp", "grad_alpha_o", "grad_alpha_tp", "theta_next.conv1.weight"):
        assert any(line.startswith(name + " ") for line in done.stdout.splitlines()), name


def test_no_difference_gives_a_zero_gradient(tmp_path):
    tensors = reference_step(6, noise=0.0)
    # The copies are the plain batch to the bit, and so must be their gradients: exact zeros, no NaN.
    for name in ("z_g", "grad_p_o", "grad_p_tp", "grad_alpha_o", "grad_alpha_tp"):
        assert not tensors[name].any(), name
    done = check(tensors, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["grad_alpha_o", "grad_p_tp", "theta_next.linear.weight", "dot_aug", "z"])
def test_a_wrong_number_is_noticed(name, tmp_path):
    tensors = reference_step(7)
    tensors[name] = tensors[name] * (1 + 1e-6)
    done = check(tensors, tmp_path)
    assert done.returncode == 1
    assert "differs" in done.stderr


def test_a_missing_tensor_is_named(tmp_path):
    tensors = reference_step(8)
    del tensors["grad_alpha_o"]
    done = check(tensors, tmp_path)
    assert done.returncode == 1
    assert "grad_alpha_o" in done.stderr
