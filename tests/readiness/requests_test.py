"""What a simulated request is made of: who may be drawn, in which shares, and which data count as similar."""

import functools

import jax
import numpy as np
import pytest

from experiments.core.machines import execution
from experiments.data import sets
from readiness.requests import Draw, draw_meta_batch, make_pools, nearest_classes, nearest_examples
from tests.helpers import toys
from unlearn import tree

KEY = jax.random.key(3)
MASKS = np.arange(10) // 2 == np.array([[0], [2]])  # positions 0 and 1; 4 and 5


def data():
    """Ten examples whose ids are not their positions."""
    at = np.arange(10)
    return {"x": np.float32(at[:, None]), "y": at % 3, "id": 5 * at + 2, "weight": np.ones(10, np.float32)}


@functools.cache
def compiled(draw):
    return toys.quick_jit(lambda key, data, pools: draw_meta_batch(key, data, pools, draw))


def drawn(draw, masks=MASKS, recovery=None, key=KEY):
    return compiled(draw)(key, data(), make_pools(masks, recovery))


def positions(batch):
    """Of the examples of a batch, in its shape."""
    return (np.asarray(batch["id"]) - 2) // 5


# who is similar


def test_the_nearest_classes_are_those_whose_means_are():
    """The forget set, all of class 0, has mean 0; the others have 0.4, 3, -2 and 8. Single examples would mislead."""
    features = {0: (-1, 1), 1: (0.4,), 2: (3, 3), 3: (-44, 40), 4: (0.1, 15.9)}
    x = np.concatenate([np.float32(values) for values in features.values()]).reshape(-1, 1, 1, 1)
    y = np.repeat(list(features), [len(values) for values in features.values()])
    found = [nearest_classes(x, y, y == 0, count) for count in (1, 2, 9)]
    assert [sorted(set(y[mask].tolist())) for mask in found] == [[1], [1, 3], [1, 2, 3, 4]]
    assert all(mask.tolist() == np.isin(y, y[mask]).tolist() for mask in found)


def test_a_class_that_is_partly_forgotten_may_be_nearest_to_itself():
    x, y, forget = np.float32([[0], [1], [4], [9]]), np.array([0, 0, 1, 1]), np.arange(4) == 0
    assert nearest_classes(x, y, forget, 1).tolist() == [False, True, False, False]


def test_the_nearest_examples_are_stable_and_near_the_mean_of_the_forget_set():
    x, forget = np.float32([0, 4, 0.1, -7, 2.5, 1, 3.9])[:, None, None], np.arange(7) < 2  # mean 2
    assert np.flatnonzero(nearest_examples(x, forget, 2)).tolist() == [4, 5]
    assert np.flatnonzero(nearest_examples(x, forget, 9)).tolist() == [2, 3, 4, 5, 6]


# the pools


def test_recovery_data_that_are_to_be_forgotten_are_refused():
    recovery = ~MASKS
    recovery[1, 4] = True
    with pytest.raises(ValueError, match="recovery data must be stable: some are in the forget set"):
        make_pools(MASKS, recovery)
    make_pools(MASKS, ~MASKS)


@pytest.mark.parametrize("name, value", [("forget", False), ("stable", True)])
def test_a_group_with_nothing_to_draw_is_refused(name, value):
    masks = MASKS.copy()
    masks[1] = value
    with pytest.raises(ValueError, match=f"group 1 has no {name} examples"):
        make_pools(masks)


def test_a_request_stays_within_its_group():
    """Each part holds every example of its pool and no other, whichever group was drawn; the pools differ in width."""
    masks = np.stack([MASKS[0], np.arange(10) >= 5])
    recovery = np.stack([np.arange(10) == 9, np.arange(10) % 5 == 4]) & ~masks
    draw, groups = Draw(size=64, inner_steps=2, retain=True, recovery=True), set()
    for seed in range(8):
        batch = drawn(draw, masks, recovery, jax.random.key(seed))
        group = next(i for i in (0, 1) if masks[i, positions(batch.forget)[0]])
        groups.add(group)
        parts = (batch.requests.forget, batch.forget, batch.requests.retain, batch.stable, batch.recovery)
        pools = (masks, masks, ~masks, ~masks, recovery)
        for part, pool in zip(parts, pools, strict=True):
            assert np.unique(positions(part)).tolist() == np.flatnonzero(pool[group]).tolist()
    assert groups == {0, 1}


@pytest.mark.parametrize(
    "same", [MASKS.astype(int), MASKS.tolist(), MASKS.astype(float)], ids=["integers", "list", "floats"]
)
def test_masks_may_be_numbers(same):
    assert tree.bits_equal(make_pools(same), make_pools(MASKS))
    x, y = np.float32(np.arange(10)[:, None]), np.arange(10) % 3
    assert nearest_classes(x, y, same[0], 1).tolist() == nearest_classes(x, y, MASKS[0], 1).tolist()
    assert nearest_examples(x, same[0], 2).tolist() == nearest_examples(x, MASKS[0], 2).tolist()


@pytest.mark.parametrize("masks", [MASKS[0], 2 * MASKS, MASKS[:0], [3, 4]], ids=["one axis", "twos", "none", "positions"])
def test_what_is_no_mask_is_refused(masks):
    with pytest.raises(ValueError, match=r"^forget is of \w+\[.*\]: give a mask \[groups, examples\] of bool$"):
        make_pools(masks)
    with pytest.raises(ValueError, match=r"^forget masks \[2, 10\] and recovery masks \[1, 10\]: give as many of both"):
        make_pools(MASKS, ~MASKS[:1])


@pytest.mark.parametrize("field, value", [("size", 0), ("inner_steps", -1), ("relearn_share", 1.5), ("anew", -2)])
def test_a_shape_that_nothing_is_drawn_in_is_refused(field, value):
    with pytest.raises(ValueError, match=f"^{field} is {value}: give a number"):
        drawn(Draw(size=4)._replace(**{field: value}))


# the draws


@pytest.mark.parametrize("fresh", [True, False])
def test_forgetting_is_measured_on_a_fresh_draw_or_on_the_last_inner_batch(fresh):
    batch = drawn(Draw(size=16, inner_steps=2, fresh=fresh))
    first, last = positions(batch.requests.forget).tolist()
    assert first != last and (positions(batch.forget).tolist() == last) == (not fresh)


def test_without_inner_steps_every_draw_is_fresh():
    assert positions(drawn(Draw(size=16, inner_steps=0, fresh=False)).forget).shape == (16,)


@pytest.mark.parametrize("size, share, forgotten", [(8, 0.25, 2), (8, 0.75, 6), (2, 0.1, 1)])
def test_relearning_batches_hold_their_share_of_forget_examples(size, share, forgotten):
    draw = Draw(size=size, relearn_steps=3, relearn_share=share)
    batch = drawn(draw, MASKS[:1]).relearn
    assert positions(batch.forget).tolist() == positions(batch.retain).tolist()
    assert np.isin(positions(batch.retain), [0, 1]).sum(axis=1).tolist() == 3 * [forgotten]
    assert positions(batch.retain).shape == (3, size)


def test_a_request_made_up_anew_is_nobody_that_is_kept():
    """Four of ten are asked for, and draws of 64 hold all of them; among what stays the same examples have weight 0."""
    draw = Draw(size=64, inner_steps=2, retain=True, recovery=True, relearn_steps=1, anew=4)
    made_up = set()
    for seed in range(3):
        batch = drawn(draw, key=jax.random.key(seed))
        asked = sorted(set(positions(batch.forget).tolist()))
        made_up.add(tuple(asked))
        assert 1 <= len(asked) <= 4 and set(positions(batch.requests.forget).ravel().tolist()) == set(asked)
        again = {name: leaf[:, 16:] for name, leaf in batch.relearn.retain.items()}  # a quarter is forget data
        for kept in (batch.stable, batch.recovery, batch.requests.retain, again):
            is_asked = np.isin(positions(kept), asked)
            assert is_asked.any() and kept["weight"].tolist() == (~is_asked).astype(float).tolist()
        assert np.all(batch.forget["weight"] == 1)
    assert len(made_up) == 3 and not any(set(asked) <= {0, 1, 4, 5} for asked in made_up), "the pools' groups do not count"


# x and y as mappings


DRAWS = [
    Draw(size=4, inner_steps=2, retain=True, recovery=True, relearn_steps=1),
    Draw(size=4, inner_steps=1, anew=3, retain=True),
]


@pytest.mark.parametrize("draw", DRAWS, ids=["pools", "anew"])
def test_examples_of_any_structure_are_drawn_as_plain_ones_are(draw):
    def nested(batch):
        return dict(batch, x={"pixels": batch["x"]}, y={"label": batch["y"], "again": batch["y"]})

    plain = drawn(draw)
    structured = draw_meta_batch(KEY, nested(data()), make_pools(MASKS), draw)
    expected = jax.tree.map(nested, plain, is_leaf=lambda part: isinstance(part, dict))
    toys.assert_close(structured, expected, 0)


def test_batches_of_any_structure_are_padded_and_thinned():
    nested = dict(data(), x={"pixels": data()["x"]}, y={"label": data()["y"]})
    more = execution.pad(nested, 0, 4)
    assert more["x"]["pixels"].shape == (12, 1) and more["weight"].tolist() == [1.0] * 10 + [0.0] * 2
    filled = sets.padded(nested, 11)
    assert filled["y"]["label"].shape == (11,) and filled["weight"][-1] == 0
    fewer = sets.subsample(nested, 3, "test")
    np.testing.assert_array_equal(fewer["x"]["pixels"][:, 0], positions(fewer))
    assert len(fewer["id"]) == 3 and sets.subsample(nested, 0, "test") is nested
