"""What a decoder says next: greedy or sampled, with a cache of keys and values, in one compiled loop."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.models.language.decoder import Cache, Decoder
from experiments.models.language.layers import Adapters

Tree = Any


def generate(
    module: Decoder,
    params: Tree,
    prompts: Any,
    lengths: Any,
    new: int,
    *,
    key: jax.Array | None = None,
    temperature: float = 1.0,
    stop: int | None = None,
    adapters: Sequence[Adapters] = (),
) -> jax.Array:
    """Continue prompts by `new` tokens.

    The prompts are read at once; then each row goes on from its own end, a token at a time, and looks back at the cache. It
    goes on until the model's positions are full, however long the other rows are.

    Args:
      prompts: [n, P] tokens, shorter ones padded at the right with any token.
      lengths: [n] how many tokens of each row are the prompt.
      new: how many tokens to add.
      key: of the draws; without one the likeliest token is taken.
      temperature: logits are divided by it before a draw.
      stop: after this token, and where the positions are full, a row has only it; without one every row needs room.
      adapters: those of each block, or of none.

    Returns:
      [n, new] int32, what comes after each prompt.

    Raises:
      ValueError: prompts with no token or with more than P, wider than the model's positions, or with no room for `new`
        tokens and no stop; or no positive temperature.
    """
    prompts, lengths = np.asarray(prompts, np.int32), np.asarray(lengths, np.int32)
    if prompts.ndim != 2 or lengths.shape != prompts.shape[:1]:
        raise ValueError(f"prompts are {prompts.shape} and lengths {lengths.shape}: give [n, P] tokens and [n] lengths")
    if ((lengths < 1) | (lengths > prompts.shape[1])).any():
        raise ValueError(f"lengths of prompts are {lengths.min()} to {lengths.max()}: give 1 to {prompts.shape[1]} tokens")
    longest, most = int(lengths.max(initial=1)), module.config.positions
    if prompts.shape[1] > most:
        raise ValueError(f"prompts of {prompts.shape[1]} tokens are wider than {most} positions: cut them")
    if new < 1 or (stop is None and longest + new > most):
        said = f"{new} tokens after prompts of {longest} are not within 1 and {most} positions"
        raise ValueError(f"{said}: ask for {max(most - longest, 1)}, or give a stop")
    if not temperature > 0:
        raise ValueError(f"a temperature of {temperature} divides nothing: give a positive one, or no key to be greedy")
    return _generate(module, params, tuple(adapters), prompts, lengths, new, key, temperature, stop)


@functools.partial(jax.jit, static_argnames=("module", "new", "stop"))
def _generate(
    module: Decoder,
    params: Tree,
    adapters: tuple[Adapters, ...],
    prompts: jax.Array,
    lengths: jax.Array,
    new: int,
    key: jax.Array | None,
    temperature: float,
    stop: int | None,
) -> jax.Array:
    def read(tokens: jax.Array, positions: jax.Array, caches: tuple[Cache, ...]) -> Any:
        return module.apply({"params": params}, tokens, positions, caches, adapters, method="read")

    def logits(h: jax.Array) -> jax.Array:
        made: Any = module.apply({"params": params}, h, method="head")
        return made

    def pick(logits: jax.Array, step: jax.Array) -> jax.Array:
        if key is None:
            return jnp.argmax(logits, axis=-1)
        return jax.random.categorical(jax.random.fold_in(key, step), logits / temperature)

    def go_on(carry: Any, step: jax.Array) -> tuple[Any, jax.Array]:
        last, caches, stopped = carry
        token, places = pick(logits(last), step).astype(jnp.int32), lengths + step
        if stop is not None:
            token = jnp.where(stopped | (places >= most), stop, token)
            stopped = token == stop
        # A full row writes over its own last place: all that it says from here on is the stop.
        h, caches = read(token[:, None], jnp.minimum(places, room - 1)[:, None], caches)
        return (h[:, 0], caches, stopped), token

    (n, length), most = prompts.shape, module.config.positions
    room = min(length + new, most)
    h, caches = read(prompts, jnp.broadcast_to(jnp.arange(length), prompts.shape), _empty(module, params, n, room))
    # What the cache holds of the pads is overwritten before any token looks that far.
    start = h[jnp.arange(n), lengths - 1], caches, jnp.zeros(n, bool)
    return jax.lax.scan(go_on, start, jnp.arange(new))[1].T


def _empty(module: Decoder, params: Tree, n: int, room: int) -> tuple[Cache, ...]:
    config = module.config
    dtype = params["tokens"]["embedding"].dtype if module.dtype is None else module.dtype
    blank = jnp.zeros((n, room, config.kv_heads, config.head_width), dtype)
    return (Cache(blank, blank),) * config.depth
