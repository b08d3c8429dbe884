"""Erasure on perturbed copies: a client unlearns several noisy copies, whose noise falls out of their mean."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from federated.erase.contract import CLIENT, EXAMPLES, LEAVER, Erased, check_count, declare
from federated.history import Array
from unlearn.checking import check_number

# (params [parameters], key) -> update [parameters]: what the leaver's unlearning does to a model.
Unlearn = Callable[[Array, Array], Array]


def zero_sum_noise(scales: Array, sigma: Array, key: Array) -> Array:
    """Noise of some copies that a mean with weights in proportion to 1 / scales takes out, [copies, parameters].

    noise_k = scales[k] sqrt(m / (m - 1)) (z_k - mean z), z_k normal with standard deviation sigma: each has the standard
    deviation scales[k] sigma, and sum_k noise_k / scales[k] = 0.

    Args:
      scales: [copies] above 0, at least two.
      sigma: [parameters], a standard deviation each.
      key: draws z.

    Raises:
      ValueError: fewer than two copies, or scales that are not above 0.
    """
    if jnp.ndim(scales) != 1 or len(scales) < 2:
        raise ValueError(f"scales have shape {jnp.shape(scales)}: give one for each of at least 2 copies")
    if not isinstance(scales, jax.core.Tracer) and not np.all(np.asarray(scales) > 0):
        raise ValueError("scales of noise are not above 0: give a positive one for each copy")
    copies = len(scales)
    draws = sigma * jax.random.normal(key, (copies, *sigma.shape), sigma.dtype)
    noise: Array = scales[:, None] * jnp.sqrt(copies / (copies - 1)) * (draws - draws.mean(axis=0))
    return noise


def layer_sigma(model: Array, layers: Array, kappa: float) -> Array:
    """The noise of each parameter: kappa times the root mean square of its layer, [parameters]; layers [parameters] int.

    Example:
      >>> print(layer_sigma(jnp.array([3.0, -3.0, 1.0]), jnp.array([0, 0, 1]), 0.5))
      [1.5 1.5 0.5]
    """
    count = len(model)  # as many layers as there can be
    squares = jax.ops.segment_sum(model**2, layers, count)
    sizes = jax.ops.segment_sum(jnp.ones_like(model), layers, count)
    return kappa * jnp.sqrt(squares / jnp.maximum(sizes, 1))[layers]


@declare(
    helpers=LEAVER,
    reads=("model",),
    requests=(CLIENT, EXAMPLES),
    exact="never",
    source="after MPU, 2602.23798",
)
def mpu(
    model: Array,
    layers: Array,
    unlearn: Unlearn,
    key: Array,
    *,
    scales: Array,
    kappa: float = 0.01,
    rounds: int = 5,
    step: float = 1.0,
) -> Erased:
    """After MPU: in each round the leaver unlearns noisy copies; their updates are averaged with weights ~ 1 / scales.

    params <- params + step sum_k w_k unlearn(params + noise_k), w_k = (1 / scales[k]) / sum, noise of `zero_sum_noise` with
    a standard deviation of kappa times the layer's root mean square. Noise that is added to a linear update falls out. The
    leaver never sees the model itself. Left out: the transforms that permute and scale a network without changing what it
    computes, which hide more of it; they would be undone before the mean, so the result is the same without them.

    Args:
      model: [parameters].
      layers: [parameters] int, the layer of each parameter.
      unlearn: (params, key) -> update, what the leaver's unlearning changes.
      key: of noise and unlearning; the round is folded in.
      scales: [copies], of each copy's noise; the paper has 3 copies, its scripts 2.
      kappa, rounds, step: as in the paper.

    Raises:
      ValueError: fewer than two copies, or numbers out of range.

    Reference:
      MPU (2602.23798); the repository Tristan0318/MPU.
    """
    check_count(rounds, "rounds")
    check_number(kappa, "kappa")
    check_number(step, "step", above=True)
    scales = jnp.asarray(scales, model.dtype)
    copies = scales.size

    def advance(params: Array, index: Array) -> tuple[Array, None]:
        noise_key, own_key = jax.random.split(jax.random.fold_in(key, index))
        noisy = params + zero_sum_noise(scales, layer_sigma(params, layers, kappa), noise_key)
        updates = jax.vmap(unlearn)(noisy, jax.random.split(own_key, copies))
        weights = (1 / scales) / jnp.sum(1 / scales)
        return params + step * (weights @ updates), None

    params, _ = jax.lax.scan(advance, model, jnp.arange(rounds))
    return Erased(params, jnp.array(rounds), jnp.array(rounds * copies))
