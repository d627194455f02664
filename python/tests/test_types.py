"""The stubs, as a user's type checker sees them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

USER = """
from __future__ import annotations

import numpy
import torch
import ddas
from ddas.torch import DataLoader


def train(path: str) -> None:
    policy = ddas.Policy.load("policy.json")
    with ddas.Loader(path, recipe="cifar", epochs=2, batch_size=8, policy=policy, start=(0, 1)) as loader:
        for batch in loader:
            pixels: float = float(batch.images.mean())
            label: int = int(batch.labels[0]) + batch.step
            tensor = torch.from_numpy(batch.images)
            array: ddas.Array = batch.array("images")
            view = memoryview(array)
            print(pixels, label, tensor.shape, array.shape, view.nbytes)
        for batch in loader.one_epoch():
            batch.release()
        state: dict[str, object] = loader.state_dict()
        loader.load_state_dict(state)
        loader.seek(1, 2)
        place: ddas.Position = loader.next_position
        print(place.epoch, loader.progress()["samples"])
    with ddas.connect("train", rank=None, environment=False) as stream:
        received: ddas.Batch | None = stream.receive(1.0)
        print(len(stream), received, stream.info.recipe_digest)
    for images, targets, indices in DataLoader(path, recipe="cifar", epochs=1, batch_size=2, indices=True):
        print(images.shape, targets.shape, indices.shape)
    resumed = DataLoader(ddas.Loader(path, recipe="cifar", epochs=1, batch_size=2), copy=False)
    resumed.load_state_dict(state)
    augment = ddas.Augment(policy, epochs=200)
    turned: numpy.ndarray[tuple[int, ...], numpy.dtype[numpy.uint8]] = augment(numpy.zeros((2, 2, 3), numpy.uint8), index=1)
    print(turned.shape, ddas.apply(turned, "Rotate", degrees=3.0).shape)


def tell(error: ddas.RankError | ddas.DatasetError | ddas.LoaderFailed | ddas.StateError) -> str:
    return str(error)
"""


def test_a_users_program_passes_strict_checks(tmp_path: Path) -> None:
    """mypy --strict follows the package's own annotations; a name, argument or type that is wrong fails."""
    (tmp_path / "user.py").write_text(USER)
    (tmp_path / "wrong.py").write_text(USER.replace("batch_size=8", 'batch_size="8"').replace(".epoch,", ".epock,"))

    # Following torch's half a million lines takes half a minute.
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = True\n[mypy-torch.*]\nfollow_imports = skip\n")

    def check(name: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path / "cache"), name]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=110)

    passed = check("user.py")
    assert passed.returncode == 0, passed.stdout + passed.stderr
    refused = check("wrong.py")
    assert refused.returncode == 1 and "batch_size" in refused.stdout and "epock" in refused.stdout, refused.stdout
