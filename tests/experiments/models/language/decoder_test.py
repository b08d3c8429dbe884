"""The decoder: causal, attention by hand, gradients of gradients, adapters in lanes, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.models.language import decoder, layers
from experiments.models.language.decoder import Decoder, gpt2, llama
from s3t.training.adapters import Adapter
from tests.helpers.toys import quick_jit

attend = quick_jit(layers.attend)
TOKENS = np.array([[1, 2, 3, 4, 0], [4, 3, 3, 1, 2]])
LLAMA = llama(
    vocabulary=7, width=8, depth=1, heads=4, kv_heads=2, mlp=12, positions=16, tied=True, rope_theta=100.0,
    rope_scaling=decoder.RopeScaling(4.0, 1.0, 4.0, 8),
)  # fmt: skip
CONFIGS = {"gpt2": gpt2(vocabulary=7, width=8, depth=1, heads=2, positions=16), "llama": LLAMA}


def some(config, seed=0, **options):
    """A module and parameters far from their initial values."""
    module = Decoder(config, **options)
    shapes = jax.eval_shape(module.init, jax.random.key(0), TOKENS)["params"]
    rng = np.random.default_rng(seed)
    return module, jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32) / 2, shapes)


def run(module, params, *given, **options):
    """The module, compiled."""
    return quick_jit(lambda params, *given: module.apply({"params": params}, *given, **options))(params, *given)


def test_attention_by_hand():
    """One head of one feature: scores q k, so that the second query weighs values 1 and 5 as e^0 to e^log 3."""
    q = jnp.array([0.0, 1.0]).reshape(1, 2, 1, 1)
    k, v = jnp.array([0.0, jnp.log(3.0)]).reshape(1, 2, 1, 1), jnp.array([1.0, 5.0]).reshape(1, 2, 1, 1)
    causal = jnp.tril(jnp.ones((1, 2, 2), bool))
    np.testing.assert_allclose(attend(q, k, v, causal)[0, :, 0], [1.0, 4.0], rtol=1e-6)


def test_grouped_heads_are_repeated_heads():
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.normal(size=(2, 3, heads, 4))) for heads in (6, 2, 2))
    causal = jnp.tril(jnp.ones((1, 3, 3), bool))
    twin = attend(q, jnp.repeat(k, 3, axis=2), jnp.repeat(v, 3, axis=2), causal)
    np.testing.assert_allclose(attend(q, k, v, causal), twin, rtol=1e-5)


def test_a_rotation_depends_on_the_distance_alone():
    rng = np.random.default_rng(1)
    q, k = jnp.asarray(rng.normal(size=(2, 1, 1, 1, 8)))
    angles = decoder.frequencies(llama(vocabulary=2, width=8, depth=1, heads=1, mlp=2, positions=9))
    at = lambda x, place: decoder.rotate(x, place * angles[None, None])  # noqa: E731
    dots = [(at(q, place + 3.0) * at(k, place)).sum() for place in (0.0, 5.0)]
    np.testing.assert_allclose(*dots, rtol=1e-4)
    np.testing.assert_allclose(at(q, 0.0), q)


def test_slow_rotations_are_stretched_and_quick_ones_kept():
    plain = decoder.frequencies(llama(vocabulary=2, width=16, depth=1, heads=1, mlp=2, positions=9, rope_theta=1e4))
    stretched = decoder.frequencies(
        llama(
            vocabulary=2, width=16, depth=1, heads=1, mlp=2, positions=9, rope_theta=1e4,
            rope_scaling=decoder.RopeScaling(8.0, 1.0, 4.0, 64),
        )
    )  # fmt: skip
    ratio = np.asarray(stretched / plain)  # of turns within 64 places: 10, 3.2, 1.02, .3, ...
    np.testing.assert_allclose(ratio[[0, 3, 7]], [1.0, 1 / 8, 1 / 8], rtol=1e-5)
    turns = 64 * float(plain[1]) / (2 * np.pi)
    np.testing.assert_allclose(ratio[1], (turns - 1) / 3 + (1 - (turns - 1) / 3) / 8, rtol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_comes_later_changes_nothing_before(name):
    module, params = some(CONFIGS[name])
    apply = quick_jit(lambda tokens: module.apply({"params": params}, tokens))
    changed = TOKENS.copy()
    changed[:, 3:] = 6
    before, after = apply(TOKENS), apply(changed)
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert not np.array_equal(before[:, 3], after[:, 3])


@pytest.mark.parametrize("name", CONFIGS)
def test_tokens_may_be_lists(name):
    module, params = some(CONFIGS[name])
    given, listed = (module.apply({"params": params}, tokens) for tokens in (TOKENS, TOKENS.tolist()))
    np.testing.assert_array_equal(given, listed)


def test_short_activations_give_logits_in_full_precision():
    module, params = some(LLAMA)
    brief = Decoder(LLAMA, dtype=jnp.bfloat16)
    exact, short = run(module, params, TOKENS), run(brief, params, TOKENS)
    assert short.dtype == jnp.float32
    np.testing.assert_allclose(short, exact, atol=0.1 * float(jnp.abs(exact).max()))
    adapters = {"attention/query": Adapter(np.ones((8, 2), np.float32), np.ones((2, 8), np.float32), None)}
    block = lambda h: brief.apply({"params": params}, h, 0, adapters, method="block")  # noqa: E731
    assert jax.eval_shape(block, jnp.zeros((1, 2, 8), jnp.bfloat16)).dtype == jnp.bfloat16


def test_dropout_follows_the_key():
    module, params = some(CONFIGS["gpt2"], dropout=0.5)
    thinned = quick_jit(lambda key: module.apply({"params": params}, TOKENS, rngs={"dropout": key}))
    made = [thinned(jax.random.key(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(made[0], made[1])
    assert not np.allclose(made[0], made[2])
    np.testing.assert_array_equal(run(module, params, TOKENS), run(Decoder(module.config), params, TOKENS))


def after_a_step(module):
    """The loss of half of the documents after a step uphill on that of the others."""

    def loss(params, tokens):
        log_p = jax.nn.log_softmax(module.apply({"params": params}, tokens[:, :-1]))
        return -jnp.take_along_axis(log_p, tokens[:, 1:, None], axis=-1).mean()

    def outer(params):
        slope = jax.grad(loss)(params, TOKENS[:1])
        return loss(jax.tree.map(lambda p, g: p + 0.1 * g, params, slope), TOKENS[1:])

    return outer


@pytest.mark.parametrize("name, remat", [("gpt2", False), ("llama", True)])
def test_gradients_of_gradients_are_finite_differences(name, remat):
    """Of blocks that are remembered and of blocks that are computed again, which give the same."""
    with jax.enable_x64(True):
        module, params = some(CONFIGS[name])
        params, rng = jax.tree.map(jnp.float64, params), np.random.default_rng(5)
        way = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), params)
        value_and_slope = quick_jit(jax.value_and_grad(after_a_step(module)))
        at = lambda t: value_and_slope(jax.tree.map(lambda p, d: p + t * d, params, way))[0]  # noqa: E731
        slope, difference = value_and_slope(params)[1], (at(1e-5) - at(-1e-5)) / 2e-5
        along = sum(jax.tree.leaves(jax.tree.map(lambda g, d: np.vdot(g, d), slope, way)))
        np.testing.assert_allclose(along, difference, rtol=1e-6)
        if remat:
            again = quick_jit(jax.grad(after_a_step(module.clone(remat=True))))(params)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), slope, again)


def test_refusals_are_one_line():
    module, params = some(CONFIGS["gpt2"])
    with pytest.raises(ValueError, match="17 tokens are too many for a model of 16 positions"):
        module.apply({"params": params}, np.zeros((1, 17), int))
    sizes = {"vocabulary": 7, "width": 8, "depth": 1, "mlp": 2, "positions": 3}
    for odd, says in (({"heads": 3}, "a multiple"), ({"heads": 4, "kv_heads": 3}, "divisor"), ({"heads": 8}, "even")):
        with pytest.raises(ValueError, match=says):
            llama(**sizes, **odd)
