"""`ddas.Policy`: the file read and written, replay over training epochs, refusals."""

from __future__ import annotations

import copy
import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ddas

OPERATIONS = [
    {"kind": "Identity"},
    {"kind": "Rotate", "degrees": 6.0, "sign": "random", "fill": [0, 0, 0], "interpolation": "nearest"},
    {"kind": "TranslateX", "fraction": 0.25, "sign": "fixed", "fill": [1, 2, 3], "interpolation": "bilinear"},
    {"kind": "Solarize", "threshold": 128.0},
]


def document(totals: list[float] = [0.1, 0.2, 0.6, 0.8], window: int = 1) -> dict[str, Any]:
    """A policy file's content: four operations, as many snapshots as `totals`."""
    shares = [[0.25 + 0.01 * step, 0.25 - 0.01 * step, 0.5, 0.0] for step in range(len(totals))]
    return {
        "format": "ddas-policy",
        "version": 1,
        "search_space": {"name": "mine", "draws_per_sample": 2, "operations": OPERATIONS},
        "snapshots": [
            {"total_probability": total, "operation_probabilities": share} for total, share in zip(totals, shares)
        ],
        "smoothing": {"window": window},
        "provenance": {"dataset": "digits", "seed": 3},
    }


def policy(**arguments: Any) -> ddas.Policy:
    return ddas.Policy.from_json(json.dumps(document(**arguments)))


def test_reading() -> None:
    read = policy()
    assert read.search_space == "mine"
    assert read.draws_per_sample == 2
    assert read.operations == OPERATIONS
    assert len(read) == 4
    assert [snapshot.total_probability for snapshot in read.snapshots] == [0.1, 0.2, 0.6, 0.8]
    assert read.snapshots[3].operation_probabilities == pytest.approx([0.28, 0.22, 0.5, 0.0])
    assert [snapshot.index for snapshot in read.snapshots] == [0, 1, 2, 3]
    assert "mine" in repr(read) and read.digest in repr(read)


def test_file_round_trip(tmp_path: Path) -> None:
    first, path = policy(window=3), tmp_path / "policy.json"
    first.save(path)
    again = ddas.Policy.load(path)
    assert json.loads(path.read_text()) == json.loads(first.to_json())
    assert json.loads(again.to_json()) == document(window=3)
    assert again.digest == first.digest and again.operations == first.operations
    assert [entry.name for entry in tmp_path.iterdir()] == ["policy.json"], "a temporary file is left"
    assert ddas.Policy.load(str(path)).digest == first.digest


def test_copies_are_the_same_policy() -> None:
    first = policy()
    for other in (pickle.loads(pickle.dumps(first)), copy.deepcopy(first)):
        assert other.to_json() == first.to_json()


def test_snapshot_of_a_training_epoch_is_floor_e_t_over_e() -> None:
    read = policy()
    for epochs in (1, 3, 4, 7, 200):
        for epoch in range(epochs):
            snapshot = read.snapshot(epoch, epochs)
            assert snapshot.index == epoch * 4 // epochs
            assert snapshot.total_probability == read.snapshots[snapshot.index].total_probability
            assert snapshot.operation_probabilities == read.snapshots[snapshot.index].operation_probabilities
    assert read.snapshot(epoch=2, epochs=4).total_probability == 0.6


def test_total_probability_is_smoothed_at_replay_only() -> None:
    read = policy(window=2)
    assert [snapshot.total_probability for snapshot in read.snapshots] == [0.1, 0.2, 0.6, 0.8]
    replayed = [read.snapshot(epoch, 4) for epoch in range(4)]
    # Forward means of two; the last one has no full window and keeps the last full one's.
    assert [snapshot.total_probability for snapshot in replayed] == pytest.approx([0.15, 0.4, 0.7, 0.7])
    raw = [snapshot.operation_probabilities for snapshot in read.snapshots]
    assert [snapshot.operation_probabilities for snapshot in replayed] == raw


def test_epochs_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="epoch.*got 200"):
        policy().snapshot(epoch=200, epochs=200)
    with pytest.raises(ValueError, match="`epoch` must lie in 0..199, got -1"):
        policy().snapshot(epoch=-1, epochs=200)
    with pytest.raises(ValueError, match="`epochs`.*got -1"):
        policy().snapshot(epoch=0, epochs=-1)
    with pytest.raises(ValueError, match="epoch"):
        policy().snapshot(epoch=0, epochs=0)


def test_digest_is_of_what_decides_the_pixels() -> None:
    base = document()
    other = {**base, "provenance": {}}
    assert ddas.Policy.from_json(json.dumps(other)).digest == policy().digest
    assert policy(totals=[0.1, 0.2, 0.6, 0.81]).digest != policy().digest
    assert len(policy().digest) == 16 and int(policy().digest, 16) >= 0


def without(key: str) -> Any:
    def change(content: dict[str, Any]) -> None:
        del content[key]

    return change


def put(value: Any, *path: str | int) -> Any:
    def change(content: Any) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (without("format"), ["format"]),
        (put("other", "format"), ["format", "other"]),
        (put(2, "version"), ["version", "2"]),
        (without("snapshots"), ["snapshots"]),
        (put([], "snapshots"), ["snapshots"]),
        (put(1.5, "snapshots", 1, "total_probability"), ["snapshots[1]", "total_probability", "1.5"]),
        (put(-0.1, "snapshots", 1, "total_probability"), ["snapshots[1]", "total_probability"]),
        (put([0.5, 0.5], "snapshots", 2, "operation_probabilities"), ["snapshots[2]", "operation_probabilities", "2", "4"]),
        (put([0.5, 0.5, 0.5, 0.0], "snapshots", 2, "operation_probabilities"), ["snapshots[2]", "operation_probabilities", "sum"]),
        (put([1.5, -0.5, 0.0, 0.0], "snapshots", 2, "operation_probabilities"), ["snapshots[2]", "operation_probabilities"]),
        (put({"kind": "Twirl"}, "search_space", "operations", 1), ["operations[1]", "Twirl"]),
        (put({"kind": "Rotate"}, "search_space", "operations", 1), ["operations[1]", "degrees"]),
        (put({"kind": "Rotate", "level": 3}, "search_space", "operations", 1), ["operations[1]", "level"]),
        (put(0, "search_space", "draws_per_sample"), ["draws_per_sample"]),
        (put(0, "smoothing", "window"), ["window"]),
        (put(1, "surprise"), ["surprise"]),
        (put("x", "snapshots", 0, "total_probability"), ["snapshots[0]", "total_probability"]),
        (put(math.nan, "snapshots", 1, "total_probability"), ["snapshots[1].total_probability", "NaN"]),
        (put([math.inf, 0, 0, 0], "snapshots", 2, "operation_probabilities"), ["snapshots[2].operation_probabilities[0]"]),
        (put({"kind": "Rotate", "degrees": -math.inf}, "search_space", "operations", 1), ["operations[1].degrees"]),
    ],
)
def test_wrong_files_are_refused_by_field(change: Any, names: list[str], tmp_path: Path) -> None:
    content = copy.deepcopy(document())
    change(content)
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ddas.PolicyError) as caught:
        ddas.Policy.load(path)
    for name in [*names, "wrong.json"]:
        assert name in str(caught.value)
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, ddas.Error)


def test_non_finite_and_broken_text_is_refused() -> None:
    for text in ("", "{", "[]", "null", "NaN", json.dumps(document()).replace("0.1", "NaN", 1), json.dumps(document(totals=[math.inf]))):
        with pytest.raises(ddas.PolicyError):
            ddas.Policy.from_json(text)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none.json"):
        ddas.Policy.load(tmp_path / "none.json")
    with pytest.raises(IsADirectoryError):
        ddas.Policy.load(tmp_path)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ddas.PolicyError, match="binary.json"):
        ddas.Policy.load(tmp_path / "binary.json")
    with pytest.raises(FileNotFoundError):
        policy().save(tmp_path / "missing" / "policy.json")


def test_search_spaces() -> None:
    for name, size in (("paper68", 68), ("released52", 52), ("released52-as-run", 52)):
        space = ddas.search_space(name)
        assert space["name"] == name and space["draws_per_sample"] >= 1
        assert len(space["operations"]) == size
    assert "Rotate90" in [operation["kind"] for operation in ddas.search_space("sanity")["operations"]]
    with pytest.raises(ddas.PolicyError, match="paper68"):
        ddas.search_space("paper69")


def test_builtin_policies() -> None:
    policy = ddas.Policy.builtin("randaugment", draws=3, magnitude=5)
    assert policy.search_space == "randaugment-n3-m5"
    assert policy.draws_per_sample == 3
    assert policy.operations[5] == {
        "kind": "Rotate",
        "degrees": 5.0,
        "sign": "random",
        "fill": [0, 0, 0],
        "interpolation": "nearest",
    }
    pairs = ddas.Policy.builtin("autoaugment-svhn")
    assert pairs.operations[0] == {
        "kind": "Sequence",
        "steps": [
            {"probability": 0.9, "operation": pairs.operations[0]["steps"][0]["operation"]},
            {"probability": 0.2, "operation": {"kind": "Invert"}},
        ],
    }
    timm = ddas.Policy.builtin("rand-m9-mstd0.5-inc1")
    assert timm.operations[0] == {"kind": "Identity"}
    assert [operation["varies"]["mean"] for operation in timm.operations if operation["kind"] == "Rotate"] == [27.0] * 2
    assert ddas.Policy.from_json(timm.to_json()).digest == timm.digest
    # Every kind is replayed.
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    for drawn in (policy, pairs, timm):
        augment = ddas.Augment(drawn, epochs=1, seed=0)
        results = [augment(image, index=index) for index in range(20)]
        assert any((result != image).any() for result in results)
        assert all((augment(image, index=7) == results[7]).all() for _ in range(2))


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("randaugement", {}, "randaugment-timm"),
        ("randaugment", {"magnitude": 31}, "magnitude: 31"),
        ("autoaugment-svhn", {"draws": 2}, "draws"),
        ("rand-m9-tweights", {}, "without replacement"),
        ("randaugment", {"draws": -1}, "draws"),
    ],
)
def test_builtin_policies_that_are_none(name: str, options: dict[str, int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ddas.Policy.builtin(name, **options)
