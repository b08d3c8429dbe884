"""Stops: a serving process is halted between its two looks at the ledger, and a deletion is acknowledged meanwhile.

An answer that was asked for after the acknowledgement uses no node that the deletion dropped: it is of the ledger's head of
then or of a later one, and its logits are none that were given before.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from s3t.store import disk
from s3t.store.ledger import records
from tests.helpers import servers, stacks

ROOT = Path(__file__).resolve().parents[2]
FILL_EVERY = 3  # stops, so that some shard always has a model


def attack(room, rng, limit, tally):
    """Halt, delete, go on."""
    stream = None
    for number in limit:
        if stream is None:
            stream = Stream(room, rng, number)
        with tally.trial(f"stop {number}"):
            stream.stop_once(rng)
        if not stream.ids:
            stream.end(tally)
            stream = None
    if stream is not None:
        stream.end(tally)


class Stream:
    """A store, a process that answers from it, and what was acknowledged when."""

    def __init__(self, room, rng, number):
        shutil.rmtree(room.store, ignore_errors=True)
        self.opened = servers.fill(servers.make(room.store))
        slices = [servers.ids_at(self.opened, shard, s) for shard in range(stacks.SHARDS) for s in range(stacks.SLICES)]
        self.ids = [one for ids in slices for one in ids[1:]]  # no slice runs empty
        rng.shuffle(self.ids)
        self.number, self.acknowledged, self.answers = number, [], []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.servers", str(room.store)],
            cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "JAX_PLATFORMS": "cpu"},
        )  # fmt: skip
        self.answers.append(json.loads(self.process.stdout.readline()))
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self):
        self.answers += [json.loads(line) for line in self.process.stdout if line.endswith("}\n")]

    def stop_once(self, rng):
        """A deletion while the process is halted; then the ensemble is whole again, with other parameters."""
        time.sleep(rng.uniform(0, 0.03))
        os.kill(self.process.pid, signal.SIGSTOP)
        one = self.ids.pop()
        head = disk.delete(self.opened, [one], f"r{one}")["head"]
        self.acknowledged.append((time.monotonic(), head))
        if rng.random() < 0.5:
            disk.purge(self.opened)
        os.kill(self.process.pid, signal.SIGCONT)
        time.sleep(rng.uniform(0, 0.03))
        if len(self.ids) % FILL_EVERY == 0:
            disk.purge(self.opened)
            servers.fill(self.opened)

    def end(self, tally):
        """Compare each answer with what was acknowledged before it was asked for."""
        time.sleep(0.2)
        self.process.kill()
        self.reader.join()
        if self.process.wait() != -signal.SIGKILL:
            tally.bad("tracebacks", f"the server ended with {self.process.returncode}: {self.answers[-1:]}")
        rows = dict(self.opened.ledger.execute("SELECT digest, seq FROM log"))
        nodes = self.opened.ledger.execute("SELECT published, coalesce(dropped, 1 << 62) FROM nodes").fetchall()
        given = {}  # logits -> rows of the heads at which they were given
        for answer in self.answers:
            if "error" in answer:
                tally.bad("wrong", f"no answer: {answer['error']}")
                continue
            logits, row = tuple(answer["logits"]), rows[answer["head"]]
            last = max((rows[head] for at, head in self.acknowledged if at < answer["asked"]), default=0)
            given.setdefault(logits, set()).add(row)
            dropped = [at for at in given[logits] if any(published <= at < gone <= last for published, gone in nodes)]
            if row < last or dropped:
                tally.bad("served", f"from stop {self.number}: asked at row {last}, answered of {row}, as of {dropped}")
        if len(self.answers) < len(self.acknowledged):
            tally.bad("wrong", f"{len(self.answers)} answers beside {len(self.acknowledged)} deletions are too few")
        gone = records.counts(self.opened.ledger)["deleted"]
        if gone != len(self.acknowledged):
            tally.bad("lost", f"{len(self.acknowledged)} acknowledged, {gone} in the ledger")
        disk.close(self.opened)
