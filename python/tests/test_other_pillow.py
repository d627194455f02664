"""The parity tests once more, against another version of Pillow than the installed one.

`make env` puts it into a folder of its own, which goes first on the path of a
second Python. `$DDAS_PILLOW_PATH` names another folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import PIL

TESTS = Path(__file__).parent
FOLDER = Path(os.environ.get("DDAS_PILLOW_PATH") or Path(sys.prefix) / "other-pillow")


def run(*command: str) -> str:
    path = os.pathsep.join([str(FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, *command],
        cwd=TESTS,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout.strip()


def test_parity_with_another_version() -> None:
    assert (FOLDER / "PIL").is_dir(), f"no second Pillow in {FOLDER}; `make env` installs one"
    other = run("-c", "import PIL; print(PIL.__version__)")
    assert other != PIL.__version__, "the same version tells nothing"
    output = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_parity.py")
    print(f"Pillow {other}: {output.splitlines()[-1]}")
