"""Training in parts: steps are those of whole batches, DP-SGD's and rehearsed ones too, in less memory; old runs go on."""

import dataclasses
import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import main, models
from experiments.comparison import run
from experiments.configs import readiness as configs
from experiments.configs.comparison import Comparison
from experiments.core import files, workdirs
from experiments.core.config import validated
from experiments.core.errors import ConfigError, UserError
from experiments.core.machines import environment, execution
from experiments.core.sections import Model
from experiments.pretrain import run as pretrain_run
from experiments.training import cost
from readiness import MetaBatch, Terms, make_readiness, make_step
from readiness.step import init_state
from tests.experiments.comparison.run_test import shrink
from tests.helpers import tiny, toys
from tests.helpers.configs import with_keys
from unlearn import ALGORITHMS, Request


@pytest.mark.parametrize("kind", ["plain", "dpsgd"])
@pytest.mark.parametrize("loops", [False, True])
def test_a_fleet_trains_as_with_whole_batches(kind, loops):
    """Batches of 6 in 4 parts; in loops parts stand one after another. DP-SGD clips and draws its noise as before."""
    way, lanes = tiny.way(kind, steps=3), tiny.lanes([0, 1])
    whole, parts = (tiny.run_epochs(w, lanes, tiny.data(), loops=loops) for w in (way, way._replace(microbatches=4)))
    toys.assert_close(parts, whole, 1e-5)


def test_dpsgd_by_poisson_sampling_in_parts_reads_nobody_it_did_not_draw():
    way = tiny.way("dpsgd", steps=2)._replace(capacity=11, microbatches=3)
    unseen = tiny.data() | {"x": tiny.data()["x"].at[3].set(jnp.nan)}
    lanes = tiny.lanes([0, 1], member=np.arange(tiny.EXAMPLES) != 3)
    whole = tiny.run_epochs(way._replace(microbatches=1), lanes, tiny.data())
    toys.assert_close(tiny.run_epochs(way, lanes, unseen), whole, 1e-5)


def rehearsed(model, batch, size, order=2, steps=2):
    """A step of AdamW's kind that rehearses the level form in so many inner steps, and what it is called with."""
    ops = execution.one_device()
    algorithm = lambda rate: ALGORITHMS["level"](model, optax.sgd(rate), grad=ops.inner_grad(order))  # noqa: E731
    step = make_step(model, optax.sgd(0.1), readiness=make_readiness(model, algorithm, Terms(efficiency=0.5)))
    some = jax.tree.map(lambda leaf: leaf[:size], batch) | {"level": jnp.full(size, -1.0)}
    meta = MetaBatch(toys.stack([Request(some, some)] * steps), some, some)
    return step, (batch, jax.random.key(0), meta, 0.1)


def text(rows, length, vocabulary):
    tokens = jax.random.randint(jax.random.key(1), (rows, length), 0, vocabulary)
    return {"x": tokens, "y": tokens, "id": jnp.arange(rows), "weight": jnp.ones(rows)}


def images(rows):
    x = jax.random.normal(jax.random.key(1), (rows, 16, 16, 3))
    return {"x": x, "y": jnp.arange(rows) % 3, "id": jnp.arange(rows), "weight": jnp.linspace(0.5, 1.0, rows)}


def network(name, **how):
    """A small decoder or ViT of a config, and a batch of 16 for it."""
    if name == "vit":
        section = Model(name=name, options={"width": 16, "depth": 2, "heads": 2, **how.pop("options", {})}, **how)
        batch = images(16)
        return models.build(section, np.asarray(batch["x"][:1]), 3), batch
    section = Model(name=name, options={"width": 16, "depth": 2, "heads": 2, **how.pop("options", {})}, **how)
    batch = text(16, 16, 64)
    return models.build(section, np.asarray(batch["x"][:1], np.int32), 64), batch


@pytest.mark.slow
@pytest.mark.parametrize("name, steps", [("gpt2", 1), ("gpt2", 2), ("vit", 2)])
def test_a_rehearsed_step_in_four_parts_holds_less(name, steps):
    """Temporary bytes that XLA plans for so many inner steps, second order, beside those of the whole batch."""
    fns, batch = network(name)
    params = jax.eval_shape(fns.init, jax.random.key(0))

    def planned(parts):
        model = execution.one_device().microbatched(models.as_model(fns), parts)
        step, given = rehearsed(model, batch, 8, steps=steps)
        state = jax.eval_shape(lambda params: init_state(params, optax.sgd(0.1)), params)
        return toys.quick_jit(step).lower(state, *given).compile().memory_analysis().temp_size_in_bytes

    whole, four = planned(1), planned(4)
    print(f"{name}: {whole} bytes, {four} in four parts")
    assert four < 0.45 * whole


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "vit"])
@pytest.mark.parametrize("how", [{"dtype": "bfloat16"}, {"options": {"remat": True}}])
def test_short_activations_and_remat_go_through_the_second_order(name, how):
    """Blocks that are computed again change nothing; in bfloat16 the step is within a few percent of float32's."""
    plain, batch = network(name)
    params = jax.jit(plain.init)(jax.random.key(0))

    def moved(fns, parts):
        step, given = rehearsed(execution.one_device().microbatched(models.as_model(fns), parts), batch, 8)
        state, info = toys.quick_jit(step)(init_state(params, optax.sgd(0.1)), *given)
        return jax.tree.map(jnp.subtract, state.params, params), info

    (whole, info), (other, told) = moved(plain, 1), moved(network(name, **how)[0], 4)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(other)) and info.readiness != 0
    close = 0.1 if "dtype" in how else 1e-4
    assert toys.relative_error(other, whole) < close and toys.relative_error(told, info) < close


def test_costs_are_those_of_every_part():
    """The gradient of a mean costs as much in parts as at once; batches of 6 are 3 parts of 2."""
    way, data = tiny.way("plain"), tiny.data()
    programs = [cost._traced(way._replace(microbatches=n), data, None, False, False).jaxpr.jaxpr for n in (1, 3)]
    assert environment.products(programs[0]) == environment.products(programs[1]) > 0
    spent = cost.of_training(way._replace(microbatches=3), data)
    assert spent["step_flops"] == environment.products(programs[1])


def test_more_parts_than_examples_are_refused_in_one_line():
    for parts, said in ((0, "give a whole number from 1 to"), (-1, "give"), (65, "more than the 64 examples of a batch")):
        config = with_keys(configs.get_config("digits"), {"train.microbatches": parts})
        with pytest.raises(ConfigError, match=f"config.train.microbatches is {parts}.*{said}"):
            validated(Comparison, config)
    three = dataclasses.replace(execution.one_device(), count=3)
    three.check_parts(1, 2)
    three.check_parts(2, 6)
    with pytest.raises(
        UserError, match=r"is 3, and 8 examples give 3 devices none .* set --config.train.microbatches to 2"
    ):
        three.check_parts(3, 8)


RUNS = {"judge": "judge", "pretrain": "pretrain", "s3t": "exact", "judge_exact": "judge_exact"}  # and their folders


@pytest.mark.parametrize("runner", RUNS)
def test_a_workdir_of_before_is_still_its_run_s(runner, tmp_path):
    """Told by the mistake that is found in it: not its config, but results that are none."""
    config = importlib.import_module(f"experiments.configs.{runner}").get_config("digits")
    made = validated(main_model(runner), config)
    begun = json.loads(files.dumps((made.resolved() if hasattr(made, "resolved") else made).model_dump()))
    section = begun["train"] if "microbatches" in begun["train"] else begun["pretrain"]["train"]
    assert section.pop("microbatches") == 1
    (tmp_path / "config.json").write_text(json.dumps(begun))
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(workdirs.WorkdirError, match=r"results.json cannot be read"):
        importlib.import_module(f"experiments.{RUNS[runner]}.run").run(config, str(tmp_path))


def main_model(runner):
    return getattr(importlib.import_module(f"experiments.configs.{runner}"), main.MODELS[runner])


@pytest.mark.slow
def test_pre_training_in_parts(tmp_path):
    config = importlib.import_module("experiments.configs.pretrain").get_config("digits")
    config.model, config.train.steps, config.train.batch_size = "mini", 2, 64
    whole = pretrain_run.run(config, str(tmp_path / "whole"))
    config.train.microbatches = 3
    parts = pretrain_run.run(config, str(tmp_path / "parts"))
    for name, value in whole.rows[0].after.items():
        assert parts.rows[0].after[name] == pytest.approx(value, abs=0.01)


def shrunk():
    config = shrink(configs.get_config("digits"))
    config.trainings, config.variants, config.seeds = ("oracle", "vanilla", "readiness"), {}, 1
    config.readiness.inner_steps, config.equal_flops = 2, False
    return config


def told(workdir):
    """What two runs may differ in is left out."""
    rows = workdirs.read_results(workdir / "results.json").rows
    return [dataclasses.replace(row, train_seconds=0.0, extra={}) for row in rows]


@pytest.mark.slow
def test_a_run_in_parts_resumes_and_one_that_was_begun_before_goes_on(tmp_path):
    """Rows without their seconds: resumed from checkpoints as uninterrupted, and near to whole batches'."""
    config = with_keys(shrunk(), {"train.microbatches": 3})
    run.run(config, str(tmp_path / "parts"), "test")
    whole = run.run(shrunk(), str(tmp_path / "whole"), "test")
    found = told(tmp_path / "parts")
    (tmp_path / "parts/results.json").unlink()
    run.run(config, str(tmp_path / "parts"), "test")
    assert told(tmp_path / "parts") == found
    for one, other in zip(whole.rows, told(tmp_path / "parts"), strict=True):
        assert one.before["forget_loss"] == pytest.approx(other.before["forget_loss"], rel=1e-3)
    file = tmp_path / "whole/config.json"
    begun = json.loads(file.read_text())
    assert begun["train"].pop("microbatches") == 1
    file.write_text(json.dumps(begun))
    assert run.run(shrunk(), str(tmp_path / "whole"), "test") == whole
    with pytest.raises(workdirs.WorkdirError, match=r"config.train.microbatches differ"):
        run.run(config, str(tmp_path / "whole"), "test")
