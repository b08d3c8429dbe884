"""Decoder and encoder as the functions that s3t, training and requests take."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.models.functions import ModelFns
from experiments.models.language.decoder import Decoder
from experiments.models.language.encoder import Encoder, Head
from experiments.models.language.folders import Pretrained
from experiments.models.language.generate import generate
from s3t.training.adapters import Adapter
from s3t.training.backbone import Backbone
from unlearn import sequence_model

Tree = Any
Module = Decoder | Encoder

_document_loss = sequence_model(lambda params, x, key: x).loss  # whatever the model


def layers(module: Module) -> tuple[tuple[str, int, int], ...]:
    """The projections of one block that may carry adapters: (name, fan-in, fan-out)."""
    width, mlp, shared, gate = module.config.width, module.config.mlp, module.config.width, False
    if isinstance(module, Decoder):
        shared, gate = module.config.kv_heads * module.config.head_width, module.config.activation == "swiglu"
    attention = ("attention/query", width, width), ("attention/key", width, shared), ("attention/value", width, shared)
    gated = (("mlp/gate", width, mlp),) if gate else ()
    return *attention, ("attention/out", width, width), *gated, ("mlp/up", width, mlp), ("mlp/down", mlp, width)


@functools.lru_cache
def as_backbone(module: Module) -> Backbone:
    """A decoder or an encoder behind s3t's contract; equal modules give one Backbone.

    Of an encoder, x and h are as its file says, y are labels [n]; the head is its classifier, and frozen are all other
    parameters. Of a decoder, x are tokens [n, L], y is {"tokens": those to predict [n, L], "weight": [n, L]}, and a
    document's loss is the mean over its tokens under their weights. Everything of a decoder is frozen: its head is a scale
    and a shift between last norm and logits, which begins as the identity and so as the pre-trained model.
    """
    return _decoder_backbone(module) if isinstance(module, Decoder) else _encoder_backbone(module)


def _decoder_backbone(module: Decoder) -> Backbone:
    width = module.config.width

    def head(frozen: Tree, head_params: Tree, h: jax.Array) -> jax.Array:
        hidden = _apply(module, frozen, h, method="hidden")
        moved = hidden * head_params["scale"] + head_params["bias"]
        logits: jax.Array = _apply(module, frozen, moved.astype(hidden.dtype), method="logits")
        return logits

    def init_head(key: jax.Array) -> Tree:
        return {"scale": jnp.ones(width), "bias": jnp.zeros(width)}

    def loss(logits: jax.Array, y: Tree) -> jax.Array:
        return _document_loss(logits, {"y": y["tokens"], "token_weight": y["weight"]})

    embed, block = _frozen(module)
    return Backbone(embed, block, head, init_head, (layers(module),) * module.config.depth, loss=loss)


def _encoder_backbone(module: Encoder) -> Backbone:
    def head(frozen: Tree, head_params: Tree, h: Tree) -> jax.Array:
        logits: jax.Array = _apply(module, {**frozen, "head": head_params}, h, method="head")
        return logits

    embed, block = _frozen(module)
    return Backbone(embed, block, head, functools.partial(init_head, module), (layers(module),) * module.config.depth)


def _frozen(module: Module) -> tuple[Any, Any]:
    def embed(frozen: Tree, x: Tree, keys: jax.Array | None) -> Tree:
        return _apply(module, frozen, x, method="embed")

    def block(frozen: Tree, i: int, h: Tree, adapters: dict[str, Adapter]) -> Tree:
        return _apply(module, frozen, h, i, adapters, method="block")

    return embed, block


def init_head(module: Encoder, key: jax.Array) -> Tree:
    """Random parameters of an encoder's classifier."""
    h = {"hidden": jnp.zeros((1, 1, module.config.width)), "mask": np.ones((1, 1), bool)}
    head = Head(module.classes, module.pooling, module.dtype, module.dropout, module.config.width)
    return head.init(key, h)["params"]


@functools.lru_cache
def as_functions(module: Module) -> ModelFns:
    """A decoder or an encoder as functions; equal modules give the same ones, and so one program.

    x are tokens [n, L] of a decoder, and as its file says of an encoder. Features are what the last layer is given.
    """
    tokens = np.zeros((1, 1), np.int32)  # numpy: a first call within a trace would leave a tracer in the cache
    x = tokens if isinstance(module, Decoder) else {"tokens": tokens, "mask": np.ones((1, 1), bool)}

    def init(key: jax.Array) -> Tree:
        return module.init(key, x)["params"]

    def call(params: Tree, x: Any, key: jax.Array | None, method: str = "__call__", **more: Any) -> jax.Array:
        rngs = {} if key is None else {"dropout": key}
        made: Any = module.apply({"params": params}, x, rngs=rngs, method=method, **more)
        return made

    def noisy(params: Tree, x: Any, key: jax.Array | None, noise: jax.Array) -> jax.Array:
        return call(params, x, key, noise=noise)

    fns = ModelFns(init, call, functools.partial(call, method="features"))
    if isinstance(module, Decoder):
        told = functools.partial(generate, module)
        fns = fns._replace(language=True, generate=told, noisy=noisy, width=module.config.width)
    return fns


def begin(module: Module, loaded: Pretrained) -> ModelFns:
    """The model that begins with the parameters of a folder.

    An encoder's head is the file's where that fits `classes` and `pooling`, layer by layer, and else random, by the key.

    Example: `loaded = load_folder(folder); fns = begin(Encoder(loaded.config, classes=2), loaded)`.
    """
    fns = as_functions(module)
    if isinstance(module, Decoder):
        return fns._replace(init=lambda key: loaded.params)

    def init(key: jax.Array) -> Tree:
        head, found = init_head(module, key), loaded.head or {}
        fits = {name: part for name, part in found.items() if name in head and _shapes(part) == _shapes(head[name])}
        return {**loaded.params, "head": head | fits}

    return fns._replace(init=init)


def _shapes(params: Tree) -> Tree:
    return jax.tree.map(jnp.shape, params)


def _apply(module: nn.Module, params: Tree, *inputs: Any, method: str) -> Any:
    return module.apply({"params": params}, *inputs, method=method)
