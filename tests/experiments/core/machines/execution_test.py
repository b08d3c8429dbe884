"""Devices: sharded `jit`, FSDP and `pmap` on four fake devices do what one device does, through the second-order step.

Fake devices need a process of their own: the cases run in child processes (`python -m
tests.experiments.core.machines.execution_test NAME`) that print relative errors as JSON. Steps are in float64, so that
1e-10 tells a wrong reduction from rounding.
"""

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from experiments.core import checkpoints
from experiments.core.machines import execution, sharding
from experiments.training import epochs, loop
from readiness import MetaBatch, make_readiness, make_step, paper_terms
from readiness.step import init_state
from tests.helpers import tiny, toys
from unlearn import ALGORITHMS, Request, tree, unlearn

ROOT = Path(__file__).resolve().parents[4]
DEVICES, RATE, FAR = 4, 0.4, 50.0
NEAR = 0.02  # how far (relative) caps lie from the mean over all devices, where that matters
HIDDEN = 4  # so that FSDP cuts all but one of the toy model's arrays
MODES = (*execution.MODES, "fsdp")
TERMS = paper_terms(None, retention=1.0, resistance=0.7, relearning=0.3, capped="mean")


# In the child: steps


def parameters():
    return toys.mlp_params(hidden=HIDDEN)


def make(mode, **options):
    """The execution of a mode; FSDP has two copies of the parameters on two devices each. '' is one device."""
    devices = jax.local_devices()[: DEVICES if mode else 1]
    return execution.make("pmap" if mode == "pmap" else "jit", devices, fsdp=2 if mode == "fsdp" else 1, **options)


@functools.cache
def meta_gradient(mode, algorithm, order, parts=1):
    """A compiled `(params, batch, meta, outer cap, inner cap, key) -> gradient` of one step with all terms of readiness."""
    ops = make(mode)
    model = ops.microbatched(toys.MLP, parts)

    def run(params, batch, meta, outer_cap, inner_cap, key):
        options = {"cap": inner_cap} if algorithm == "ascent" else {}

        def rehearsed(rate):
            return ALGORITHMS[algorithm](model, optax.sgd(rate), mean=ops.mean, grad=ops.inner_grad(order), **options)

        relearner = ALGORITHMS["finetune"](model, optax.sgd(0.25), mean=ops.mean, grad=ops.inner_grad(order))
        readiness = make_readiness(model, rehearsed, TERMS._replace(cap=outer_cap), relearner=relearner, mean=ops.mean)
        step = make_step(model, optax.sgd(1.0), readiness=readiness, mean=ops.mean, grad=ops.outer_grad)
        state = init_state(params, optax.sgd(1.0))
        state, info = step(state, ops.split(batch, 0), key, ops.split_meta(meta), RATE)
        return jax.tree.map(lambda before, after: before - after, params, state.params), info

    return ops.compile(run)


def meta_batch(steps, size):
    """Unequal weights everywhere."""
    requests = lambda seed, count: Request(toys.batch(seed, size, steps=count), toys.batch(seed + 1, size, steps=count))  # noqa: E731
    return MetaBatch(requests(0, steps), *(toys.batch(seed, size) for seed in (2, 3, 4)), requests(5, 2))


def by_loss(params, batch):
    """The rows of a batch in order of loss, and the means of DEVICES equal parts of them: the first low, the last high."""
    losses = np.asarray(toys.loss_per_example(toys.mlp_apply(params, batch["x"], None), batch))
    order = np.argsort(losses)
    batch = jax.tree.map(lambda leaf: leaf[order], batch)
    parts = losses[order].reshape(DEVICES, -1), batch["weight"].reshape(DEVICES, -1)
    return batch, np.average(parts[0], weights=parts[1], axis=1), np.average(losses[order], weights=batch["weight"])


def outer_cap(side):
    """A forget batch whose device means after the inner step lie on both sides of the cap; their mean on `side`."""
    params, meta = parameters(), meta_batch(1, 8)
    algorithm = ALGORITHMS["ascent"](toys.MLP, optax.sgd(RATE))
    after = unlearn(algorithm, params, toys.first(meta.requests), meta.requests, jax.random.key(0))[0].params
    forget, means, mean = by_loss(after, meta.forget)
    cap = mean * (1 + NEAR * side)
    assert means.min() < cap * (1 - 5 * NEAR) and means.max() > cap * (1 + 5 * NEAR)
    return dict(meta=meta._replace(forget=forget), outer=cap)


def inner_cap(side):
    """The same for the batch of the inner step, whose ascent stops at a cap."""
    meta = meta_batch(1, 8)
    forget, means, mean = by_loss(parameters(), toys.lane(meta.requests.forget, 0))
    cap = mean * (1 + NEAR * side)
    assert means.min() < cap * (1 - 5 * NEAR) and means.max() > cap * (1 + 5 * NEAR)
    asked = Request(jax.tree.map(lambda leaf: leaf[None], forget), meta.requests.retain)
    return dict(meta=meta._replace(requests=asked), inner=cap)


CASES = {
    "one step": lambda: dict(meta=meta_batch(1, 8)),
    "two steps": lambda: dict(meta=meta_batch(2, 8)),
    "first order": lambda: dict(meta=meta_batch(2, 8), order=1),
    "outer cap below the mean": lambda: outer_cap(-1),
    "outer cap above the mean": lambda: outer_cap(1),
    "inner cap below the mean": lambda: inner_cap(-1),
    "inner cap above the mean": lambda: inner_cap(1),
    "one device all padding": lambda: dict(meta=meta_batch(1, 3), size=6),
    "graddiff": lambda: dict(meta=meta_batch(1, 8), algorithm="graddiff"),
    "ascent_kl": lambda: dict(meta=meta_batch(2, 8), algorithm="ascent_kl"),
    "two parts on each device": lambda: dict(meta=meta_batch(2, 8), size=12, parts=2),  # 3 rows there do not divide
}


def rows_of(device, batch, meta):
    """What one device holds of a batch and a meta-batch."""

    def split(part, axis):
        padded = execution.pad(part, axis, DEVICES)
        rows = padded["weight"].shape[axis] // DEVICES
        return {name: np.take(leaf, range(device * rows, (device + 1) * rows), axis) for name, leaf in padded.items()}

    only = execution.Execution(None, None, None, split, None)
    return split(batch, 0), only.split_meta(meta)


def errors_of(meta, outer=FAR, inner=FAR, order=2, algorithm="ascent", size=8, parts=1):
    """Relative errors of the gradient of each mode in parts, and of averaging the devices' own gradients."""
    params, batch, key = parameters(), toys.batch(9, size), jax.random.PRNGKey(0)
    args = np.float64(outer), np.float64(inner), key
    gradient, info = meta_gradient("", algorithm, order)(params, batch, meta, *args)
    errors = {}
    for mode in MODES:
        there, seen = meta_gradient(mode, algorithm, order, parts)(params, batch, meta, *args)
        errors[mode] = max(toys.relative_error(there, gradient), toys.relative_error(seen, info))
    alone = [meta_gradient("", algorithm, order)(params, *rows_of(i, batch, meta), *args)[0] for i in range(DEVICES)]
    errors["averaged"] = toys.relative_error(jax.tree.map(lambda *parts: sum(parts) / DEVICES, *alone), gradient)
    return errors


SOME = ("outer cap below the mean", "one device all padding", "two parts on each device")


def some_steps():
    return steps(SOME)


def steps(names=tuple(CASES)):
    jax.config.update("jax_enable_x64", True)
    batch, meta = toys.batch(9, 8), meta_batch(1, 8)
    lowered = meta_gradient("jit", "ascent", 2).lower(parameters(), batch, meta, FAR, FAR, jax.random.PRNGKey(0))
    sharded = "all-reduce" in lowered.compile().as_text()
    return {"sharded": sharded} | {name: errors_of(**CASES[name]()) for name in names}


# In the child: a whole training


def trainings():
    """Two lanes through six steps over two epochs; batches of 6 and meta-batches of 3 leave a device all padding."""
    errors = {}
    for kind, form in (("readiness", "scan"), ("readiness", "loops"), ("readiness", "streamed"), ("dpsgd", "scan")):
        results = []
        for mode in ("", *MODES):
            ops = make(mode, convolutional=form == "loops")
            results.append(train(kind, ops, form))
        for mode, result in zip(MODES, results[1:], strict=True):
            errors[f"{kind}, {form}, {mode}"] = toys.relative_error(result, results[0])
    return errors


def train(kind, ops, form):
    streamed = form == "streamed"
    with tempfile.TemporaryDirectory() as folder:
        way, lanes = tiny.way(kind, ops), tiny.lanes([0, 1])
        epoch_fn = epochs.make(way, ops, on_disk=streamed)
        data = tiny.on_disk() if streamed else tiny.data()
        trained = loop.train(way, lanes, data, tiny.pools(), epoch_fn, Path(folder), lambda entry: None, 1e9, ops.place)
    return trained.params, trained.losses


# In the child: checkpoints


def restored():
    """What is saved after an epoch on four devices is restored on four, two and one, and trains on.

    By mode and devices: whether the restored bits are those that were saved, whether an epoch later they are those of four
    devices, and how far off that is.
    """
    told = {}
    for mode in ("jit", "fsdp"):
        with tempfile.TemporaryDirectory() as folder:
            saved, later = trained_on(make(mode), Path(folder), saves=True)
            for count in (DEVICES, 2, 1):
                ops = execution.make("jit", jax.local_devices()[:count], fsdp=min(count, 2) if mode == "fsdp" else 1)
                state, after = trained_on(ops, Path(folder))
                bits = tree.bits_equal(state, saved), tree.bits_equal(after, later)
                told[f"{mode}, {count}"] = [*bits, float(toys.relative_error(after, later))]
    return told


def trained_on(ops, folder, saves=False):
    """The states after a first epoch, which are saved or restored, and after a second, both on the host."""
    way, lanes = tiny.way("readiness", ops), tiny.lanes([0, 1])
    epoch = lambda number, states: epoch_fn(states, lanes, tiny.data(), tiny.pools(), number, 3)[0]  # noqa: E731
    epoch_fn, states = epochs.make(way, ops), ops.place(loop.init_lanes(way, lanes))
    with checkpoints.open_folder(folder) as manager:
        if saves:
            states = epoch(0, states)
            checkpoints.save(manager, 1, states)
        else:
            _, states = checkpoints.restore_or(manager, states)
    return jax.tree.map(np.asarray, (states, epoch(1, states)))


# In the parent


def child(name):
    """What the child printed. NPROC: chains of pmap calls can deadlock where threads are fewer than devices."""
    flags = f"--xla_force_host_platform_device_count={DEVICES}"
    flags += "".join(f" --{name}={value}" for name, value in toys.quick_options().items())
    cache = {"JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir or ""}
    env = os.environ | cache | {"XLA_FLAGS": flags, "NPROC": "8", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.experiments.core.machines.execution_test", name]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "which, names", [("some_steps", SOME), pytest.param("steps", tuple(CASES), marks=pytest.mark.slow)]
)
def test_steps_agree_with_one_device(which, names):
    errors = child(which)
    assert errors.pop("sharded"), "the jit mode does not communicate: nothing is sharded"
    print(json.dumps(errors, indent=1))
    assert tuple(errors) == names
    wrong = {(name, mode): error[mode] for name, error in errors.items() for mode in MODES if not error[mode] < 1e-10}
    assert not wrong
    # The tests can fail: what a mode would do that averages the devices' own gradients is far off.
    lucky = {name: error["averaged"] for name, error in errors.items() if not error["averaged"] > 0.05}
    assert not lucky


@pytest.mark.slow
def test_training_agrees_with_one_device():
    errors = child("trainings")
    print(json.dumps(errors, indent=1))
    assert len(errors) == 12
    assert not {name: error for name, error in errors.items() if not error < 1e-5}


@pytest.mark.slow
def test_checkpoints_of_four_devices_are_restored_on_any_number():
    told = child("restored")
    print(json.dumps(told, indent=1))
    assert len(told) == 6 and all(same and error < 1e-5 for same, _, error in told.values())
    assert told["jit, 4"][1] and told["fsdp, 4"][1]


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="'tpu' is unknown; choose one of jit, pmap"):
        execution.make("tpu")


def test_devices_that_cannot_share_parameters_are_refused():
    with pytest.raises(
        ValueError, match="3 devices cannot share a copy of the parameters where there are 1: give a divisor"
    ):
        execution.make("jit", jax.local_devices()[:1], fsdp=3)
    with pytest.raises(ValueError, match="'pmap' gives each device a copy of the parameters: use jit"):
        execution.make("pmap", fsdp=2)


def test_an_array_is_cut_along_its_largest_axis_that_divides():
    """4096 x 6 numbers; of axes that do not divide, and of small arrays, each device has all."""
    shapes = {(4096, 6): 0, (6, 4096): 1, (3, 4096, 512): 1, (4094, 512): 1, (4093, 511): None, (512,): None, (): None}
    for shape, axis in shapes.items():
        cut = [None] * (axis or 0) + ["parameters"] * (axis is not None)
        assert sharding.spec(shape, 4) == jax.sharding.PartitionSpec(*cut), shape


@pytest.mark.parametrize("mode", execution.MODES)
def test_an_unknown_order_is_refused(mode):
    with pytest.raises(ValueError, match=r"order 3 is unknown; choose 1 .* or 2"):
        execution.make(mode).inner_grad(3)


def test_padding_adds_rows_of_weight_0():
    padded = execution.pad(toys.batch(0, 6), 0, 4)
    assert padded["x"].shape == (8, toys.FEATURES) and padded["weight"].tolist()[6:] == [0, 0]
    assert execution.pad(toys.batch(0, 3, steps=2), 1, 4)["y"].shape == (2, 4)
    assert execution.pad(toys.batch(0, 8), 0, 4)["x"].shape == (8, toys.FEATURES)


if __name__ == "__main__":
    sharding.SMALL = 1
    print(
        json.dumps({"steps": steps, "some_steps": some_steps, "trainings": trainings, "restored": restored}[sys.argv[1]]())
    )
