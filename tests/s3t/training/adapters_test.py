"""Adapters: what is trained moves and nothing else does; what is off leaves no trace; low-rank work; names and slots."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.models import vits
from s3t.training import adapters
from s3t.training.adapters import Adapter, Factors, Lora, adapt
from s3t.training.backbone import by_block, forward, owned, run_blocks
from tests.helpers import stacks, toys
from unlearn import tree
from unlearn.losses import cross_entropy

BLOCKS = owned(stacks.BLOCKS, stacks.SLICES)


def slots(seed=0, count=stacks.SLICES):
    """Random slots, b as well."""
    made = []
    for slot in range(count):
        rng = np.random.default_rng((seed, slot))
        fresh = adapters.init_slot(jax.random.key(slot), stacks.LORA, [stacks.LAYERS] * len(BLOCKS[slot]))
        made.append(jax.tree.map(lambda leaf, rng=rng: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), fresh))
    return made


def batch():
    x, y, *_ = stacks.data()
    return x, jnp.asarray(y)


def logits(slots, head, active=None):
    return forward(stacks.BACKBONE, stacks.frozen(), batch()[0], stacks.LORA, BLOCKS, slots, head, active)


# training one slot


def everything():
    return {"frozen": stacks.frozen(), "slots": slots(), "head": stacks.init_head(jax.random.key(1))}


def loss_of(model):
    x, y = batch()
    h = stacks.embed(model["frozen"], x, None)
    h = run_blocks(stacks.BACKBONE, model["frozen"], h, range(4), by_block(stacks.LORA, BLOCKS, model["slots"]))
    return jnp.mean(cross_entropy(stacks.head(model["frozen"], model["head"], h), y))


def test_a_gradient_of_one_slot_moves_nothing_else():
    """Under AdamW with weight decay; masking the optimiser instead is the trap."""
    model, tx = everything(), optax.adamw(0.1, weight_decay=0.5)

    def with_slot(slot):
        return {**model, "slots": [*model["slots"][:2], slot, *model["slots"][3:]]}

    slot, state = model["slots"][2], tx.init(model["slots"][2])
    for _ in range(3):
        updates, state = tx.update(jax.grad(lambda slot: loss_of(with_slot(slot)))(slot), state, slot)
        slot = optax.apply_updates(slot, updates)
    after, before = with_slot(slot), everything()
    assert toys.relative_error(after["slots"].pop(2), before["slots"].pop(2)) > 0.1
    assert tree.bits_equal(after, before)

    model = everything()
    trained = jax.tree.map(lambda _: False, model)
    trained["slots"][2] = jax.tree.map(lambda _: True, slots()[2])
    masked = optax.masked(tx, trained)
    updates, _ = masked.update(jax.grad(loss_of)(model), masked.init(model), model)
    assert not tree.bits_equal(optax.apply_updates(model, updates)["slots"][1], model["slots"][1])


def test_the_adapter_path_costs_low_rank_work():
    """XLA's count, in units of a forward pass: a slot's gradient takes 2, all weights' gradients 3."""
    module = vits.VisionTransformer(10, patch=2, width=128, depth=2, heads=2, mlp_dim=512)
    backbone, x = vits.as_backbone(module), jnp.ones((32, 8, 8, 1))
    frozen, head = vits.split_head(jax.eval_shape(lambda: vits.init(module, jax.random.key(0), x)))
    lora = Lora(2, 2.0, ("query", "value", "Dense_0", "Dense_1"))
    slot = jax.eval_shape(lambda: adapters.init_slot(jax.random.key(0), lora, backbone.layers))

    def loss(frozen, slot, head, h, slots=True):
        h = run_blocks(backbone, frozen, h, range(2), by_block(lora, owned(2, 1), [slot] if slots else []))
        return jnp.mean(backbone.head(frozen, head, h)[:, 0])

    def count(f):
        return (
            jax.jit(f).lower(frozen, slot, head, jax.ShapeDtypeStruct((32, 17, 128), jnp.float32)).cost_analysis()["flops"]
        )

    one_forward = count(lambda *a: loss(*a, slots=False))
    assert count(loss) < 1.05 * one_forward
    assert count(jax.grad(loss, argnums=1)) < 2.1 * one_forward
    assert count(jax.grad(lambda *a: loss(*a, slots=False), argnums=0)) > 2.7 * one_forward


@pytest.mark.parametrize("rank_stabilised, by", [(True, 3 / np.sqrt(2)), (False, 1.5)])
def test_a_slot_is_the_merged_weights(rank_stabilised, by):
    """W + s A B, the slow twin, within 2e-5."""
    lora = Lora(2, 3.0, ("dense_1", "dense_10"), rank_stabilised)
    merged = stacks.frozen()
    for i, slot in enumerate(slots()):
        for j, block in zip(BLOCKS[i], slot, strict=True):
            for name, f in block.items():
                merged["blocks"][j][name.split("/")[1]] += by * np.asarray(f.a @ f.b)
    head, x = stacks.init_head(jax.random.key(1)), batch()[0]
    h = run_blocks(stacks.BACKBONE, merged, stacks.embed(merged, x, None), range(4))
    fast = forward(stacks.BACKBONE, stacks.frozen(), x, lora, BLOCKS, slots(), head)
    toys.assert_close(fast, stacks.head(merged, head, h), 2e-5)


def test_a_new_slot_changes_nothing():
    slot = adapters.init_slot(jax.random.key(0), stacks.LORA, [stacks.LAYERS] * 2)
    assert [set(block) for block in slot] == [{"mix/dense_1", "mix/dense_10"}] * 2
    assert slot[0]["mix/dense_1"].a.shape == (stacks.WIDTH, 2) and slot[0]["mix/dense_1"].b.shape == (2, stacks.WIDTH + 1)
    draws = [np.asarray(f.a).ravel() for block in slot for f in block.values()]
    assert len({draw[0] for draw in draws}) == 4 and max(abs(draw).max() for draw in draws) <= 1 / np.sqrt(stacks.WIDTH)
    head = stacks.init_head(jax.random.key(1))
    np.testing.assert_array_equal(logits([slot[:1]], head), logits([], head))


# switching off


def test_a_slot_that_is_off_does_not_leak():
    """NaN in it changes no bit of what the same program makes of finite numbers."""
    head = stacks.init_head(jax.random.key(1))
    run = jax.jit(lambda slots, served: logits(slots, head, tuple(slot < served for slot in jnp.arange(4))))
    for served in range(5):
        dead = [jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), slot) for slot in slots()]
        mixed = [*slots()[:served], *dead[served:]]
        assert tree.bits_equal(run(mixed, served), run([*slots()[:served], *slots(seed=9)[served:]], served))
        assert served == 4 or not tree.all_finite(run(mixed, 4))
        toys.assert_close(run(mixed, served), logits(slots()[:served], head), 2e-5)
    assert run._cache_size() == 1


def test_an_adapter_that_is_off_keeps_every_bit():
    y, x = jnp.array([-0.0, 0.0, 1.5, jnp.nan]), jnp.ones(3)
    for fill in (0.0, 1.0, jnp.nan, jnp.inf):
        adapter = Adapter(jnp.full((3, 2), fill), jnp.full((2, 4), fill), jnp.array(False))
        assert tree.bits_equal(adapt(y, x, adapter), y)
    assert tree.bits_equal(adapt(y, x, None), y)
    on = adapt(y, x, adapter._replace(a=jnp.ones((3, 2)), b=jnp.ones((2, 4)), on=jnp.array(True)))
    np.testing.assert_array_equal(on, [6, 6, 7.5, jnp.nan])


def test_select_copies_bits():
    yes, no = {"a": jnp.array([-0.0, jnp.nan])}, {"a": jnp.array([0.0, 2.0])}
    assert tree.bits_equal(adapters.select(jnp.array(True), yes, no), yes)
    assert tree.bits_equal(adapters.select(jnp.array(False), yes, no), no)


# names and slots


def test_targets_are_whole_path_components():
    names = ["layer/1/query", "layer/10/query", "layer/1/out", "layer/10/my_query"]
    layers = [(name, 2, 3) for name in names]

    def hit(*targets):
        return [name for name, *_ in adapters.targeted(Lora(1, 1.0, targets), layers)]

    assert hit("layer/1") == ["layer/1/query", "layer/1/out"]
    assert hit("1", "my_query") == ["layer/1/query", "layer/1/out", "layer/10/my_query"]
    assert hit("query") == ["layer/1/query", "layer/10/query"] and hit("1/query") == ["layer/1/query"]
    for bad in ("layer/1/que", "uery", "layer/query", ""):
        with pytest.raises(ValueError, match="no layer is called"):
            hit(bad)


@pytest.mark.parametrize("lora", [Lora(0, 1.0, ("dense_1",)), Lora(2, 1.0, ())])
def test_an_adapter_of_nothing_is_refused(lora):
    with pytest.raises(ValueError, match="a rank of at least 1 and a target"):
        adapters.init_slot(jax.random.key(0), lora, [stacks.LAYERS])


def test_slots_own_whole_blocks_from_the_top():
    assert owned(12, 4) == (range(9, 12), range(6, 9), range(3, 6), range(0, 3))
    assert owned(5, 3) == (range(3, 5), range(1, 3), range(0, 1))
    for depth, count in itertools.product(range(1, 15), repeat=2):
        if count > depth:
            with pytest.raises(ValueError, match="slots of whole blocks"):
                owned(depth, count)
            continue
        slots = owned(depth, count)
        assert [i for own in slots[::-1] for i in own] == list(range(depth))
        sizes = [len(own) for own in slots]
        assert sizes == sorted(sizes, reverse=True) and sizes[0] - sizes[-1] <= 1
    with pytest.raises(ValueError, match="slots of whole blocks"):
        owned(4, 0)


def test_factors_are_what_is_trained():
    """A slot's leaves are its factors alone: the scale and the switch are not among them."""
    leaves = jax.tree.leaves(slots(count=1)[0])
    assert len(leaves) == 4 and all(isinstance(f, Factors) for f in slots(count=1)[0][0].values())
