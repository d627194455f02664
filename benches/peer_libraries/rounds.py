"""Cases in processes of their own that take turns: all but one are stopped (SIGSTOP), threads that spin included."""

import json
import os
import select
import signal
import statistics
import subprocess
import tempfile

from environments import HERE, last_line, say

START_SECONDS, ROUND_SECONDS = 600, 300


class Failed(Exception):
    """A case that cannot be measured, with the reason."""


class Running:
    """A case's process."""

    def __init__(self, python, case):
        self.errors = tempfile.TemporaryFile("w+")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": str(case.threads), "PYTHONWARNINGS": "ignore"}
        self.process = subprocess.Popen(
            [str(python), str(HERE / "case.py"), case.to_json()],
            cwd=HERE,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            bufsize=1,
            start_new_session=True,
        )

    def answer(self, seconds):
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            raise Failed(f"no answer within {seconds} s")
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            raise Failed(last_line(self.errors.read()))
        return line

    def wait_until_ready(self):
        self.answer(START_SECONDS)
        self.signal(signal.SIGSTOP)

    def measure(self, seconds):
        self.signal(signal.SIGCONT)
        self.process.stdin.write(f"{seconds}\n")
        try:
            return json.loads(self.answer(ROUND_SECONDS))
        finally:
            self.signal(signal.SIGSTOP)

    def signal(self, number):
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass

    def end(self):
        self.signal(signal.SIGKILL)
        self.process.wait()


class Bench:
    """`ddas-loader bench`, a new process each time. As the others it is measured once its first batches have come: it
    counts from when each of its slots has been used."""

    def __init__(self, program, case):
        self.command = [
            program, "bench", case.folder / f"{case.recipe}.lmdb", "--recipe", case.recipe, "--threads", case.threads,
            "--batch-size", case.batch, "--json", "--no-recommendation",
        ]  # fmt: skip
        if case.augment:
            self.command += ["--policy", case.folder / f"randaugment-{case.recipe}.json"]
        if case.raw:
            self.command += ["--dtype", "u8", "--layout", "nhwc"]

    def wait_until_ready(self):
        pass

    def measure(self, seconds):
        command = [*map(str, self.command), "--seconds", str(seconds)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        output, errors = process.communicate()
        if process.returncode != 0:
            raise Failed(last_line(errors))
        printed = json.loads(output)
        return {
            "images": printed["samples"],
            "seconds": printed["seconds"],
            "core_seconds": printed["core_seconds"],
            "stages": {stage["stage"]: stage["microseconds_per_sample"] for stage in printed["stages"]},
        }

    def end(self):
        pass


def measure(cases, rounds, seconds):
    """Takes {name: function that starts a case}; gives the medians of each, or the reason why there are none."""
    started, failed = {}, {}
    try:
        for name, start in cases.items():
            started[name] = start()
        for name in list(started):
            try:
                started[name].wait_until_ready()
            except Failed as failure:
                failed[name] = str(failure)
                started.pop(name).end()
                say(f"{name}: not available: {failure}")
        results = {name: [] for name in started}
        for turn in range(rounds):
            names = [name for name in cases if name in started]
            # Nobody always follows the same one.
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                try:
                    results[name].append(started[name].measure(seconds))
                except Failed as failure:
                    failed[name] = str(failure)
                    started.pop(name).end()
                    say(f"{name}: not available: {failure}")
    finally:
        for running in started.values():
            running.end()
    found = {name: summary(results[name]) for name in started}
    return found, failed


def summary(results):
    core = [result["images"] / result["core_seconds"] for result in results]
    wall = [result["images"] / result["seconds"] for result in results]
    median = statistics.median(core)
    found = {"core": median, "wall": statistics.median(wall), "spread": (max(core) - min(core)) / median}
    if "stages" in results[0]:
        stages = results[0]["stages"]
        found["stages"] = {stage: statistics.median(result["stages"][stage] for result in results) for stage in stages}
    return found
