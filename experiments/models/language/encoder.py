"""One encoder whose configurations are BERT and RoBERTa, in Linen.

x is `{"tokens": [n, L] int, "mask": [n, L]}`; the mask is 1 where there is a token, and without one a token is whatever is
not the pad. `"types"` [n, L] may stand beside them; without, all are of type 0. Pads may stand anywhere. An array alone are
the tokens.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models.language.layers import INIT, Adapters, attend, project, wide
from experiments.models.layers import drop

Hidden = dict[str, jax.Array]  # "hidden" [n, L, width] and "mask" [n, L] bool


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """The sizes of an encoder.

    positions: rows of the position embeddings; of RoBERTa's, the first `position_offset` stand for no place of a text.
    position_offset: 0 counts places from the left, as BERT does; RoBERTa counts tokens from pad + 1 on and skips pads.
    types: of tokens; RoBERTa has one.
    pad: the token that fills.
    """

    vocabulary: int
    width: int
    depth: int
    heads: int
    mlp: int
    positions: int
    types: int
    norm_epsilon: float
    pad: int
    position_offset: int = 0

    def __post_init__(self) -> None:
        """Refuse sizes that do not divide."""
        if self.width % self.heads:
            raise ValueError(f"a width of {self.width} is not shared among {self.heads} heads: choose a multiple of them")


def _norm(config: EncoderConfig, dtype: Any, name: str | None = None) -> nn.Module:
    return nn.LayerNorm(epsilon=config.norm_epsilon, dtype=dtype, use_fast_variance=False, name=name)


class Attention(nn.Module):
    """Self-attention that looks at tokens and never at pads."""

    config: EncoderConfig
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, adapters: Adapters) -> jax.Array:
        n, length, width = x.shape
        dense = functools.partial(project, features=width, bias=True, dtype=self.dtype, adapters=adapters)

        def heads(name: str) -> jax.Array:
            return dense(f"attention/{name}", x=x).reshape(n, length, self.config.heads, -1)

        return dense("attention/out", x=attend(heads("query"), heads("key"), heads("value"), mask[:, None]))


class Mlp(nn.Module):
    """Two dense layers with the exact GELU between them."""

    config: EncoderConfig
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, adapters: Adapters) -> jax.Array:
        dense = functools.partial(project, bias=True, dtype=self.dtype, adapters=adapters)
        h = nn.gelu(dense("mlp/up", self.config.mlp, x), approximate=False)
        return dense("mlp/down", self.config.width, h)


class Block(nn.Module):
    """Attention and perceptron, each with a residual connection and a LayerNorm after it."""

    config: EncoderConfig
    dtype: Any
    dropout: float

    @nn.compact
    def __call__(self, h: Hidden, adapters: Adapters) -> Hidden:
        x = h["hidden"]
        mixed = Attention(self.config, self.dtype, name="attention")(x, h["mask"], adapters)
        x = _norm(self.config, self.dtype, "attention_norm")(x + drop(self, mixed, self.dropout))
        more = Mlp(self.config, self.dtype, name="mlp")(x, adapters)
        return h | {"hidden": _norm(self.config, self.dtype, "mlp_norm")(x + drop(self, more, self.dropout))}


class Head(nn.Module):
    """A classifier: of the first token, through a dense layer and tanh, or of the mean of all tokens."""

    classes: int
    pooling: Literal["first", "mean"]
    dtype: Any
    dropout: float

    width: int

    def setup(self) -> None:
        dense = functools.partial(nn.Dense, dtype=self.dtype, kernel_init=INIT)
        if self.pooling == "first":
            self.pooler = dense(self.width)
        self.classifier, self.thinned = dense(self.classes), nn.Dropout(self.dropout)

    def pool(self, h: Hidden) -> jax.Array:
        """What is classified, [n, width]."""
        first = self.pooling == "first"
        pooled = jnp.tanh(self.pooler(h["hidden"][:, 0])) if first else masked_mean(h["hidden"], h["mask"])
        return self.thinned(pooled, deterministic=not self.has_rng("dropout"))

    def __call__(self, h: Hidden) -> jax.Array:
        logits = self.classifier(self.pool(h))
        return logits.astype(wide(logits.dtype))


def masked_mean(hidden: jax.Array, mask: jax.Array) -> jax.Array:
    """The mean over a document's tokens, [n, L, width] -> [n, width] in float32; of no token, 0."""
    weights = mask.astype(wide(hidden.dtype))[..., None]
    return (hidden * weights).sum(axis=1) / jnp.maximum(weights.sum(axis=1), 1)


class Encoder(nn.Module):
    """An encoder with a classifier; x as in this file's first lines gives logits [n, classes] float32.

    Args:
      config: what it is.
      classes: of the classifier.
      pooling: what is classified: 'first' as BERT and RoBERTa do, 'mean' as sentence embeddings are made.
      dtype, remat, dropout: as of `decoder.Decoder`.

    Raises:
      ValueError: a text longer than there are positions for.
    """

    config: EncoderConfig
    classes: int = 2
    pooling: Literal["first", "mean"] = "first"
    dtype: Any = None
    remat: bool = False
    dropout: float = 0.0

    def setup(self) -> None:
        config = self.config
        embed = functools.partial(nn.Embed, features=config.width, dtype=self.dtype, embedding_init=INIT)
        self.tokens, self.positions, self.types = embed(config.vocabulary), embed(config.positions), embed(config.types)
        self.embedding_norm = _norm(config, self.dtype)
        self.embedding_dropout = nn.Dropout(self.dropout)
        block = nn.remat(Block) if self.remat else Block
        self.blocks = [block(config, self.dtype, self.dropout) for _ in range(config.depth)]
        self.classifier = Head(self.classes, self.pooling, self.dtype, self.dropout, config.width, name="head")

    def embed(self, x: Mapping[str, jax.Array] | jax.Array) -> Hidden:
        x = x if isinstance(x, Mapping) else {"tokens": x}
        tokens = jnp.asarray(x["tokens"])  # lists are taken, too
        mask = jnp.asarray(x["mask"], bool) if "mask" in x else tokens != self.config.pad
        types = jnp.asarray(x["types"]) if "types" in x else jnp.zeros_like(tokens)
        hidden = self.embedding_norm(self.tokens(tokens) + self.positions(self._places(mask)) + self.types(types))
        return {"hidden": self.embedding_dropout(hidden, deterministic=not self.has_rng("dropout")), "mask": mask}

    def block(self, h: Hidden, i: int, adapters: Adapters) -> Hidden:
        """Block i, static, with the adapters of its layers."""
        return self.blocks[i](h, adapters)

    def head(self, h: Hidden) -> jax.Array:
        return self.classifier(h)

    def hidden(self, x: Mapping[str, jax.Array] | jax.Array) -> Hidden:
        """What the classifier looks at."""
        h = self.embed(x)
        for i in range(self.config.depth):
            h = self.block(h, i, {})
        return h

    def mean(self, x: Mapping[str, jax.Array] | jax.Array) -> jax.Array:
        """Sentence embeddings [n, width]: the mean over the tokens."""
        h = self.hidden(x)
        return masked_mean(h["hidden"], h["mask"])

    def features(self, x: Mapping[str, jax.Array] | jax.Array) -> jax.Array:
        """What the last layer is given, [n, width]."""
        return self.pool(self.hidden(x))

    def pool(self, h: Hidden) -> jax.Array:
        """The same of what the classifier looks at."""
        return self.classifier.pool(h)

    def __call__(self, x: Mapping[str, jax.Array] | jax.Array) -> jax.Array:
        return self.head(self.hidden(x))

    def _places(self, mask: jax.Array) -> jax.Array:
        length, offset = mask.shape[1], self.config.position_offset
        if length > self.config.positions - offset:
            most = self.config.positions - offset
            raise ValueError(f"{length} tokens are too many for a model of {most} positions: cut documents")
        counted = jnp.cumsum(mask, axis=1) - 1 + offset
        return jnp.where(mask, counted, offset - 1) if offset else jnp.arange(length)[None]
