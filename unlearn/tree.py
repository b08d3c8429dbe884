"""Arithmetic on parameter pytrees: dot products, steps, norms, and questions about bits."""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Tree = Any


def dot(a: Tree, b: Tree) -> jax.Array:
    """Inner product of two trees of equal structure, as a float scalar."""
    return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, a, b)), jnp.zeros(()))


def axpy(alpha: jax.Array | float, x: Tree, y: Tree) -> Tree:
    """`alpha * x + y`, leaf by leaf, in the dtype of `y`."""
    return jax.tree.map(lambda xi, yi: (alpha * xi + yi).astype(yi.dtype), x, y)


def norm(tree: Tree) -> jax.Array:
    """Euclidean norm of all leaves taken together."""
    return jnp.sqrt(dot(tree, tree))


def cosine(a: Tree, b: Tree) -> jax.Array:
    """Cosine of the angle between two trees; 0 where either has length 0."""
    lengths = norm(a) * norm(b)
    return jnp.where(lengths > 0, dot(a, b) / jnp.where(lengths > 0, lengths, 1.0), 0.0)


def all_finite(tree: Tree) -> jax.Array:
    """True if no leaf holds a NaN or an infinity."""
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def stop_gradient(tree: Tree) -> Tree:
    """The tree as a constant of differentiation; integer and key leaves pass through."""
    inexact = lambda leaf: jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)  # noqa: E731
    return jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf) if inexact(leaf) else leaf, tree)


def bits_equal(a: Tree, b: Tree) -> bool:
    """True if both trees have one structure and every leaf has the same dtype, shape and bytes (NaN equals itself)."""
    leaves_a, structure_a = jax.tree.flatten(a)
    leaves_b, structure_b = jax.tree.flatten(b)
    return structure_a == structure_b and all(  # type: ignore[operator]  # jax gives PyTreeDef no stub
        _raw(x).dtype == _raw(y).dtype and _raw(x).shape == _raw(y).shape and _raw(x).tobytes() == _raw(y).tobytes()
        for x, y in zip(leaves_a, leaves_b, strict=True)
    )


def digest(tree: Tree) -> str:
    """SHA-256 over paths, dtypes, shapes and bytes of all leaves: equal trees, equal digests."""
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        raw = _raw(leaf)
        sha.update(f"{jax.tree_util.keystr(path)}|{raw.dtype}|{raw.shape}|".encode())
        sha.update(raw.tobytes())
    return sha.hexdigest()


def _raw(leaf: Any) -> np.ndarray:
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)
