"""Algorithms for language on a model of two tokens: each formula in plain numpy, its slopes by differences, and mistakes.

The model reads one token and answers with a row of the parameters; so do its features.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.helpers import toys
from unlearn import Request, classifier, dpo, find_algorithm, idk_dpo, rmu, sequence_model, simnpo, undial, wga
from unlearn.algorithms.misdirecting import _direction

MODEL = sequence_model(lambda params, x, key: params[x], lambda params, x, key: params[x])
START, NOW = np.array([[0.5, -0.25], [0.0, 1.0]]), np.array([[1.0, 0.25], [-0.5, 0.75]])
KEY = jax.random.key(3)


def batch(x, y, token_weight, weight):
    data = {"x": x, "y": y, "token_weight": token_weight, "weight": weight, "id": range(len(weight))}
    return {name: np.array(leaf) for name, leaf in data.items()}


# Two documents of two tokens, and one of weight 0; the second one's last token does not count.
OTHER = {"x": np.array([[0, 1]] * 3), "y": np.array([[1, 1], [0, 0], [0, 0]]), "token_weight": np.ones((3, 2))}
FORGET = batch([[0, 1], [1, 0], [0, 0]], [[0, 1], [0, 1], [1, 1]], [[1, 1], [1, 0], [1, 1]], [1.0, 2.0, 0.0])
REQUEST = Request(FORGET | {"alternative": OTHER}, batch([[0, 1]], [[1, 0]], [[1, 1]], [1.0]))


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def log_p(params, x, y):
    return params[x][y] - np.log(np.exp(params[x]).sum())


def tokens(data, row):
    """(x, y) of the tokens that count."""
    return [(x, y) for x, y, w in zip(data["x"][row], data["y"][row], data["token_weight"][row], strict=True) if w]


def expected(data, value):
    """The weighted mean over documents of value(tokens)."""
    rows = np.flatnonzero(data["weight"])
    return sum(data["weight"][row] * value(row, tokens(data, row)) for row in rows) / data["weight"].sum()


def mean_loss(params, data):
    return expected(data, lambda row, read: -np.mean([log_p(params, *token) for token in read]))


def of_simnpo(params):
    loss = lambda read: -np.mean([log_p(params, *token) for token in read])  # noqa: E731
    return 2 / 1.5 * expected(FORGET, lambda row, read: -np.log(1 / (1 + np.exp(-(1.5 * loss(read) - 0.5)))))


def of_wga(params):
    return expected(FORGET, lambda row, read: np.mean([(np.exp(log_p(params, *token)) ** 2 - 1) / 2 for token in read]))


def of_undial(params):
    """KL, for each token, of the start's answer with the right logit lowered by 3, from the answer now."""

    def divergence(x, y):
        lowered = START.copy()
        lowered[x][y] -= 3
        q = [log_p(lowered, x, v) for v in (0, 1)]
        return sum(np.exp(q[v]) * (q[v] - log_p(params, x, v)) for v in (0, 1))

    return expected(FORGET, lambda row, read: np.mean([divergence(*token) for token in read]))


def of_dpo(params):
    def ratio(read):
        return sum(log_p(params, *token) - log_p(START, *token) for token in read)

    def preferred(row, read):
        return -np.log(1 / (1 + np.exp(-0.7 * (ratio(tokens(OTHER, row)) - ratio(read)))))

    return 2 / 0.7 * expected(FORGET, preferred)


def of_idk_dpo(params):
    return of_dpo(params) + 3 * mean_loss(params, REQUEST.retain)


def of_rmu(params):
    direction = np.asarray(jax.random.uniform(KEY, (2,), jnp.float32), float)
    goal = 4 * direction / np.linalg.norm(direction)
    away = expected(FORGET, lambda row, read: np.mean([np.mean((params[x] - goal) ** 2) for x, _ in read]))
    moved = expected(REQUEST.retain, lambda row, read: np.mean([np.mean((params[x] - START[x]) ** 2) for x, _ in read]))
    return away + 5 * moved


FORMULAS = {
    "simnpo": (simnpo, {"beta": 1.5, "margin": 0.5}, of_simnpo),
    "wga": (wga, {"alpha": 2.0}, of_wga),
    "undial": (undial, {"beta": 3.0}, of_undial),
    "dpo": (dpo, {"beta": 0.7}, of_dpo),
    "idk_dpo": (idk_dpo, {"beta": 0.7, "gamma": 3.0}, of_idk_dpo),
    "rmu": (rmu, {"length": 4.0, "gamma": 5.0}, of_rmu),
}


def step(name, request=REQUEST, params=NOW, start=START, model=MODEL, **options):
    """The slope that one update descends, and the objective's value."""
    algorithm = find_algorithm(name)(model, optax.sgd(1.0), **options)
    state = algorithm.init(start, request, KEY)._replace(params=params)
    after, info = algorithm.update(state, request, KEY)
    return params - np.asarray(after.params), float(info.objective)


@pytest.mark.parametrize("name", FORMULAS)
def test_value_and_slope_are_those_of_the_formula(name):
    _, options, formula = FORMULAS[name]
    slope, value = step(name, **options)
    assert value == pytest.approx(formula(NOW), rel=1e-12)
    np.testing.assert_allclose(slope, toys.central_differences(formula, NOW), rtol=1e-7, atol=1e-9)


ONE = Request(batch([[0]], [[0]], [[1]], [1.0]))  # one token


def at(p):
    """Parameters by which the right token of ONE has probability p."""
    return np.array([[np.log(p), np.log(1 - p)], [0.0, 0.0]])


def ascent(p):
    return step("ascent", ONE, at(p))[0]


@pytest.mark.parametrize("alpha, weight", [(1.0, 0.8), (2.0, 0.64), (0.5, 0.8**0.5)])
def test_wga_weighs_ascent_by_the_probability(alpha, weight):
    np.testing.assert_allclose(step("wga", ONE, at(0.8), alpha=alpha)[0], weight * ascent(0.8))
    assert step("wga", ONE, at(0.8), alpha=alpha)[1] == pytest.approx((weight - 1) / alpha)


def test_wga_weighs_tokens_and_not_documents():
    """Of two tokens with p = .8 and .1 each is weighed by its own; the document's mean token has p = .28."""
    request = Request(batch([[0, 1]], [[0, 0]], [[1, 1]], [1.0]))
    params = np.log(np.array([[0.8, 0.2], [0.1, 0.9]]))
    plain, weighed = step("ascent", request, params)[0], step("wga", request, params)[0]
    np.testing.assert_allclose(weighed, plain * np.array([[0.8], [0.1]]))


def test_wga_becomes_ascent():
    np.testing.assert_allclose(step("wga", ONE, at(0.8), alpha=1e-9)[0], ascent(0.8), rtol=1e-7)


@pytest.mark.parametrize("p", [0.9, 0.5, 0.01])
def test_simnpo_slows_down_as_an_example_is_forgotten(p):
    """2 sigmoid(-beta loss) = 2 p^beta / (1 + p^beta) of ascent's slope, whatever the start was."""
    for start in (START, NOW):
        slope, _ = step("simnpo", ONE, at(p), start, beta=2.0)
        np.testing.assert_allclose(slope, 2 * p**2 / (1 + p**2) * ascent(p), rtol=1e-9)


def test_simnpo_knows_no_length():
    twice = Request(batch([[0, 0]], [[0, 0]], [[1, 1]], [1.0]))
    np.testing.assert_allclose(step("simnpo", twice, at(0.8))[0], step("simnpo", ONE, at(0.8))[0])


def test_dpo_counts_every_token():
    """At the start its slope is that of the difference of log p: twice as much for a document twice as long."""
    other = {"x": np.array([[1]]), "y": np.array([[0]])}
    one = Request(ONE.forget | {"alternative": other})
    twice = Request(batch([[0, 0]], [[0, 0]], [[1, 1]], [1.0]) | {"alternative": other})
    (short, value), (long, _) = (step("dpo", request, at(0.8), at(0.8)) for request in (one, twice))
    np.testing.assert_allclose(short[0], ascent(0.8)[0])
    np.testing.assert_allclose(long, short * np.array([[2], [1]]))
    assert value == pytest.approx(2 / 0.1 * np.log(2))


def test_dpo_rests_where_the_alternative_is_the_document():
    same = Request(ONE.forget | {"alternative": {name: ONE.forget[name] for name in ("x", "y", "token_weight")}})
    np.testing.assert_allclose(step("dpo", same, at(0.8))[0], 0, atol=1e-15)


def test_undial_ends_where_the_teacher_is():
    """p / (1 - p) = 4 of the start, divided by exp(log 8): 1 / 2, or p = 1 / 3."""
    slope, value = step("undial", ONE, at(1 / 3), at(0.8), beta=np.log(8.0))
    np.testing.assert_allclose(slope, 0, atol=1e-12)
    assert value == pytest.approx(0, abs=1e-12)


def test_rmu_has_one_direction_for_a_request_and_another_for_the_next():
    first, again, next_one = (_direction(jax.random.key(seed), jnp.zeros((2, 5))) for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, next_one)
    assert float(jnp.linalg.norm(first)) == pytest.approx(1) and bool((first >= 0).all())


def test_rmu_takes_features_of_any_shape():
    """Of whole documents, of tokens by their weights, and of places in an image, all alike."""
    params, x = np.array([[3.0, -1.0]]), np.zeros((1, 2), int)
    pooled = classifier(lambda params, x, key: params, lambda params, x, key: params)
    places = classifier(lambda params, x, key: params, lambda params, x, key: jnp.broadcast_to(params, (1, 2, 2, 2)))
    words = sequence_model(lambda params, x, key: params[x], lambda params, x, key: params[x] * jnp.array([[[1.0], [9.0]]]))
    plain = {"x": x, "y": np.zeros(1, int), "id": np.arange(1), "weight": np.ones(1)}
    text = plain | {"y": x, "token_weight": np.array([[2.0, 0.0]])}
    values = [
        step("rmu", Request(data, data), params, params, model)[1]
        for model, data in ((pooled, plain), (places, plain), (words, text))
    ]
    assert values == pytest.approx([values[0]] * 3)


# mistakes


@pytest.mark.parametrize("name", ["dpo", "idk_dpo"])
@pytest.mark.parametrize("alternative", [None, {}, {"x": OTHER["x"]}, OTHER["x"]])
def test_an_alternative_is_asked_for(name, alternative):
    forget = FORGET if alternative is None else FORGET | {"alternative": alternative}
    algorithm = find_algorithm(name)(MODEL, optax.sgd(1.0))
    state = algorithm.init(START, REQUEST, KEY)
    for call in (lambda r: algorithm.init(START, r, KEY), lambda r: algorithm.update(state, r, KEY)):
        with pytest.raises(
            ValueError, match=r"^forget data have no 'alternative' with x and y: add what is to be"
        ) as error:
            call(REQUEST._replace(forget=forget))
        assert "\n" not in str(error.value)


def test_alternatives_are_of_the_same_examples():
    short = {name: leaf[:2] for name, leaf in OTHER.items()}
    with pytest.raises(ValueError, match=r"\['alternative'\]\['token_weight'\] of the forget data has shape \(2, 2\)"):
        step("dpo", Request(FORGET | {"alternative": short}))


def test_features_are_asked_for():
    with pytest.raises(ValueError, match=r"^rmu moves features, and this model has none: give features="):
        rmu(sequence_model(lambda params, x, key: params[x]), optax.sgd(1.0))


@pytest.mark.parametrize(
    "name, option, value",
    [("simnpo", "beta", 0.0), ("simnpo", "margin", -1.0), ("wga", "alpha", 0.0), ("undial", "beta", float("inf")),
     ("dpo", "beta", 0.0), ("idk_dpo", "gamma", -1.0), ("rmu", "length", 0.0), ("rmu", "gamma", -0.5)],
)  # fmt: skip
def test_numbers_that_a_formula_has_no_meaning_for(name, option, value):
    with pytest.raises(ValueError, match=f"^{option} is {value}: give a number"):
        find_algorithm(name)(MODEL, optax.sgd(1.0), **{option: value})


def test_equal_models_are_equal():
    apply = lambda params, x, key: params[x]  # noqa: E731
    assert sequence_model(apply) == sequence_model(apply) and hash(sequence_model(apply)) == hash(sequence_model(apply))
    assert classifier(apply).token_loss is None


def test_a_loss_of_a_document_is_the_mean_of_its_tokens():
    logits = MODEL.apply(NOW, FORGET["x"], None)
    by_token = MODEL.token_loss(logits, FORGET)
    np.testing.assert_allclose(by_token[0, 1], -log_p(NOW, 1, 1))
    means = (by_token * FORGET["token_weight"]).sum(axis=1) / FORGET["token_weight"].sum(axis=1)
    np.testing.assert_allclose(MODEL.loss(logits, FORGET), means)
