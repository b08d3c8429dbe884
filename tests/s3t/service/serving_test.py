"""Serving: who answers, against a slow loop over shards and files, without compilation, and after deletions elsewhere."""

import argparse
import contextlib
import dataclasses
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.benchmarks import s3t_serve
from s3t.cli import main
from s3t.cli.arguments import predict_arguments
from s3t.plans.planners import lattice
from s3t.plans.structure import make_plan, survivors
from s3t.service import ensemble, verify
from s3t.store import disk, publishing
from s3t.store.ledger import database, records
from s3t.training.backbone import forward, owned
from s3t.training.source import from_tensors, to_tensors
from tests.helpers import servers, stacks
from unlearn import tree

ROOT = Path(__file__).resolve().parents[3]
PLAN = lattice(stacks.SLICES)
BLOCKS = owned(stacks.BLOCKS, stacks.SLICES)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A full store: 2 shards of the lattice's 15 nodes."""
    root = tmp_path_factory.mktemp("template") / "store"
    disk.close(servers.fill(servers.make(root)))
    return root


@contextlib.contextmanager
def counted_compilations():
    """A list that grows with every program that is lowered, whether or not it is then found in a cache on disk."""
    seen = []

    def listen(event, seconds, **more):
        if event == "/jax/core/compile/jaxpr_to_mlir_module_duration":
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


# the slow twin


def logits_of(files, node, x):
    """A node's logits from its own file and those of its ancestors, without masks, banks and jit."""
    parts = []
    for depth in range(1, len(node.slices) + 1):
        tensors = files[node.shard, node.slices[:depth]]
        parts.append(from_tensors(stacks.BACKBONE, stacks.LORA, stacks.SLICES, depth, tensors))
    slots = [part.slot for part in parts]
    return np.asarray(forward(stacks.BACKBONE, stacks.frozen(), x, stacks.LORA, BLOCKS, slots, parts[-1].head))


def twin(opened, x, aggregate="mean", lost=()):
    """(logits, depth by shard) by loops, without the (shard, slices) of some nodes and what is below them."""
    out = lambda node: any(shard == node.shard and slices == node.slices[: len(slices)] for shard, slices in lost)  # noqa: E731
    nodes = [node for node in publishing.live(opened) if not out(node)]
    files = {(node.shard, node.slices): publishing.load(opened, node)[1] for node in nodes}
    total, weights, depths = 0.0, 0.0, []
    for shard in range(opened.manifest.shards):
        mine = [node for node in nodes if node.shard == shard]
        depth = max((len(node.slices) for node in mine), default=0)
        depths.append(depth)
        if aggregate == "all":
            chosen = [node for node in mine if not any(other.slices[:-1] == node.slices for other in mine)]
        else:
            chosen = sorted((node for node in mine if len(node.slices) == depth), key=lambda node: node.slices)[:1]
        if chosen:
            weight = depth if aggregate == "depth" else 1
            total = total + weight * np.mean([logits_of(files, node, x) for node in chosen], axis=0)
            weights += weight
    return total / weights, tuple(depths)


# who answers


def test_the_deepest_answers_and_the_first_of_the_plan_among_equals():
    plan = make_plan(3, [(2, 1, 0), (0, 2), (1, 0)])
    assert ensemble.answering(plan, plan.nodes, "mean") == ((2, 1, 0),)
    assert ensemble.answering(plan, [(0,), (1,), (2,), (0, 2), (1, 0)], "mean") == ((0, 2),)
    assert ensemble.answering(plan, [(1, 0), (2,), (1,), (0,)], "depth") == ((1, 0),)
    assert ensemble.answering(plan, [(2,), (1,)], "mean") == ((1,),)
    assert ensemble.answering(plan, [], "mean") == ensemble.answering(plan, [], "all") == ()


def test_all_live_leaves_answer():
    plan = make_plan(3, [(2, 1, 0), (0, 2), (1, 0)])
    assert ensemble.answering(plan, plan.nodes, "all") == ((0, 2), (1, 0), (2, 1, 0))
    assert ensemble.answering(plan, [(2,), (2, 1), (0,)], "all") == ((0,), (2, 1))


def test_no_set_of_survivors_has_more_leaves_than_the_table_has_room_for():
    for gone in itertools.chain.from_iterable(itertools.combinations(range(4), n) for n in range(5)):
        left = survivors(PLAN, gone)
        table = ensemble.make_table(PLAN, [{node: range(len(node)) for node in left}] * 2, "all")
        assert table.rows.shape == (2 * 8, 4)
        assert (table.weight > 0).sum() == 2 * len(ensemble.answering(PLAN, left, "all"))


def test_a_table_by_hand():
    plan = make_plan(3, [(2, 1), (0,)])
    chains = [{(0,): (5,), (2,): (6,), (2, 1): (6, 3)}, {}, {(0,): (1,)}]
    mean = ensemble.make_table(plan, chains, "mean")
    assert mean.rows.tolist() == [[6, 3], [0, 0], [1, 0]]
    assert mean.active.tolist() == [[True, True], [False, False], [True, False]]
    assert mean.weight.tolist() == [1, 0, 1]
    assert ensemble.make_table(plan, chains, "depth").weight.tolist() == [2, 0, 1]
    every = ensemble.make_table(plan, chains, "all")
    assert every.rows.tolist() == [[5, 0], [6, 3], [0, 0], [0, 0], [1, 0], [0, 0]]
    assert every.weight.tolist() == [0.5, 0.5, 0, 0, 1, 0]
    with pytest.raises(ValueError, match="an aggregate is one of mean, depth, all, got 'median'"):
        ensemble.make_table(plan, chains, "median")


# against the slow twin


@pytest.mark.parametrize("aggregate", ensemble.AGGREGATES)
def test_answers_are_those_of_a_loop_over_shards_and_files(opened, aggregate):
    """Deletions until nothing is left; another program than the loop's: equal within 1e-5."""
    server, x = servers.server(opened, aggregate=aggregate), servers.inputs()
    seen = []
    for shard, slice_ in [(0, 2), (0, 0), (1, 3), (0, 1), (1, 0), (0, 3), (1, 1)]:
        answer = server.predict(x)
        expected, depth = twin(opened, x, aggregate)
        np.testing.assert_allclose(answer.logits, expected, rtol=1e-5, atol=1e-5)
        assert answer.depth == depth and answer.head == database.head(opened.ledger).digest
        seen.append((answer.depth, answer.logits))
        disk.delete(opened, servers.ids_at(opened, shard, slice_)[:1])
    assert [depth for depth, _ in seen] == [(4, 4), (3, 4), (2, 4), (2, 3), (1, 3), (1, 2), (0, 2)]
    assert all(np.abs(a - b).max() > 1e-3 for (_, a), (_, b) in itertools.pairwise(seen))
    np.testing.assert_allclose(server.predict(x).logits, twin(opened, x, aggregate)[0], rtol=1e-5, atol=1e-5)
    disk.delete(opened, servers.ids_at(opened, 1, 2)[:1])
    for _ in range(2):
        with pytest.raises(ValueError, match="needs rebuild: no shard has a model"):
            server.predict(x)
    expected, _ = twin(servers.fill(opened), x, aggregate)
    np.testing.assert_allclose(server.predict(x).logits, expected, rtol=1e-5, atol=1e-5)


def test_one_shard_answers_with_the_bits_of_its_node(tmp_path):
    """Within the program of the ensemble: a mask gives the bits of a bank in which deeper slots and heads never were."""
    opened = servers.fill(servers.make(tmp_path / "store", shards=1))
    server, x = servers.server(opened), servers.inputs(4)
    deep = server.predict(x).logits
    (gone,) = ensemble.answering(PLAN, PLAN.nodes, "mean")
    disk.delete(opened, servers.ids_at(opened, 0, gone[-1])[:1])
    masked = server.predict(x)
    assert masked.depth == (3,) and not np.array_equal(masked.logits, deep)
    only = servers.server(disk.open(tmp_path / "store"))  # what survived, loaded anew
    assert tree.bits_equal(only.predict(x).logits, masked.logits)


def test_what_a_mask_leaves_out_may_be_nan(opened):
    """A dead row, a slot below the mask, a deeper head and a member without a model: selected away, not multiplied."""
    server, x = servers.server(opened), servers.inputs(4)
    for shard, slice_ in [(0, 0), (1, 0), (1, 1), (1, 2), (1, 3)]:
        disk.delete(opened, servers.ids_at(opened, shard, slice_)[:1])
    clean = server.predict(x)
    assert clean.depth == (3, 0)
    rows = [{seat.row for seat in server.view.seats.values() if len(seat.node.slices) == d} for d in (1, 2, 3, 4)]
    poison = lambda leaf, keep: leaf.at[np.array([r for r in range(len(leaf)) if r not in keep], int)].set(np.nan)  # noqa: E731
    server.bank = tuple(
        jax.tree.map(lambda leaf, keep=keep: poison(leaf, keep), held) for held, keep in zip(server.bank, rows, strict=True)
    )
    assert np.isnan(server.bank[3].head["w"]).all()
    assert tree.bits_equal(server.predict(x).logits, clean.logits)


def test_batches_are_filled_up_and_come_back_in_order(opened):
    server, x = servers.server(opened), servers.inputs(11)
    whole = server.predict(x).logits
    assert whole.shape == (11, 3)
    for at in range(11):
        np.testing.assert_allclose(server.predict(x[at : at + 1]).logits[0], whole[at], rtol=1e-6)
    assert server.ensemble._cache_size() == 1
    with pytest.raises(ValueError, match="at least one example"):
        server.predict(x[:0])


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


# the command line


def test_the_command_line_predicts(opened, capsys):
    server = servers.server(opened)
    x = servers.inputs(servers.EXAMPLES)
    for arguments, ids in ((["--ids", "3,70,3"], [3, 70, 3]), (["--split", "test"], [78, 79])):
        assert main(["predict", "--store", str(opened.root), *arguments, "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        assert list(result) == ["ids", "labels", "logits", "depth", "head", "problems"]
        assert (result["ids"], result["depth"], result["problems"]) == (ids, [4, 4], [])
        assert result["head"] == database.head(opened.ledger).digest
        np.testing.assert_allclose(result["logits"], server.predict(x[ids]).logits, rtol=1e-5, atol=1e-5)
        assert result["labels"] == np.argmax(result["logits"], axis=1).tolist()
    disk.delete(opened, servers.ids_at(opened, 0, 1)[:1])
    for aggregate in ensemble.AGGREGATES:
        assert main(["predict", "--store", str(opened.root), "--ids", "5", "--aggregate", aggregate, "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        np.testing.assert_allclose(result["logits"], twin(opened, x[5:6], aggregate)[0], rtol=1e-5, atol=1e-5)
        assert result["depth"] == [3, 4]
    assert main(["predict", "--store", str(opened.root), "--ids", "5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("5: ") and lines[1] == "depth served by shard 3, 4" and lines[2].startswith("head: ")


def test_the_command_line_names_mistakes(opened, capsys, tmp_path):
    root = str(opened.root)
    other = tmp_path / "other"
    disk.close(disk.create(other, dataclasses.replace(opened.manifest, arguments={"seed": 1})))
    told = tmp_path / "told"
    disk.close(disk.create(told, dataclasses.replace(opened.manifest, hyper={"source": {"kind": "other"}, "shapes": []})))
    empty = tmp_path / "empty"
    disk.close(disk.create(empty, opened.manifest))
    for arguments, message in (
        (["--store", root, "--ids", "5,1000"], "there is no example 1000"),
        (["--store", root, "--ids", str(10**19)], f"there is no example {10**19}"),
        (["--store", root, "--split", "night"], "there is no split 'night'"),
        (["--store", root, "--ids", "five"], "expected whole numbers between commas, got 'five'"),
        (["--store", root], "one of the arguments --ids --split is required"),
        (["--store", root, "--ids", "5", "--split", "test"], "not allowed with argument"),
        (["--store", root, "--ids", "5", "--aggregate", "median"], "invalid choice: 'median'"),
        (["--store", str(tmp_path), "--ids", "5"], "there is no store at"),
        (["--store", str(other), "--ids", "5"], "the backbone is not the one"),
        (["--store", str(told), "--ids", "5"], "the factory gives other hyper-parameters"),
        (["--store", root, "--ids", "5", "--arguments", '{"where": 1}'], "does not take these arguments"),
        (["--store", str(empty), "--ids", "5"], "needs rebuild: no shard has a model"),
    ):
        try:
            status = main(["predict", *arguments, "--json"])
        except SystemExit as exit_:
            status = exit_.code
        out, err = capsys.readouterr()
        assert (status, out, err.count("\n")) == (2, "", 1) and message in err, err


def test_the_choices_of_the_command_line_are_those_of_the_module():
    parser = argparse.ArgumentParser()
    predict_arguments(parser)
    (aggregate,) = (action for action in parser._actions if action.dest == "aggregate")
    assert aggregate.choices == ensemble.AGGREGATES


@pytest.mark.slow
def test_the_benchmark_counts_no_program(tmp_path):
    lines = s3t_serve.report(tmp_path / "store", "digits", batch_size=2, rounds=1)
    assert lines.startswith("digits, batches of 2: plain ") and lines.endswith("programs compiled meanwhile 0")
