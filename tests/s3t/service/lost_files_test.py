"""Files of nodes that were lost or damaged: they come back bit for bit or not at all."""

import dataclasses
import json
import shutil

import pytest

from s3t.service import environment, healing, verify
from s3t.store import disk, publishing, state
from s3t.store.ledger import database
from tests.helpers import builds, commands, stores

SOURCE = builds.make({})


def test_a_lost_file_comes_back_bit_for_bit(opened, template, capsys):
    """Of a parent and its child, and of a node whose deepest slice is another's first; deletions elsewhere heal beside."""
    bad, head = builds.damage(opened, 0, (0,))[0].stem, database.head(opened.ledger)
    gone = {disk.file_of(opened, builds.at(opened, *place).identity) for place in ((0, (0, 1)), (1, (1,)))}
    for path in gone:
        path.unlink()
    assert len(verify.verify(opened.root)["problems"]) == 3
    status, done, err = commands.run(capsys, "heal", "--store", opened.root)
    assert (status, err, done["trained"], done["state"]) == (0, "", 3, "complete")
    assert stores.content(opened) == stores.content(disk.look(template))
    rows = opened.ledger.execute("SELECT kind, detail FROM log WHERE seq > ?", head[:1]).fetchall()
    assert [(kind, json.loads(detail)) for kind, detail in rows] == [
        ("restored", {"identity": name})
        for name in (bad, *(builds.at(opened, *place).identity for place in ((1, (1,)), (0, (0, 1)))))
    ]
    assert verify.verify(opened.root)["ok"] and healing.train_missing(opened, SOURCE) == (0, 0)


def test_a_file_that_other_bytes_would_replace_is_not_restored(opened, capsys, monkeypatch):
    """On another stack: its own children are held up, all else is healed; where it was made it comes back."""
    path, whole = builds.damage(opened, 0, (0,))
    altered, here = path.read_bytes(), environment.here()
    disk.delete(opened, [stores.ids_at(opened, 1, 0)[0]], "r")
    disk.delete(opened, [stores.ids_at(opened, 0, 1)[0]], "s")
    with monkeypatch.context() as patch:
        patch.setattr(environment, "here", lambda: here | {"threads": 99})
        status, out, err = commands.run(capsys, "heal", "--store", opened.root)
    assert (status, out) == (2, None) and f"of node {path.stem} are not those that were published, and what is" in err
    assert "not, byte for byte, what was published: restore it from a copy, or heal where it was trained; all else" in err
    assert path.read_bytes() == altered
    assert {(node.shard, node.slices) for node in publishing.live(opened)} == set(builds.NODES) - {(0, (0, 1))}
    assert state.status(opened)["requests"] == {"healed": 1, "purged": 1}
    assert healing.heal(opened, SOURCE) == {"trained": 2, "discarded": 0, "skipped": 0, "healed": ["s"]}
    assert path.read_bytes() == whole and verify.verify(opened.root)["ok"]


def test_a_lost_file_comes_back_with_what_its_node_saw(opened):
    """Examples that came later are not in it; a deletion while it is trained takes it out of service for good."""
    path, whole = builds.damage(opened, 0, (1,))
    disk.register(opened, [3], [0], [1])
    assert healing.train_missing(opened, SOURCE) == (1, 0) and path.read_bytes() == whole
    disk.delete(opened, [3], "later")
    builds.damage(opened, 0, (1,))
    one, asked = stores.ids_at(opened, 0, 1)[-1], []

    def fetch(ids):
        if not asked:
            disk.delete(opened, [one], "during")
        asked.append(set(ids))
        return SOURCE.fetch(ids)

    done = healing.heal(opened, dataclasses.replace(SOURCE, fetch=fetch))
    assert done == {"trained": 2, "discarded": 1, "skipped": 0, "healed": ["later", "during"]}
    assert not path.exists() and one in asked[0] and one not in asked[1] and verify.verify(opened.root)["ok"]


def test_a_ledger_that_deletes_in_the_future_is_not_healed(opened, capsys):
    """A row that is not there yet outdates every draft: no round could ever publish it."""
    one, other = stores.ids_at(opened, 0, 0)[:2]
    disk.delete(opened, [one], "r")
    opened.ledger.execute("UPDATE examples SET deleted = 999 WHERE id = ?", (other,))
    status, out, err = commands.run(capsys, "heal", "--store", opened.root)
    assert (status, out) == (2, None) and f"{opened.root} cannot be trusted, the deletion of id {other} is not what" in err
    assert state.status(opened)["requests"] == {"deactivated": 1}
    status, proof, _ = commands.run(capsys, "verify", "--store", opened.root)
    assert status == 1 and proof["problems"] == [f"the deletion of id {other} is not what the ledger's rows say"]


def test_a_lost_directory_is_told_and_healed(opened, capsys):
    before = stores.content(opened)
    shutil.rmtree(opened.root / "nodes")
    for words in (("status",), ("verify",), ("verify", "--replay", "all")):
        status, result, err = commands.run(capsys, *words, "--store", opened.root)
        assert (status, err, result["ok"]) == (1, "", False) and len(result["problems"]) == 6
    assert commands.run(capsys, "heal", "--store", opened.root)[1]["trained"] == 6
    assert stores.content(opened) == before and verify.verify(opened.root)["ok"]


def test_something_in_a_file_s_place_holds_up_no_other_node(opened, capsys):
    before, bad, lost = stores.content(opened)[0], builds.at(opened, 0, (0,)), builds.at(opened, 1, (1,))
    disk.file_of(opened, bad.identity).unlink()
    disk.file_of(opened, bad.identity).mkdir()
    disk.file_of(opened, lost.identity).unlink()
    status, _, err = commands.run(capsys, "heal", "--store", opened.root)
    assert status == 2 and str(disk.file_of(opened, bad.identity)) in err and "all else is trained" in err
    assert list(publishing.damaged(opened)) == [bad] and {path.name for path in (opened.root / "nodes").iterdir()} == set(
        before
    )
    disk.file_of(opened, bad.identity).rmdir()
    assert commands.run(capsys, "heal", "--store", opened.root)[0] == 0 and stores.content(opened)[0] == before


def test_an_example_that_the_source_lacks_holds_up_its_own_lost_nodes_alone(opened):
    before, lacking = stores.content(opened)[0], stores.ids_at(opened, 0, 1)[0]
    shutil.rmtree(opened.root / "nodes")
    with pytest.raises(ValueError, match=rf"the toy data have no example {lacking}: .* \(and 1 more nodes\); all else"):
        healing.heal(opened, builds.lacking_example(lacking))
    assert {(node.shard, node.slices) for node in publishing.damaged(opened)} == {(0, (1,)), (0, (0, 1))}
    healing.heal(opened, SOURCE)
    assert stores.content(opened)[0] == before
