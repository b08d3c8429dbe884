"""Decoder and encoder behind s3t's contract: the frozen model itself, adapters in lanes, and losses of documents."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.models.language import backbones, folders
from experiments.models.language.decoder import Decoder
from experiments.models.language.encoder import Encoder
from s3t.training.adapters import Adapter, Lora, init_slot
from s3t.training.backbone import forward, owned, run_blocks
from tests.helpers.toys import quick_jit

FIXTURES = Path(__file__).resolve().parents[3] / "fixtures/language"
LORA = Lora(rank=2, alpha=2.0, targets=("attention", "mlp"))


def loaded(name, **options):
    made = folders.load_folder(FIXTURES / name)
    tokens = np.load(FIXTURES / name / "expected.npz")["tokens"][:, :5]
    if name in ("bert", "roberta"):
        return Encoder(made.config, classes=3, **options), made, {"tokens": tokens, "mask": np.ones_like(tokens)}
    return Decoder(made.config, **options), made, tokens


@pytest.mark.parametrize("name", ["llama3", "bert"])
def test_every_projection_has_an_adapter_that_begins_as_nothing(name):
    module, made, x = loaded(name)
    backbone = backbones.as_backbone(module)
    assert backbone is backbones.as_backbone(module.clone()) and backbone.depth == 2
    head = made.head or backbone.init_head(jax.random.key(0))
    blocks = owned(2, 2)
    slots = [init_slot(jax.random.key(i), LORA, [backbone.layers[b] for b in own]) for i, own in enumerate(blocks)]
    assert all(entry.keys() == {layer for layer, *_ in backbone.layers[0]} for slot in slots for entry in slot)
    whole = quick_jit(lambda params: module.apply({"params": params}, x))(
        made.params | ({"head": made.head} if made.head else {})
    )
    run = quick_jit(lambda slots, active: forward(backbone, made.params, x, LORA, blocks, slots, head, active))
    np.testing.assert_allclose(run(slots, jnp.ones(2, bool)), whole, rtol=1e-5, atol=1e-5)
    moved = jax.tree.map(lambda leaf: leaf + 0.5, slots)
    assert not np.allclose(run(moved, jnp.ones(2, bool)), whole, atol=0.1)
    off = run(moved, jnp.zeros(2, bool))
    np.testing.assert_array_equal(off, run(slots, jnp.zeros(2, bool)))


def test_each_adapter_acts_in_lanes_as_alone():
    """Adapters of several models in one program, each beside every layer at once; with remat, too."""
    module, made, x = loaded("llama3")
    backbone, again = backbones.as_backbone(module), backbones.as_backbone(module.clone(remat=True))
    layers, rng = backbone.layers[1], np.random.default_rng(0)
    assert ("attention/key", 24, 12) in layers
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape).astype(np.float32) / 4)  # noqa: E731
    lanes = {layer: Adapter(normal(3, i, 2), normal(3, 2, o), None) for layer, i, o in layers}
    h = quick_jit(lambda x: backbone.embed(made.params, x, None))(x)

    def squared(backbone, adapters):
        return sum((leaf.astype(float) ** 2).sum() for leaf in jax.tree.leaves(
            run_blocks(backbone, made.params, h, range(1, 2), {1: adapters})
        ))  # fmt: skip

    slopes = [quick_jit(jax.vmap(jax.grad(lambda a, b=b: squared(b, a))))(lanes) for b in (backbone, again)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), *slopes)
    alone = quick_jit(jax.grad(lambda a: squared(backbone, a)))
    for lane in range(3):
        single = alone(jax.tree.map(lambda leaf, lane=lane: leaf[lane], lanes))
        jax.tree.map(
            lambda a, b, lane=lane: np.testing.assert_allclose(a[lane], b, rtol=1e-3, atol=1e-3), slopes[0], single
        )
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(slopes[0]))


def test_a_document_costs_the_mean_of_its_tokens():
    module, *_ = loaded("gpt2")
    loss = backbones.as_backbone(module).loss
    logits = jnp.log(jnp.array([[[3.0, 1.0], [1.0, 1.0], [1.0, 7.0]], [[1.0, 1.0]] * 3]))
    y = {"tokens": np.array([[1, 0, 1], [0, 0, 0]]), "weight": np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])}
    np.testing.assert_allclose(loss(logits, y), [(np.log(4) + np.log(2)) / 2, 0.0], rtol=1e-6)


def test_functions_begin_with_a_folder():
    module, made, x = loaded("bert")
    fns = backbones.begin(module, made)
    params = fns.init(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, params, made.params | {"head": made.head})
    assert jax.eval_shape(fns.features, params, x, None).shape == (3, 24)
    assert jax.eval_shape(fns.apply, params, x, jax.random.key(0)).shape == (3, 3)
    other = backbones.begin(Encoder(made.config, classes=2), made)  # another task: the pooler stays, the rest is random
    drawn = [quick_jit(other.init)(jax.random.key(seed))["head"] for seed in (0, 1)]
    np.testing.assert_array_equal(drawn[0]["pooler"]["kernel"], made.head["pooler"]["kernel"])
    assert not np.allclose(drawn[0]["classifier"]["kernel"], drawn[1]["classifier"]["kernel"])
    of_means = backbones.begin(Encoder(made.config, pooling="mean"), made)
    assert jax.eval_shape(of_means.init, jax.random.key(0))["head"].keys() == {"classifier"}


def test_a_decoder_begins_with_a_folder():
    module, made, x = loaded("llama2")
    fns = backbones.begin(module, made)
    assert fns.init(jax.random.key(0)) is made.params
    assert backbones.as_functions(module) is backbones.as_functions(module.clone())
    assert jax.eval_shape(fns.features, made.params, x, None).shape == (3, 5, 24)
    assert jax.tree.map(jnp.shape, jax.eval_shape(backbones.as_functions(module).init, jax.random.key(0))) == jax.tree.map(
        jnp.shape, made.params
    )
