"""The ViT behind s3t's contract, published checkpoints, and builds of whole plans with it."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.exact.sources import building
from experiments.models import vits
from s3t.plans import partition
from s3t.plans.structure import make_plan
from s3t.training import arrangement, schedule, stages
from s3t.training.adapters import Lora
from s3t.training.backbone import augmented, run_blocks
from s3t.training.source import Source
from tests.helpers import stacks, tiny, toys
from unlearn import tree

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
TINY = vits.VisionTransformer(5, patch=4, width=24, depth=2, heads=4, mlp_dim=40)
IMAGE = (12, 12, 3)
PLAN = make_plan(4, [(0, 1, 2), (2, 0), (3,)])


def fixture():
    with np.load(FIXTURES / "vit_tiny_expected.npz") as file:
        return file["x"], file["logits"]


def logits(module, frozen, head, x):
    backbone = vits.as_backbone(module)
    return backbone.head(frozen, head, run_blocks(backbone, frozen, backbone.embed(frozen, x, None), range(backbone.depth)))


def checkpoint(path, change=lambda arrays: None):
    """The fixture's checkpoint, changed."""
    with np.load(FIXTURES / "vit_tiny.npz") as file:
        arrays = dict(file)
    change(arrays)
    np.savez(path / "changed.npz", **arrays)
    return path / "changed.npz"


# the published layout


def test_logits_are_those_of_the_pytorch_implementation():
    x, expected = fixture()
    frozen, head = vits.load_npz(FIXTURES / "vit_tiny.npz", TINY, IMAGE)
    np.testing.assert_allclose(logits(TINY, frozen, head, x), expected, rtol=0, atol=1e-4)
    assert np.abs(expected).max() > 1


def test_the_contract_is_the_module():
    x = fixture()[0]
    params = vits.init(TINY, jax.random.key(0), x)
    frozen, head = vits.split_head(params)
    toys.assert_close(logits(TINY, frozen, head, x), TINY.apply({"params": params}, x), 1e-5)
    own = vits.as_backbone(TINY).init_head(jax.random.key(1))
    assert jax.tree.map(jnp.shape, own) == jax.tree.map(jnp.shape, head)


@pytest.mark.parametrize("name", ["Ti/16", "S/16", "B/16", "L/16"])
def test_published_sizes(name):
    """Parameters of the published models with their 1000 classes, in millions, and their names."""
    shape = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    params = jax.eval_shape(vits.vit(name, 1000).init, jax.random.key(0), shape)["params"]
    millions = sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6
    assert round(millions, 1) == {"Ti/16": 5.7, "S/16": 22.1, "B/16": 86.6, "L/16": 304.3}[name]
    head_split = params["Transformer"]["encoderblock_11"]["MultiHeadDotProductAttention_1"]["query"]["kernel"].shape
    assert head_split[2] == 64 and params["Transformer"]["posembed_input"]["pos_embedding"].shape[1] == 197


def test_positions_are_resized_and_the_class_token_kept(tmp_path):
    def linear(arrays):
        grid = np.stack(np.meshgrid(np.arange(3.0), np.arange(3.0), indexing="ij"), -1)
        arrays[vits.POSITIONS] = np.zeros_like(arrays[vits.POSITIONS])
        arrays[vits.POSITIONS][0, 1:, :2] = grid.reshape(9, 2)
        arrays[vits.POSITIONS][0, 0] = 7

    frozen, head = vits.load_npz(checkpoint(tmp_path, linear), TINY, (20, 28, 3))
    found = frozen["Transformer"]["posembed_input"]["pos_embedding"]
    assert found.shape == (1, 36, 24) and (found[0, 0] == 7).all()
    rows, columns = np.meshgrid(np.linspace(0, 2, 5), np.linspace(0, 2, 7), indexing="ij")
    np.testing.assert_allclose(found[0, 1:, :2], np.stack([rows, columns], -1).reshape(-1, 2), atol=1e-6)
    assert logits(TINY, frozen, head, np.ones((1, 20, 28, 3), np.float32)).shape == (1, 5)


def test_an_old_head_is_left_out_with_its_representation_layer(tmp_path):
    def old(arrays):
        arrays["pre_logits/kernel"], arrays["pre_logits/bias"] = np.ones((24, 24)), np.ones(24)

    frozen, head = vits.load_npz(checkpoint(tmp_path, old), TINY, IMAGE)
    assert head is None and "pre_logits" not in frozen and "head" not in frozen


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda a: a.pop("cls"), "it has no cls"),
        (lambda a: a.update({"more": np.ones(3)}), "it has more, which the model does not"),
        (lambda a: a.update({"embedding/bias": np.ones(25)}), r"embedding/bias is \(25,\), not \(24,\)"),
        (lambda a: a.update({vits.POSITIONS: np.ones((1, 9, 24))}), "a class token and a square grid"),
        (lambda a: a.update({vits.POSITIONS: np.ones((1, 10, 23))}), r"pos_embedding is \(1, 10, 23\)"),
    ],
)
def test_a_wrong_checkpoint_is_named(tmp_path, change, said):
    path = checkpoint(tmp_path, change)
    with pytest.raises(ValueError, match=said) as error:
        vits.load_npz(path, TINY, IMAGE)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_a_file_that_is_no_checkpoint_is_named(tmp_path):
    (tmp_path / "text.npz").write_text("not one")
    np.save(tmp_path / "array.npy", np.ones(3))
    for name in ("missing.npz", "text.npz", "array.npy"):
        with pytest.raises(
            ValueError, match=rf"{name} cannot be read \(.*give an \.npz checkpoint of the published layout$"
        ):
            vits.load_npz(tmp_path / name, TINY, IMAGE)


def test_a_model_or_an_image_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="ViT 'B16' is unknown; choose one of Ti/16"):
        vits.vit("B16", 10)
    with pytest.raises(ValueError, match="cannot be cut into patches of 4"):
        vits.init(TINY, jax.random.key(0), np.ones((1, 10, 12, 3), np.float32))


# builds


def setup(**changes):
    source = stacks.source(**changes)
    count = arrangement.counts(stacks.data()[3], stacks.SHARDS, stacks.SLICES)
    return schedule.Setup(source, PLAN, stacks.SHARDS, stacks.KEY, schedule.make_shapes(source, PLAN, count))


def built(setup, slices=None, kept=()):
    jobs = [(shard, node) for shard in range(setup.shards) for node in setup.plan.nodes if (shard, node) not in kept]
    calls = schedule.build(setup, slices or stacks.arranged(), jobs, lambda shard, node: kept[shard, node])
    return dict(node for call in calls for node in call.nodes)


@functools.cache
def whole():
    return built(setup())


def test_a_build_makes_every_node_shallow_first():
    assert list(whole()) == sorted(whole(), key=lambda job: len(job[1]))
    assert set(whole()) == {(shard, node) for shard in range(2) for node in PLAN.nodes}
    expected = stacks.train_jobs(stacks.arranged(), list(whole()))
    toys.assert_close([whole()[job] for job in expected], list(expected.values()), 2e-5)


@pytest.mark.parametrize("kept", [0, 1, 5, 11])
def test_a_resumed_build_skips_what_exists_and_ends_with_the_same_bytes(kept):
    kept = dict(list(whole().items())[:kept])
    rest = built(setup(), kept=kept)
    assert not rest.keys() & kept.keys() and kept.keys() | rest.keys() == whole().keys()
    assert all(tree.bits_equal(rest[job], whole()[job]) for job in rest)


def test_healing_is_a_build_of_what_was_lost_without_the_example():
    """Byte for byte what a build that never had the example makes, for the nodes that held its slice and the others."""
    _, _, ids, places = stacks.data()
    gone = int(np.flatnonzero((places.shard == 0) & (places.slice == 0))[0])
    without = stacks.arranged(keep=np.arange(len(ids)) != gone)
    survivors = {(i, node): trained for (i, node), trained in whole().items() if i == 1 or 0 not in node}
    healed = built(setup(), without, survivors)
    assert {node for _, node in healed} == {node for node in PLAN.nodes if 0 in node}
    never = built(setup(), without)
    assert all(tree.bits_equal(never[job], (survivors | healed)[job]) for job in never)
    assert not any(tree.bits_equal(healed[job].head, whole()[job].head) for job in healed)


def test_the_cache_keeps_to_its_budget():
    bytes_needed = 2 * 4 * 8 * (4 * stacks.WIDTH + stacks.WIDTH)  # h in float32 and its mask
    example = stacks.data()[0][:1]
    assert 2 * 4 * 8 * schedule.activation_bytes(stacks.BACKBONE, stacks.frozen(), example) == bytes_needed
    assert [shape.cached for shape in setup(cache_bytes=bytes_needed).shapes] == [True] * 3
    assert [shape.cached for shape in setup(cache_bytes=bytes_needed - 1).shapes] == [False] * 3
    noisy = augmented(stacks.BACKBONE, lambda x, key: x + jax.random.normal(key))
    assert not any(shape.cached for shape in setup(backbone=noisy).shapes)
    assert [shape.lanes for shape in setup().shapes] == [3, 2, 2]


def test_more_examples_than_a_setup_has_room_for_are_refused():
    more = stacks.data(((7, 8, 8, 8), (8, 8, 8, 8)))
    with pytest.raises(ValueError, match=r"room is for \d+: rebuild"):
        built(setup(), stacks.arranged(more))
    with pytest.raises(ValueError, match="rebuild"):
        built(setup(), stacks.arranged(capacity=12))


def test_lanes_are_chosen_by_model_and_backend():
    cpu = jax.default_backend() == "cpu"
    assert building.lanes_for("vit", 8) == (2 if cpu else 8) and building.lanes_for("vit", 1) == 1
    assert building.lanes_for("cnn", 8) == (1 if cpu else 8)


def test_the_rate_falls_to_zero_over_a_nodes_own_steps():
    """Without decay the first step of Adam is the rate in size; settings that are equal are one function."""
    make = building.cosine_adamw(0.5, 0.0, 1.0)
    assert make is building.cosine_adamw(0.5, 0.0, 1.0)
    for steps in (0, 3, 8):
        tx = make(jnp.asarray(steps))
        state, moves = tx.init(jnp.ones(1)), []
        for _ in range(max(steps, 1) + 1):
            update, state = tx.update(jnp.ones(1), state, jnp.ones(1))
            moves.append(float(update[0]))
        np.testing.assert_allclose([moves[0], moves[-1]], [-0.5, 0], atol=1e-5)


def test_a_deletion_leaves_a_vit_no_trace():
    """Nodes without the example's slice have the same bytes if it is there, is poison, or never existed."""
    rng = np.random.default_rng(0)
    ids, y = np.arange(22) * 3, rng.integers(0, 5, 22)
    x = rng.normal(size=(22, *IMAGE)).astype(np.float32)
    places = partition.assign(ids, 2, 2, b"vit")
    gone = int(np.flatnonzero((places.shard == 0) & (places.slice == 1))[0])
    poisoned = x.copy()
    poisoned[gone] = np.nan

    def arranged(x, keep):
        kept = partition.Places(places.shard[keep], places.slice[keep])
        return arrangement.arrange(x[keep], y[keep], ids[keep], kept, 2, 2, shapes[0].capacity)

    frozen, _ = vits.load_npz(FIXTURES / "vit_tiny.npz", TINY, IMAGE)
    recipe = stages.Recipe(Lora(2, 4.0, ("query", "value")), 4, 2, lambda steps: optax.adamw(0.01, weight_decay=0.1))
    everyone = np.ones(22, bool)
    source = Source(
        backbone=vits.as_backbone(TINY),
        frozen=frozen,
        recipe=recipe,
        ids=ids,
        fetch=lambda asked: (x[asked // 3], y[asked // 3]),
        hyper={},
        most_lanes=4,
        cache_bytes=1 << 20,
    )
    plan = make_plan(2, [(0, 1), (1,)])
    shapes = schedule.make_shapes(source, plan, arrangement.counts(places, 2, 2))
    own = schedule.Setup(source, plan, 2, stacks.KEY, shapes)
    there, poison, never = (
        built(own, arranged(*data)) for data in ((x, everyone), (poisoned, everyone), (x, np.arange(22) != gone))
    )
    for (shard, node), trained in there.items():
        same = [tree.bits_equal(trained, other[shard, node]) for other in (poison, never)]
        assert same == ([False, False] if shard == 0 and 1 in node else [True, True])


def test_lanes_are_as_many_as_fit_a_memory_budget(monkeypatch):
    free, example = setup(cache_bytes=0), stacks.source().fetch(stacks.source().ids[:1])
    first = free.shapes[0]
    one, many = (schedule.program_bytes(free.source, first._replace(lanes=lanes), *example) for lanes in (1, 8))
    assert one < many < 8 * one  # some of it lanes share, so that a budget is kept
    monkeypatch.setattr(schedule, "program_bytes", lambda source, shape, x, y: 100 * shape.depth)
    lanes = lambda **changes: [shape.lanes for shape in setup(cache_bytes=0, **changes).shapes]  # noqa: E731
    assert lanes() == [3, 2, 2]
    assert lanes(lane_bytes=250) == [2, 1, 1] and lanes(lane_bytes=1) == [1, 1, 1]
    assert lanes(lane_bytes=250, devices=2) == [4, 2, 2]  # of each device


def test_a_budget_of_memory_sees_cached_activations():
    cached, plain = setup().shapes[1]._replace(lanes=2), setup(cache_bytes=0).shapes[1]._replace(lanes=2)
    example = stacks.source().fetch(stacks.source().ids[:1])
    assert cached.cached and not plain.cached
    assert schedule.program_bytes(stacks.source(), cached, *example) < schedule.program_bytes(
        stacks.source(), plain, *example
    )


DEVICES_CHILD = """
import json
from tests.helpers import stacks, toys
from tests.s3t.training.backbone_test import built, setup
from experiments.exact.sources import building
own = setup(devices=2, place=building.spread)
spread = built(own)
alone = built(own._replace(source=stacks.source()))
toys.assert_close([spread[job] for job in alone], list(alone.values()), 2e-5)
print(json.dumps([shape.lanes for shape in own.shapes]))
"""


@pytest.mark.slow
def test_lanes_divide_among_devices():
    """Two devices make what one makes, within 2e-5; the lanes are a multiple of them."""
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "NPROC": "8", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", DEVICES_CHILD]
    done = subprocess.run(command, cwd=FIXTURES.parent.parent, env=env, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout) == [4, 2, 2]


@pytest.mark.slow
def test_digits_are_learnt():
    """One shard, two slices, a random backbone: far better than the 10% of chance, and depth 2 better than depth 1."""
    digits = tiny.digits()
    module = vits.VisionTransformer(10, patch=4, width=48, depth=2, heads=2, mlp_dim=64)
    frozen, _ = vits.split_head(vits.init(module, jax.random.key(0), digits.train.x))
    places = partition.assign(digits.train.id, 1, 2, b"test")
    capacity = arrangement.capacity_for(arrangement.counts(places, 1, 2), 32)
    slices = arrangement.arrange(*digits.train, places, 1, 2, capacity)
    recipe = stages.Recipe(Lora(8, 8.0, ("query", "value", "MlpBlock_3")), 32, 12, building.cosine_adamw(1e-2, 0.0, 1.0))
    backbone = vits.as_backbone(module)
    own = Source(
        backbone=backbone,
        frozen=frozen,
        recipe=recipe,
        ids=digits.train.id,
        fetch=lambda ids: (digits.train.x[:1], digits.train.y[:1]),
        hyper={},
        most_lanes=1,
        cache_bytes=1 << 30,
    )
    plan = make_plan(2, [(0, 1)])
    shapes = schedule.make_shapes(own, plan, arrangement.counts(places, 1, 2))
    made = schedule.Setup(own, plan, 1, jax.random.key(1), shapes)
    nodes = built(made, slices)
    accuracy = []
    for node in ((0,), (0, 1)):
        found = building.node_logits(made, nodes, 0, node, jnp.asarray(digits.test.x))
        accuracy.append(float(np.mean(np.argmax(found, axis=1) == digits.test.y)))
    assert accuracy[0] > 0.5 and accuracy[1] > accuracy[0]
