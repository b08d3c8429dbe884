"""What decoder and encoder share: projections that carry adapters, norms, and attention written for XLA."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from s3t.training.adapters import Adapter, adapt

Adapters = Mapping[str, Adapter]

INIT = nn.initializers.normal(0.02)  # of every matrix, as GPT-2 and BERT begin


def wide(dtype: Any) -> Any:
    """The type that sums are taken in: float32, or wider where the activations are."""
    return jnp.promote_types(dtype, jnp.float32)


def project(name: str, features: int, x: jax.Array, adapters: Adapters, *, bias: bool, dtype: Any) -> jax.Array:
    """A dense layer with the adapter of its path; `name` is 'attention/query', its last component the layer's own.

    A float32 adapter beside a bfloat16 layer leaves the activations bfloat16. To be called in a compact method.
    """
    dense = nn.Dense(features, use_bias=bias, dtype=dtype, kernel_init=INIT, name=name.rsplit("/", 1)[1])
    y = dense(x)
    return adapt(y, x, adapters.get(name)).astype(y.dtype)


def attend(query: jax.Array, key: jax.Array, value: jax.Array, allowed: jax.Array) -> jax.Array:
    """softmax(q k / sqrt(d)) v, the softmax in float32.

    Several query heads may share a key-value head (grouped-query attention): heads i g to (i + 1) g - 1 read the i-th.

    Args:
      query: [n, queries, heads, d].
      key, value: [n, keys, kv_heads, d].
      allowed: bool, broadcast to [n, queries, keys]; what a query may look at.

    Returns:
      [n, queries, heads * d].
    """
    n, queries, heads, d = query.shape
    grouped = query.reshape(n, queries, key.shape[2], -1, d)
    total = wide(query.dtype)
    scores = jnp.einsum("nqkgd,nskd->nkgqs", grouped, key, preferred_element_type=total) / math.sqrt(d)
    # The lowest number and not -inf: a row of padding alone stays finite.
    scores = jnp.where(allowed[:, None, None], scores, jnp.finfo(total).min)
    mixed = jnp.einsum("nkgqs,nskd->nqkgd", jax.nn.softmax(scores).astype(value.dtype), value)
    return mixed.reshape(n, queries, heads * d)
