"""The study's curves against a slow twin that deletes request by request, and plans at equal FLOPs."""

import numpy as np
import pytest

from experiments.exact import study
from experiments.exact.scores import Target
from s3t.plans import planners, simulate, structure
from s3t.service import ensemble

SHARDS, SLICES, EXAMPLES, CLASSES = 3, 3, 40, 4
PLAN = structure.make_plan(SLICES, [(0, 1, 2), (1, 2), (2, 0)])


def made_up(plan=PLAN):
    rng = np.random.default_rng(0)
    shape = (EXAMPLES, CLASSES)
    return {(shard, node): rng.normal(size=shape).astype(np.float32) for shard in range(SHARDS) for node in plan.nodes}


LABELS = np.random.default_rng(1).integers(CLASSES, size=EXAMPLES)


def classes(labels):
    return Target("accuracy", labels, np.zeros(len(labels)))


def slowly(logits, first, requests, kind):
    """[streams, requests] accuracy: one stream, one request, one shard, one node after the other."""
    found = np.zeros((len(first), len(requests)))
    for i, stream in enumerate(first):
        for j, request in enumerate(requests):
            total = np.zeros((EXAMPLES, CLASSES))
            answered = False
            for shard in range(SHARDS):
                gone = [s for s in range(SLICES) if stream[shard, s] <= request]
                alive = [node for node in PLAN.nodes if not set(node) & set(gone)]
                if not alive:
                    continue
                answered = True
                if kind == "all":
                    leaves = [n for n in alive if not any(m[:-1] == n for m in alive)]
                    total += sum(logits[shard, n].astype(float) for n in leaves) / len(leaves)
                else:
                    best = structure.served(PLAN, gone)
                    total += logits[shard, best].astype(float) * (len(best) if kind == "depth" else 1)
            found[i, j] = np.mean(total.argmax(axis=1) == LABELS) if answered else 0.0
    return found


@pytest.mark.parametrize("kind", ensemble.AGGREGATES)
def test_a_curve_is_that_of_deleting_one_by_one(kind):
    logits, requests = made_up(), [0, 1, 2, 3, 5, 8, 13, 60]
    first = simulate.uniform(np.random.default_rng(2), 30, SHARDS, SLICES)
    table = study.answers(PLAN, logits, SHARDS, kind)
    got = study.scores(table, study.masks(first, requests), classes(LABELS))
    expected = slowly(logits, first, requests, kind)
    np.testing.assert_allclose(got, expected, atol=1e-12)
    assert expected[:, -1].max() == 0 and len(np.unique(expected)) >= 10  # all die, and states differ


def test_states_in_parts_give_the_same(monkeypatch):
    table = study.answers(PLAN, made_up(), SHARDS, "mean")
    states = study.masks(simulate.uniform(np.random.default_rng(2), 30, SHARDS, SLICES), range(20))
    whole = study.scores(table, states, classes(LABELS))
    monkeypatch.setattr(study, "AT_ONCE", 1)
    np.testing.assert_array_equal(study.scores(table, states, classes(LABELS)), whole)


def test_masks_by_hand():
    first = np.array([[[1.0, 3.0], [np.inf, 2.0]]])
    assert study.masks(first, [0, 1, 2, 3]).tolist() == [[[0, 0], [1, 0], [1, 2], [3, 2]]]


def test_an_ensemble_by_hand():
    """Two shards of one slice, one example of label 1: only shard 1 is right, and only as long as it lives."""
    plan = planners.sisa(1)
    logits = {(0, (0,)): np.array([[2.0, 1.0]]), (1, (0,)): np.array([[0.0, 3.0]])}
    table = study.answers(plan, logits, 2, "mean")
    states = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    assert study.scores(table, states, classes(np.array([1]))).tolist() == [1, 1, 0, 0]
    first = np.array([[[2.0], [4.0]], [[4.0], [2.0]]])
    judged = study.judge(plan, table, first, range(5), classes(np.array([1])))
    assert judged["accuracy"]["mean"] == [1, 1, 0.5, 0.5, 0]
    assert judged["depth"]["mean"] == [1, 1, 0.5, 0.5, 0] and judged["alive"]["mean"] == [1, 1, 1, 1, 0]
    assert judged["deletions_to_rebuild"]["mean"] == 4 and judged["deletions_to_first_dead_shard"]["mean"] == 2


def test_depths_and_weights_of_two_slices_by_hand():
    """The lattice of two slices: after slice 0 is gone (1,) serves, of depth 1; with all, both stumps' only leaf."""
    plan = planners.lattice(2)
    logits = {(0, node): np.full((1, 2), 10.0 * len(node) + node[0]) for node in plan.nodes}
    mean, depth, every = (study.answers(plan, logits, 1, kind) for kind in ensemble.AGGREGATES)
    assert mean.logits[0, :, 0, 0].tolist() == [20, 11, 10, 0] and mean.weight.tolist() == [1, 1, 1, 0]
    assert depth.weight.tolist() == [2, 1, 1, 0]
    assert every.logits[0, :, 0, 0].tolist() == [(20 + 11) / 2, 11, 10, 0]


def test_plans_come_as_near_to_the_flops_as_their_budgets_allow():
    target = structure.flops(planners.lattice(4))
    names = [name for name in planners.PLANNERS if name != "full"]
    chosen = study.at_equal_flops(names, 4, target)
    assert chosen["lattice"] == planners.lattice(4) and chosen["stumps"] == planners.stumps(4)
    assert chosen["cyclic"] == planners.cyclic(4, 3)  # 13.125 against 13.0
    for name in study.SIZED:
        for budget in range(1, 5):
            other = planners.PLANNERS[name](4, budget, None)
            assert abs(structure.flops(chosen[name]) - target) <= abs(structure.flops(other) - target)
    assert structure.flops(chosen["greedy"]) <= target
    whole = study.union(list(chosen.values()))
    assert set(whole.nodes) == {node for plan in chosen.values() for node in plan.nodes}
    with pytest.raises(ValueError, match="'best' is unknown"):
        study.at_equal_flops(["best"], 4, target)
    assert study.at_equal_flops(["bms"], 3, 1e9)["bms"] == planners.bms(3, 3)
