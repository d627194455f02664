"""Measures one case in a process of its own: `case.py CASE_JSON`.

Prints "ready" when the first batches have come. Then every line on standard input is the seconds to measure for, and
the answer a line of JSON: images, seconds, and seconds of core time of this process and all below it.
"""

import ctypes
import importlib
import json
import os
import pathlib
import signal
import sys
import time

from common import Case

# Batches taken before the clock starts: more than the library keeps ready. torch's DataLoader keeps two for a worker,
# and without workers none.
AHEAD = {"dali": 3, "ffcv_loader": 4, "spdl_pil": 4, "ddas_loader": 5}
TICK = os.sysconf("SC_CLK_TCK")
PR_SET_PDEATHSIG = 1


def core_time():
    return time.process_time() + sum(map(ticks, descendants(os.getpid()))) / TICK


def ticks(pid):
    try:
        # Behind the name, which may contain anything: state is the first field, user and system time the 12th and 13th.
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def descendants(pid):
    found = []
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            for child in map(int, task.read_text().split()):
                found += [child, *descendants(child)]
        except OSError:
            pass  # it has ended
    return found


def check(case, images):
    side = case.side
    shape = (case.batch, side, side, 3) if case.raw else (case.batch, 3, side, side)
    found = tuple(images.shape), str(images.dtype).removeprefix("torch.")
    if found != (shape, "uint8" if case.raw else "float32"):
        raise SystemExit(f"{case.library}: a batch is {found}, expected {shape}")


def end_with_parent():
    """Stopped processes would stay for ever if the program that wakes them were killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main():
    end_with_parent()
    case = Case(**json.loads(sys.argv[1]))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    batches = iter(importlib.import_module(case.library).batches(case))
    for _ in range(2):
        check(case, next(batches))
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        seconds = float(line)
        for _ in range(AHEAD.get(case.library, 2 * case.threads + 1 if case.threads > 1 else 0)):
            next(batches)
        images, began, spent = 0, time.perf_counter(), core_time()
        while time.perf_counter() - began < seconds:
            images += len(next(batches))
        result = {"images": images, "seconds": time.perf_counter() - began, "core_seconds": core_time() - spent}
        print(json.dumps(result), file=answers, flush=True)
    os._exit(0)  # workers, threads and all: nothing of them is wanted


if __name__ == "__main__":
    main()
