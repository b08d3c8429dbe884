"""Unlearning until a criterion holds, against a hand-written loop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.helpers import toys
from unlearn import ALGORITHMS, STOPS, Request, from_objective, tree, unlearn_until
from unlearn.base import UnlearnAlgorithm, UnlearnInfo, UnlearnState
from unlearn.until import BUDGET, DIVERGED, REACHED, never

BUDGET_STEPS = 6
DATA = {"pool": toys.batch(0, 8), "target": np.float32(3.0)}


def whole(data):
    return Request(data["pool"], data["pool"])


def draw(data, key, step):
    """A minibatch that depends on the key and on the step."""
    rows = jax.random.randint(jax.random.fold_in(key, step), (4,), 0, 8)
    batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], data["pool"])
    return Request(batch, jax.tree.map(lambda leaf: leaf[::-1], batch))


def observe(params, data):
    return {"loss": toys.label_loss(toys.MLP, params, data["pool"], None), "norm": tree.norm(params)}


def reached(seen, data):
    return seen["loss"] >= data["target"]


def make(name="ascent", rate=0.5):
    return ALGORITHMS[name](toys.DROPOUT_MLP, optax.sgd(rate, momentum=0.5))


def run(algorithm, data=DATA, params=None, key=None, max_steps=BUDGET_STEPS, **options):
    until = unlearn_until(algorithm, whole, draw, observe, options.pop("criterion", reached), max_steps, **options)
    start = toys.mlp_params() if params is None else params
    return jit_unless(options.get("unroll"), until)(start, data, jax.random.key(3) if key is None else key)


def jit_unless(unroll, f):
    return f if unroll else toys.quick_jit(f)


@functools.cache
def look():
    return toys.quick_jit(observe)


@functools.cache
def update():
    return toys.quick_jit(make().update)


def by_hand(data=DATA, max_steps=BUDGET_STEPS):
    """A plain loop of ascent: look, stop or step. Returns state, steps, stop, and the list of what was seen."""
    memory_key, draw_key, step_key = jax.random.split(jax.random.key(3), 3)
    state = make().init(toys.mlp_params(), whole(data), memory_key)
    seen, steps = [look()(state.params, data)], 0
    while True:
        numbers = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves((state.params, seen[-1]))])
        if not np.all(np.isfinite(numbers)):
            return state, steps, "diverged", seen
        if seen[-1]["loss"] >= data["target"]:
            return state, steps, "reached", seen
        if steps == max_steps:
            return state, steps, "budget", seen
        state, _ = update()(state, draw(data, draw_key, steps), jax.random.fold_in(step_key, steps))
        seen.append(look()(state.params, data))
        steps += 1


def losses_by_hand():
    return [float(seen["loss"]) for seen in by_hand(dict(DATA, target=np.inf))[3]]


@pytest.fixture(scope="module")
def rising():
    """Losses of an ascent of BUDGET_STEPS; every target between two of them is reached at a step known beforehand."""
    losses = losses_by_hand()
    assert sorted(losses) == losses
    return losses


def target(rising, steps):
    """A target that is first met after `steps` updates."""
    return dict(DATA, target=np.float32(rising[0] - 1 if steps == 0 else (rising[steps - 1] + rising[steps]) / 2))


# one run


@pytest.mark.parametrize("unroll", [False, True])
def test_every_ending_is_that_of_the_hand_loop(rising, unroll):
    """One compiled program serves every target: met at once, after some steps, with the last one, never."""
    until = jit_unless(unroll, unlearn_until(make(), whole, draw, observe, reached, BUDGET_STEPS, unroll=unroll))
    for steps in (0, 1, 3, BUDGET_STEPS, None):
        data = dict(DATA, target=np.float32(1e9)) if steps is None else target(rising, steps)
        outcome = until(toys.mlp_params(), data, jax.random.key(3))
        state, made, stop, seen = by_hand(data)
        assert made == (BUDGET_STEPS if steps is None else steps)
        assert int(outcome.steps) == made and outcome.steps.dtype == jnp.int32
        assert STOPS[int(outcome.stop)] == stop == ("budget" if steps is None else "reached")
        toys.assert_close(outcome.state, state, 2e-6)
        check_curve(outcome.curve, seen, BUDGET_STEPS)


def check_curve(curve, seen, max_steps):
    """What was seen, in order, then NaN."""
    for name, values in curve.items():
        assert values.shape == (max_steps + 1,)
        np.testing.assert_allclose(values[: len(seen)], [float(s[name]) for s in seen], rtol=2e-6)
        assert np.all(np.isnan(values[len(seen) :]))


def test_codes_name_the_stops():
    assert [STOPS[code] for code in (REACHED, DIVERGED, BUDGET)] == ["reached", "diverged", "budget"]


@pytest.mark.parametrize("goal, stop", [(-1.0, "reached"), (1e9, "budget")])
def test_a_budget_of_nothing(goal, stop):
    outcome = run(make(), dict(DATA, target=np.float32(goal)), max_steps=0)
    assert (int(outcome.steps), STOPS[int(outcome.stop)]) == (0, stop)
    assert outcome.curve["loss"].shape == (1,) and np.isfinite(outcome.curve["loss"][0])
    assert tree.bits_equal(outcome.state.params, jax.tree.map(np.float32, toys.mlp_params()))


@pytest.mark.parametrize("unroll", [False, True])
def test_a_huge_rate_diverges_although_infinity_meets_the_target(unroll):
    outcome = run(make(rate=1e38), dict(DATA, target=np.float32(1e30)), unroll=unroll)
    assert STOPS[int(outcome.stop)] == "diverged"
    assert 1 <= int(outcome.steps) <= 3
    assert np.all(np.isnan(outcome.curve["loss"][int(outcome.steps) + 1 :]))


def test_nan_at_the_start_diverges_at_once():
    params = toys.mlp_params()
    params["out"]["b"] = params["out"]["b"] + np.nan
    outcome = run(make(), params=params, criterion=lambda seen, data: jnp.array(True))
    assert (int(outcome.steps), STOPS[int(outcome.stop)]) == (0, "diverged")


def test_parameters_count_even_where_the_observation_is_finite():
    params = toys.mlp_params() | {"unseen": np.array([np.inf])}
    until = unlearn_until(make(), whole, draw, lambda p, d: {"loss": jnp.zeros(())}, lambda seen, d: seen["loss"] == 0, 2)
    assert STOPS[int(toys.quick_jit(until)(params, DATA, jax.random.key(0)).stop)] == "diverged"


@pytest.mark.parametrize("name", ["ascent_kl", "random_label"])
def test_memory_of_either_kind_survives_the_loop(name):
    """Reference parameters and a key, beside the optimiser's state."""
    looped, unrolled = (run(make(name), unroll=unroll) for unroll in (False, True))
    toys.assert_close(looped, unrolled, 1e-5)


# many runs


@pytest.mark.parametrize("name, key", [("ascent", jax.random.PRNGKey), ("random_label", jax.random.key)])
def test_each_lane_stops_on_its_own_and_is_frozen_then(name, key):
    """Lanes with targets of their own, one of them diverging, equal single runs."""
    until = unlearn_until(make(name), whole, draw, observe, reached, BUDGET_STEPS)
    curve = run(make(name), dict(DATA, target=np.float32(np.inf))).curve["loss"]
    goals = np.array([-1.0, (curve[1] + curve[2]) / 2, (curve[3] + curve[4]) / 2, 1e9, 1e9], np.float32)
    starts = [toys.mlp_params()] * 4 + [jax.tree.map(lambda leaf: leaf * np.nan, toys.mlp_params())]
    axes = (0, {"pool": None, "target": 0}, None)
    lanes = toys.quick_jit(jax.vmap(until, in_axes=axes))(toys.stack(starts), dict(DATA, target=goals), key(3))
    single = toys.quick_jit(until)
    for i in range(5):
        alone = single(starts[i], dict(DATA, target=goals[i]), key(3))
        toys.assert_close(toys.lane(lanes, i), alone, 2e-5)
    stops = [STOPS[code] for code in lanes.stop]
    assert stops[0] == "reached" and stops[-2:] == ["budget", "diverged"]
    assert lanes.steps[0] == 0 and lanes.steps[4] == 0 and lanes.steps[3] == BUDGET_STEPS
    if name == "ascent":  # its loss rises step by step
        assert lanes.steps.tolist() == [0, 2, 4, BUDGET_STEPS, 0]


def test_lanes_may_have_seeds_of_their_own():
    until = unlearn_until(make(), whole, draw, observe, reached, BUDGET_STEPS)
    keys, starts = jax.random.split(jax.random.key(0), 2), [toys.mlp_params(seed) for seed in (4, 5)]
    lanes = toys.quick_jit(jax.vmap(until, in_axes=(0, None, 0)))(toys.stack(starts), DATA, keys)
    single = toys.quick_jit(until)
    for i in range(2):
        toys.assert_close(toys.lane(lanes, i), single(starts[i], DATA, keys[i]), 2e-5)


# records


@pytest.mark.parametrize("unroll", [False, True])
def test_recorded_is_the_model_after_so_many_updates_or_where_it_ended(rising, unroll):
    """The request is fulfilled after 3 updates: later records hold the model of then, and say so."""
    data, record = target(rising, 3), (0, 2, 3, 5)
    outcome = run(make(), data, record=record, unroll=unroll)
    assert [int(each.steps) for each in outcome.recorded] == [0, 2, 3, 3] and int(outcome.steps) == 3
    for each, steps in zip(outcome.recorded, (0, 2, 3, 3), strict=True):
        state, *_ = by_hand(dict(data, target=np.float32(np.inf)), steps)
        toys.assert_close(each.params, state.params, 2e-6)
    assert tree.bits_equal(outcome.recorded[-1].params, outcome.state.params)
    check_curve(outcome.curve, by_hand(data)[3], BUDGET_STEPS)


def test_lanes_record_each_their_own(rising):
    until = unlearn_until(make(), whole, draw, observe, reached, 4, record=(1, 4))
    goals = np.array([rising[0] - 1, 1e9], np.float32)
    axes = (None, {"pool": None, "target": 0}, None)
    lanes = toys.quick_jit(jax.vmap(until, in_axes=axes))(toys.mlp_params(), dict(DATA, target=goals), jax.random.key(3))
    assert [each.steps.tolist() for each in lanes.recorded] == [[0, 1], [0, 4]]
    toys.assert_close(lanes.recorded[1].params, lanes.state.params, 0)


@pytest.mark.parametrize("record", [(2, 1), (1, 1), (-1,), (0, BUDGET_STEPS + 1)])
def test_records_that_cannot_be_are_refused(record):
    with pytest.raises(ValueError, match="give increasing numbers of updates from 0 to max_steps"):
        unlearn_until(make(), whole, draw, observe, reached, BUDGET_STEPS, record=record)


def test_init_sees_the_whole_request_and_its_edit_is_what_is_looked_at():
    """A one-shot edit that is enough: no update is made."""

    def init(params, request, key):
        seen = jnp.sum(request.forget["weight"] > 0).astype(jnp.float32)
        return UnlearnState(jax.tree.map(lambda leaf: 0 * leaf + seen, params), (), ())

    counting = UnlearnAlgorithm(init, lambda state, request, key: (state, UnlearnInfo(jnp.zeros(()), jnp.zeros(()))))
    until = unlearn_until(counting, whole, draw, lambda p, d: {"seen": p["out"]["b"][0]}, lambda s, d: s["seen"] == 8, 3)
    outcome = toys.quick_jit(until)(jax.tree.map(np.float32, toys.mlp_params()), DATA, jax.random.key(0))
    assert int(outcome.steps) == 0 and float(outcome.curve["seen"][0]) == 8


# the program


def primitives(jaxpr):
    """Names of all primitives, those of inner programs too."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for value in jax.tree.leaves(equation.params, is_leaf=lambda v: hasattr(v, "eqns") or hasattr(v, "jaxpr")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from primitives(inner)


@pytest.mark.parametrize("name", ["ascent", "random_label"])
def test_one_while_and_no_callback(name):
    until = unlearn_until(make(name), whole, draw, observe, reached, BUDGET_STEPS)
    names = list(primitives(jax.make_jaxpr(until)(toys.mlp_params(), DATA, jax.random.key(0)).jaxpr))
    assert names.count("while") == 1 and "scan" not in names
    assert "tanh" in names, "the walk does not reach inner programs"
    assert not [n for n in names if "callback" in n or "host" in n or "infeed" in n or "outfeed" in n]


def test_data_are_arguments_of_the_program_and_not_constants():
    until = unlearn_until(make(), whole, draw, observe, reached, BUDGET_STEPS)
    consts = jax.make_jaxpr(until)(toys.mlp_params(), DATA, jax.random.key(0)).consts
    assert sum(np.size(jax.random.key_data(c) if c.dtype == jax.random.key(0).dtype else c) for c in consts) <= 8


@pytest.mark.parametrize("unroll", [False, True])
def test_observations_may_be_numbers_of_python(unroll):
    until = unlearn_until(
        make(), whole, draw, lambda params, data: {"half": 0.5}, lambda seen, data: seen["half"] > 1, 2, unroll=unroll
    )
    outcome = until(toys.mlp_params(), DATA, jax.random.key(0))
    assert outcome.curve["half"].tolist() == [0.5, 0.5, 0.5] and int(outcome.stop) == BUDGET


# updates that are taken back


def quadratic(rate):
    """Gradient descent on (params - 3)^2 / 2."""
    return from_objective(lambda params, *_: (params - 3.0) ** 2 / 2, optax.sgd(rate))


def descend(rate, max_steps, undo, done=lambda seen, data: seen["away"] < 0.2, **options):
    until = unlearn_until(
        quadratic(rate),
        Request,
        lambda data, key, step: Request(data),
        lambda params, data: {"at": params, "away": jnp.abs(params - 3)},
        done,
        max_steps,
        undo=undo,
        **options,
    )
    return jit_unless(options.get("unroll"), until)(jnp.float32(0.0), DATA["pool"], jax.random.key(0))


def farther(after, before, data):
    return after["away"] > before["away"]


@pytest.mark.parametrize("unroll", [False, True])
def test_an_update_too_far_is_taken_back_and_halved_and_grows_again(unroll):
    """Rate 3 from 0: to 9, back; half of it to 4.5; 3/4 of it to 1.125, back; 3/8 of it to 2.8125, which is near enough."""
    outcome = descend(3.0, 9, farther, record=(1, 3), unroll=unroll)
    np.testing.assert_array_equal(outcome.curve["at"], [0, 0, 4.5, 4.5, 2.8125, *[np.nan] * 5])
    assert (int(outcome.steps), int(outcome.undone), STOPS[int(outcome.stop)]) == (4, 2, "reached")
    assert float(outcome.state.params) == 2.8125 and [float(each.params) for each in outcome.recorded] == [0, 4.5]


def test_what_was_halved_grows_by_half_again_up_to_a_whole_update():
    """Rate 1/2, the first update undone, from 0: then 1/2, 3/4, 1 and 1 of an update, each half of the way to 3."""
    outcome = descend(0.5, 5, lambda after, before, data: after["at"] == 1.5, never)
    kept = 3 * np.cumprod([1 - 1 / 4, 1 - 3 / 8, 1 / 2, 1 / 2])
    np.testing.assert_allclose(outcome.curve["away"], [3, 3, *kept], rtol=1e-6)
    assert (int(outcome.undone), STOPS[int(outcome.stop)]) == (1, "budget")


def test_updates_that_are_undone_use_up_the_budget():
    outcome = descend(3.0, 4, lambda *_: jnp.array(True))
    assert (int(outcome.steps), int(outcome.undone), STOPS[int(outcome.stop)]) == (4, 4, "budget")
    assert outcome.curve["at"].tolist() == [0.0] * 5 and float(outcome.state.params) == 0


@pytest.mark.parametrize("unroll", [False, True])
def test_an_update_that_is_not_finite_is_taken_back_whoever_asks(unroll):
    """2^129 times the distance overflows, a quarter of it does not: it is as far as a float goes, and no nearer."""
    outcome = descend(2.0**127, 3, lambda *_: jnp.array(False), never, unroll=unroll)
    assert int(outcome.undone) >= 1 and np.isfinite(outcome.curve["at"]).all() and np.isfinite(outcome.state.params)


def test_who_is_not_finite_at_the_start_is_not_mended_by_undoing():
    params = jax.tree.map(lambda leaf: leaf * np.nan, toys.mlp_params())
    outcome = run(make(), params=params, undo=lambda *_: jnp.array(True))
    assert (int(outcome.steps), STOPS[int(outcome.stop)]) == (0, "diverged")


@pytest.mark.parametrize("name", ["ascent", "random_label"])
@pytest.mark.parametrize("unroll", [False, True])
def test_where_nothing_is_undone_nothing_is_changed(name, unroll):
    """To the bit: parameters, the optimiser's momentum and what the algorithm remembers, a key among it."""
    plain, undoing = (run(make(name), unroll=unroll, **options) for options in ({}, {"undo": lambda *_: jnp.array(False)}))
    assert int(plain.undone) == 0 == int(undoing.undone)
    assert tree.bits_equal(undoing._replace(undone=0), plain._replace(undone=0))


def jumpy(after, before, data):
    """Whether the loss rose by more than a lane allows."""
    return after["loss"] - before["loss"] > data["most"]


def by_hand_undoing(data):
    """A plain loop of ascent that takes back, counts, halves and grows: state, what was seen, how many were undone."""
    memory_key, draw_key, step_key = jax.random.split(jax.random.key(3), 3)
    state = make().init(toys.mlp_params(), whole(data), memory_key)
    seen, scale, undone = [look()(state.params, data)], 1.0, 0
    for step in range(BUDGET_STEPS):
        new, _ = update()(state, draw(data, draw_key, step), jax.random.fold_in(step_key, step))
        new = new._replace(params=jax.tree.map(lambda o, n: o + scale * (n - o), state.params, new.params))  # noqa: B023
        after = look()(new.params, data)
        if jumpy(after, seen[-1], data):
            scale, undone = scale / 2, undone + 1
            seen.append(seen[-1])
        else:
            state, scale = new, min(1.5 * scale, 1.0)
            seen.append(after)
    return state, seen, undone


@pytest.mark.parametrize("unroll", [False, True])
def test_undoing_is_that_of_the_hand_loop_in_every_lane(rising, unroll):
    """Lanes that allow any rise, one as large as the middle one of an ascent, and none."""
    rises = np.diff(rising)
    most = np.array([1e9, np.median(rises), -1.0], np.float32)
    until = unlearn_until(make(), whole, draw, observe, never, BUDGET_STEPS, undo=jumpy, unroll=unroll)
    lanes = [dict(DATA, most=each) for each in most]
    if unroll:
        found = [until(toys.mlp_params(), lane, jax.random.key(3)) for lane in lanes]
    else:
        axes = (None, {"pool": None, "target": None, "most": 0}, None)
        together = toys.quick_jit(jax.vmap(until, in_axes=axes))(
            toys.mlp_params(), dict(DATA, most=most), jax.random.key(3)
        )
        found = [toys.lane(together, i) for i in range(3)]
    for outcome, lane in zip(found, lanes, strict=True):
        state, seen, undone = by_hand_undoing(lane)
        assert int(outcome.undone) == undone and int(outcome.steps) == BUDGET_STEPS
        toys.assert_close(outcome.state, state, 2e-5)
        np.testing.assert_allclose(outcome.curve["loss"], [float(each["loss"]) for each in seen], rtol=2e-5)
    assert [int(outcome.undone) for outcome in found][::2] == [0, BUDGET_STEPS] and 0 < int(found[1].undone) < BUDGET_STEPS
