"""One suite for every unlearning algorithm: what the contract promises, and each objective by hand.

It runs for a classifier, for a sequence model whose documents are as long as there are of them, and for a model whose x, y
and logits are mappings. Float64 throughout, so that finite differences and reorderings can be told from errors.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.helpers import toys
from tests.helpers.shelf import RATE, every_algorithm, kind_of, make
from tests.helpers.toys import KINDS
from unlearn import ALGORITHMS, Request, UnlearnState, declare, tree, unlearn
from unlearn.algorithms.relabelling import other_labels
from unlearn.base import UNDECLARED, UnlearnAlgorithm, UnlearnInfo, merged, remember_nothing, roll_out, traits_of

FOR_TEXT = ("rmu", "simnpo", "undial")  # run on classifiers among the slow tests


def algorithms_of(*kinds, slow=()):
    return pytest.mark.parametrize(
        "name, kind",
        [
            pytest.param(
                name,
                KINDS[kind],
                id=f"{name}-{kind}",
                marks=[pytest.mark.slow] * (kind in slow or (kind == "classifier" and name in FOR_TEXT)),
            )
            for kind in kinds
            for name in sorted(ALGORITHMS)
            if KINDS[kind].trait in traits_of(ALGORITHMS[name]).kinds
        ],
    )


every_kind = algorithms_of(*KINDS)


every_kind_slowly = algorithms_of(*KINDS, slow=("pytree",))


of_both = algorithms_of("classifier", "sequence")  # where mappings would show nothing new


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


# what a caller relies on


@of_both
def test_update_is_pure(name, kind):
    algorithm, key = make(name, optax.sgd(RATE, momentum=0.9), kind.model), np.array([0, 1], np.uint32)
    params, request = kind.params(), toys.first(kind.requests())
    kept = jax.tree.map(np.copy, (params, request, key))
    state = algorithm.init(params, request, key)
    once, again = (algorithm.update(state, request, key) for _ in range(2))
    assert tree.bits_equal(once, again)
    assert tree.bits_equal((params, request, key), kept)
    assert tree.bits_equal(state, algorithm.init(params, request, key))
    assert not tree.bits_equal(once[0].params, params)


@of_both
def test_jit_changes_nothing(name, kind):
    # Where the gradient is rounding alone, Adam's own epsilon would divide by it and make of it a difference of 1e-10.
    adam = optax.adam(RATE, eps=1e-3)
    algorithm, request, key = make(name, adam, kind.model), toys.first(kind.requests()), jax.random.key(1)
    state = algorithm.init(kind.params(), request, key)
    toys.assert_close(toys.quick_jit(algorithm.update)(state, request, key), algorithm.update(state, request, key), 1e-12)


@every_kind_slowly
def test_scan_is_the_python_loop(name, kind):
    algorithm, batches, key = make(name, optax.adam(RATE), kind.dropout), kind.requests(steps=2), jax.random.key(1)
    init_key, step_key = jax.random.split(key)
    begun = state = algorithm.init(kind.params(), merged(batches), init_key)
    infos, update = [], toys.quick_jit(algorithm.update)
    for i in range(2):
        state, info = update(state, toys.lane(batches, i), jax.random.fold_in(step_key, i))
        infos.append(info)
    for unroll in (False, True):
        run = toys.quick_jit(lambda params: unlearn(algorithm, params, merged(batches), batches, key, unroll=unroll))  # noqa: B023
        ended, seen = run(kind.params())
        toys.assert_close((ended, seen), (state, toys.stack(infos)), 1e-12)
        # Levels are computed, and may round otherwise within a program than outside; what is only copied may not.
        assert name == "level" or tree.bits_equal(ended.memory, begun.memory)
    assert tree.bits_equal(state.memory, begun.memory)


@every_algorithm
def test_vmap_over_seeds_is_separate_runs(name):
    kind = kind_of(name)
    algorithm, batches = make(name, optax.sgd(RATE, momentum=0.9), kind.dropout), kind.requests(steps=2)
    run = lambda params, key: unlearn(algorithm, params, merged(batches), batches, key)  # noqa: E731
    starts, keys = [kind.params(seed) for seed in range(3)], jax.random.split(jax.random.PRNGKey(0), 3)
    lanes, single = toys.quick_jit(jax.vmap(run))(toys.stack(starts), keys), toys.quick_jit(run)
    for i, params in enumerate(starts):
        toys.assert_close(toys.lane(lanes, i), single(params, keys[i]), 1e-12)


@every_kind
def test_two_updates_are_those_of_the_formula(name, kind):
    """Value, gradient norm, and parameters under momentum written by hand."""
    algorithm, request = make(name, optax.sgd(RATE, momentum=0.9), kind.model), toys.first(kind.requests())
    start, params, key = kind.params(1), kind.params(2), jax.random.PRNGKey(3)
    relabel = lambda y: other_labels(key, request.forget["id"], y, toys.CLASSES)  # noqa: E731
    wrong = jax.tree.map(relabel, request.forget["y"]) if name == "random_label" else None
    levels = toys.class_levels(kind.model, start, request.retain) if not toys.options("level", kind.model) else None
    memory = (start, key) if name == "rmu" else start
    formula = lambda p: toys.literal_objective(name, kind.model, p, memory, request, key, wrong, kind, levels)  # noqa: E731
    value_and_grad, update = toys.quick_jit(jax.value_and_grad(formula)), toys.quick_jit(algorithm.update)
    state, velocity = algorithm.init(start, request, key)._replace(params=params), jax.tree.map(np.zeros_like, params)
    for _ in range(2):
        value, gradient = value_and_grad(params)
        velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, gradient)
        params = jax.tree.map(lambda p, v: p - RATE * v, params, velocity)
        state, info = update(state, request, key)
        toys.assert_close((info.objective, info.grad_norm), (value, optax.tree.norm(gradient)), 1e-10)
        toys.assert_close(state.params, params, 1e-10)


@every_algorithm
def test_update_keeps_structure_and_dtypes(name):
    """Parameters of two dtypes, bfloat16 and float64, under every optimiser, one that gives wider updates too."""
    params, request, key = kind_of(name).params(), toys.first(kind_of(name).requests()), jax.random.key(0)
    lowest = min(params)
    params[lowest] = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params[lowest])
    wide = optax.stateless(lambda updates, params: jax.tree.map(lambda u: u.astype(jnp.float64), updates))
    for optimizer in [wide, *(build(jnp.asarray(RATE)) for build in toys.OPTIMIZERS.values())]:
        algorithm = make(name, optimizer)
        state = jax.eval_shape(algorithm.init, params, request, key)
        after, info = jax.eval_shape(algorithm.update, state, request, key)
        kind = lambda s: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), s)  # noqa: E731
        assert isinstance(after, UnlearnState) and kind(after) == kind(state)
        assert info.objective.shape == info.grad_norm.shape == ()


# padding


def padded(batch, garbage):
    """Three more rows of weight 0 at every step: huge inputs or any token, label 0, any id."""
    rows = {"x": garbage, "y": 0, "id": 7, "weight": 0, "token_weight": 1}

    def fill(path, leaf):
        name = next(step.key for step in path if step.key in rows)
        value = 2 if name == "x" and leaf.dtype == np.int32 else rows[name]
        return np.concatenate([leaf, np.full((leaf.shape[0], 3, *leaf.shape[2:]), value, leaf.dtype)], axis=1)

    return jax.tree_util.tree_map_with_path(fill, batch)


@every_kind_slowly
def test_padding_has_no_effect(name, kind):
    batches = kind.requests(steps=2)
    more = Request(padded(batches.forget, 1e200), padded(batches.retain, -1e200))

    @toys.quick_jit
    def both(params, batches):
        """The unlearned parameters, and a derivative through them."""
        run = lambda p: unlearn(make(name, model=kind.model), p, merged(batches), batches, jax.random.key(0))[0].params  # noqa: E731
        after, pull = jax.vjp(run, params)
        return after, pull(after)

    result = both(kind.params(), more)
    assert bool(tree.all_finite(result))
    toys.assert_close(result, both(kind.params(), batches), 1e-11)


@of_both
def test_nothing_but_padding_is_finite_and_pushes_nowhere(name, kind):
    empty = Request(*({**batch, "weight": 0 * batch["weight"]} for batch in toys.first(kind.requests())))
    algorithm = make(name, model=kind.model)
    state = algorithm.init(kind.params(), empty, jax.random.key(0))
    after, info = toys.quick_jit(algorithm.update)(state, empty, jax.random.key(0))
    toys.assert_close(after.params, state.params, 1e-15)
    assert float(info.objective) == 0 == float(info.grad_norm)


# derivatives


def outer(params, request, kind=KINDS["classifier"]):
    """Any smooth function of the unlearned parameters."""
    stays = toys.average(kind.nll(kind.model, params, request.retain, None, None), request.retain["weight"])
    return stays + 0.1 * tree.dot(params, params)


@of_both
def test_gradient_through_two_updates_is_the_finite_difference(name, kind):
    """What `init` returns is a constant, so the differences are taken with `start` standing still."""
    batches, algorithm = kind.requests(steps=2), make(name, optax.sgd(RATE, momentum=0.9), kind.model)

    @toys.quick_jit
    @jax.value_and_grad
    def f(params, start):
        state = algorithm.init(start, merged(batches), jax.random.key(0))._replace(params=params)
        return outer(roll_out(algorithm, state, batches, jax.random.key(1))[0].params, toys.first(batches), kind)

    start = kind.params()
    differences = toys.central_differences(lambda p: f(p, start)[0], start)
    assert toys.relative_error(f(start, start)[1], differences) <= 1e-5


@pytest.mark.parametrize("name, optimizer", [*((name, "adam") for name in sorted(ALGORITHMS)), ("npo", "clip")])
def test_any_optimiser_has_finite_meta_gradients(name, optimizer):
    """Plain gradient descent and momentum are differentiated by the tests around this one.

    The row of a token that no document has gets no gradient, and Adam needs eps_root there, as in the next test.
    """
    kind = kind_of(name)
    build = toys.OPTIMIZERS[optimizer] if kind.trait == "classifier" else lambda rate: optax.adam(rate, eps_root=1e-8)
    algorithm, batches = make(name, build(RATE)), kind.requests(steps=2)
    run = lambda p: unlearn(algorithm, p, merged(batches), batches, jax.random.key(1))[0].params  # noqa: E731
    slope = toys.quick_jit(jax.grad(lambda p: outer(run(p), toys.first(batches), kind)))(kind.params())
    assert bool(tree.all_finite(slope)) and float(tree.norm(slope)) > 0


@pytest.mark.parametrize("optimizer", [optax.sgd(1.0), optax.adam(0.1, eps_root=1e-8)], ids=["sgd", "adam"])
def test_meta_gradient_through_a_zero_gradient_is_finite(optimizer):
    """Above its cap ascent stands still. Adam needs eps_root there: the slope of a square root at 0 is infinite."""
    algorithm, batches = make("ascent", optimizer, cap=1e-3), toys.requests(steps=2)
    run = lambda p: unlearn(algorithm, p, merged(batches), batches, jax.random.key(0))[0].params  # noqa: E731
    direct = jax.grad(lambda p: outer(p, toys.first(batches)))(toys.mlp_params())
    slope = toys.quick_jit(jax.grad(lambda p: outer(run(p), toys.first(batches))))(toys.mlp_params())
    toys.assert_close(slope, direct, 1e-12)


@pytest.mark.parametrize("name", ["ascent_kl", "npo", "level", "undial"])
def test_memory_is_a_constant_under_any_gradient_operator(name):
    """`jax.value_and_grad` differentiates all that it is given; `second_order` sees to the memory itself."""
    batches, slopes = toys.requests(steps=2), []
    for options in ({}, {"grad": jax.value_and_grad}):
        made = make(name, **options)
        run = lambda p: unlearn(made, p, merged(batches), batches, jax.random.key(1))[0].params  # noqa: B023, E731
        slopes.append(toys.quick_jit(jax.grad(lambda p: outer(run(p), toys.first(batches))))(toys.mlp_params()))  # noqa: B023
    toys.assert_close(*slopes, 1e-12)


def test_options_and_rates_may_be_traced_lane_by_lane():
    """A sweep over a weight and a step size as lanes of one program, differentiated."""
    batches = toys.requests(steps=2)

    def slope(params, gamma, rate):
        algorithm = make("graddiff", optax.sgd(rate), gamma=gamma)
        run = lambda p: unlearn(algorithm, p, merged(batches), batches, jax.random.key(0))[0]  # noqa: E731
        return jax.grad(lambda p: outer(run(p).params, toys.first(batches)))(params)

    gammas, rates = jnp.array([0.0, 0.5, 2.0]), jnp.array([0.1, 0.2, 0.3])
    lanes = toys.quick_jit(jax.vmap(slope, in_axes=(None, 0, 0)))(toys.mlp_params(), gammas, rates)
    for i in range(3):
        single = toys.quick_jit(slope)(toys.mlp_params(), gammas[i], rates[i])
        toys.assert_close(toys.lane(lanes, i), single, 1e-12)


# what is declared is true


@every_algorithm
def test_retain_data_are_needed_as_declared(name):
    """Needed, they are asked for in one line; not needed, they are never read."""
    request, params = toys.first(kind_of(name).requests()), kind_of(name).params()
    algorithm, alone = make(name), Request(request.forget)
    state = algorithm.init(params, request, jax.random.key(0))
    if not algorithm.traits.needs_retain:
        poisoned = request._replace(retain=dict(request.retain, weight=request.retain["weight"] * np.nan))
        runs = [
            algorithm.update(algorithm.init(params, each, jax.random.key(0)), each, jax.random.key(0))
            for each in (alone, poisoned)
        ]
        assert tree.bits_equal(*runs) and bool(tree.all_finite(runs[0]))
        return
    for call in (algorithm.init, algorithm.update):
        with pytest.raises(ValueError, match=f"^{name} needs retain data: give") as error:
            call(params if call is algorithm.init else state, alone, jax.random.key(0))
        assert "\n" not in str(error.value)


@every_algorithm
def test_labels_are_needed_as_declared(name):
    request = toys.first(kind_of(name).requests())
    without = Request(*({key: leaf for key, leaf in batch.items() if key != "y"} for batch in request))
    assert traits_of(ALGORITHMS[name]).needs_labels, "write the other half of this test: it must not read y"
    with pytest.raises(ValueError, match=r"^forget data have no 'y'"):
        make(name).init(kind_of(name).params(), without, jax.random.key(0))


@every_algorithm
def test_an_edit_is_made_in_one_shot_as_declared(name):
    request, params = toys.first(kind_of(name).requests()), kind_of(name).params()
    state = make(name).init(params, request, jax.random.key(0))
    after, _ = make(name).update(state, request, jax.random.key(0))
    one_shot = traits_of(ALGORITHMS[name]).one_shot
    assert tree.bits_equal(state.params, params) is not one_shot and tree.bits_equal(after.params, state.params) is one_shot


@every_algorithm
def test_a_kind_that_is_not_declared_is_refused(name):
    """The suite runs for every kind that is; and which these are is written here a second time."""
    sequence, declared = KINDS["sequence"], set(traits_of(ALGORITHMS[name]).kinds)
    told = {"random_label": {"classifier"}, "wga": {"language"}, "dpo": {"language"}, "idk_dpo": {"language"}}
    assert declared == told.get(name, {"classifier", "language"})
    if "classifier" not in declared:
        with pytest.raises(ValueError, match=f"^{name} is for language models, .* as ascent, level or npo$") as error:
            make(name, model=toys.MLP)
        assert "\n" not in str(error.value)
    if "language" not in declared:
        with pytest.raises(ValueError, match=r"choose another algorithm for sequences, as ascent, level or npo$"):
            make(name, model=sequence.model)
        # A model of a user's own that says nothing of its tokens is found out by its shapes.
        algorithm = make(name, model=sequence.model._replace(token_loss=None))
        request, key = toys.first(sequence.requests()), jax.random.key(0)
        with pytest.raises(ValueError, match="choose another algorithm for sequences"):
            algorithm.update(algorithm.init(sequence.params(), request, key), request, key)


@every_algorithm
def test_an_algorithm_is_a_real_function_that_explains_itself(name):
    factory = ALGORITHMS[name]
    assert factory.__name__ == name and factory.__module__.startswith("unlearn.algorithms.")
    first, second, *options = inspect.signature(factory).parameters.values()
    assert (first.name, second.name) == ("model", "optimizer")
    assert all(option.kind is option.KEYWORD_ONLY and option.default is not option.empty for option in options)
    assert {"mean", "grad"} <= {option.name for option in options}
    for part in ("Args:", "Reference:", "Example:", ">>> ", "objective = "):
        assert part in factory.__doc__, part
    assert traits_of(factory) == make(name).traits and factory.traits.differentiable


def counting(model, optimizer):
    """A one-shot edit that nobody can mistake: parameters become how many examples `init` has seen."""

    def init(params, request, key):
        seen = jnp.sum(request.forget["weight"] > 0).astype(float)
        return UnlearnState(jax.tree.map(lambda leaf: 0 * leaf + seen, params), optimizer.init(params), seen)

    def update(state, request, key):
        return state, UnlearnInfo(jnp.zeros(()), jnp.zeros(()))

    return UnlearnAlgorithm(init, update)


def test_init_sees_the_whole_request_and_a_one_shot_edit_stays():
    """Two batches of four examples, one of each padding."""
    count, batches = declare(needs_retain=False, needs_labels=False, one_shot=True)(counting), toys.requests(steps=2)
    state, infos = unlearn(count(toys.MLP, optax.sgd(1.0)), toys.mlp_params(), merged(batches), batches, jax.random.key(0))
    assert {float(value) for leaf in jax.tree.leaves(state.params) for value in np.ravel(leaf)} == {6.0}
    assert infos.objective.shape == (2,)


def test_an_algorithm_that_needs_no_labels_runs_without():
    without = Request({key: leaf for key, leaf in toys.first(toys.requests()).forget.items() if key != "y"})
    count = declare(needs_retain=False, needs_labels=False, one_shot=True)(counting)(toys.MLP, optax.sgd(1.0))
    assert float(count.init(toys.mlp_params(), without, jax.random.key(0)).memory) == 3


def test_who_declares_nothing_promises_nothing():
    assert traits_of(counting) == UNDECLARED == counting(toys.MLP, optax.sgd(1.0)).traits
    assert UNDECLARED.needs_retain and UNDECLARED.needs_labels and not UNDECLARED.differentiable and not UNDECLARED.one_shot
    assert remember_nothing(None, None, None) == ()


# mistakes


@every_algorithm
def test_unknown_option_is_a_type_error(name):
    with pytest.raises(TypeError, match=rf"{name}\(\) got an unexpected keyword argument 'strength'"):
        make(name, strength=1.0)


def test_no_steps_leave_everything_as_it_is():
    algorithm, params = make("ascent"), toys.mlp_params()
    none = jax.tree.map(lambda leaf: leaf[:0], toys.requests())
    state = algorithm.init(params, toys.first(toys.requests()), jax.random.key(0))
    for unroll in (False, True):
        after, infos = roll_out(algorithm, state, none, jax.random.key(0), unroll=unroll)
        assert tree.bits_equal(after, state) and infos.objective.shape == (0,)
