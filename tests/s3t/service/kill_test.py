"""Builds and heals killed with kill -9: each goes on, and ends as one in peace."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from s3t.service import healing, replay, verify
from s3t.store import deletions, disk, publishing, state
from tests.helpers import builds, stores

SOURCE = builds.make({})
ROOT = Path(__file__).resolve().parents[3]


def worker(root, requests, *more):
    cache = {
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir or "",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.builds", str(root), str(requests), *map(str, more)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, **cache, "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip


def write(path, requests):
    path.write_text(json.dumps(requests))
    return path


def test_a_build_killed_with_kill_9_goes_on(tmp_path, template):
    """Before the store is one, before it has examples, between a node's file and its row, and while it trains."""
    file, root = write(tmp_path / "requests.json", []), tmp_path / "store"
    for step, left in ((2, None), (5, 0), (21, 1)):  # the manifest's rename, the commits of the examples and of a node
        killed = worker(root, file, step)
        said = killed.communicate(timeout=300)[0].split()
        assert killed.returncode == -9 and said == ["ready"]
        assert disk.exists(root) == (left is not None)
        if left is not None:
            looked = disk.look(root)
            status = state.status(looked)
            assert (status["nodes"]["live"], status["nodes"]["leftovers"]) == (0, left)
            assert status["examples"] == (len(SOURCE.ids) if left else 0)
            disk.close(looked)
    process = worker(root, file)
    assert [process.stdout.readline().strip() for _ in range(3)] == ["ready", "node", "node"]
    process.kill()
    said = process.communicate(timeout=300)[0].split()
    assert process.returncode == -9 and "done" not in said
    opened = disk.open(root)
    served = len(publishing.live(opened))
    assert 2 + len(said) <= served < 6 and verify.verify(root)["ok"]
    assert healing.heal(opened, SOURCE)["trained"] == 6 - served
    assert stores.content(opened) == stores.content(disk.look(template))


def kill_heals(tmp_path, template, kills, seed):
    """What a store ends with whose process is killed at random moments and restarted, and one in peace."""
    rng = random.Random(seed)
    root = tmp_path / "store"
    shutil.copytree(template, root)
    ids = [int(one) for one in rng.sample(list(SOURCE.ids), 36)]
    requests = [[f"r{i}", [one]] for i, one in enumerate(ids)]
    done = died = 0
    while died < kills:
        process = worker(root, write(tmp_path / "requests.json", requests[done:]))
        lines = [process.stdout.readline().strip() for _ in range(rng.randint(1, 3))]
        time.sleep(rng.uniform(0, 0.1))
        process.kill()
        lines += process.communicate(timeout=300)[0].split()
        died += process.returncode == -9
        done += sum(line.startswith("r") and line != "ready" for line in lines)
        assert done < len(requests) - 1, "the stream of deletions is too short"
        opened = disk.open(root)
        assert verify.verify(root)["ok"] and all(deletions.answer(opened.ledger, name) for name, _ in requests[:done])
        disk.close(opened)
    requests = requests[: done + 1]  # the last one perhaps begun
    opened = disk.open(root)
    healing.heal(opened, SOURCE)
    builds.carry_out(opened, requests)
    healing.heal(opened, SOURCE)
    shutil.copytree(template, tmp_path / "peaceful")
    peaceful = disk.open(tmp_path / "peaceful")
    builds.carry_out(peaceful, [["all", [one for _, some in requests for one in some]]])
    assert state.status(opened)["requests"] == {"healed": done + 1} and verify.verify(root)["ok"]
    assert replay.replay(opened, SOURCE)["ok"]
    return stores.content(opened), stores.content(peaceful)


def test_a_heal_killed_with_kill_9_ends_as_one_in_peace(tmp_path, template):
    killed, peaceful = kill_heals(tmp_path, template, 3, seed=0)
    assert killed == peaceful


@pytest.mark.slow
def test_a_heal_killed_with_kill_9_at_twenty_moments(tmp_path, template):
    killed, peaceful = kill_heals(tmp_path, template, 20, seed=1)
    assert killed == peaceful
