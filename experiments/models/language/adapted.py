"""A frozen decoder with low-rank adapters, as functions whose parameters are the adapters alone.

The frozen weights are constants of every program: all lanes share them, and no optimiser, checkpoint or derivative holds
a copy. Blocks run in a loop, so that thirty of them are compiled as one.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp

from experiments.core import sections
from experiments.core.errors import UserError
from experiments.models.functions import ModelFns
from experiments.models.language.backbones import layers
from experiments.models.language.decoder import Block, Decoder
from experiments.models.language.generate import generate
from s3t.training.adapters import Factors, Lora, init_slot, switched, targeted

Tree = Any


def build(module: Decoder, frozen: Tree, section: sections.Lora) -> ModelFns:
    """The decoder with adapters that change nothing yet.

    Its parameters are {"attention": {"query": {"a": [depth, fan-in, rank], "b": [depth, rank, fan-out]}}} and so on.

    Args:
      frozen: the decoder's parameters, float32 or shorter; adapters are float32.

    Raises:
      UserError: a target that is no layer.
    """
    lora, depth = Lora(section.rank, section.alpha, section.targets), module.config.depth
    try:
        targeted(lora, layers(module))
    except ValueError as error:
        raise UserError(f"model.lora.targets is {section.targets}: {error}") from error
    ends = {name: part for name, part in frozen.items() if not name.startswith("blocks_")}
    blocks = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(frozen[f"blocks_{i}"] for i in range(depth)))
    block = Block(module.config, module.dtype, module.dropout)

    def init(key: jax.Array) -> Tree:
        own = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(depth))
        drawn = jax.vmap(lambda key: init_slot(key, lora, (layers(module),))[0])(own)
        return flax.traverse_util.unflatten_dict({name: f._asdict() for name, f in drawn.items()}, sep="/")

    def features(params: Tree, tokens: jax.Array, key: jax.Array | None, noise: jax.Array | None = None) -> jax.Array:
        # Left alone by XLA, which would transpose constants of this size while it compiles.
        own, inner = jax.lax.optimization_barrier((ends, blocks))
        places = jnp.arange(tokens.shape[1])[None]

        def through(h: jax.Array, layer: tuple[Tree, Tree, jax.Array]) -> tuple[jax.Array, None]:
            weights, factors, i = layer
            adapters = switched(lora, (_by_name(factors),))[0]
            rngs = {} if key is None else {"dropout": jax.random.fold_in(key, i)}
            return block.apply({"params": weights}, h, adapters, places, None, rngs=rngs)[0], None

        h = _end(module, own, tokens, key, method="embed", noise=noise)
        through = jax.checkpoint(through, prevent_cse=False) if module.remat else through
        return _end(module, own, jax.lax.scan(through, h, (inner, params, jnp.arange(depth)))[0], None, method="hidden")

    def apply(params: Tree, tokens: jax.Array, key: jax.Array | None, noise: jax.Array | None = None) -> jax.Array:
        hidden = features(params, tokens, key, noise)
        return _end(module, jax.lax.optimization_barrier(ends), hidden, None, method="logits")

    told = functools.partial(_generate, module, lora, ends, blocks)
    return ModelFns(init, apply, features, language=True, generate=told, noisy=apply, width=module.config.width)


def _generate(module: Decoder, lora: Lora, ends: Tree, blocks: Tree, params: Tree, *prompts: Any, **how: Any) -> jax.Array:
    """`generate.generate` by the adapters of one model, which act beside the frozen kernels as they do in training.

    They are not merged into these, whose precision they would be rounded to. The blocks are stacked, and what generates has
    each by its name: that second copy of the frozen blocks, the same for any number of models, lives as long as the call.
    """
    names = [f"blocks_{i}" for i in range(module.config.depth)]
    frozen = ends | dict(zip(names, _apart(blocks, len(names)), strict=True))
    adapters = switched(lora, tuple(map(_by_name, _apart(params, len(names)))))
    return generate(module, frozen, *prompts, adapters=adapters, **how)


@functools.partial(jax.jit, static_argnames="depth")
def _apart(stacked: Tree, depth: int) -> tuple[Tree, ...]:
    """The trees of each block."""
    return tuple(jax.tree.map(lambda leaf: leaf[i], stacked) for i in range(depth))


def _by_name(params: Tree) -> dict[str, Factors]:
    """Layer -> factors, of one block."""
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    return {name.removesuffix("/a"): Factors(a, flat[f"{name[:-1]}b"]) for name, a in flat.items() if name.endswith("/a")}


def _end(module: Decoder, params: Tree, x: Any, key: jax.Array | None, *, method: str, **more: Any) -> jax.Array:
    rngs = {} if key is None else {"dropout": key}
    made: Any = module.apply({"params": params}, x, rngs=rngs, method=method, **more)
    return made
