"""Thresholds, the largest entries and random ones: by hand, and how often each entry is drawn."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from federated.archive import changed, largest_entries, random_entries
from tests.helpers import toys


def test_what_differs_by_more_than_the_threshold_is_stored():
    update = jnp.array([3.0, -4.0, 0.0, 0.0])  # root mean square 2.5
    reference = jnp.array([1.0, 1.0, 2.6, 0.0])
    np.testing.assert_array_equal(changed(update, reference, 1.0), [False, True, True, False])


def test_exactly_so_many_are_stored_even_of_equal_entries():
    np.testing.assert_array_equal(largest_entries(jnp.array([1.0, -1.0, 5.0, 1.0]), 2).sum(), 2)
    assert largest_entries(jnp.zeros(5), 3).sum() == 3


def test_random_entries_are_all_alike_and_drawn_again_from_key_user_and_round():
    draw = lambda user, t: random_entries(jax.random.key(1), 10, 3, user, t)  # noqa: E731
    masks = toys.quick_jit(jax.vmap(lambda t: draw(7, t)))(jnp.arange(2000))
    assert (masks.sum(axis=1) == 3).all() and abs(masks.mean(axis=0) - 0.3).max() < 4.5 * np.sqrt(0.21 / 2000)
    np.testing.assert_array_equal(draw(7, 5), masks[5])
    assert (draw(8, 0) != masks[0]).any()
