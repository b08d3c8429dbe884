"""Trainings: kill -9 of processes that make a store, train it and heal it for real, at random moments and steps.

What was acknowledged is in the ledger, the record is whole, and the store ends with the bytes of one that was never killed.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from s3t.service import healing, verify
from s3t.store import deletions, disk
from tests.helpers import builds, stores

ROOT = Path(__file__).resolve().parents[2]
ASKED = 20  # requests of a stream; then another store begins
STEPS = 60  # that others could see, of which one may be the last


def attack(room, rng, limit, tally):
    """Kill and go on, again and again; compare at the end of each stream."""
    stream = None
    for _ in limit:
        if stream is None:
            stream = Stream(room, rng)
        with tally.trial(f"stream {stream.requests}, after {stream.done}"):
            if not stream.kill_once(rng, tally):
                tally.tried, tally.seen = tally.tried - 1, tally.seen - 1
        if stream.done >= ASKED - 2:
            stream.compare(tally)
            stream = None
    if stream is not None:
        stream.compare(tally)


class Stream:
    """Requests against one store: how far they were acknowledged."""

    def __init__(self, room, rng):
        shutil.rmtree(room.store, ignore_errors=True)
        ids = rng.sample([int(one) for one in builds.make({}).ids], ASKED)
        self.root, self.twin, self.file = room.store, room.folder / "twin", room.folder / "requests.json"
        self.requests, self.done = [[f"r{number}", [one]] for number, one in enumerate(ids)], 0

    def kill_once(self, rng, tally):
        """Start where the last kill left off; whether it was killed."""
        self.file.write_text(json.dumps(self.requests[self.done :]))
        step = [rng.randint(1, STEPS)] if rng.random() < 0.5 else []
        process = worker(self.root, self.file, *step)
        if not step:
            lines = [process.stdout.readline() for _ in range(rng.randint(1, 4))]
            time.sleep(rng.uniform(0, 0.2))
            process.kill()
            said = "".join([*lines, process.communicate()[0]]).split()
        else:
            said = process.communicate(timeout=300)[0].split()
        if process.returncode not in (0, -9):
            tally.bad("tracebacks", f"the worker ended with {process.returncode}")
        self.done += sum(word.startswith("r") and word != "ready" for word in said)
        if disk.exists(self.root):
            self.check(tally)
        return process.returncode == -9

    def check(self, tally):
        result = verify.verify(self.root)
        if not result["ok"]:
            tally.bad("wrong", str(result["problems"]))
        looked = disk.look(self.root)
        for request, ids in self.requests[: self.done]:
            answer = deletions.answer(looked.ledger, request)
            if answer is None or set(answer.ids) != set(ids):
                tally.bad("lost", f"request {request} of {self.requests}")
        disk.close(looked)

    def compare(self, tally):
        """Do the rest in peace, and the same for a store of one request."""
        with_next = self.requests[: self.done + 1]  # the last one perhaps begun
        ends = []
        for root, requests in (
            (self.root, with_next),
            (self.twin, [["all", [one for _, some in with_next for one in some]]]),
        ):
            opened = disk.open(root) if disk.exists(root) else builds.create(root)
            healing.heal(opened, builds.make({}))
            builds.carry_out(opened, requests)
            ends.append(stores.content(opened))
            disk.close(opened)
        if ends[0] != ends[1]:
            tally.bad("wrong", f"another end than in peace: {self.requests}")
        shutil.rmtree(self.twin)


def worker(root, requests, *more):
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(Path(requests).parent / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.builds", str(root), str(requests), *map(str, more)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, **cache, "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
