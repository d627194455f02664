"""Small datasets, running daemons, and a watchdog over every test."""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import numpy as np
import pytest
from PIL import Image

import ddas
from ddas import _ddas

REPOSITORY = Path(__file__).resolve().parents[2]

# A test that takes longer hangs.
TEST_SECONDS = 120


@pytest.fixture(autouse=True)
def watchdog() -> Iterator[None]:
    """Fails a hanging test; ends the whole run if the test does not even let Python's signals through."""

    def expired(*_: Any) -> None:
        raise TimeoutError(f"the test ran longer than {TEST_SECONDS} s")

    previous = signal.signal(signal.SIGALRM, expired)
    signal.alarm(TEST_SECONDS)
    faulthandler.dump_traceback_later(TEST_SECONDS + 20, exit=True)
    try:
        yield
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, previous)


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever started the tests is no part of them."""
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS", "OMPI_COMM_WORLD_RANK", "JOB_COMPLETION_INDEX"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def loader_binary() -> Path:
    """The ddas-loader to test with: $DDAS_LOADER, or the newest one built in this repository."""
    if given := os.environ.get("DDAS_LOADER"):
        return Path(given).resolve(strict=True)
    built = [REPOSITORY / "target" / profile / "ddas-loader" for profile in ("release", "debug")]
    found = [path for path in built if path.exists()]
    assert found, f"no ddas-loader at {' or '.join(map(str, built))}: run `cargo build --release -p ddas-loader`"
    return max(found, key=lambda path: path.stat().st_mtime)


class Folder:
    """Class folders of PNG and JPEG images in turn, and what Pillow reads from them."""

    def __init__(self, path: Path, classes: int, samples: int, width: int = 32, height: int = 32) -> None:
        random = np.random.default_rng(classes * 1000 + samples)
        pixels = []
        for number in range(samples):
            label = number % classes
            folder = path / f"class{label}"
            folder.mkdir(parents=True, exist_ok=True)
            image = random.integers(0, 256, (height, width, 3), np.uint8)
            # A class shows in the mean brightness, so that a network can learn it.
            image = (image // 4 + 191 * label // max(classes - 1, 1)).astype(np.uint8)
            name = f"{number:04}.{('png', 'jpg')[number // classes % 2]}"
            Image.fromarray(image).save(folder / name)
            pixels.append((f"class{label}/{name}", label, np.asarray(Image.open(folder / name))))
        # Samples are numbered in the order of their paths.
        pixels.sort(key=lambda entry: entry[0])
        labels = [label for _, label, _ in pixels]
        self.path = path
        self.labels = np.array(labels, np.int64)
        self.pixels = np.stack([image for _, _, image in pixels])

    def __len__(self) -> int:
        return len(self.labels)


class Dataset:
    """A packed `Folder`."""

    def __init__(self, path: Path, source: Folder) -> None:
        self.path = path
        self.labels = source.labels
        self.pixels = source.pixels

    def __len__(self) -> int:
        return len(self.labels)


@pytest.fixture(scope="session")
def photos(loader_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """13 images of 70x50, for the imagenet recipe."""
    root = tmp_path_factory.mktemp("photos")
    source = Folder(root / "images", classes=2, samples=13, width=70, height=50)
    run(loader_binary, "pack", "image-folder", source.path, root / "photos.lmdb")
    return Dataset(root / "photos.lmdb", source)


@pytest.fixture(scope="session")
def dataset(loader_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """43 images of 3 classes: a prime number, so no batch size divides it."""
    root = tmp_path_factory.mktemp("dataset")
    source = Folder(root / "images", classes=3, samples=43)
    packed = root / "images.lmdb"
    run(loader_binary, "pack", "image-folder", source.path, packed)
    return Dataset(packed, source)


def make_loader(dataset: Dataset, **settings: Any) -> ddas.Loader:
    """A loader in this process; `settings` beside or instead of those of a short run."""
    return ddas.Loader(dataset.path, **{"recipe": "cifar", "epochs": 2, "batch_size": 8, "seed": 5, **settings})


def run(binary: Path, *arguments: object) -> str:
    """Runs a program to its end; its output is in the failure's text."""
    done = subprocess.run(
        [binary, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
    )
    assert done.returncode == 0, f"{' '.join(map(str, arguments))} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


class Daemon:
    """A running `ddas-loader serve`."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def wait(self, seconds: float = 30) -> int:
        """Waits for the daemon to end on its own; its exit status."""
        return self.process.wait(seconds)


Serve = Callable[..., Daemon]


@pytest.fixture
def serve(loader_binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts daemons in a runtime folder of the test's own, and ends them afterwards.

    `serve(dataset, epochs=2, batch_size=8, dtype="u8", ...)`: every keyword is a flag.
    Returns when the daemon answers.
    """
    # Socket paths must stay short; tmp_path may not be.
    runtime = Path(f"/tmp/ddas-test-{os.getpid()}-{time.monotonic_ns()}")
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("DDAS_RUNTIME_DIR", str(runtime))
    daemons: list[Daemon] = []

    def start(dataset: Dataset, name: str = "train", **flags: object) -> Daemon:
        settings = {"recipe": "cifar", "epochs": 2, "batch_size": 8, "seed": 5, "threads": 2, **flags}
        command = [str(loader_binary), "serve", str(dataset.path), "--name", name]
        for flag, value in settings.items():
            command += [f"--{flag.replace('_', '-')}", str(value)]
        log = tmp_path / f"{name}-{len(daemons)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        daemon = Daemon(name, process, log)
        daemons.append(daemon)
        deadline = time.monotonic() + 30
        while not answers(name):
            assert process.poll() is None, f"{' '.join(command)} ended with {process.returncode}:\n{daemon.log}"
            assert time.monotonic() < deadline, f"no answer after 30 s:\n{daemon.log}"
            time.sleep(0.01)
        return daemon

    try:
        yield start
    finally:
        for daemon in daemons:
            if daemon.process.poll() is None:
                daemon.kill()
        for left in runtime.iterdir():
            left.unlink()
        runtime.rmdir()


def answers(name: str) -> bool:
    """Whether a daemon of this name can be connected to."""
    try:
        _ddas.world_size(name, 0.0)
    except ddas.NoSuchDaemon:
        return False
    return True


def python(script: str, *arguments: str) -> subprocess.Popen[str]:
    """Runs a script in a process of its own, in the environment of the tests.

    Ctrl-C reaches it even where the tests run behind a shell's `&`, which has everything it starts ignore it.
    """
    heed = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    return subprocess.Popen(
        [sys.executable, "-c", heed + script, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
