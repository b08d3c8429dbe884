"""Training of nodes: exactness in bytes, batches keyed by ids, padding, the cache, and refusals.

Bytes are compared within one compiled program, between programs values within the tolerance that a test states.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from s3t.plans.partition import Places
from s3t.plans.planners import lattice
from s3t.plans.structure import served
from s3t.training import arrangement, caching, stages
from s3t.training.adapters import init_slot
from s3t.training.backbone import augmented, by_block, owned, run_blocks
from tests.helpers import stacks, toys
from unlearn import tree
from unlearn.losses import cross_entropy

PLAN = lattice(stacks.SLICES)
JOBS = [(shard, node) for shard in range(stacks.SHARDS) for node in PLAN.nodes]


@functools.cache
def table():
    """Every node of the lattice of both shards, trained once."""
    return stacks.train_jobs(stacks.arranged(), JOBS)


def in_slices(gone):
    """[examples] whether an example lies in one of the given (shard, slice)."""
    places = stacks.data()[3]
    return np.array([(shard, s) in gone for shard, s in zip(places.shard, places.slice, strict=True)])


def fold(key, *parts):
    return functools.reduce(jax.random.fold_in, parts, key)


def same_bytes(some, other):
    return all(tree.bits_equal(some[job], other[job]) for job in some)


# exactness


def test_what_is_served_after_any_deletion_equals_a_training_without_the_examples():
    """All 2^8 sets of hit slices; in each slice some examples never existed, from one to all."""
    group = [(shard, s) for shard in range(stacks.SHARDS) for s in range(stacks.SLICES)]
    rng = np.random.default_rng(0)
    for hits in itertools.chain.from_iterable(itertools.combinations(group, n) for n in range(len(group) + 1)):
        gone = in_slices(hits) & (rng.random(len(stacks.data()[2])) < rng.random())
        for hit in hits:
            gone[np.argmax(in_slices({hit}))] = True
        serving = [(shard, served(PLAN, [s for i, s in hits if i == shard])) for shard in range(stacks.SHARDS)]
        expected = stacks.train_jobs(stacks.arranged(keep=~gone), [(i, node) for i, node in serving if node])
        assert len(expected) == sum(len(node) for _, node in serving)
        assert all(tree.bits_equal(table()[job], expected[job]) for job in expected), hits


def test_a_poisoned_slice_reaches_no_node_without_it():
    x, y, ids, places = stacks.data()
    bad = in_slices({(1, 2)})
    poisoned = np.where(bad[:, None], np.nan, x).astype(np.float32), np.where(bad, (y + 1) % 3, y), ids, places
    nodes = stacks.train_jobs(stacks.arranged(poisoned), JOBS)
    for (shard, node), trained in nodes.items():
        if shard == 1 and 2 in node:
            assert not tree.all_finite(trained.head)
        else:
            assert tree.bits_equal(trained, table()[shard, node]) and tree.all_finite(trained)


def test_a_later_slice_leaves_earlier_digests():
    x, y, ids, places = stacks.data()
    changed = x + in_slices({(0, 3)})[:, None], y, ids, places
    jobs = [(0, (1, 2, 3))]
    nodes = stacks.train_jobs(stacks.arranged(changed), jobs, lanes=1)
    before = stacks.train_jobs(stacks.arranged(), jobs, lanes=1)
    same = {node: tree.digest(nodes[0, node]) == tree.digest(before[0, node]) for _, node in nodes}
    assert same == {(1,): True, (1, 2): True, (1, 2, 3): False}


def test_bytes_depend_neither_on_neighbours_nor_on_the_grouping():
    backwards = stacks.train_jobs(stacks.arranged(), JOBS[::-1])
    for some in (JOBS[:1], JOBS[3:20:4], JOBS[-3:]):
        assert same_bytes(stacks.train_jobs(stacks.arranged(), some), table())
    assert same_bytes(backwards, table())
    rng = np.random.default_rng(3)
    last = [job for job in JOBS if len(job[1]) == 2]
    have = {job: node for job, node in table().items() if len(job[1]) < 2}
    shuffled = [last[i] for i in rng.permutation(len(last))]
    inputs = stacks.arranged()._replace(x=stacks.fill(stacks.arranged())[1])
    form = stacks.shape(2)
    done = dict(
        stages.train_nodes(stacks.stage(form), stacks.frozen(), inputs, stacks.KEY, shuffled, lambda i, node: have[i, node])
    )
    assert len(done) == 12 and same_bytes(done, table())


def test_one_compilation_per_depth():
    table()
    stacks.train_jobs(stacks.arranged(keep=~in_slices({(0, 0)})), JOBS)
    for depth in range(1, 5):
        assert stacks.stage(stacks.shape(depth)).run._cache_size() == 1


def test_another_width_or_no_cache_gives_the_same_numbers():
    """Other programs: equal within 2e-5 (float32); on one CPU often to the bit."""
    jobs = [job for job in JOBS if len(job[1]) <= 2]
    for lanes, cached in ((3, True), (1, True), (2, False)):
        other = stacks.train_jobs(stacks.arranged(), jobs, lanes=lanes, cached=cached)
        toys.assert_close([other[job] for job in jobs], [table()[job] for job in jobs], 2e-5)


def test_nodes_of_one_set_in_another_order_or_shard_differ():
    nodes = stacks.train_jobs(stacks.arranged(), [(0, (0, 1)), (0, (1, 0))])
    assert toys.relative_error(nodes[0, (0, 1)].slot, nodes[0, (1, 0)].slot) > 0.1
    assert toys.relative_error(table()[0, (0,)].slot, table()[1, (0,)].slot) > 0.1


# against a slow twin


def test_a_node_is_what_a_plain_loop_makes_of_the_definition():
    """One node after another, each under all of its ancestors, without jit, lanes, cache or padding; equal within 2e-5."""
    x, y, ids, places = stacks.data()
    blocks = owned(stacks.BLOCKS, stacks.SLICES)
    slots, head = [], None
    deepest = next(node for node in PLAN.nodes if len(node) == 3)
    for node in (deepest[:1], deepest[:2], deepest):
        mine = np.flatnonzero((places.shard == 1) & np.isin(places.slice, node))
        keys = [fold(stacks.KEY, purpose, 1, len(node), *node) for purpose in (stages.INIT, stages.HEAD, stages.ORDER)]
        part = init_slot(keys[0], stacks.LORA, [stacks.LAYERS]), head or stacks.init_head(keys[1])
        tx = stacks.optimizer(stacks.RECIPE.epochs * -(-len(mine) // 4))
        state = tx.init(part)

        @jax.grad
        def gradient(part, rows, slots=tuple(slots)):
            h = stacks.embed(stacks.frozen(), x[rows], None)
            h = run_blocks(stacks.BACKBONE, stacks.frozen(), h, range(4), by_block(stacks.LORA, blocks, (*slots, part[0])))
            return jnp.mean(cross_entropy(stacks.head(stacks.frozen(), part[1], h), jnp.asarray(y[rows])))

        for epoch in range(stacks.RECIPE.epochs):
            drawn = [int(jax.random.bits(fold(keys[2], epoch, int(ids[row])))) for row in mine]
            order = mine[np.argsort(drawn)]
            for first in range(0, len(order), 4):
                updates, state = tx.update(gradient(part, order[first : first + 4]), state, part)
                part = optax.apply_updates(part, updates)
        slots, head = [*slots, part[0]], part[1]
        toys.assert_close(part, tuple(table()[1, node][:2]), 2e-5)


# padding and keys


def test_room_for_more_steps_and_examples_changes_nothing():
    """Padded steps keep parameters and optimiser: other programs, equal within 2e-5."""
    jobs = [(0, (1, 2))]
    roomy = {depth: stacks.shape(depth, steps=9, capacity=12, cached=False) for depth in (1, 2)}
    nodes = stacks.train_jobs(stacks.arranged(capacity=12), jobs, cached=False, shapes=roomy)
    toys.assert_close([nodes[job] for job in nodes], [table()[job] for job in nodes], 2e-5)


def test_an_empty_node_keeps_its_initial_state():
    nodes = stacks.train_jobs(stacks.arranged(keep=~in_slices({(0, 1), (0, 2)})), [(0, (1, 2))])
    for node in ((1,), (1, 2)):
        trained = nodes[0, node]
        assert tree.all_finite(trained) and all(not f.b.any() for block in trained.slot for f in block.values())
    assert tree.bits_equal(nodes[0, (1,)].head, nodes[0, (1, 2)].head)


def test_an_order_depends_on_ids_alone():
    key = jax.random.key(3)
    ids = np.array([40, 7, 99, 3, 21, 1000, 2**32 - 1], np.uint32)
    real = np.array([True, True, False, True, True, True, True])
    order = ids[stages.epoch_order(key, ids, real)]
    assert order[-1] == 99
    mixed = np.random.default_rng(0).permutation(len(ids))
    np.testing.assert_array_equal(ids[mixed][stages.epoch_order(key, ids[mixed], real[mixed])], order)
    fewer = np.array([40, 3, 21, 2**32 - 1], np.uint32)
    kept = fewer[stages.epoch_order(key, fewer, np.ones(4, bool))]
    np.testing.assert_array_equal(kept, [i for i in order if i in fewer])
    assert list(ids[stages.epoch_order(jax.random.key(4), ids, real)]) != list(order)


def test_keys_of_nodes_and_purposes_are_distinct():
    def bits(purpose, shard, node, *more):
        key = stages.node_key(stacks.KEY, purpose, np.int32(shard), np.array(node, np.int32))
        return tuple(jax.random.key_data(fold(key, *more)).tolist())

    nodes = [node for n in range(1, 4) for node in itertools.permutations(range(3), n)]
    keys = [bits(purpose, shard, node) for purpose in range(3) for shard in range(2) for node in nodes]
    keys += [bits(stages.ORDER, 0, (0,), epoch) for epoch in range(3)]  # none is the key of the node (0, epoch)
    assert len(set(keys)) == len(keys)


def test_augmentation_is_drawn_by_epoch_and_id():
    """A node is the same whichever lane and batch it is in, and the draws reach it."""
    noisy = augmented(stacks.BACKBONE, lambda x, key: x + 0.5 * jax.random.normal(key, x.shape))
    form = stacks.shape(1, cached=False)
    stage = stacks.stage(form, backbone=noisy)

    def nodes(slices, jobs):
        return dict(stages.train_nodes(stage, stacks.frozen(), slices, stacks.KEY, jobs, lambda i, n: None))

    both = nodes(stacks.arranged(), [(0, (0,)), (1, (0,))])
    again = nodes(stacks.arranged(keep=~in_slices({(0, 1), (0, 0)})), [(1, (0,))])
    assert same_bytes(again, both)
    assert toys.relative_error(both[0, (0,)].slot, table()[0, (0,)].slot) > 0.05
    with pytest.raises(ValueError, match="no activations to keep"):
        caching.make_prefixes(noisy, (0,), 4)


def test_an_augmented_example_is_a_function_of_id_and_epoch():
    """The draws are seen by an embedding that passes them on: two nodes of one slice agree on its examples."""
    slices = stacks.arranged()
    key = fold(stacks.KEY, stages.AUGMENT, 1)
    expected = {int(i): float(jax.random.uniform(jax.random.fold_in(key, i))) for i in slices.id[0, :5]}
    seen = {}

    def embed(frozen, x, keys):
        jax.debug.callback(lambda x, drawn: seen.update(zip(x[:, 0].tolist(), drawn.tolist(), strict=True)), x, draws(keys))
        return stacks.embed(frozen, x, keys)

    draws = jax.vmap(lambda key: jax.random.uniform(key))
    spying = stacks.BACKBONE._replace(embed=embed, random=True)
    form = stacks.shape(1, lanes=1, cached=False)
    stage = stages.make_stage(spying, stacks.RECIPE, form)
    list(stages.train_nodes(stage, stacks.frozen(), slices, stacks.KEY, [(0, (0,))], lambda i, n: None))
    jax.effects_barrier()
    for row, i in enumerate(slices.id[0, :5]):
        assert seen[float(slices.x[0, row, 0])] == expected[int(i)]


# learning


def test_the_loss_falls_and_stays_finite():
    losses = np.stack([table()[job].losses for job in JOBS])
    assert np.isfinite(losses).all() and (losses[:, -1] < losses[:, 0]).mean() > 0.9
    longer = stages.Recipe(stacks.LORA, 4, 30, stacks.optimizer)
    form = stacks.shape(1, cached=False)
    done = stages.train_nodes(
        stacks.stage(form, longer), stacks.frozen(), stacks.arranged(), stacks.KEY, JOBS[:4], lambda i, n: None
    )
    assert all(trained.losses[-1] < 0.5 * trained.losses[0] for _, trained in done)


# data and refusals


def test_compartments_hold_the_examples_of_their_slice_by_id():
    x, y, ids, places = stacks.data()
    slices = stacks.arranged()
    for group in range(stacks.SHARDS * stacks.SLICES):
        rows = np.flatnonzero((places.shard == group // 4) & (places.slice == group % 4))
        rows, used = rows[np.argsort(ids[rows])], slices.used[group]
        assert used == len(rows)
        np.testing.assert_array_equal(slices.id[group, :used], ids[rows])
        np.testing.assert_array_equal(slices.x[group, :used], x[rows])
        np.testing.assert_array_equal(slices.y[group, :used], y[rows])
        assert not slices.x[group, used:].any() and not slices.id[group, used:].any()


def test_shapes_follow_from_the_sizes():
    places = stacks.data()[3]
    count = arrangement.counts(places, 2, 4)
    np.testing.assert_array_equal(count, [(5, 7, 4, 6), (6, 3, 8, 5)])
    assert [arrangement.capacity_for(count, size) for size in (3, 4, 8, 100)] == [9, 8, 8, 100]
    jobs = [(0, (1, 3)), (1, (2, 0)), (1, (1, 3))]
    assert stages.shape_for(count, jobs, 4, 8, 2, True) == stages.Shape(2, 2, 4, 8, 4, 2, True)
    assert [stages.shape_for(count, jobs * 7, 4, 8, most, True).lanes for most in (1, 8, 20, 21, 99)] == [1, 7, 11, 21, 21]


@pytest.mark.parametrize("bad", [[-1, 1], [1, 2**32], [0.5, 1.5], ["a", "b"], [3, 3]])
def test_ids_that_cannot_be_keys_are_refused(bad):
    places = Places(np.zeros(2, np.int32), np.zeros(2, np.int32))
    with pytest.raises(ValueError, match="ids must be"):
        arrangement.arrange(np.zeros((2, 1)), np.zeros(2), np.array(bad), places, 1, 1, 2)


def test_an_overflow_is_refused():
    with pytest.raises(ValueError, match="slice 2 of shard 1 has 8 examples, room is for 7: rebuild"):
        stacks.arranged(capacity=7)
    with pytest.raises(ValueError, match=r"slices are of the form \(8, 12\), the program's of \(8, 8\): rebuild"):
        stacks.train_jobs(stacks.arranged(capacity=12), JOBS[:1], cached=False)
    with pytest.raises(ValueError, match=r"node \[2\] of shard 1 has 8 examples, room is for 4: rebuild"):
        stacks.train_jobs(stacks.arranged(), [(1, (2,))], cached=False, shapes={1: stacks.shape(1, steps=1, cached=False)})
