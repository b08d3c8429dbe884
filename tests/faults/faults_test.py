"""A short version of each attack, and that the attacks see what is planted for them."""

import os
import random

import jax
import pytest

from s3t.store import deletions, disk
from tests.faults import children, kills, suite, tallies

ROUNDS = {
    "kills": 16,
    "copies": 10,
    "stops": 6,
    "crowds": 1,
    "disks": 10,
    "damage": 8,
    "forged": 8,
    "inputs": 6,
    "configs": 4,
}


@pytest.mark.parametrize("name", ROUNDS)
def test_an_attack_finds_nothing(name, capsys, monkeypatch):
    """Each in a process of its own, as `make faults` runs it."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir or "")
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    status = suite.main(["--only", name, "--rounds", str(ROUNDS[name]), "--seed", "0"])
    out, err = capsys.readouterr()
    assert (status, err) == (0, ""), out


@pytest.mark.slow
def test_trainings_may_die_at_any_moment(capsys):
    assert suite.main(["--only", "trainings", "--rounds", "3"]) == 0, capsys.readouterr()


def test_the_table_has_a_line_for_each_attack_and_its_faults_decide():
    one, other = tallies.Tally("one", tried=2, seen=2), tallies.Tally("other", tried=1)
    other.bad("lost", "planted")
    lines = suite.table([one, other]).splitlines()
    assert lines[0].split() == ["attack", "tried", "seen", "wrong", "lost", "served", "tracebacks", "outside", "seconds"]
    assert lines[2].split() == ["other", "1", "0", "0", "1", "0", "0", "0", "0"] and lines[3].split()[:5] == [
        "all", "3", "2", "0", "1",
    ]  # fmt: skip
    assert one.faults == 0 and other.faults == 1


def test_a_limit_ends_by_rounds_or_by_seconds():
    assert list(tallies.Limit(3)) == [0, 1, 2] and list(tallies.Limit(seconds=-1)) == []


def test_what_changes_beside_a_store_is_seen(tmp_path):
    room = tallies.Room.make(tmp_path)
    before = room.surroundings()
    room.store.mkdir()
    (room.store / "mine").touch()
    assert room.surroundings() == before
    (room.beside / "nodes" / "new").touch()
    assert room.surroundings() != before


def planted_kills(folder, plant):
    """What the attack by kills counts of a job that deletes, with a fault planted in the store."""
    room, tally = tallies.Room.make(folder), tallies.Tally("kills")
    job = next(job for job in kills.prepared(room, random.Random(0)) if job.name == "delete")
    peace = kills.in_peace(room, job)
    plant()
    # Which of its system calls commits a deletion depends on where Python finds its modules: some are spread over all.
    last = range(peace.calls - 20, peace.calls)
    for call in (*range(1, last.start, last.start // 20), *last):
        kills.killed_once(room, job, peace, tally, "planted", at_call=call)
    return tally


def acknowledge_first():
    """A deletion that is acknowledged before it is carried out."""
    real, child = disk.delete, children.child

    def delete(opened, ids, request):
        os.write(delete.writing, f"{request}\n".encode())
        return real(opened, ids, request)

    def remembering(work, writing, *more):
        delete.writing = writing
        child(work, writing, *more)

    disk.delete, children.child = delete, remembering


def keep_nodes():
    """A deletion after which all nodes serve."""
    deletions._nodes_with = lambda *_: []


@pytest.mark.parametrize("plant, kind", [(acknowledge_first, "lost"), (keep_nodes, "served")])
def test_a_planted_fault_is_counted(tmp_path, plant, kind):
    assert getattr(suite.apart(planted_kills, tmp_path, plant), kind) > 0
