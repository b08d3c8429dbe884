"""Preference optimisation turned round: what is to be forgotten is what the model should no longer prefer.

`dpo` and `idk_dpo` are also told what to prefer instead. It travels in the forget batch as `alternative`: a mapping with x,
y and, if not all tokens count, `token_weight`, one document for each that goes, as its question with another answer.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import optax

from unlearn.base import (
    LANGUAGE,
    Array,
    Batch,
    Mean,
    Model,
    Params,
    Request,
    UnlearnAlgorithm,
    declare,
    example_losses,
    from_objective,
    mean_loss,
    per_example,
    remember_params,
)
from unlearn.checking import check_number
from unlearn.gradient import GradOperator, second_order
from unlearn.losses import weighted_mean
from unlearn.model import token_sum


@declare(needs_retain=False)
def npo(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    beta: float | Array = 0.1,
    mean: Mean = weighted_mean,
    grad: GradOperator = second_order,
) -> UnlearnAlgorithm:
    """Negative preference optimisation: ascent that slows down as an example falls below its probability at the start.

    objective = (2 / beta) E[-log sigmoid(-beta log(p / p_start))] on forget data; memory: the parameters at the start.

    Args:
      model: what is unlearned; p = exp(-loss), of text the probability of the mean token.
      optimizer: any optax transformation.
      beta: the inverse temperature; towards 0 it is plain ascent.
      mean: the reduction (values, weights) -> scalar.
      grad: the gradient operator; see `unlearn.gradient`.

    Reference:
      Zhang et al., Negative Preference Optimization (2404.05868).

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from unlearn import Request, classifier
      >>> model = classifier(lambda params, x, key: x @ params)
      >>> batch = dict(x=jnp.ones((1, 1)), y=jnp.array([0]), id=jnp.array([7]), weight=jnp.ones(1))
      >>> algorithm, key = npo(model, optax.sgd(1.0)), jax.random.key(0)
      >>> state = algorithm.init(jnp.zeros((1, 2)), Request(batch), key)
      >>> state, info = algorithm.update(state, Request(batch), key)
      >>> print(state.params, f"{info.objective:.2f}")  # the first step is that of ascent; the value is 20 log 2
      [[-0.5  0.5]] 13.86
    """
    check_number(beta, "beta", above=True)

    def objective(params: Params, memory: Params, request: Request, key: Array, beta: float | Array) -> Array:
        forget = request.forget
        log_ratio = example_losses(model, memory, forget, key) - example_losses(model, params, forget, key)
        return 2 / beta * mean(jax.nn.softplus(beta * log_ratio), forget["weight"])

    return from_objective(objective, optimizer, remember=remember_params, grad=grad, beta=beta)


@declare(needs_retain=False)
def simnpo(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    beta: float | Array = 2.5,
    margin: float | Array = 0.0,
    mean: Mean = weighted_mean,
    grad: GradOperator = second_order,
) -> UnlearnAlgorithm:
    """SimNPO: negative preference optimisation without a reference, on the probability of the mean token.

    objective = (2 / beta) E[-log sigmoid(-beta log p - margin)] on forget data, p = exp(-loss). Its gradient is ascent's
    times 2 sigmoid(margin - beta loss): what is known is pushed hardest, long documents no harder than short ones.

    Args:
      model: what is unlearned; of text p is the probability of the mean token, so that length does not matter.
      optimizer: any optax transformation.
      beta: the inverse temperature; towards 0 it is plain ascent.
      margin: beyond which loss, times beta, pushing ceases.
      mean: the reduction (values, weights) -> scalar.
      grad: the gradient operator; see `unlearn.gradient`.

    Reference:
      Fan et al., Simplicity Prevails (2410.07163), without its term on retained data. The formula as in OpenUnlearning,
      whose margin is this one divided by beta; the default beta unchecked.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from unlearn import Request, classifier
      >>> model = classifier(lambda params, x, key: x @ params)
      >>> batch = dict(x=jnp.ones((1, 1)), y=jnp.array([0]), id=jnp.array([7]), weight=jnp.ones(1))
      >>> algorithm, key = simnpo(model, optax.sgd(1.0), beta=1.0), jax.random.key(0)
      >>> state = algorithm.init(jnp.zeros((1, 2)), Request(batch), key)
      >>> print(algorithm.update(state, Request(batch), key)[0].params)  # 2 sigmoid(-log 2) = 2/3 of ascent's step
      [[-0.3333333  0.3333333]]
    """
    check_number(beta, "beta", above=True)
    check_number(margin, "margin")

    def objective(
        params: Params, memory: tuple[()], request: Request, key: Array, beta: float | Array, margin: float | Array
    ) -> Array:
        losses = example_losses(model, params, request.forget, key)
        return 2 / beta * mean(jax.nn.softplus(margin - beta * losses), request.forget["weight"])

    return from_objective(objective, optimizer, grad=grad, beta=beta, margin=margin)


@declare(needs_retain=False, kinds=(LANGUAGE,))
def dpo(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    beta: float | Array = 0.1,
    mean: Mean = weighted_mean,
    grad: GradOperator = second_order,
) -> UnlearnAlgorithm:
    """Direct preference optimisation: another document is preferred to the one that goes.

    objective = (2 / beta) E[-log sigmoid(beta (r_alternative - r_forget))], r = log p - log p_start of a whole document,
    the sum over its tokens (where `npo` of this shelf takes the mean token); memory: the parameters at the start.

    Args:
      model: what is unlearned, a language model.
      optimizer: any optax transformation.
      beta: the inverse temperature.
      mean: the reduction (values, weights) -> scalar.
      grad: the gradient operator; see `unlearn.gradient`.

    Raises:
      ValueError: from `init` and `update`, if the forget batch has no `alternative` with x and y.

    Reference:
      Rafailov et al., Direct Preference Optimization (2305.18290); times 2 / beta and with sums as in TOFU (2401.06121).

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from unlearn import Request, sequence_model
      >>> model = sequence_model(lambda params, x, key: params[x])
      >>> batch = dict(x=jnp.array([[0]]), y=jnp.array([[0]]), id=jnp.array([7]), weight=jnp.ones(1))
      >>> request = Request(batch | {"alternative": {"x": jnp.array([[0]]), "y": jnp.array([[1]])}})
      >>> algorithm, key = dpo(model, optax.sgd(1.0)), jax.random.key(0)
      >>> state = algorithm.init(jnp.zeros((1, 2)), request, key)
      >>> print(algorithm.update(state, request, key)[0].params)  # ascent's step on the one, descent's on the other
      [[-1.  1.]]
    """
    check_number(beta, "beta", above=True)

    def objective(params: Params, memory: Params, request: Request, key: Array, beta: float | Array) -> Array:
        return _preference(model, params, memory, request.forget, key, beta, mean)

    return from_objective(objective, optimizer, remember=_remember_pair, grad=grad, beta=beta)


@declare(needs_retain=True, kinds=(LANGUAGE,))
def idk_dpo(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    beta: float | Array = 0.1,
    gamma: float | Array = 1.0,
    mean: Mean = weighted_mean,
    grad: GradOperator = second_order,
) -> UnlearnAlgorithm:
    """IdkDPO: "I don't know" is preferred to the answer that goes, while what stays is trained on.

    objective = `dpo`'s + gamma L_r; the alternatives are refusals to answer. Memory: the parameters at the start.

    Args:
      model: what is unlearned, a language model.
      optimizer: any optax transformation.
      beta: the inverse temperature.
      gamma: the weight of what stays.
      mean: the reduction (values, weights) -> scalar.
      grad: the gradient operator; see `unlearn.gradient`.

    Raises:
      ValueError: from `init` and `update`, if the forget batch has no `alternative` with x and y.

    Reference:
      Maini et al., TOFU (2401.06121); with the retained loss as in OpenUnlearning (2506.12618).

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from unlearn import Request, sequence_model
      >>> model = sequence_model(lambda params, x, key: params[x])
      >>> batch = dict(x=jnp.array([[0]]), y=jnp.array([[0]]), id=jnp.array([7]), weight=jnp.ones(1))
      >>> request = Request(batch | {"alternative": {"x": jnp.array([[0]]), "y": jnp.array([[1]])}}, batch)
      >>> algorithm, key = idk_dpo(model, optax.sgd(1.0)), jax.random.key(0)
      >>> state = algorithm.init(jnp.zeros((1, 2)), request, key)
      >>> print(algorithm.update(state, request, key)[0].params)
      [[-0.5  0.5]]
    """
    check_number(beta, "beta", above=True)
    check_number(gamma, "gamma")

    def objective(
        params: Params, memory: Params, request: Request, key: Array, beta: float | Array, gamma: float | Array
    ) -> Array:
        assert request.retain is not None  # declared, so checked
        preferred = _preference(model, params, memory, request.forget, key, beta, mean)
        return preferred + gamma * mean_loss(model, params, request.retain, key, mean)

    return from_objective(objective, optimizer, remember=_remember_pair, grad=grad, beta=beta, gamma=gamma)


def _remember_pair(params: Params, request: Request, key: Array) -> Params:
    """The parameters at the start; a request without alternatives is refused before anything is made of it."""
    _alternative(request.forget)
    return params


def _preference(
    model: Model, params: Params, start: Params, forget: Batch, key: Array, beta: float | Array, mean: Mean
) -> Array:
    """(2 / beta) E[-log sigmoid(beta (r_alternative - r_forget))]."""

    def log_ratio(batch: Batch) -> Array:
        """The sum of log p - log p_start over each document, [examples]."""
        assert model.token_loss is not None  # declared, so checked
        before, after = (per_example(model, model.token_loss, batch, key, at) for at in (start, params))
        return token_sum(before - after, batch)

    preferred = log_ratio(_alternative(forget)) - log_ratio(forget)
    return 2 / beta * mean(jax.nn.softplus(-beta * preferred), forget["weight"])


def _alternative(forget: Batch) -> Batch:
    """What is to be preferred to each document that goes.

    Raises:
      ValueError: there is none.
    """
    batch = forget.get("alternative")
    if not isinstance(batch, Mapping) or not {"x", "y"} <= set(batch):
        raise ValueError(
            "forget data have no 'alternative' with x and y: add what is to be preferred to each example, a mapping with "
            "x, y and, if not all tokens count, token_weight"
        )
    return batch
