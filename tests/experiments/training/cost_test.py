"""What training costs: FLOPs of single compiled steps, times how often each of them runs."""

import types

import jax
import jax.numpy as jnp
import pytest

from experiments.core.machines import environment
from experiments.training import cost, loop
from tests.helpers import tiny


def test_a_product_of_matrices_costs_two_operations_a_term():
    a, b = jnp.zeros((3, 5)), jnp.zeros((5, 7))
    assert environment.flops(jax.jit(jnp.matmul).lower(a, b).compile()) == 2 * 3 * 5 * 7


def test_products_in_a_loop_count_once_for_each_trip_and_others_as_xla_counts_them():
    """Also in a derivative of the derivative through it, as with the trips one after another."""

    def total(weights, x, unroll):
        step = lambda h, w: (jnp.sin(h @ w), None)  # noqa: E731
        h = x
        for w in weights if unroll else ():
            h, _ = step(h, w)
        return jnp.sum(h if unroll else jax.lax.scan(step, x, weights)[0])

    def twice(unroll):
        inner = lambda x, weights: jnp.sum(jax.grad(total, 1)(weights, x, unroll) ** 2)  # noqa: E731
        return jax.jit(jax.grad(inner)).trace(jnp.ones((4, 32)), jnp.ones((3, 32, 32)))

    counts = [environment.program_flops(traced, traced.lower().compile()) for traced in map(twice, (True, False))]
    products = [environment.products(twice(unroll).jaxpr.jaxpr) for unroll in (True, False)]
    assert counts[1] == products[1] == pytest.approx(products[0], rel=0.15) == pytest.approx(counts[0], rel=0.15)


@pytest.fixture
def priced(monkeypatch):
    """Compiled steps that cost 10 FLOPs, and 25 where they rehearse, and need 8 bytes for everything."""

    def traced(way, data, pools, rehearse, levels_given=False):
        memory = types.SimpleNamespace(argument_size_in_bytes=4, output_size_in_bytes=1, temp_size_in_bytes=3)
        flops = 25.0 if rehearse else 10.0
        compiled = types.SimpleNamespace(cost_analysis=lambda: {"flops": flops}, memory_analysis=lambda: memory)
        lowered = types.SimpleNamespace(compile=lambda: compiled)
        return types.SimpleNamespace(jaxpr=jax.make_jaxpr(lambda: ())(), lower=lambda: lowered)

    monkeypatch.setattr(cost, "_traced", traced)


def test_ordinary_training_costs_its_steps(priced):
    spent = cost.of_training(tiny.way("plain", steps=6), tiny.data())
    assert spent == {"step_flops": 10.0, "meta_step_flops": 0.0, "train_flops": 60.0, "peak_bytes": 8}


@pytest.mark.parametrize("steps, start, every", [(6, 1, 2), (7, 1, 2), (8, 0, 4), (9, 0, 4), (5, 4, 3), (5, 9, 2)])
def test_each_step_is_counted_once_as_what_it_was(priced, steps, start, every):
    way = tiny.way("plain", steps=steps)
    way = way._replace(rehearsing=loop.Rehearsing(None, None, every, start, (0.1, 0.1)))
    spent = cost.of_rehearsing(way, tiny.data(), None, step_flops=10.0)
    assert spent["train_flops"] == sum(25.0 if way.schedule.rehearses(step) else 10.0 for step in range(steps))
    assert (spent["step_flops"], spent["meta_step_flops"], spent["peak_bytes"]) == (10.0, 25.0, 8)
