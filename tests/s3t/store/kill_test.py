"""Two processes at once, and kill -9 at any moment."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from s3t.service import verify
from s3t.store import deletions, disk, state
from s3t.store.ledger import records
from tests.helpers import stores

ROOT = Path(__file__).resolve().parents[3]


def worker(root, requests, *more):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.stores", str(root), str(requests), *map(str, more)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip


def write(path, requests):
    path.write_text(json.dumps(requests))
    return path


def never_killed(tmp_path, template, requests):
    """The content of a store whose requests were carried out in peace."""
    shutil.copytree(template, tmp_path / "peaceful")
    opened = disk.open(tmp_path / "peaceful")
    stores.carry_out(opened, requests)
    content = stores.content(opened)
    disk.close(opened)
    return content


def check_after_restart(root, acknowledged):
    """Open a store as a restarted process would; everything acknowledged is in it, nothing else is left."""
    opened = disk.open(root)
    for request, ids in acknowledged:
        assert deletions.answer(opened.ledger, request).ids == tuple(ids)
    result = verify.verify(opened.root)
    assert result["ok"] and result["leftovers"] == 0, result
    assert stores.files_of(opened) == stores.live_files(opened)
    assert "deactivated" not in state.status(opened)["requests"]
    disk.close(opened)


def test_two_processes_may_delete_train_and_purge_at_once(tmp_path, template):
    shutil.copytree(template, tmp_path / "store")
    ids = random.Random(0).sample(range(60), 30)
    parts = ids[:18], ids[12:]
    requests = [[[f"{name}{one}", [one]] for one in part] for name, part in zip("xy", parts, strict=True)]
    both = [worker(tmp_path / "store", write(tmp_path / f"{i}.json", part)) for i, part in enumerate(requests)]
    while any(one.poll() is None for one in both):
        assert verify.verify(tmp_path / "store")["problems"] == []  # at any moment, with files coming and going
    assert [one.communicate(timeout=120)[0].split()[-1] for one in both] == ["done", "done"]
    opened = disk.open(tmp_path / "store")
    assert verify.verify(opened.root)["ok"] and records.counts(opened.ledger)["deleted"] == 30
    assert set(state.status(opened)["requests"]) == {"healed"}
    assert stores.content(opened) == never_killed(tmp_path, template, [["all", ids]])


def die_everywhere(tmp_path, template, steps):
    """Kill a process before each of its visible steps in turn, and let another finish; how many steps there are."""
    opened = disk.look(template)
    requests = [["r", list(stores.ids_at(opened, 0, 2)[:1])], ["s", list(stores.ids_at(opened, 1, 0)[:2])]]
    disk.close(opened)
    file = write(tmp_path / "requests.json", requests)
    expected = never_killed(tmp_path, template, requests)
    for step in steps:
        root = tmp_path / f"store{step}"
        shutil.copytree(template, root)
        killed = worker(root, file, step)
        said = killed.communicate(timeout=60)[0].split()
        check_after_restart(root, [request for request in requests if request[0] in said])
        opened = disk.open(root)
        stores.carry_out(opened, requests)
        assert stores.content(opened) == expected
        assert state.status(opened)["requests"] == {"healed": 2} and verify.verify(opened.root)["ok"]
        disk.close(opened)
        shutil.rmtree(root)
        if said[-1] == "done":
            return step
        assert killed.returncode == -9
    return None


def test_a_process_may_die_before_some_of_its_steps(tmp_path, template):
    assert die_everywhere(tmp_path, template, range(1, 13)) is None


@pytest.mark.slow
def test_a_process_may_die_before_any_of_its_steps(tmp_path, template):
    assert die_everywhere(tmp_path, template, range(1, 1000)) > 40


def kill_at_random(tmp_path, kills, seed):
    """What a store ends with whose deleting process is killed at random moments, and one that was never killed."""
    rng = random.Random(seed)
    examples = 100 + 12 * kills
    template = tmp_path / "template"
    disk.close(stores.fill(stores.make(template, examples)))
    root = tmp_path / "store"
    shutil.copytree(template, root)
    ids = rng.sample(range(examples), examples)
    requests = [[f"r{i}", ids[2 * i : 2 * i + 2]] for i in range(examples // 2 - 20)]
    done, died = 0, 0
    while died < kills:
        process = worker(root, write(tmp_path / "requests.json", requests[done:]))
        if rng.random() < 0.9:  # else perhaps while it opens the store
            process.stdout.readline()
        time.sleep(rng.uniform(0, 0.12))
        process.kill()
        said = process.communicate(timeout=60)[0].split()
        died += process.returncode == -9
        done += sum(word.startswith("r") and word != "ready" for word in said)
        assert done < len(requests), "the stream of deletions is too short"
        check_after_restart(root, requests[:done])
    requests = requests[: done + 1]  # the last one perhaps begun
    opened = disk.open(root)
    stores.carry_out(opened, requests)
    content = stores.content(opened)
    assert state.status(opened)["requests"] == {"healed": done + 1} and verify.verify(opened.root)["ok"]
    disk.close(opened)
    assert done > kills / 4  # it was killed at work
    return content, never_killed(tmp_path, template, requests)


def test_kill_9_at_random_moments(tmp_path):
    killed, peaceful = kill_at_random(tmp_path, 20, seed=0)
    assert killed == peaceful


@pytest.mark.slow
def test_kill_9_at_two_hundred_random_moments(tmp_path):
    killed, peaceful = kill_at_random(tmp_path, 200, seed=1)
    assert killed == peaceful
