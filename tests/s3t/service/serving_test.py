"""Serving: who answers, against a slow loop over shards and files, without compilation, and after deletions elsewhere."""

import itertools

import jax
import numpy as np
import pytest

from s3t.plans.structure import make_plan, survivors
from s3t.service import ensemble
from s3t.store import disk
from s3t.store.ledger import database
from tests.helpers import servers
from tests.helpers.answers import PLAN, twin
from unlearn import tree


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return servers.full(tmp_path_factory.mktemp("template") / "store")


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
