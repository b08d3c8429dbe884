"""A frozen decoder or encoder with low-rank adapters, as functions whose parameters are the adapters alone.

The frozen weights are constants of every program: all lanes share them, and no optimiser, checkpoint or derivative holds
a copy. Blocks run in a loop, so that thirty of them are compiled as one. An encoder's head is trained beside its adapters.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp

from experiments.core import sections
from experiments.core.errors import UserError
from experiments.models.functions import ModelFns
from experiments.models.language import decoder, encoder
from experiments.models.language.backbones import init_head, layers
from experiments.models.language.decoder import Decoder
from experiments.models.language.encoder import Encoder
from experiments.models.language.generate import generate
from experiments.models.language.layers import Adapters
from s3t.training.adapters import Factors, Lora, init_slot, switched, targeted

Tree = Any


def build(module: Decoder | Encoder, frozen: Tree, section: sections.Lora) -> ModelFns:
    """The model with adapters that change nothing yet.

    Its parameters are {"attention": {"query": {"a": [depth, fan-in, rank], "b": [depth, rank, fan-out]}}} and so on, and of
    an encoder {"head": ...} beside them.

    Args:
      frozen: the model's parameters, float32 or shorter; adapters and heads are float32.

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
    if isinstance(module, Encoder):
        return _encoder(module, lora, ends, blocks)
    return _decoder(module, lora, ends, blocks)


def _decoder(module: Decoder, lora: Lora, ends: Tree, blocks: Tree) -> ModelFns:
    block = decoder.Block(module.config, module.dtype, module.dropout)

    def features(params: Tree, tokens: jax.Array, key: jax.Array | None, noise: jax.Array | None = None) -> jax.Array:
        # Left alone by XLA, which would transpose constants of this size while it compiles. Not so what tokens are looked
        # up in: behind a barrier, a lookup of many tokens on a CPU ends in a segmentation fault (jaxlib 0.10).
        inner = jax.lax.optimization_barrier(blocks)
        tokens = jnp.asarray(tokens)  # lists are taken, too
        places = jnp.arange(tokens.shape[1])[None]

        def through(weights: Tree, h: jax.Array, adapters: Adapters, rngs: Tree) -> jax.Array:
            moved: jax.Array = block.apply({"params": weights}, h, adapters, places, None, rngs=rngs)[0]
            return moved

        h = _end(module, ends, tokens, key, method="embed", noise=noise)
        h = _through(module, lora, through, h, inner, params, key)
        return _end(module, ends, h, None, method="hidden")

    def apply(params: Tree, tokens: jax.Array, key: jax.Array | None, noise: jax.Array | None = None) -> jax.Array:
        hidden = features(params, tokens, key, noise)
        return _end(module, jax.lax.optimization_barrier(ends), hidden, None, method="logits")

    told = functools.partial(_generate, module, lora, ends, blocks)
    init = functools.partial(_init, module, lora)
    return ModelFns(init, apply, features, language=True, generate=told, noisy=apply, width=module.config.width)


def _encoder(module: Encoder, lora: Lora, ends: Tree, blocks: Tree) -> ModelFns:
    block = encoder.Block(module.config, module.dtype, module.dropout)

    def init(key: jax.Array) -> Tree:
        return _init(module, lora, key) | {"head": init_head(module, jax.random.fold_in(key, module.config.depth))}

    def call(method: str, params: Tree, x: Any, key: jax.Array | None) -> jax.Array:
        inner = jax.lax.optimization_barrier(blocks)
        adapters = {name: part for name, part in params.items() if name != "head"}

        def through(weights: Tree, h: Tree, adapters: Adapters, rngs: Tree) -> Tree:
            return block.apply({"params": weights}, h, adapters, rngs=rngs)

        h = _end(module, ends, x, key, method="embed")
        h = _through(module, lora, through, h, inner, adapters, key)
        return _end(module, {"head": params["head"]}, h, key, method=method)

    return ModelFns(init, functools.partial(call, "head"), functools.partial(call, "pool"))


def _init(module: Decoder | Encoder, lora: Lora, key: jax.Array) -> Tree:
    """Adapters of all blocks."""
    own = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(module.config.depth))
    drawn = jax.vmap(lambda key: init_slot(key, lora, (layers(module),))[0])(own)
    return flax.traverse_util.unflatten_dict({name: f._asdict() for name, f in drawn.items()}, sep="/")


def _through(
    module: Decoder | Encoder,
    lora: Lora,
    block: Callable[[Tree, Tree, Adapters, Tree], Tree],
    h: Tree,
    blocks: Tree,
    params: Tree,
    key: jax.Array | None,
) -> Tree:
    """What all blocks make of h, one after another; `block` is (weights, h, adapters, keys of dropout) -> h."""

    def through(h: Tree, layer: tuple[Tree, Tree, jax.Array]) -> tuple[Tree, None]:
        weights, factors, i = layer
        adapters = switched(lora, (_by_name(factors),))[0]
        rngs = {} if key is None else {"dropout": jax.random.fold_in(key, i)}
        return block(weights, h, adapters, rngs), None

    through = jax.checkpoint(through, prevent_cse=False) if module.remat else through
    return jax.lax.scan(through, h, (blocks, params, jnp.arange(module.config.depth)))[0]


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
    return tuple(jax.tree.map(operator.itemgetter(i), stacked) for i in range(depth))


def _by_name(params: Tree) -> dict[str, Factors]:
    """Layer -> factors, of one block."""
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    return {name.removesuffix("/a"): Factors(a, flat[f"{name[:-1]}b"]) for name, a in flat.items() if name.endswith("/a")}


def _end(module: Decoder | Encoder, params: Tree, x: Any, key: jax.Array | None, *, method: str, **more: Any) -> jax.Array:
    rngs = {} if key is None else {"dropout": key}
    made: Any = module.apply({"params": params}, x, rngs=rngs, method=method, **more)
    return made
