"""The gate: it opens only if every claim is proved."""

import pytest

from s3t.service import environment, release
from s3t.store import database, disk
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
