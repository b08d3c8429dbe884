"""Gradient operators: how an algorithm takes its gradient, and how that gradient is differentiated in turn.

An operator has the type of `jax.value_and_grad`: it turns `f(params, *rest) -> scalar` into
`(params, *rest) -> (value, gradient)`. `jax.value_and_grad` itself is one. Clipping, first-order mode and device
reductions are others, so that the contract in `base.py` needs one hook for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax

from unlearn import tree

TINY = 1e-12  # keeps a zero gradient at zero when it is normalised

Scalar = Callable[..., jax.Array]
GradOperator = Callable[[Scalar], Callable[..., tuple[jax.Array, Any]]]


def second_order(f: Scalar) -> Callable[..., tuple[jax.Array, Any]]:
    """Value and gradient of `f` whose own derivative is a Hessian-vector product by forward-over-reverse.

    The Hessian is symmetric, so the vector-Jacobian product of `grad f` with v is H v, the derivative of `grad f` along
    v. That is exact, and on convolutional nets about twice as fast as differentiating the backward pass. What the product
    needs of the gradient's computation is stored; where that is too much, wrap the step in `jax.checkpoint`.

    Args:
      f: scalar function of `(params, *rest)`; it must not close over traced arrays: give them as `rest`.

    Returns:
      A function `(params, *rest) -> (value, gradient)`. Only `params` is differentiated: `rest` (memory, request, key)
      and the value (a number to look at) are constants to any outer derivative.
    """

    @jax.custom_vjp
    def value_and_gradient(params: Any, rest: Any) -> tuple[jax.Array, Any]:
        return jax.value_and_grad(f)(params, *rest)

    # Linearised here instead of taking a jvp in the backward pass: that jvp would compute the gradient a second time and
    # leave it to the compiler to notice, which it does not for all models (it misses the softmax of attention).
    def forward(params: Any, rest: Any) -> tuple[Any, Any]:
        swapped = lambda p: jax.value_and_grad(f)(p, *rest)[::-1]  # noqa: E731
        gradient, hessian_product, value = jax.linearize(swapped, params, has_aux=True)
        return (value, gradient), hessian_product

    def backward(hessian_product: Any, cotangents: Any) -> tuple[Any, None]:
        return hessian_product(cotangents[1]), None

    value_and_gradient.defvjp(forward, backward)
    return lambda params, *rest: value_and_gradient(params, rest)


def first_order(f: Scalar) -> Callable[..., tuple[jax.Array, Any]]:
    """Value and gradient of `f`, the gradient a constant to any outer derivative (as in first-order MAML)."""

    def value_and_gradient(params: Any, *rest: Any) -> tuple[jax.Array, Any]:
        value, gradient = jax.value_and_grad(f)(tree.stop_gradient(params), *tree.stop_gradient(rest))
        return jax.lax.stop_gradient(value), tree.stop_gradient(gradient)

    return value_and_gradient


def normalised() -> optax.GradientTransformation:
    """Divide a gradient by its norm, the norm a constant to any outer derivative.

    In a rehearsal it fixes how far one inner step goes. A gradient of a well-learned forget set is almost zero; a step in
    proportion to it would go nowhere and teach nothing, and the real request walks on until the set is forgotten.
    """

    def update(updates: Any, state: optax.EmptyState, params: Any = None) -> tuple[Any, optax.EmptyState]:
        length = jax.lax.stop_gradient(tree.norm(updates))
        return jax.tree.map(lambda u: u / (length + TINY), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
