"""What S3T is judged beside, by hand: SISA stage by stage, its FLOPs, its retraining."""

import functools

import jax
import numpy as np
import optax
import pytest

from experiments.exact import baselines, nodes
from experiments.exact.sources import building
from s3t.plans import planners
from s3t.plans.partition import Places
from s3t.training import arrangement, schedule
from s3t.training.backbone import forward
from s3t.training.schedule import Setup
from tests.helpers import stacks
from tests.helpers.studies import SISA
from unlearn import tree


def test_sisa_flops_by_hand():
    """Stage d passes forward and backward through everything with d + 1 quarters: 2 (1 + 2 + 3 + 4) / 4."""
    assert baselines.sisa_flops(4) == 5.0
    assert baselines.sisa_flops(4, 2) == 3.5
    assert nodes.lora_flops() == 2.0
    places = Places(np.array([0, 1, 0]), np.array([0, 3, 2]))
    assert baselines.sisa_flops_per_deletion(places, np.array([0, 1]), 2, 4) == pytest.approx((5.0 + 2.0) / 2 / 2)
    assert baselines.hit_slices(places, np.array([2, 1]), 2) == [{2}, {3}]
    lattice = planners.lattice(2).nodes
    assert baselines.s3t_flops_to_heal(lattice, 2, {1}) == pytest.approx(0.5 * 1.5 + 1 * 2)


@functools.cache
def sisa_setup(optimizer=stacks.optimizer):
    """The tiny stack of dense blocks, SISA's way: all adapters in the head."""
    whole = nodes.whole_in_head(stacks.BACKBONE, stacks.LORA, stacks.SLICES)
    recipe = stacks.RECIPE._replace(lora=nodes.NOTHING, optimizer=optimizer)
    source = stacks.source(backbone=whole, recipe=recipe, cache_bytes=0)
    count = arrangement.counts(stacks.data()[3], stacks.SHARDS, stacks.SLICES)
    return Setup(source, SISA, stacks.SHARDS, stacks.KEY, schedule.make_shapes(source, SISA, count))


def sisa_nodes(setup, slices, kept=None):
    trained = dict(kept or {})
    jobs = [(shard, node) for node in SISA.nodes for shard in range(stacks.SHARDS) if (shard, node) not in trained]
    for call in schedule.build(setup, slices, jobs, lambda shard, node: trained[shard, node]):
        trained.update(call.nodes)
    return trained


@functools.cache
def sisa_table():
    return sisa_nodes(sisa_setup(), stacks.arranged())


def zero_rate(steps):
    return optax.sgd(0.0)


@pytest.mark.slow
def test_a_stage_of_sisa_goes_on_where_the_last_one_ended():
    """With a learning rate of 0 all checkpoints are the first one; with a real one every block's adapters move."""
    trained, still = sisa_table(), sisa_nodes(sisa_setup(zero_rate), stacks.arranged())
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), trained[0, (0,)].head, trained[0, (0, 1)].head)
    assert all(jax.tree.leaves(moved))
    assert all(tree.bits_equal(still[0, node].head, still[0, (0,)].head) for node in SISA.nodes)


@pytest.mark.slow
def test_sisa_s_model_is_the_backbone_with_adapters_on_all_blocks():
    x, (whole, trained) = stacks.data()[0], (SISA.nodes[-1], sisa_table()[1, SISA.nodes[-1]].head)
    expected = forward(
        stacks.BACKBONE, stacks.frozen(), x, stacks.LORA, (range(stacks.BLOCKS),), [trained["slot"]], trained["head"]
    )
    got = building.node_logits(sisa_setup(), sisa_table(), 1, whole, x)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_a_suffix_is_retrained_as_if_the_deleted_never_existed():
    """SISA's prefix is kept, its suffix trained anew: byte for byte a training without the example from the start."""
    places = stacks.data()[3]
    keep = np.ones(len(places.shard), bool)
    keep[np.flatnonzero((places.shard == 0) & (places.slice == 2))[:1]] = False
    slices, trained = stacks.arranged(keep=keep), sisa_table()
    kept = {job: node for job, node in trained.items() if job[0] != 0 or 2 not in job[1]}
    again, fresh = sisa_nodes(sisa_setup(), slices, kept), sisa_nodes(sisa_setup(), slices)
    assert len(trained) - len(kept) == 2
    assert again.keys() == fresh.keys() and all(tree.bits_equal(again[job], fresh[job]) for job in fresh)
    assert not tree.bits_equal(again[0, (0, 1, 2)], trained[0, (0, 1, 2)])
