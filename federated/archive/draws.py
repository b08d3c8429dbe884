"""What an archive draws at random, from the archive's key, a user and a round: whoever decodes draws the same again."""

from __future__ import annotations

import enum

import jax

from federated.history import Array


class Draw(enum.IntEnum):
    """What a key is for. Archives on disk were made with these numbers: change none."""

    SAMPLE = 0  # whether a user's update is stored
    DITHER = 1
    ENTRIES = 2  # which entries `random_entries` keeps


def draw_key(key: Array, draw: Draw, user: Array | int, round: Array | int) -> Array:
    """The key of a draw for a user in a round."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, int(draw)), user), round)
