"""Rounds: against plain loops without padding, without a client, under other padding; going on equals never stopping."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from federated import History, models, rounds, took_part, without
from tests.helpers import toys
from unlearn import classifier, weighted_mean

SIZES, IDS = (3, 7, 2, 5), [40, 11, 7, 23]
KEY = jax.random.key(5)
PLAN = jnp.array([[1, 1, 1, 1], [0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 1, 1]], bool)
PARAMS = {"b": jnp.zeros(3), "w": jnp.array([[0.1, -0.2, 0.3], [0.4, 0.0, -0.5]])}
MODEL = classifier(lambda params, x, key: x @ params["w"] + params["b"])
SETTINGS = [(optax.sgd(0.2, momentum=0.9), 2, 2, "examples"), (optax.sgd(0.3), 1, None, "equal")]


def loss(params, batch, key):
    """Cross-entropy, and a slope at random that shows whether keys are passed on."""
    value = weighted_mean(MODEL.loss(MODEL.apply(params, batch["x"], None), batch), batch["weight"])
    return value + 0.1 * jax.random.uniform(key) * params["w"].sum()


slope = toys.quick_jit(jax.grad(loss))


@pytest.fixture(scope="module")
def batches():
    generator = np.random.default_rng(0)
    return [
        {
            "x": generator.normal(size=(size, 2)).astype(np.float32),
            "y": generator.integers(0, 3, size),
            "id": 100 * client + np.arange(size),
            "weight": np.ones(size, np.float32),
        }
        for client, size in enumerate(SIZES)
    ]


def local_training(params, batch, optimizer, key, epochs, batch_size):
    """A client's round, written out: NumPy sorts, no padding."""
    size, opt_state = len(batch["id"]), optimizer.init(params)
    order_key, steps_key = jax.random.split(key)
    for epoch in range(epochs):
        draws = [int(jax.random.bits(jax.random.fold_in(jax.random.fold_in(order_key, epoch), i))) for i in batch["id"]]
        order = np.argsort(draws) if batch_size else np.arange(size)
        for step, begin in enumerate(range(0, size, batch_size or size)):
            rows = order[begin : begin + (batch_size or size)]
            step_key = jax.random.fold_in(jax.random.fold_in(steps_key, epoch), step)
            gradient = slope(params, {name: leaf[rows] for name, leaf in batch.items()}, step_key)
            change, opt_state = optimizer.update(gradient, opt_state, params)
            params = optax.apply_updates(params, change)
    return params


def by_loops(batches, optimizer, epochs, batch_size, weighting):
    """Federated averaging, written out: the last model, updates and weights."""
    flat, unravel = ravel_pytree(PARAMS)
    updates, weights = np.zeros((*PLAN.shape, flat.size), np.float32), np.zeros(PLAN.shape, np.float32)
    for t, present in enumerate(np.asarray(PLAN)):
        for u in np.flatnonzero(present):
            key = jax.random.fold_in(jax.random.fold_in(KEY, t), IDS[u])
            trained = local_training(unravel(flat), batches[u], optimizer, key, epochs, batch_size)
            updates[t, u] = ravel_pytree(trained)[0] - flat
            weights[t, u] = SIZES[u] if weighting == "examples" else 1
        weights[t] /= max(weights[t].sum(), 1)
        flat = flat + sum(weights[t, u] * updates[t, u] for u in range(len(SIZES)))
    return flat, updates, weights


run = toys.quick_jit(rounds.train, static_argnums=0)


@functools.cache
def make(setting, compressor=rounds.keep_updates):
    optimizer, epochs, batch_size, weighting = setting
    options = {"epochs": epochs, "batch_size": batch_size, "weighting": weighting}
    return rounds.fedavg(loss, optimizer, **options, compressor=compressor)


def trained(batches, setting, ids=IDS, plan=PLAN, **more):
    clients, algorithm = rounds.stack_clients(ids, batches), make(setting, **more)
    return run(algorithm, algorithm.init(PARAMS, clients), clients, plan, KEY)


@pytest.mark.parametrize("setting", SETTINGS, ids=["batches of 2", "one full step"])
def test_rounds_equal_plain_loops(batches, setting):
    state, history = trained(batches, setting)
    flat, updates, weights = by_loops(batches, *setting)
    assert state.round == 4 and isinstance(history, History)
    np.testing.assert_allclose(ravel_pytree(state.params)[0], flat, atol=2e-6)
    np.testing.assert_allclose(history.updates, updates, atol=2e-6)
    np.testing.assert_allclose(history.weights, weights, rtol=1e-6)
    np.testing.assert_array_equal(took_part(history), PLAN)
    np.testing.assert_allclose(models(history)[-1], flat, atol=2e-6)
    assert np.abs(updates).max() > 0.05


def test_other_clients_and_padding_change_no_draw(batches):
    """Without the largest client, the others' first updates are as with it; a round later the model differs."""
    _, history = trained(batches, SETTINGS[0])
    stay = [0, 2, 3]
    _, others = trained([batches[u] for u in stay], SETTINGS[0], [IDS[u] for u in stay], PLAN[:, stay])
    np.testing.assert_allclose(others.updates[0], history.updates[0, stay], atol=1e-6)
    np.testing.assert_allclose(others.weights, without(history.weights, jnp.arange(4) == 1)[:, stay], rtol=1e-6)
    assert np.abs(others.updates[1, 1] - history.updates[1, 2]).max() > 1e-3


def test_going_on_equals_never_stopping(batches):
    algorithm, clients = make(SETTINGS[0]), rounds.stack_clients(IDS, batches)
    whole, history = trained(batches, SETTINGS[0])
    half, first = run(algorithm, algorithm.init(PARAMS, clients), clients, PLAN[:2], KEY)
    ended, second = run(algorithm, half, clients, PLAN[2:], KEY)
    np.testing.assert_array_equal(ravel_pytree(ended.params)[0], ravel_pytree(whole.params)[0])
    np.testing.assert_array_equal(jnp.concatenate([first.updates, second.updates]), history.updates)


def test_what_is_kept_goes_through_the_compressor_and_the_model_does_not(batches):
    """A compressor that counts rounds and keeps an update's sign."""
    signs = rounds.Compressor(
        lambda clients, parameters: jnp.zeros(()),
        lambda memory, updates, weights, ids, t: (memory + 1, jnp.sign(updates).astype(jnp.int8)),
        lambda memory, codes, ids, t: (memory + 1, codes * (1.0 + memory)),
    )
    state, plain = trained(batches, SETTINGS[1])
    coded, history = trained(batches, SETTINGS[1], compressor=signs)
    np.testing.assert_array_equal(coded.params["w"], state.params["w"])
    assert coded.memory == 4 and history.updates.dtype == jnp.int8
    made = rounds.decoded(signs, history, jnp.array(IDS))
    np.testing.assert_array_equal(made.updates, np.sign(plain.updates) * np.arange(1.0, 5.0)[:, None, None])


def test_erasure_is_exact_where_gradients_do_not_depend_on_the_model():
    """w' = w + sum_t sum_{u != v} (h_u - h_v) / U (U - 1) is the training without v: of linear losses, to rounding."""
    with jax.enable_x64(True):
        generator = np.random.default_rng(1)
        data = [dict(x=generator.normal(size=(size, 3)), weight=np.ones(size)) for size in SIZES]
        plan, leaver = jnp.ones((3, 4), bool), 1
        linear = lambda params, batch, key: weighted_mean(batch["x"] @ params, batch["weight"])  # noqa: E731
        square = lambda params, batch, key: weighted_mean((batch["x"] @ params) ** 2, batch["weight"])  # noqa: E731
        for objective, exact in ((linear, True), (square, False)):
            algorithm = rounds.fedsgd(objective, 0.1, weighting="equal")
            clients = rounds.stack_clients(IDS, data)
            state, history = rounds.train(algorithm, algorithm.init(jnp.ones(3), clients), clients, plan, KEY)
            retrained, _ = rounds.train(
                algorithm, algorithm.init(jnp.ones(3), clients), clients, plan & (jnp.arange(4) != leaver), KEY
            )
            mine = history.updates[:, leaver]
            corrections = (history.updates.sum(1) - mine - 3 * mine) / (4 * 3)
            distance = np.abs(state.params + corrections.sum(0) - retrained.params).max()
            assert distance < 1e-15 if exact else distance > 1e-3


def test_a_model_is_a_loss(batches):
    clients = rounds.stack_clients(IDS, batches)
    update = rounds.client_update(MODEL, optax.sgd(0.5))(PARAMS, jax.tree.map(lambda leaf: leaf[2], clients.data), KEY)
    expected = jax.grad(lambda p: MODEL.loss(MODEL.apply(p, batches[2]["x"], None), batches[2]).mean())(PARAMS)
    np.testing.assert_allclose(update["w"], -0.5 * expected["w"], rtol=1e-5)


def test_plans_are_drawn_by_id():
    plan = rounds.participation(KEY, jnp.array(IDS), 200, 2)
    assert (plan.sum(axis=1) == 2).all() and abs(plan.mean(axis=0) - 0.5).max() < 0.12  # 3.4 standard deviations
    turned = rounds.participation(KEY, jnp.array(IDS[::-1]), 200, 2)
    np.testing.assert_array_equal(turned[:, ::-1], plan)


def test_what_cannot_be_used_is_told_in_one_line(batches):
    clients = rounds.stack_clients(IDS, batches)
    algorithm = rounds.fedsgd(loss, 0.1)
    nameless = clients._replace(data={name: leaf for name, leaf in clients.data.items() if name != "id"})
    mistakes = {
        "one id for each": lambda: rounds.stack_clients([1], batches),
        "give each its own": lambda: rounds.stack_clients([1, 1, 2, 3], batches),
        "at least one of each": lambda: rounds.client_update(loss, optax.sgd(0.1), epochs=0),
        "choose from examples, equal": lambda: rounds.fedavg(loss, optax.sgd(0.1), weighting="size"),
        "give from 1 to 4": lambda: rounds.participation(KEY, clients.ids, 3, 5),
        "the plan is": lambda: rounds.train(algorithm, algorithm.init(PARAMS, clients), clients, PLAN[:, :3], KEY),
        "no 'id'": lambda: rounds.client_update(loss, optax.sgd(0.1), batch_size=2)(PARAMS, nameless.data, KEY),
    }
    for line, mistake in mistakes.items():
        with pytest.raises(ValueError, match=line) as raised:
            mistake()
        assert "\n" not in str(raised.value)
