"""The store: publishing, deleting, purging, proofs, the command line, two processes, and kill -9 at any moment."""

import dataclasses
import io
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save

from experiments.benchmarks import s3t_ledger
from s3t.__main__ import main
from s3t.service import verify
from s3t.store import certificates, database, deletions, disk, publishing, records, state
from s3t.store.files import flush, sync
from s3t.store.manifests import plan_of
from tests.helpers import stores

ROOT = Path(__file__).resolve().parents[3]


def files(opened):
    return {path.name for path in (opened.root / "nodes").iterdir()}


def live_files(opened):
    return {f"{node.identity}.safetensors" for node in publishing.live(opened)}


def at(opened, shard, slices):
    return next(node for node in publishing.live(opened) if (node.shard, node.slices) == (shard, slices))


# making and opening


def test_a_store_is_made_once_and_reads_as_made(tmp_path):
    made = stores.make(tmp_path / "deep" / "store")
    assert made.manifest == stores.manifest() == disk.look(tmp_path / "deep" / "store").manifest
    assert stores.manifest().nodes == plan_of(made.manifest).nodes
    for again in (tmp_path / "deep" / "store", tmp_path / "deep"):
        with pytest.raises(ValueError, match="is not empty"):
            stores.make(again)
    with pytest.raises(ValueError, match=r"there is no store at .*: it has no manifest.json"):
        disk.open(tmp_path / "nothing")
    (made.root / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="is not a manifest"):
        disk.look(made.root)


def test_of_two_who_make_a_store_one_wins(tmp_path, monkeypatch):
    """The second comes at every step of the first: it is refused, and the first ends as if it had been alone."""
    root, asked = tmp_path / "store", []

    def refused(function):
        def called(*args, **more):
            monkeypatch.undo()  # the second makes no third
            with pytest.raises(ValueError, match=r"another process makes a store in .*: wait for it, or choose"):
                stores.make(root, shards=1)
            asked.append(function.__name__)
            return function(*args, **more)

        return called

    steps = {
        "s3t.store.files.flush": flush,
        "s3t.store.database.create_ledger": database.create_ledger,
        "pathlib.Path.replace": Path.replace,
    }
    for step, (name, function) in enumerate({**steps, "s3t.store.files.sync": sync}.items()):
        monkeypatch.setattr(name, refused(function))
        made = stores.make(root)
        assert len(asked) == step + 1 and made.manifest == stores.manifest() and verify.verify(root)["ok"]
        assert sorted(path.name for path in root.iterdir() if "ledger" not in path.name) == ["manifest.json", "nodes"]
        assert records.counts(made.ledger)["examples"] == 60
        with pytest.raises(ValueError, match="is not empty"):
            stores.make(root)
        disk.close(made)
        shutil.rmtree(root)


def test_of_many_threads_that_make_a_store_one_wins(tmp_path):
    barrier = threading.Barrier(8)

    def make(shards):
        barrier.wait()
        try:
            disk.close(stores.make(tmp_path / "store", shards=shards))
        except ValueError as error:
            return str(error)
        return shards

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(make, range(1, 9)))
    (winner,) = (one for one in told if isinstance(one, int))
    assert all(one == winner or "another process makes a store" in one or "is not empty" in one for one in told)
    assert disk.look(tmp_path / "store").manifest == stores.manifest(shards=winner)
    assert verify.verify(tmp_path / "store")["ok"] and verify.verify(tmp_path / "store")["examples"] == 60


@pytest.mark.parametrize(
    "change, message",
    [
        ({"shards": 0}, "at least 1 shard"),
        ({"nodes": ((0, 1),)}, "not those of a plan"),
        ({"nodes": ((5,),)}, "slices from 0 to 2"),
        ({"factory": "module.make"}, "module:function"),
        ({"hyper": {"rate": float("nan")}}, "JSON"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        disk.create(tmp_path / "store", dataclasses.replace(stores.manifest(), **change))
    assert not (tmp_path / "store").exists()


def test_places_are_those_of_the_store(tmp_path):
    made = stores.make(tmp_path / "store")
    for shard, slice_, message in (
        (2, 0, "a shard .* between 0 and 1, got 2"),
        (0, -1, "a slice .* between 0 and 2, got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            disk.register(made, [100], [shard], [slice_])
    assert disk.register(made, np.array([100]), np.array([1]), np.array([2])) == database.head(made.ledger).digest


# nodes


def test_a_draft_is_named_by_who_is_in_it(opened):
    drafted = publishing.draft_node(opened, 1, (0, 1))
    assert set(drafted.ids) == {
        i for i in range(60) if (stores.places([i]).shard[0], stores.places([i]).slice[0]) in ((1, 0), (1, 1))
    }
    assert drafted.identity == at(opened, 1, (0, 1)).identity and drafted.ids_root == certificates.merkle_root(drafted.ids)
    assert publishing.draft_node(opened, 1, [0, 1]) == drafted
    disk.delete(opened, stores.ids_at(opened, 1, 2)[:1])
    assert publishing.draft_node(opened, 1, (0, 1)).identity == drafted.identity
    gone = stores.ids_at(opened, 1, 0)[0]
    disk.delete(opened, [gone])
    changed = publishing.draft_node(opened, 1, (0, 1))
    assert changed.identity != drafted.identity and set(changed.ids) == set(drafted.ids) - {gone}
    for bad in ((0, (1, 0)), (2, (0,)), (-1, (0,))):
        with pytest.raises(ValueError, match="the plan has no node"):
            publishing.draft_node(opened, *bad)


def test_what_is_published_comes_back_bit_for_bit(opened):
    disk.delete(opened, stores.ids_at(opened, 0, 0)[:1])
    drafted = publishing.draft_node(opened, 0, (0,))
    tensors = {
        "a": np.array([[np.nan, -0.0], [1, 2]], np.float32),
        "b": np.arange(3, dtype=np.int64)[::-1],
        "c": np.array([1.5, -2], ml_dtypes.bfloat16),
        "d": np.float64(2.5).reshape(()),
        "e": np.zeros((0, 3), np.uint8),
    }
    certificate = publishing.publish(opened, drafted, tensors, {"threads": (1, 2)}, None)
    found, loaded = publishing.load(opened, at(opened, 0, (0,)))
    assert certificates.to_json(found) == certificates.to_json(certificate)
    assert (found.examples, found.ids_root, found.parent, found.shard, found.slices) == (
        len(drafted.ids), drafted.ids_root, None, 0, (0,)
    )  # fmt: skip
    assert set(loaded) == set(tensors) and found.output == certificates.parameters_digest(loaded)
    for name, tensor in tensors.items():
        assert (loaded[name].dtype, loaded[name].shape) == (tensor.dtype, tensor.shape)
        assert loaded[name].tobytes() == tensor.tobytes()
    assert verify.verify(opened.root)["ok"]


def test_certificates_lead_up_to_the_backbone(opened):
    for node in publishing.live(opened):
        certificate, _ = publishing.load(opened, node)
        expected = at(opened, node.shard, node.slices[:-1]).certificate if len(node.slices) > 1 else None
        assert certificate.parent == expected and certificates.identity_of(certificate) == node.identity


def test_a_deletion_during_training_discards_the_node_and_writes_nothing(opened):
    one, two = stores.ids_at(opened, 0, 0)[:2]
    disk.delete(opened, [one])
    disk.purge(opened)
    drafted = publishing.draft_node(opened, 0, (0,))
    disk.delete(opened, [two])
    before = files(opened)
    with pytest.raises(records.Outdated):
        publishing.publish(opened, drafted, stores.tensors(drafted.identity), {}, None)
    assert files(opened) == before and verify.verify(opened.root)["ok"]


# deletion


def test_the_answer_to_a_deletion_is_the_promised_object(opened):
    one, two = stores.ids_at(opened, 0, 1)[:2]
    first = disk.delete(opened, [one], "first")
    assert list(first) == ["request", "state", "ids", "already", "unknown", "nodes_dropped", "head", "acknowledged_ms"]
    again = disk.delete(opened, [one, 777, two])
    assert (first["nodes_dropped"], again["nodes_dropped"]) == (4, 0)  # 01, 012, 1 and 12
    assert (again["ids"], again["already"], again["unknown"], again["state"]) == ([two], [one], [777], "deactivated")
    assert again["request"] not in ("", "first") and again["head"] == database.head(opened.ledger).digest
    assert 0 < again["acknowledged_ms"] < 10_000
    json.dumps([first, again])


def test_deleting_purging_healing(opened):
    before, files_before = stores.content(opened)[1], files(opened)
    one = stores.ids_at(opened, 0, 1)[0]
    disk.delete(opened, [one], "r")
    kept = live_files(opened)
    assert files(opened) == files_before > kept and {node.shard for node in publishing.live(opened)} == {0, 1}
    assert all(1 not in node.slices for node in publishing.live(opened) if node.shard == 0)
    assert state.mark_healed(opened) == () and state.status(opened)["requests"] == {"deactivated": 1}
    assert disk.purge(opened) == ("r",) and disk.purge(opened) == () and files(opened) == kept
    assert state.mark_healed(opened) == ()
    missing = publishing.missing(opened)
    assert set(missing) == {(0, slices) for slices in opened.manifest.nodes if 1 in slices}
    assert [len(slices) for _, slices in missing] == sorted(len(slices) for _, slices in missing)
    stores.fill(opened)
    assert state.mark_healed(opened) == ("r",) and state.mark_healed(opened) == () and publishing.missing(opened) == ()
    after = stores.content(opened)[1]
    assert {node[1:] for node in after} == {node[1:] for node in before} and len(after & before) == len(kept)
    assert state.status(opened)["requests"] == {"healed": 1} and verify.verify(opened.root)["ok"]


def test_a_node_without_examples_is_not_waited_for(tmp_path):
    opened = stores.fill(stores.make(tmp_path / "store", examples=6, shards=1, sequences=[(0, 1), (1,)], slices=2))
    disk.delete(opened, stores.ids_at(opened, 0, 1), "r")
    disk.purge(opened)
    assert state.mark_healed(opened) == ()
    stores.fill(opened)
    assert publishing.missing(opened) == ((0, (1,)),) and state.mark_healed(opened) == ("r",)


def test_a_dead_ensemble_says_so(opened):
    disk.delete(opened, [stores.ids_at(opened, 0, slice_)[0] for slice_ in range(3)])
    status = state.status(opened)
    assert (status["depth"], status["state"], status["ok"]) == ([0, 3], "partial", True)
    disk.delete(opened, [stores.ids_at(opened, 1, slice_)[0] for slice_ in range(3)])
    status = state.status(opened)
    assert (status["depth"], status["state"], status["ok"]) == ([0, 0], "needs rebuild", False)
    assert status["problems"] == ["needs rebuild: no shard has a model"]
    assert verify.verify(opened.root)["ok"]  # what serves nothing serves nothing deleted


def test_a_node_that_never_saw_the_example_stays(opened):
    disk.register(opened, [100, 101], [0, 0], [1, 1])
    assert disk.delete(opened, [100])["nodes_dropped"] == 0 and verify.verify(opened.root)["ok"]


# opening again


def test_opening_finishes_what_was_begun(opened):
    disk.delete(opened, stores.ids_at(opened, 0, 1)[:1], "r")
    nodes = opened.root / "nodes"
    (nodes / "half.tmp").write_bytes(b"x")
    (nodes / f"{'0' * 64}.safetensors").write_bytes(b"never published")
    looked = disk.look(opened.root)
    assert files(looked) - live_files(looked) and state.status(looked)["nodes"]["leftovers"] == 6
    assert verify.verify(looked.root)["ok"] and verify.verify(looked.root)["leftovers"] == 6
    again = disk.open(opened.root)
    assert files(again) == live_files(again) and state.status(again)["requests"] == {"purged": 1}


# verify


def test_verify_counts_what_it_saw(opened):
    receipt = disk.delete(opened, stores.ids_at(opened, 0, 1)[:1], "r")["head"]
    disk.purge(opened)
    result = verify.verify(opened.root, receipt)
    assert result == {
        "ok": True, "problems": [], "nodes": 10, "examples": 60, "deleted": 1, "requests": {"purged": 1}, "leftovers": 0,
        "rows": 19, "head": database.head(opened.ledger).digest,
    }  # fmt: skip
    assert not verify.verify(opened.root, "0" * 64)["ok"]


def problem(opened, *expect_heads):
    result = verify.verify(opened.root, *expect_heads)
    assert result["ok"] == (not result["problems"])
    return " | ".join(result["problems"])


def rewrite(opened, node, tensors=None, **changes):
    """Put another file in a node's place."""
    certificate, old = publishing.load(opened, node)
    tensors = tensors or old
    certificate = dataclasses.replace(certificate, **changes)
    data = save(tensors, {"certificate": certificates.to_json(certificate)})
    (opened.root / "nodes" / f"{node.identity}.safetensors").write_bytes(data)
    return certificate


def test_altered_files_show(opened):
    node = at(opened, 0, (1, 2))
    path = opened.root / "nodes" / f"{node.identity}.safetensors"
    original = path.read_bytes()
    for data, message in ((b"", "damaged"), (original[:-1], "damaged"), (b"\xff" * 100, "damaged"), (None, "missing")):
        path.write_bytes(data) if data is not None else path.unlink()
        assert message in problem(opened) and node.identity in problem(opened)
    path.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    assert "parameters of node" in problem(opened)
    path.write_bytes(original)
    rewrite(opened, node, output="0" * 64)
    assert "certificate of node" in problem(opened)
    path.write_bytes(save(stores.tensors("0" * 8)))
    assert "a certificate is JSON" in problem(opened)
    path.write_bytes(original)
    (opened.root / "manifest.json").write_bytes((opened.root / "manifest.json").read_bytes().replace(b"0.1", b"0.2"))
    assert "the manifest is not the one" in problem(opened)


def test_a_purged_file_that_comes_back_shows(opened):
    node = at(opened, 0, (1, 2))
    path = opened.root / "nodes" / f"{node.identity}.safetensors"
    data = path.read_bytes()
    disk.delete(opened, stores.ids_at(opened, 0, 1)[:1], "r")
    disk.purge(opened)
    path.write_bytes(data)
    assert problem(opened) == f"node {node.identity} was purged, but its file is there"
    disk.open(opened.root)
    assert problem(opened) == ""


@pytest.mark.parametrize(
    "change, message",
    [
        ({"ids_root": "0" * 64}, "trained on the ids"),
        ({"examples": 3}, "trained on the ids"),
        ({"root_key": 8}, "otherwise than the manifest says"),
        ({"hyper": {"rate": 0.2}}, "otherwise than the manifest says"),
        ({"backbone": "other"}, "otherwise than the manifest says"),
        ({"shard": 1}, "otherwise than the manifest says"),
        ({"slices": (2, 1)}, "otherwise than the manifest says"),
        ({"parent": None}, "no serving parent"),
        ({"parent": "0" * 64}, "no serving parent"),
        ({"slices": (1,)}, "does not bear the name"),
    ],
)
def test_a_certificate_that_lies_shows_even_if_it_was_published(opened, change, message):
    """A liar with the ledger in hand: a file published with a certificate that says something else."""
    node = at(opened, 0, (1, 2))
    certificate = rewrite(opened, node, **change)
    lying = records.PublishedNode("f" * 64, 0, (1, 2), node.as_of, certificates.certificate_digest(certificate))
    nodes = opened.root / "nodes"
    place = lambda: (nodes / f"{node.identity}.safetensors").rename(nodes / f"{lying.identity}.safetensors")  # noqa: E731
    records.record_node(opened.ledger, lying, at(opened, 0, (1,)).identity, place)
    assert f"node {lying.identity}: {message}" in problem(opened).replace("was not trained", "trained").replace(
        "was made ", ""
    ).replace("has no", "no")


def test_a_served_node_that_holds_a_deleted_id_shows(opened):
    """A ledger whose deletion forgot to drop a node, chain and tables alike."""
    one = stores.ids_at(opened, 0, 1)[0]
    opened.ledger.execute("CREATE TEMP TABLE hidden AS SELECT * FROM nodes WHERE shard = 0")
    opened.ledger.execute("DELETE FROM nodes WHERE shard = 0")
    disk.delete(opened, [one])
    opened.ledger.execute("INSERT INTO nodes SELECT * FROM hidden")
    found = verify.verify(opened.root)["problems"]
    assert found and all("holds a deleted id" in text for text in found) and len(found) == 4


def test_an_unreadable_ledger_shows(opened):
    disk.close(opened)
    for path in opened.root.glob("ledger.sqlite*"):
        path.write_bytes(b"not a database" * 100)
    assert problem(opened) == f"{opened.root}'s ledger is damaged (file is not a database): restore it from a copy"


def test_anyone_can_check_the_proofs(opened):
    gone, kept = stores.ids_at(opened, 0, 1)[:2]
    disk.delete(opened, [gone])
    proofs = json.loads(json.dumps([verify.proofs(opened, one) for one in (gone, kept, 10**6)]))
    assert [len(proof["nodes"]) for proof in proofs] == [10] * 3 and proofs[0]["head"] == database.head(
        opened.ledger
    ).digest
    stores.fill(opened)
    for proof in (*proofs, verify.proofs(opened, gone), verify.proofs(opened, kept)):
        for node in proof["nodes"]:
            certificate = certificates.from_json(node["certificate"])
            holds = proof["id"] == kept and certificate.shard == 0 and 1 in certificate.slices
            assert node["holds"] == holds == certificates.check_inclusion(certificate.ids_root, proof["id"], node["proof"])
            assert certificates.check_exclusion(certificate.ids_root, proof["id"], node["proof"]) != holds
    assert sum(node["holds"] for node in verify.proofs(opened, kept)["nodes"]) == 4


# command line


def run(capsys, *words):
    """(status, object on standard output or None, standard error)."""
    try:
        status = main([*map(str, words), "--json"])
    except SystemExit as left:
        status = left.code
    out, err = capsys.readouterr()
    assert out.count("\n") == (1 if out else 0) and err.count("\n") == (1 if err else 0)
    return status, json.loads(out) if out else None, err


def test_the_command_line_deletes_and_verifies(opened, capsys):
    root, (one, two) = opened.root, stores.ids_at(opened, 0, 1)[:2]
    status, done, err = run(capsys, "delete", "--store", root, "--ids", f"{one},{two},{one},999", "--request-id", "R")
    assert (status, err) == (0, "")
    assert {**done, "acknowledged_ms": 0} == {
        "request": "R", "state": "deactivated", "ids": [one, two], "already": [], "unknown": [999], "nodes_dropped": 4,
        "head": deletions.answer(opened.ledger, "R").head, "acknowledged_ms": 0,
    }  # fmt: skip
    assert files(opened) == live_files(opened) and state.status(opened)["requests"] == {"purged": 1}
    again = run(capsys, "delete", "--store", root, "--ids", f"999,{two},{one}", "--request-id", "R")
    assert again[0] == 0 and {**again[1], "acknowledged_ms": 0} == {**done, "acknowledged_ms": 0}
    already = run(capsys, "delete", "--store", root, "--ids", one)
    assert already[0] == 0 and (already[1]["ids"], already[1]["already"], already[1]["nodes_dropped"]) == ([], [one], 0)
    assert run(capsys, "verify", "--store", root, "--expect-head", done["head"])[:2] == (0, verify.verify(opened.root))
    assert run(capsys, "status", "--store", root)[:2] == (0, state.status(opened))
    wrong = run(capsys, "verify", "--store", root, "--expect-head", done["head"], "--expect-head", "0" * 64)
    assert wrong[0] == 1 and not wrong[1]["ok"] and "cut off" in wrong[1]["problems"][0]


def test_ids_are_read_from_a_file_or_standard_input(opened, capsys, tmp_path, monkeypatch):
    """A command line holds 128 KiB."""
    one, two, three = stores.ids_at(opened, 0, 1)[:3]
    path = tmp_path / "ids"
    path.write_text(f"{one}, {two}\n" + " ".join(map(str, range(10**6, 10**6 + 40_000))) + "\n")
    done = run(capsys, "delete", "--store", opened.root, "--ids", f"@{path}")[1]
    assert done["ids"] == [one, two] and len(done["unknown"]) == 40_000
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{three}\n"))
    assert run(capsys, "delete", "--store", opened.root, "--ids", "@-")[1]["ids"] == [three]
    mistakes = (b" ,\n", "holds no whole number"), (b"1 x", "got 'x'"), (b"\xff", "cannot be read ("), (None, "No such")
    for text, message in mistakes:
        path.write_bytes(text) if text else path.unlink()
        status, out, err = run(capsys, "delete", "--store", opened.root, "--ids", f"@{path}")
        assert (status, out) == (2, None) and message in err and "nothing was changed" in err


def test_the_command_line_proves_who_was_trained_on_what(opened, capsys):
    gone, there = stores.ids_at(opened, 0, 1)[:2]
    disk.delete(opened, [gone], "R")
    disk.purge(opened)
    stores.fill(opened)
    status, result, _ = run(capsys, "verify", "--store", opened.root, "--prove", f"{gone},{there}")
    assert status == 0 and [proof["id"] for proof in result["proofs"]] == [gone, there]
    for proof, holders in zip(result["proofs"], (0, 4), strict=True):
        assert len(proof["nodes"]) == 14 and sum(node["holds"] for node in proof["nodes"]) == holders
        for node in proof["nodes"]:
            check = certificates.check_inclusion if node["holds"] else certificates.check_exclusion
            assert check(certificates.from_json(node["certificate"]).ids_root, proof["id"], node["proof"])
    assert main(["verify", "--store", str(opened.root), "--prove", str(there)]) == 0
    assert f"id {there}: 4 of 14 serving nodes hold it" in capsys.readouterr().out


def test_the_command_line_names_mistakes(opened, capsys, tmp_path):
    head = database.head(opened.ledger)
    for ids in ("x", "1,", "", "1.5", "1_2", "1e3", "٣", f"1,{2**63}", "0x10", "1 2", "9" * 5000):
        status, out, err = run(capsys, "delete", "--store", opened.root, f"--ids={ids}")
        assert (status, out) == (2, None) and err.startswith("error: ") and len(err) < 300
    disk.delete(opened, [1], "R")
    for words, message in (
        (("delete", "--store", opened.root, "--ids", "2", "--request-id", "R"), "for other ids"),
        (("delete", "--store", opened.root, "--ids", "2", "--request-id", ""), "printable"),
        (("delete", "--store", tmp_path / "no", "--ids", "2"), "there is no store"),
        (("verify", "--store", tmp_path), "there is no store"),
        (("status",), "--store"),
    ):
        status, out, err = run(capsys, *words)
        assert (status, out) == (2, None) and message in err
    assert [row for (row,) in opened.ledger.execute("SELECT kind FROM log WHERE seq > ?", head[:1])] == [
        "received", "deactivated",  # of R; what is refused finishes nothing
    ]  # fmt: skip


def test_the_command_line_in_words(opened, capsys):
    one = stores.ids_at(opened, 0, 1)[0]
    assert main(["delete", "--store", str(opened.root), "--ids", f"{one},999", "--request-id", "R"]) == 0
    assert "request R: 1 examples deleted, 4 nodes dropped\nunknown: 999\nhead: " in capsys.readouterr().out
    assert main(["status", "--store", str(opened.root)]) == 0
    assert "partial: depth served by shard 2, 3\nnodes: 10 live, 4 missing, 0 files" in capsys.readouterr().out
    assert main(["verify", "--store", str(opened.root)]) == 0
    assert "ok: none of 10 serving nodes holds one of 1 deleted examples" in capsys.readouterr().out
    assert main(["verify", "--store", str(opened.root), "--expect-head", "x"]) == 1
    assert "problem: the ledger never had the head x" in capsys.readouterr().out


def test_deleting_needs_no_jax():
    code = "import sys, s3t.store, s3t.__main__; sys.exit(bool({'jax', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_benchmark_prints_a_row(tmp_path):
    cells = s3t_ledger.row(tmp_path / "store", 60, 1000).split()
    assert cells[:2] == ["60", "1000"] and len(cells) == 9 and all(float(cell) >= 0 for cell in cells)


# two processes, and kill -9


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
    assert files(opened) == live_files(opened)
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
    """Kill a deleting process at random moments, restart, and end where a store that was never killed ends."""
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
    assert stores.content(opened) == never_killed(tmp_path, template, requests)
    assert state.status(opened)["requests"] == {"healed": done + 1} and verify.verify(opened.root)["ok"]
    disk.close(opened)
    assert done > kills / 4  # it was killed at work


def test_kill_9_at_random_moments(tmp_path):
    kill_at_random(tmp_path, 20, seed=0)


@pytest.mark.slow
def test_kill_9_at_two_hundred_random_moments(tmp_path):
    kill_at_random(tmp_path, 200, seed=1)
