"""A server whose store changes: its memory follows the ledger, files go and come back, processes delete."""

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from s3t.cli import main
from s3t.plans.structure import make_plan
from s3t.service import ensemble, verify
from s3t.store import disk, publishing
from s3t.store.ledger import database, records
from s3t.training.source import to_tensors
from tests.helpers import servers, stacks
from tests.helpers.answers import PLAN, logits_of, twin
from tests.helpers.compilations import counted_compilations
from unlearn import tree

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return servers.full(tmp_path_factory.mktemp("template") / "store")


# memory follows the ledger


def test_deletions_purges_and_heals_compile_nothing(opened):
    server, x = servers.server(opened), servers.inputs()
    before = server.predict(x).logits
    with counted_compilations() as compiled:
        for shard, slice_ in [(0, 1), (0, 3), (1, 2), (0, 0), (0, 2)]:
            disk.delete(opened, servers.ids_at(opened, shard, slice_)[:1])
            server.predict(x)
            disk.purge(opened)
            server.predict(x)
        assert server.view.depth == (0, 3)
        healed = servers.fill(opened)
        after = server.predict(x)
        assert after.depth == (4, 4) and not np.array_equal(after.logits, before)
        assert not compiled
        jax.jit(lambda x: x + 1)(1.0)
        assert compiled  # the counter counts
    np.testing.assert_allclose(after.logits, twin(healed, x)[0], rtol=1e-5, atol=1e-5)


def test_rows_of_dropped_nodes_are_overwritten_in_place(opened):
    server = servers.server(opened)
    places = lambda: [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(server.bank)]  # noqa: E731
    where, old = places(), server.bank
    seats = dict(server.view.seats)
    disk.delete(opened, servers.ids_at(opened, 0, 1)[:1])
    server.refresh()
    dead = [seat for name, seat in seats.items() if name not in server.view.seats]
    assert len(dead) == 8 and all(seat.node.shard == 0 and 1 in seat.node.slices for seat in dead)
    held = jax.device_get(server.bank)
    for name, seat in seats.items():
        part = jax.tree.map(lambda leaf, seat=seat: leaf[seat.row], held[len(seat.node.slices) - 1])
        leaves = jax.tree.leaves(part)
        assert all(leaf.any() for leaf in leaves) if name in server.view.seats else not any(leaf.any() for leaf in leaves)
    assert places() == where
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old))
    servers.fill(opened)
    server.refresh()
    assert {(len(s.node.slices), s.row) for s in server.view.seats.values()} == {
        (len(s.node.slices), s.row) for s in seats.values()
    }


def test_a_deletion_while_logits_are_computed_is_heeded(opened):
    server, x = servers.server(opened), servers.inputs(4)
    server.predict(x)
    compute, calls = server.ensemble, []

    def interrupted(*args):
        calls.append(1)
        logits = compute(*args).block_until_ready()
        if len(calls) == 1:
            disk.delete(opened, servers.ids_at(opened, 0, 1)[:1])
            disk.purge(opened)
        return logits

    server.ensemble = interrupted
    answer = server.predict(x)
    assert len(calls) == 2 and answer.depth == (3, 4)
    np.testing.assert_allclose(answer.logits, twin(opened, x)[0], rtol=1e-5, atol=1e-5)


def test_a_new_row_that_drops_nothing_lets_an_answer_stand(opened):
    server, x = servers.server(opened), servers.inputs(4)
    compute, calls = server.ensemble, []

    def interrupted(*args):
        calls.append(1)
        disk.register(opened, [1000 + len(calls)], [0], [0])
        return compute(*args)

    server.ensemble = interrupted
    server.predict(x)
    assert len(calls) == 1


def test_a_file_that_goes_while_it_is_read_is_no_error(opened, monkeypatch):
    server = servers.server(opened)
    disk.delete(opened, servers.ids_at(opened, 0, 1)[:1])
    disk.purge(opened)
    server.refresh()
    servers.fill(opened)
    read, gone = publishing.load, []

    def interrupted(opened, node):
        if not gone:
            gone.append(disk.delete(opened, servers.ids_at(opened, 0, 1)[:1]))
            disk.purge(opened)
        return read(opened, node)

    monkeypatch.setattr(publishing, "load", interrupted)
    answer = server.predict(servers.inputs(4))
    assert answer.depth == (3, 4) and answer.head == database.head(opened.ledger).digest


@pytest.mark.parametrize("aggregate", ensemble.AGGREGATES)
def test_a_damaged_file_is_not_served_and_survivors_answer_until_it_is_restored(opened, capsys, aggregate):
    """A server that has the node goes on with it; a new one leaves it out, and all that was trained on top of it."""
    before, x = servers.server(opened, aggregate=aggregate), servers.inputs(4)
    (deep,) = ensemble.answering(PLAN, PLAN.nodes, "mean")
    node = next(node for node in publishing.live(opened) if (node.shard, node.slices) == (0, deep[:2]))
    path = disk.file_of(opened, node.identity)
    good = path.read_bytes()
    for data in (good[:-1] + bytes([good[-1] ^ 1]), None):
        path.write_bytes(data) if data else path.unlink()
        anew = servers.server(opened, aggregate=aggregate)
        expected, depth = twin(opened, x, aggregate, [(0, deep[:2])])
        answer = anew.predict(x)
        assert answer.depth == depth and len(anew.view.damaged) == 1 and node.identity in anew.view.damaged[0]
        np.testing.assert_allclose(answer.logits, expected, rtol=1e-5, atol=1e-5)
        assert before.predict(x).depth == (4, 4) and before.view.damaged == ()
        assert main(["predict", "--store", str(opened.root), "--ids", "5", "--aggregate", aggregate]) == 0
        assert f"problem: {anew.view.damaged[0]}; heal the store\n" in capsys.readouterr().out
        records.record_restored(opened.ledger, node, lambda: path.write_bytes(good))
        np.testing.assert_allclose(anew.predict(x).logits, twin(opened, x, aggregate)[0], rtol=1e-5, atol=1e-5)
        assert anew.view.damaged == () and anew.view.depth == (4, 4) and verify.verify(opened.root)["ok"]


def test_what_a_server_serves_and_finds_damaged_is_logged(opened, caplog):
    with caplog.at_level("INFO", "s3t"), servers.server(opened) as server:
        head = database.head(opened.ledger)
        assert caplog.messages == [f"serving depth=4,4 row={head.rows} head={head.digest}"]
        server.predict(servers.inputs())
        assert len(caplog.messages) == 1
        path = disk.file_of(opened, publishing.live(opened)[0].identity)
        path.unlink()
        disk.delete(opened, [servers.ids_at(opened, 1, 0)[0]], "R")
        server.predict(servers.inputs())
        assert caplog.messages[-1].startswith("serving depth=4,3 row=")
    with caplog.at_level("INFO", "s3t"), servers.server(opened) as server:
        assert caplog.records[-1].levelname == "WARNING"
        assert caplog.messages[-1] == f"damaged the file {path} is missing"


def test_a_file_that_is_put_back_is_served_without_a_word_of_the_ledger(opened):
    """Who restored it was killed before the ledger's row was committed."""
    node = next(node for node in publishing.live(opened) if node.slices == PLAN.nodes[0])
    path = disk.file_of(opened, node.identity)
    good = path.read_bytes()
    path.unlink()
    server, head = servers.server(opened), database.head(opened.ledger)
    assert server.predict(servers.inputs(4)).depth != (4, 4) and len(server.view.damaged) == 1
    path.write_bytes(good[:-1])
    assert server.predict(servers.inputs(4)).depth != (4, 4) and "is damaged" in server.view.damaged[0]
    path.write_bytes(good)
    assert server.predict(servers.inputs(4)).depth == (4, 4) and server.view.damaged == ()
    assert database.head(opened.ledger) == head


def test_without_a_whole_file_nothing_is_predicted(opened):
    for path in (opened.root / "nodes").iterdir():
        path.write_bytes(b"x")
    with pytest.raises(ValueError, match="no shard has a model, so that nothing can be predicted; train the store"):
        servers.server(opened).predict(servers.inputs(4))


def test_a_node_of_another_model_is_refused(opened):
    other = stacks.LORA._replace(rank=3)
    with pytest.raises(ValueError, match=r"node \w{64}: the arrays are not those of a node of this model"):
        servers.serving.Server(opened, stacks.BACKBONE, stacks.frozen(), other)
    with pytest.raises(ValueError, match="draws random keys cannot serve"):
        ensemble.make_ensemble(stacks.BACKBONE._replace(random=True), stacks.LORA, 4)


def test_logits_that_are_not_finite_are_no_answer(tmp_path):
    opened = servers.fill(servers.make(tmp_path / "store", make_plan(4, [(0,)])), lambda d: diverged(servers.drawn(d)))
    with pytest.raises(ValueError, match="not finite: a node diverged"):
        servers.server(opened).predict(servers.inputs(4))


def diverged(part):
    return part._replace(head=jax.tree.map(lambda leaf: leaf * np.float32(np.nan), part.head))


def test_a_place_trained_again_with_more_data_serves_its_last_node(tmp_path):
    """Its old node keeps its children: they answer with the slots they were trained under."""
    opened = servers.fill(servers.make(tmp_path / "store", make_plan(4, [(0, 1), (2,)]), shards=1))
    server, x = servers.server(opened, aggregate="all"), servers.inputs(4)
    before = server.predict(x).logits
    disk.register(opened, [5000], [0], [0])
    drafted = publishing.draft_node(opened, 0, (0,))
    publishing.publish(opened, drafted, to_tensors(servers.drawn(drafted)), {}, None)
    with pytest.raises(ValueError, match="3 nodes of depth 1 live, room is for 2: serve anew"):
        server.predict(x)
    anew = servers.server(opened, aggregate="all")
    assert tree.bits_equal(anew.predict(x).logits, before)
    disk.delete(opened, servers.ids_at(opened, 0, 1)[:1])
    head = servers.drawn(drafted)
    assert anew.predict(x).depth == (1,)
    files = {(0, (0,)): to_tensors(head), (0, (2,)): publishing.load(opened, publishing.live(opened)[1])[1]}
    at = lambda slices: next(node for node in publishing.live(opened) if node.slices == slices)  # noqa: E731
    expected = (logits_of(files, at((0,)), x) + logits_of(files, at((2,)), x)) / 2
    np.testing.assert_allclose(anew.predict(x).logits, expected, rtol=1e-5, atol=1e-5)


# two processes


def test_an_answer_begun_after_an_acknowledgement_uses_no_dead_node(tmp_path):
    """Another process answers in a loop. Node n of shard s says 3^n in class s, so that the logits tell who took part."""
    plan = make_plan(4, [(0, 1, 2), (1, 3), (3,)])
    number = {(shard, node): n for shard in range(2) for n, node in enumerate(plan.nodes)}
    opened = servers.fill(servers.make(tmp_path / "store", plan), lambda drafted: saying(drafted, number))
    command = [sys.executable, "-m", "tests.helpers.servers", str(tmp_path / "store")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        answers = [json.loads(process.stdout.readline())]
        assert used(answers[0]["logits"], plan) == {(s, node) for s in (0, 1) for node in [(3,), (1, 3), (0, 1, 2)]}
        for shard, slice_ in [(0, 2), (1, 3), (0, 1), (1, 0), (0, 3), (0, 0), (1, 1)]:
            disk.delete(opened, servers.ids_at(opened, shard, slice_)[:1])
            acknowledged = time.monotonic()
            disk.purge(opened)
            alive = {(node.shard, node.slices) for node in publishing.live(opened)}
            while "logits" in answers[-1] and answers[-1]["asked"] < acknowledged:
                answers.append(json.loads(process.stdout.readline()))
            if alive:
                leaves = {(s, n) for s, n in alive if not any((s, more[:-1]) == (i, n) for i, more in alive if i == s)}
                assert used(answers[-1]["logits"], plan) == leaves
        assert not alive and answers[-1]["error"].startswith("needs rebuild: no shard has a model")
        process.stdout.read()
    assert process.returncode == 0


def saying(drafted, number):
    """A node whose logits are a constant that names it: 3^n, of class 0 or 1 by the shard."""
    part = servers.drawn(drafted)
    said = np.zeros(3, np.float32)
    said[drafted.shard] = 3.0 ** number[drafted.shard, drafted.slices]
    return part._replace(head={"w": np.zeros_like(part.head["w"]), "b": said})


def used(logits, plan):
    """The nodes whose constants make up logits of "all": the mean over shards of the means of their constants."""
    families = [subset for n in range(4) for subset in itertools.combinations(range(len(plan.nodes)), n)]
    means = {subset: sum(3.0**n for n in subset) / max(1, len(subset)) for subset in families}
    fits = [
        {(0, plan.nodes[n]) for n in a} | {(1, plan.nodes[n]) for n in b}
        for a, b in itertools.product(families, families)
        if (shards := bool(a) + bool(b))
        and np.allclose(logits[:2], [means[a] / shards, means[b] / shards], rtol=1e-5, atol=0)
    ]
    (found,) = fits
    return found
