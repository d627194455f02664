"""Python environments with the peers in them, and ours built into one."""

import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def say(text):
    print(f"peers: {text}", file=sys.stderr, flush=True)


def last_line(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["no message"])[-1][:200]


def pip(python, *arguments):
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True)


def make(folder, *names):
    """The Python of the environment `folder` with these requirements files in it, and what pip could not install."""
    python, wanted = folder / "bin" / "python", [HERE / name for name in names]
    stamp, content = folder / "installed.txt", "".join(path.read_text() for path in wanted)
    if stamp.exists() and stamp.read_text() == content:
        return python, {}
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    missing = {}
    for path in wanted:
        say(f"installing {path.name} into {folder} (torch and DALI are large: minutes)")
        done = pip(python, "-r", path)
        if done.returncode == 0:
            continue
        # One by one, so that what cannot be had here takes nothing else with it.
        for line in path.read_text().splitlines():
            if line and not line.startswith("#"):
                done = pip(python, line)
                if done.returncode != 0:
                    missing[line.split("==")[0]] = last_line(done.stderr)
                    say(f"not available: {line}: {last_line(done.stderr)}")
    if not missing:
        stamp.write_text(content)
    return python, missing


def versions(python, *packages):
    """The installed version of each package, if it is there."""
    script = (
        "import importlib.metadata as m, json, sys\n"
        "found = {}\n"
        "for name in sys.argv[1:]:\n"
        "    try: found[name] = m.version(name)\n"
        "    except m.PackageNotFoundError: pass\n"
        "print(json.dumps(found))"
    )
    done = subprocess.run([str(python), "-c", script, *packages], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def build(python):
    """Builds `ddas-loader`, the benchmark of the kernels (the paths given) and the Python package, which is installed."""
    say("building ddas-loader, the kernel benchmark and the Python package")
    cargo = ["cargo", "build", "--release", "--quiet", "-p", "ddas-loader"]
    subprocess.run(cargo, cwd=ROOT, check=True)
    cargo = ["cargo", "bench", "--quiet", "-p", "ddas-benches", "--bench", "kernels", "--no-run", "--message-format=json"]
    built = subprocess.run(cargo, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    messages = [json.loads(line) for line in built.splitlines() if line.startswith("{")]
    kernels = next(message["executable"] for message in messages if message.get("target", {}).get("name") == "kernels")
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    wheels = target / "peers-wheels"
    command = [python, "-m", "maturin", "build", "--release", "--quiet", "-m", "python/Cargo.toml", "--interpreter", python]
    subprocess.run([*map(str, command), "--out", str(wheels)], cwd=ROOT, check=True)
    wheel = max(wheels.glob("ddas-*.whl"), key=lambda path: path.stat().st_mtime)
    done = pip(python, "--force-reinstall", "--no-deps", wheel)
    if done.returncode != 0:
        raise SystemExit(f"peers: {wheel} cannot be installed: {done.stderr}")
    return target / "release" / "ddas-loader", kernels
