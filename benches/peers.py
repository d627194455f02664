"""The other libraries and ours on the same files, in one run: `benches/RESULTS.md` is what this prints.

    python3 benches/peers.py                                          with pictures that the script makes
    python3 benches/peers.py --images photos.tar --cifar cifar.tar --out benches/RESULTS.md

Needs Python 3.11 and cargo; everything else is installed by pip into environments below `--env` (torch and DALI: 6 GB).
Two of the libraries need packages of the system as well, with Debian's names: SPDL libavdevice59 and libavfilter8, FFCV
libopencv-dev, libturbojpeg0-dev and pkg-config. What cannot be had is reported as "not available" with the reason.

Each source is a folder or .tar of class folders of JPEGs, for `--cifar` of 32x32 pixels. Measured are pipelines, in
images per second of core time (of all threads and child processes) and of the clock, and single operations. The
libraries take turns for `--rounds` rounds, while all the others are stopped; medians are reported. The
files beside this one in `peer_libraries/` hold each library's side.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "peer_libraries"))
import environments
import report
import rounds
from common import Case
from environments import HERE, ROOT, say

PIPELINES = {
    "cifar-augment": ("cifar", True, False),
    "cifar": ("cifar", False, False),
    "imagenet-augment": ("imagenet", True, False),
    "imagenet": ("imagenet", False, False),
    "imagenet-u8": ("imagenet", False, True),
}
LIBRARIES = {
    "torchvision, PIL": "torchvision_pil",
    "torchvision v2": "torchvision_v2",
    "albumentations": "albumentations_cv",
    "DALI": "dali",
    "FFCV": "ffcv_loader",
    "SPDL": "spdl_pil",
    "kornia-rs": "kornia",
    "ddas.Loader": "ddas_loader",
}


def has(library, recipe, augment, raw):
    """SPDL brings no transforms, so once with PIL's is enough; kornia-rs has no RandAugment and no pad-crop."""
    if library == "spdl_pil":
        return recipe == "cifar"
    if library == "kornia":
        return recipe == "imagenet" and not augment
    return True


def prepare(python, ffcv, program, images, cifar, folder):
    say("preparing the data")
    command = [python, HERE / "prepare.py", folder]
    command += ["--images", images.resolve()] if images else []
    command += ["--cifar", cifar.resolve()] if cifar else []
    subprocess.run(list(map(str, command)), check=True)
    for pack in (
        ["cifar", folder / "cifar-bin", folder / "cifar.lmdb", "--split", "train"],
        ["image-folder", folder / "images", folder / "imagenet.lmdb"],
    ):
        quietly(program, "pack", *pack)
    for recipe in ("cifar", "imagenet"):
        quietly(program, "policy", "builtin", "randaugment", "-o", folder / f"randaugment-{recipe}.json")
    if ffcv is not None:
        done = subprocess.run([str(ffcv), str(HERE / "prepare_ffcv.py"), str(folder)], capture_output=True, text=True)
        if done.returncode != 0:
            return environments.last_line(done.stderr)
    return None


def quietly(*command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"peers: {shlex.join(map(str, command))} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def pipelines(pythons, program, folder, threads, arguments):
    found = {}
    for title, (recipe, augment, raw) in PIPELINES.items():
        if arguments.only and title not in arguments.only:
            continue
        say(f"pipeline {title}, {threads} thread{'s' * (threads > 1)}")
        cases = {}
        for name, library in LIBRARIES.items():
            python = pythons["ffcv"] if library == "ffcv_loader" else pythons["python"]
            if python is not None and has(library, recipe, augment, raw):
                case = Case(library, recipe, augment, raw, threads, str(folder))
                cases[name] = lambda python=python, case=case: rounds.Running(python, case)
        case = Case("", recipe, augment, raw, threads, str(folder))
        cases["ddas-loader bench"] = lambda case=case: rounds.Bench(program, case)
        warm(folder)
        found[title] = rounds.measure(cases, arguments.rounds, arguments.seconds)
    return found


def warm(folder):
    """Reads everything once: whoever comes first is not to wait for the disk."""
    buffer = bytearray(1 << 20)
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


def operations(python, kernels, times):
    """Medians over `times` runs, of the fastest rounds in each: {side: {operation: {library: microseconds}}}."""
    runs = []
    for turn in range(times):
        say(f"operations, {turn + 1} of {times}")
        printed = quietly(kernels, "--minima")
        done = subprocess.run([str(python), str(HERE / "operations.py")], capture_output=True, text=True, cwd=HERE)
        if done.returncode != 0:
            raise SystemExit(f"peers: operations.py ended with {done.returncode}:\n{done.stderr}")
        run = json.loads(done.stdout)
        for line in printed.splitlines():
            if line.startswith("op="):
                case, call = line.split()[:2]
                operation, size = case.removeprefix("op=").split("/size=")
                run[size.split("x")[0]].setdefault(operation, {})["ours"] = float(call)
        runs.append(run)
    return {
        side: {
            operation: {
                library: statistics.median(run[side][operation][library] for run in runs if library in run[side][operation])
                for library in libraries
            }
            for operation, libraries in table.items()
        }
        for side, table in runs[0].items()
    }


def machine():
    fields = {}
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    features = [flag for flag in ("avx2", "avx512bw") if flag in fields.get("flags", "").split()]
    memory = next(
        int(line.split()[1]) / 2**20
        for line in pathlib.Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemTotal")
    )
    return {
        "processor": f"{fields.get('model name', platform.machine())}, family {fields.get('cpu family', '?')}, model "
        f"{fields.get('model', '?')}, {', '.join(features) or 'no AVX2'}",
        "cores": len(os.sched_getaffinity(0)),
        "memory": f"{memory:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
    }


def commit():
    try:
        run = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
        return subprocess.run(run, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=pathlib.Path, help="folder or .tar of class folders of photos [default: made]")
    parser.add_argument("--cifar", type=pathlib.Path, help="folder or .tar of class folders of 32x32 JPEGs [default: made]")
    parser.add_argument("--out", type=pathlib.Path, help="the report to write [default: standard output]")
    parser.add_argument("--env", type=pathlib.Path, default=ROOT / ".peers", help="where the environments are [default: .peers]")
    parser.add_argument("--rounds", type=int, default=3, help="how often each library has its turn [default: 3]")
    parser.add_argument("--seconds", type=float, default=0.8, help="of a turn, at least one batch [default: 0.8]")
    parser.add_argument("--threads", type=int, help="of the second measurement by the clock [default: all cores]")
    parser.add_argument("--only", nargs="+", choices=[*PIPELINES, "operations"], help="measure these alone")
    parser.add_argument("--json", type=pathlib.Path, help="also write all figures to this file")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.seconds <= 0:
        parser.error("--rounds and --seconds must be positive")
    for source in (arguments.images, arguments.cifar):
        if source is not None and not source.exists():
            parser.error(f"there is no {source}")
    if shutil.which("cargo") is None:
        parser.error("cargo is not on the PATH; install Rust first")
    # So that the processes it started end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    arguments.env.mkdir(parents=True, exist_ok=True)
    environment = arguments.env.resolve()

    python, missing = environments.make(environment / "python", "requirements.txt", "requirements-spdl.txt")
    ffcv, missing_ffcv = environments.make(environment / "ffcv", "requirements-ffcv.txt")
    if "ffcv" in missing_ffcv:
        missing["FFCV"], ffcv = missing_ffcv["ffcv"], None
    program, kernels = environments.build(python)
    load = [os.getloadavg()[0]]
    cores = arguments.threads or len(os.sched_getaffinity(0))
    pythons = {"python": python, "ffcv": ffcv}
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary) / "data"
        reason = prepare(python, ffcv, program, arguments.images, arguments.cifar, folder)
        if reason is not None:
            missing["FFCV"], pythons["ffcv"] = reason, None
        load.append(os.getloadavg()[0])
        say("limits of the machine")
        limits = json.loads(quietly(python, HERE / "limits.py", folder))
        one = pipelines(pythons, program, folder, 1, arguments)
        many = pipelines(pythons, program, folder, cores, arguments) if cores > 1 else {}
        single = operations(python, kernels, arguments.rounds) if not arguments.only or "operations" in arguments.only else {}
        load.append(os.getloadavg()[0])
        data = json.loads((folder / "data.json").read_text())
    packages = ("torch", "torchvision", "nvidia-dali-cuda120", "albumentations", "opencv-python-headless",
                "kornia-rs", "spdl", "pillow", "numpy", "ddas")  # fmt: skip
    versions = environments.versions(python, *packages)
    if pythons["ffcv"] is not None:
        versions |= environments.versions(ffcv, "ffcv", "numba")
    options = ["--rounds", arguments.rounds, "--seconds", arguments.seconds]
    for option, path in (("--images", arguments.images), ("--cifar", arguments.cifar)):
        options += [option, path.name] if path else []
    figures = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join(map(str, ["python3", "benches/peers.py", *options])),
        "commit": commit(),
        "machine": machine(),
        "load": load,
        "versions": versions,
        "missing": missing,
        "data": data,
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "cores": cores,
        "limits": limits,
        "one": one,
        "many": many,
        "operations": single,
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    text = report.markdown(figures)
    for line in report.headlines(figures):
        say(line)
    if arguments.out:
        arguments.out.write_text(text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
