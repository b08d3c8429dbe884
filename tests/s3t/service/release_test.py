"""The gate: it opens only if every claim is proved."""

import sqlite3

import pytest

from s3t.service import environment, release
from s3t.store import disk
from s3t.store.ledger import database
from tests.helpers import builds, commands, stores

SOURCE = builds.make({})


@pytest.fixture
def opened(tmp_path, template):
    with stores.copied(template, tmp_path / "store") as opened:
        yield opened


def asked(opened, *heads, which="all"):
    result = release.release(opened, SOURCE, which, heads)
    return result["ok"], result["verdict"], [claim["verdict"] for claim in result["claims"]]


def test_a_sound_store_passes_and_only_with_a_head_that_was_kept(opened, capsys):
    head = database.head(opened.ledger).digest
    assert asked(opened, head) == (True, "proved", ["proved"] * 5)
    assert asked(opened) == (False, "nothing was proved", ["proved", "nothing was proved", "proved", "proved", "proved"])
    said = release.release(opened, SOURCE, 2, [head])["claims"][-1]
    assert (said["verdict"], said["reason"]) == ("proved", "2 of 6 nodes")
    assert asked(opened, "0" * 64)[1:] == ("refuted", ["proved", "refuted", "proved", "proved", "proved"])
    words = ("release", "--store", opened.root, "--replay", "1")
    assert commands.run(capsys, *words)[0] == 3
    status, result, _ = commands.run(capsys, *words, "--expect-head", head)
    assert status == 0 and result["ok"] and result["head"] == head
    assert commands.run(capsys, *words, "--expect-head", "x")[0] == 1


def test_a_node_that_cannot_be_judged_keeps_the_store_back(opened, monkeypatch):
    here = environment.here()
    monkeypatch.setattr(environment, "here", lambda: here | {"threads": 99})
    assert asked(opened, database.head(opened.ledger).digest)[1:] == (
        "nothing was proved",
        ["proved"] * 4 + ["nothing was proved"],
    )


def test_what_is_not_purged_or_serves_nothing_keeps_the_store_back(opened):
    head = disk.delete(opened, [stores.ids_at(opened, 0, 0)[0], stores.ids_at(opened, 0, 1)[0]])["head"]
    assert asked(opened, head)[2] == ["proved", "proved", "refuted", "refuted", "proved"]
    disk.purge(opened)
    assert asked(opened, head)[2] == ["proved", "proved", "proved", "refuted", "proved"]


def test_a_damaged_node_is_refuted_and_nothing_is_trained_for_it(opened):
    builds.damage(opened, 0, (0,))
    assert asked(opened, database.head(opened.ledger).digest)[1:] == (
        "refuted",
        ["refuted", "proved", "proved", "proved", "nothing was proved"],
    )


def test_what_heads_show_is_said_and_no_more(opened):
    """A head from before every deletion is in every copy."""
    first = opened.ledger.execute("SELECT digest FROM log WHERE seq = 1").fetchone()[0]
    ids = stores.ids_at(opened, 0, 1)
    middle = disk.delete(opened, ids[:1])["head"]
    disk.delete(opened, ids[1:2])
    found = release._heads(opened, [first])
    assert found.verdict == "proved" and found.claim == "the ledger holds the 1 heads that were given"
    assert found.reason == (
        "the newest is of row 1: 0 deletions stand up to it, 2 after it; "
        "a copy from before that row is excluded, one from after it is not"
    )
    assert "1 deletions stand up to it, 1 after it" in release._heads(opened, [middle, first]).reason
    assert release._heads(opened, []).verdict == "nothing was proved"


def test_a_store_on_a_disk_that_is_read_only_is_verified_and_released(opened, capsys, monkeypatch):
    """SQLite makes files beside the ledger otherwise, even to read it."""
    head = database.head(opened.ledger).digest
    disk.close(opened)
    probed, modes = database._probed, []

    def read_only(path, mode, any_thread):
        modes.append(mode)
        if mode == "rw":
            error = sqlite3.OperationalError("unable to open database file")
            error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
            raise error
        return probed(path, mode, any_thread)

    with monkeypatch.context() as patched:
        patched.setattr(database, "_probed", read_only)
        name = stores.at(opened_again := disk.look(opened.root, read_only=True), 0, (0,)).identity
        disk.close(opened_again)
        for words in (("verify", "--replay", name), ("release", "--replay", name, "--expect-head", head)):
            status, result, err = commands.run(capsys, *words, "--store", opened.root)
            assert (status, err, result["ok"]) == (0, "", True)
    assert "ro&immutable=1" in modes
