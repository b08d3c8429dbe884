"""What "ready" means: efficiency, retention and resistance after a simulated request.

With theta' the parameters after K inner steps of an unlearning algorithm on a simulated request, the readiness loss is

    R(theta) = l1 E(theta, theta') + l2 L(theta'; B_s) + l3 L(theta'; B_rec) - l4 min(L(theta''; B_f'), c)
               + l5 huber(mean margin(theta; B_f') - T)        before any request: members held where unseen examples lie

    level form:  E = huber(mean margin(theta'; B_f') - T)          the forgotten end where unseen examples lie
    gain form:   E = L(theta; B_f') - min(L(theta'; B_f'), c)      rewards the increase under ascent
    raw form:    E = -min(L(theta'; B_f'), c)                      the literal sign of the term, bounded by the cap

where theta'' continues from theta' with a few simulated relearning steps. T is the level of unseen examples (see
`unlearn.levels`): that of each example if the data have one, else what the model itself says now, of stable examples of
other classes or of held-out examples. It is a constant of every derivative.

Gain and raw are the reconstruction of the paper. Their cap c is log(classes): beyond it a model knows less than nothing,
and without it the term has no lower bound and training diverges. In the level form c is the loss at the level. The minimum
is taken of each example's loss, so that one forgotten far beyond the cap does not stand in for one still known; or of their
mean.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unlearn import levels, tree
from unlearn.base import (
    Array,
    Batch,
    Mean,
    Model,
    Params,
    Request,
    UnlearnAlgorithm,
    begin,
    check_model,
    example_losses,
    mean_loss,
    merged,
    per_example,
    roll_out,
)
from unlearn.checking import check_batch, check_number
from unlearn.losses import huber, weighted_mean

FORMS = ("level", "gain", "raw")


class Terms(NamedTuple):
    """Weights and switches of the readiness loss; by default those that are shipped, for a class to be forgotten.

    efficiency, retention, resistance, relearning, holding: l1, l2, l3, l4, l5; a term of weight 0 is not computed.
      holding is of the level form alone, and needs no rehearsal: with K = 0 it is all of R.
    form: "level", "gain" or "raw".
    width: nats around the level in which the pulls of the level form grow from 0 to full.
    each: of the level form, bring each example to its level and not their mean.
    cap: c. "level", of the level form alone, is the loss at the level. None takes the cap away, and then the loss has no
      lower bound and training diverges: for ablations only.
    capped: what the cap holds down, "each" example's loss or their "mean".

    Example:
      >>> Terms().retention
      1.0
      >>> import math
      >>> paper_terms(math.log(10)).form
      'gain'
    """

    efficiency: float = 0.02
    retention: float = 1.0
    resistance: float = 0.0
    relearning: float = 0.0
    form: str = "level"
    width: float = 2.0
    each: bool = False
    cap: float | str | None = "level"
    capped: str = "each"
    holding: float = 0.0


def paper_terms(cap: float | None, **others: Any) -> Terms:
    """The reconstruction of the paper's terms, at the weights that suit a class; for random examples give retention=1.

    Args:
      cap: usually log(classes), which nobody but you knows.
      **others: of `Terms`.
    """
    return Terms(efficiency=0.5, retention=8.0, form="gain", cap=cap)._replace(**others)


class MetaBatch(NamedTuple):
    """The data of one simulated request.

    requests: batches of the inner steps; arrays [K, examples, ...]. All of them together are the simulated request.
    forget: B_f', where the outer terms measure forgetting: a fresh draw or the last inner batch.
    stable: B_s.  recovery: B_rec, similar stable data, or None.
    relearn: requests of the simulated relearning steps [R, examples, ...], or None.
    """

    requests: Request
    forget: Batch
    stable: Batch
    recovery: Batch | None = None
    relearn: Request | None = None


class Rehearsal(NamedTuple):
    """What the readiness loss was made of; every field a scalar, NaN where the term is not computed.

    margin_after: of the level form, how far from the level the mean margin is after the rehearsed request.
    """

    forget_before: Array
    forget_after: Array
    stable_after: Array
    recovery_after: Array
    forget_relearned: Array
    margin_after: Array


Readiness = Callable[[Params, MetaBatch, Array, Array], tuple[Array, Rehearsal]]


def make_readiness(
    model: Model,
    rehearsed: Callable[[Array], UnlearnAlgorithm],
    terms: Terms,
    *,
    relearner: UnlearnAlgorithm | None = None,
    unseen: Batch | None = None,
    mean: Mean = weighted_mean,
    unroll: bool = False,
    remat: bool | None = None,
) -> Readiness:
    """The readiness loss as a function `(params, meta_batch, step_size, key) -> (scalar, Rehearsal)`.

    Args:
      model: what is trained.
      rehearsed: step size -> the unlearning algorithm that the inner steps run; the same that will serve real requests.
      terms: weights and switches.
      relearner: the algorithm of the simulated relearning steps, needed if `terms.relearning` is not 0.
      unseen: held-out examples, never trained on; ids are not needed. Where the data have no levels, the mean margin on as
        many of them as are stable, drawn anew, is the level. None: it is read off stable examples of other classes.
      mean: the reduction of the device mode.
      unroll: trace inner steps one by one instead of `lax.scan`.
      remat: recompute inner steps in the backward pass, so that memory grows by parameters and not by activations;
        by default exactly if there is more than one.

    Raises:
      ValueError: an algorithm that cannot be differentiated through, an unknown form, a term without
        its data, a number out of range, or unseen data that are no batch.
    """
    check_model(model)
    _check(rehearsed(jnp.float32(0.0)), terms, relearner)
    _check_unseen(unseen)
    steps_from = functools.partial(_steps_from, unroll=unroll, remat=remat)

    def readiness(params: Params, batch: MetaBatch, step_size: Array, key: Array) -> tuple[Array, Rehearsal]:
        loss = lambda at, data: mean_loss(model, at, data, key, mean)  # noqa: E731
        forgotten = lambda at: _forgotten(model, at, batch.forget, key, mean, terms)  # noqa: E731
        before = forget = stable = recovery = relearned = away = jnp.full((), jnp.nan)
        total, rehearses = jnp.zeros(()), _count(batch.requests)
        if terms.form == "level" and (rehearses or terms.holding):
            batch = _with_levels(model, params, batch, mean, unseen, jax.random.fold_in(key, 2))
        if terms.holding:
            total += terms.holding * _away(model, params, batch.forget, key, mean, terms)[1]
        if not rehearses:  # no more than ordinary training, not training with more stable data
            return total, Rehearsal(before, forget, stable, recovery, relearned, away)
        after = steps_from(params, rehearsed(step_size), batch.requests, jax.random.fold_in(key, 0))
        if terms.efficiency and terms.form == "level":
            away, pull = _away(model, after, batch.forget, key, mean, terms)
            total += terms.efficiency * pull
        elif terms.efficiency:
            gained, forget = forgotten(after)
            total -= terms.efficiency * gained
            if terms.form == "gain":
                before = loss(params, batch.forget)
                total += terms.efficiency * before
        if terms.retention:
            stable = loss(after, batch.stable)
            total += terms.retention * stable
        if terms.resistance:
            recovery = loss(after, _given(batch.recovery, "resistance", "recovery"))
            total += terms.resistance * recovery
        if terms.relearning:
            assert relearner is not None  # _check saw to it
            requests = _given(batch.relearn, "relearning", "relearn")
            lasting, relearned = forgotten(steps_from(after, relearner, requests, jax.random.fold_in(key, 1)))
            total -= terms.relearning * lasting
        return total, tree.stop_gradient(Rehearsal(before, forget, stable, recovery, relearned, away))

    return readiness


def _steps_from(
    params: Params, algorithm: UnlearnAlgorithm, requests: Request, key: Array, *, unroll: bool, remat: bool | None
) -> Params:
    """The parameters after the inner steps, one for each of the requests."""
    if not _count(requests):
        return params
    init_key, step_key = jax.random.split(key)
    state = begin(algorithm, params, merged(requests), init_key)
    again = _count(requests) > 1 if remat is None else remat
    return roll_out(algorithm, state, requests, step_key, unroll=unroll, remat=again)[0].params


def _with_levels(model: Model, params: Params, batch: MetaBatch, mean: Mean, unseen: Batch | None, key: Array) -> MetaBatch:
    """The meta-batch with a level for each forget example: those that the data have, else what the model says now."""
    told = ["level" in forget for forget in (batch.forget, batch.requests.forget)]
    if any(told) and not all(told):
        raise ValueError("a part of the meta-batch has a level and another none: give every forget batch one, or none")
    if all(told):
        return batch
    params = tree.stop_gradient(params)
    if unseen is None:
        known = tree.stop_gradient(levels.of_classes(model, params, batch.stable, mean))
        given = lambda forget: dict(forget, level=known[forget["y"]])  # noqa: E731
    else:
        level = tree.stop_gradient(_level_of(model, params, unseen, len(batch.stable["weight"]), key, mean))
        given = lambda forget: dict(forget, level=jnp.full_like(forget["weight"], level))  # noqa: E731
    asked = batch.requests._replace(forget=given(batch.requests.forget))
    return batch._replace(requests=asked, forget=given(batch.forget))


def _level_of(model: Model, params: Params, unseen: Batch, most: int, key: Array, mean: Mean) -> Array:
    """The mean margin of as many held-out examples."""
    count = len(unseen["weight"])
    drawn = jax.random.choice(key, count, (min(most, count),), replace=False)
    batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[drawn], unseen)
    return mean(per_example(model, model.margin, batch, None, params), batch["weight"])


def _count(requests: Request) -> int:
    return int(jax.tree.leaves(requests)[0].shape[0])


def _away(model: Model, params: Params, batch: Batch, key: Array, mean: Mean, terms: Terms) -> tuple[Array, Array]:
    """How far the mean margin is from the level, and the pull back."""
    distance, weight = per_example(model, model.margin, batch, key, params) - batch["level"], batch["weight"]
    away = mean(distance, weight)
    return away, mean(huber(distance, terms.width), weight) if terms.each else huber(away, terms.width)


def _forgotten(model: Model, params: Params, batch: Batch, key: Array, mean: Mean, terms: Terms) -> tuple[Array, Array]:
    """The forget loss held down by the cap, which the terms reward, and as it is."""
    losses = example_losses(model, params, batch, key)
    loss = mean(losses, batch["weight"])
    if terms.cap is None:
        return loss, loss
    if terms.cap == "level":
        caps = jax.nn.softplus(-batch["level"])
        cap = mean(caps, batch["weight"])
    else:
        caps = cap = jnp.asarray(terms.cap)
    if terms.capped == "mean":
        return jnp.minimum(loss, cap), loss
    return mean(jnp.minimum(losses, caps), batch["weight"]), loss


def _check_unseen(unseen: Batch | None) -> None:
    if unseen is None:
        return
    check_batch(unseen, "unseen", ids=False)
    if not len(unseen["weight"]):
        raise ValueError("unseen data have no examples: give some, or None for levels of other classes")


def _check(algorithm: UnlearnAlgorithm, terms: Terms, relearner: UnlearnAlgorithm | None) -> None:
    if terms.form not in FORMS:
        raise ValueError(f"readiness form {terms.form!r} is unknown; choose {', '.join(map(repr, FORMS))}")
    if terms.capped not in ("each", "mean"):
        raise ValueError(f"readiness caps {terms.capped!r}, which is unknown; choose 'each' or 'mean'")
    if isinstance(terms.cap, str) and (terms.cap, terms.form) != ("level", "level"):
        raise ValueError(f"cap {terms.cap!r} is unknown in form {terms.form!r}; give a number, as log(classes)")
    check_number(terms.cap, "cap", above=True)
    check_number(terms.width, "width", above=True)
    for name in ("efficiency", "retention", "resistance", "relearning", "holding"):
        check_number(getattr(terms, name), name)
    if terms.holding and terms.form != "level":
        raise ValueError(f"holding keeps members at a level, and form {terms.form!r} has none: use form 'level'")
    if terms.relearning and relearner is None:
        raise ValueError("the relearning term simulates relearning: give a relearner")
    for candidate in (algorithm, relearner):
        if candidate is not None and not candidate.traits.differentiable:
            raise ValueError(
                "readiness takes a gradient through the rehearsed algorithm, and this one declares none; choose another, "
                "or if it has one, declare it differentiable"
            )


def _given(batch: Any, term: str, field: str) -> Any:
    if batch is None:
        raise ValueError(f"the {term} term is on, but the meta-batch has no {field} data")
    return batch
