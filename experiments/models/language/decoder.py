"""One decoder whose configurations are GPT-2 and Llama 2 and 3, in Linen.

Blocks look back and never ahead, so padding stands at the end of a document: no token before it sees it, and what comes
out at a pad is to be given weight 0. Parameters have names of our own; `folders` knows those of published checkpoints.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models.language.layers import INIT, Adapters, attend, project, wide
from experiments.models.layers import drop


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Llama 3.1's stretching of slow rotations: `factor` times slower, those of short wavelength as they were."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_positions: int

    def __post_init__(self) -> None:
        """Refuse what would divide by zero or quicken rotations."""
        if not (self.factor >= 1 and self.original_positions >= 1 and 0 < self.low_freq_factor < self.high_freq_factor):
            raise ValueError(
                f"rotary positions are stretched by {self}: give a factor and original positions of 1 or more, and a "
                "high_freq_factor above the low one, which is above 0"
            )


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """The sizes and choices of a decoder; `gpt2` and `llama` make one.

    kv_heads: key-value heads; a divisor of `heads`, equal to it in GPT-2 and the smaller Llama 2.
    mlp: the width within the perceptron.
    positions: the longest sequence.
    norm: LayerNorm or RMSNorm.
    rope_theta: the base of rotary positions; None learns a vector for each position.
    activation: 'gelu' is the tanh approximation, 'swiglu' gates with silu.
    biases: of projections; norms have theirs as their kind says.
    tied: logits are taken with the token embeddings.
    """

    vocabulary: int
    width: int
    depth: int
    heads: int
    kv_heads: int
    mlp: int
    positions: int
    norm: Literal["layer", "rms"]
    norm_epsilon: float
    rope_theta: float | None
    activation: Literal["gelu", "swiglu"]
    biases: bool
    tied: bool
    rope_scaling: RopeScaling | None = None

    def __post_init__(self) -> None:
        """Refuse sizes that do not divide."""
        if self.width % self.heads:
            raise ValueError(f"a width of {self.width} is not shared among {self.heads} heads: choose a multiple of them")
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads do not share {self.kv_heads} key-value heads: choose a divisor")
        if self.rope_theta is not None and self.head_width % 2:
            raise ValueError(f"rotary positions turn pairs, a head has {self.head_width} features: choose an even number")

    @property
    def head_width(self) -> int:
        """Features of one head."""
        return self.width // self.heads


def gpt2(*, vocabulary: int, width: int, depth: int, heads: int, positions: int, **changes: Any) -> DecoderConfig:
    """GPT-2 of any size; `changes` are other fields of `DecoderConfig`.

    Example:
      >>> gpt2(vocabulary=50257, width=768, depth=12, heads=12, positions=1024).mlp
      3072
    """
    choices: dict[str, Any] = {
        "kv_heads": heads,
        "mlp": 4 * width,
        "norm": "layer",
        "norm_epsilon": 1e-5,
        "rope_theta": None,
        "activation": "gelu",
        "biases": True,
        "tied": True,
    }
    sizes = {"vocabulary": vocabulary, "width": width, "depth": depth, "heads": heads, "positions": positions}
    return DecoderConfig(**{**sizes, **choices, **changes})


def llama(
    *, vocabulary: int, width: int, depth: int, heads: int, mlp: int, positions: int, **changes: Any
) -> DecoderConfig:
    """Llama of any size; `changes` are other fields of `DecoderConfig`."""
    choices: dict[str, Any] = {
        "kv_heads": heads,
        "norm": "rms",
        "norm_epsilon": 1e-5,
        "rope_theta": 1e4,
        "activation": "swiglu",
        "biases": False,
        "tied": False,
    }
    sizes = {"vocabulary": vocabulary, "width": width, "depth": depth, "heads": heads, "mlp": mlp, "positions": positions}
    return DecoderConfig(**{**sizes, **choices, **changes})


class Cache(NamedTuple):
    """What a block remembers of the tokens it has read: keys and values [n, room, kv_heads, head width]."""

    keys: jax.Array
    values: jax.Array


def frequencies(config: DecoderConfig) -> jax.Array:
    """Angles per position of rotary positions, [head width / 2]: theta^(-2 j / d), stretched as `rope_scaling` says."""
    assert config.rope_theta is not None
    angles = config.rope_theta ** (-jnp.arange(0, config.head_width, 2, dtype=jnp.float32) / config.head_width)
    scaling = config.rope_scaling
    if scaling is None:
        return angles
    turns = scaling.original_positions * angles / (2 * math.pi)  # within the length of the first training
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = jnp.clip((turns - low) / (high - low), 0.0, 1.0)
    return kept * angles + (1 - kept) * angles / scaling.factor


def rotate(x: jax.Array, angles: jax.Array) -> jax.Array:
    """Turn the pairs (j, j + d/2) of the heads' features; x [n, L, heads, d], angles [n or 1, L, d/2]."""
    first, second = jnp.split(x.astype(wide(x.dtype)), 2, axis=-1)
    cos, sin = jnp.cos(angles)[:, :, None], jnp.sin(angles)[:, :, None]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


class Attention(nn.Module):
    """Causal self-attention; with a cache, the new tokens are written into it and look at all it holds before them."""

    config: DecoderConfig
    dtype: Any

    @nn.compact
    def __call__(
        self, x: jax.Array, adapters: Adapters, positions: jax.Array, cache: Cache | None
    ) -> tuple[jax.Array, Cache | None]:
        config, (n, length, _) = self.config, x.shape
        dense = functools.partial(project, bias=config.biases, dtype=self.dtype, adapters=adapters)

        def heads(name: str, count: int) -> jax.Array:
            return dense(f"attention/{name}", count * config.head_width, x).reshape(n, length, count, config.head_width)

        query, key, value = heads("query", config.heads), heads("key", config.kv_heads), heads("value", config.kv_heads)
        if config.rope_theta is not None:
            angles = positions[..., None] * frequencies(config)
            query, key = rotate(query, angles), rotate(key, angles)
        if cache is None:
            allowed = jnp.tril(jnp.ones((1, length, length), bool))
        else:
            rows = jnp.arange(n)[:, None]
            key, value = cache.keys.at[rows, positions].set(key), cache.values.at[rows, positions].set(value)
            cache = Cache(key, value)
            allowed = jnp.arange(key.shape[1]) <= positions[..., None]
        return dense("attention/out", config.width, attend(query, key, value, allowed)), cache


class Mlp(nn.Module):
    """GPT-2's two dense layers, or Llama's three: down(silu(gate x) * up x)."""

    config: DecoderConfig
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, adapters: Adapters) -> jax.Array:
        config = self.config
        dense = functools.partial(project, bias=config.biases, dtype=self.dtype, adapters=adapters)
        h = dense("mlp/up", config.mlp, x)
        h = jax.nn.silu(dense("mlp/gate", config.mlp, x)) * h if config.activation == "swiglu" else nn.gelu(h)
        return dense("mlp/down", config.width, h)


def _norm(config: DecoderConfig, dtype: Any, name: str | None = None) -> nn.Module:
    kind = nn.LayerNorm if config.norm == "layer" else nn.RMSNorm
    return kind(epsilon=config.norm_epsilon, dtype=dtype, use_fast_variance=False, name=name)


class Block(nn.Module):
    """Attention and perceptron, each after a norm and beside a residual connection."""

    config: DecoderConfig
    dtype: Any
    dropout: float

    @nn.compact
    def __call__(
        self, h: jax.Array, adapters: Adapters, positions: jax.Array, cache: Cache | None
    ) -> tuple[jax.Array, Cache | None]:
        normed = _norm(self.config, self.dtype, "attention_norm")(h)
        mixed, cache = Attention(self.config, self.dtype, name="attention")(normed, adapters, positions, cache)
        h = h + drop(self, mixed, self.dropout)
        normed = _norm(self.config, self.dtype, "mlp_norm")(h)
        return h + drop(self, Mlp(self.config, self.dtype, name="mlp")(normed, adapters), self.dropout), cache


class Decoder(nn.Module):
    """A decoder; tokens [n, L] int give logits [n, L, vocabulary] float32, at each place those of the next token.

    Args:
      config: what it is.
      dtype: of activations; None for that of the parameters, or jnp.bfloat16. Norms, softmax and logits sum in float32.
      remat: blocks are computed again for the gradient instead of being remembered.
      dropout: after the embedding and at the end of both branches of a block, where the call has a key 'dropout'.

    Raises:
      ValueError: a sequence longer than `config.positions`.
    """

    config: DecoderConfig
    dtype: Any = None
    remat: bool = False
    dropout: float = 0.0

    def setup(self) -> None:
        config = self.config
        embed = functools.partial(nn.Embed, features=config.width, dtype=self.dtype, embedding_init=INIT)
        self.tokens = embed(config.vocabulary)
        if config.rope_theta is None:
            self.positions = embed(config.positions)
        block = nn.remat(Block) if self.remat else Block
        self.blocks = [block(config, self.dtype, self.dropout) for _ in range(config.depth)]
        self.norm = _norm(config, self.dtype)
        if not config.tied:
            self.output = embed(config.vocabulary)
        self.embedding_dropout = nn.Dropout(self.dropout)

    def embed(self, tokens: jax.Array, positions: jax.Array | None = None, noise: jax.Array | None = None) -> jax.Array:
        """[n, L, width], of tokens at the places 0, 1, ... or at `positions` [n, L]; noise is added to embedded tokens."""
        tokens = jnp.asarray(tokens)  # lists are taken, too
        places = self._places(tokens.shape[1]) if positions is None else positions
        h = self.tokens(tokens)
        h = h if noise is None else h + noise.astype(h.dtype)
        h = h if self.config.rope_theta is not None else h + self.positions(places)
        return self.embedding_dropout(h, deterministic=not self.has_rng("dropout"))

    def block(self, h: jax.Array, i: int, adapters: Adapters) -> jax.Array:
        """Block i, static, with the adapters of its layers."""
        return self.blocks[i](h, adapters, self._places(h.shape[1]), None)[0]

    def hidden(self, h: jax.Array) -> jax.Array:
        """The last norm, [n, L, width]."""
        return self.norm(h)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """[..., width] -> [..., vocabulary] in float32."""
        table = (self.tokens if self.config.tied else self.output).embedding
        total = wide(hidden.dtype)
        return jnp.einsum("...d,vd->...v", hidden, table.astype(hidden.dtype), preferred_element_type=total)

    def head(self, h: jax.Array) -> jax.Array:
        return self.logits(self.hidden(h))

    def read(
        self, tokens: jax.Array, positions: jax.Array, caches: tuple[Cache, ...], adapters: Sequence[Adapters] = ()
    ) -> tuple[jax.Array, Any]:
        """(h [n, L, width], caches) after more tokens at `positions` [n, L]; what caches hold beyond these is not seen."""
        h, after = self.embed(tokens, positions), []
        for i, (block, cache) in enumerate(zip(self.blocks, caches, strict=True)):
            h, grown = block(h, adapters[i] if adapters else {}, positions, cache)
            after.append(grown)
        return h, tuple(after)

    def features(self, tokens: jax.Array, adapters: Sequence[Adapters] = (), noise: jax.Array | None = None) -> jax.Array:
        """What the logits are taken of, [n, L, width]; adapters are those of each block, or of none."""
        h = self.embed(tokens, noise=noise)
        for i in range(self.config.depth):
            h = self.block(h, i, adapters[i] if adapters else {})
        return self.hidden(h)

    def __call__(self, tokens: jax.Array, adapters: Sequence[Adapters] = (), noise: jax.Array | None = None) -> jax.Array:
        return self.logits(self.features(tokens, adapters, noise))

    def _places(self, length: int) -> jax.Array:
        if length > self.config.positions:
            raise ValueError(
                f"{length} tokens are too many for a model of {self.config.positions} positions: cut documents"
            )
        return jnp.arange(length)[None]
