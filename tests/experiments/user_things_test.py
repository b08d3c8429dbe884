"""A user's own data, model and algorithm, in files of their own, through a whole run; and what a notebook reads of it."""

import csv
import shutil
import sys

import jax
import ml_collections
import numpy as np
import pytest
from PIL import Image

import experiments
from experiments import models
from experiments.comparison import checks, report, run
from experiments.configs import judge as judge_configs
from experiments.configs import readiness as configs
from experiments.core import references, sections
from experiments.core.errors import UserError
from experiments.core.workdirs import WorkdirError
from experiments.data import datasets
from experiments.judge import run as judge_run
from experiments.models import params
from tests.helpers import comparisons
from unlearn import tree

MODULE = '''
import equinox as eqx
import jax
from experiments.models import ModelFns
from unlearn import ALGORITHMS, UnlearnAlgorithm


def network(example, classes, width=8):
    def whole(key):
        return eqx.nn.MLP(example[0].size, classes, width, 1, key=key)

    static = eqx.partition(whole(jax.random.key(0)), eqx.is_inexact_array)[1]

    def init(key):
        return eqx.partition(whole(key), eqx.is_inexact_array)[0]

    def apply(params, x, key):
        return jax.vmap(eqx.combine(params, static))(x.reshape(len(x), -1))

    return ModelFns(init, apply)


def halve(model, optimizer, factor=0.5):
    """Ascent after the weights have been scaled."""
    ascent = ALGORITHMS["ascent"](model, optimizer)

    def update(state, *rest):
        state, info = ascent.update(state, *rest)
        return state._replace(params=jax.tree.map(lambda leaf: factor * leaf, state.params)), info

    return UnlearnAlgorithm(ascent.init, update)


def nothing(model):
    return None


def wrong(model, optimizer):
    return None


def altered(init=lambda state: state, update=lambda state, info: (state, info)):
    """Ascent that gives something else."""

    def make(model, optimizer):
        ascent = ALGORITHMS["ascent"](model, optimizer)
        return UnlearnAlgorithm(lambda *a: init(ascent.init(*a)), lambda *a: update(*ascent.update(*a)))

    return make


def each(change):
    return lambda state: state._replace(params=jax.tree.map(change, state.params))


bare = altered(init=lambda state: state.params)
alone = altered(update=lambda state, info: state)
cast = altered(update=lambda state, info: (each(lambda leaf: leaf.astype("bfloat16"))(state), info))
widened = altered(update=lambda state, info: (each(lambda leaf: leaf[None])(state), info))
listed = altered(update=lambda state, info: (state._replace(params=jax.tree.leaves(state.params)), info))
counted = altered(init=lambda state: state._replace(memory=0), update=lambda s, i: (s._replace(memory=0.5), i))
recast = altered(init=each(lambda leaf: leaf.astype("bfloat16")))


def leaves(model, optimizer):
    raise SystemExit(3)


def reads(model, optimizer, *, mean=None, grad=None):
    """Ascent that knows the run's model."""
    ascent = ALGORITHMS["ascent"](model, optimizer)

    def init(params, request, key):
        params["Dense_0"]["kernel"], model.features(params, request.forget["x"], None)
        return ascent.init(params, request, key)

    return UnlearnAlgorithm(init, ascent.update)


def loops(model, optimizer, *, mean=None, grad=None):
    """What no derivative can be taken of."""

    def update(state, request, key):
        return jax.lax.while_loop(lambda s: jax.tree.leaves(s.params)[0][0] > 9, each(lambda leaf: leaf / 2), state), None

    return ALGORITHMS["ascent"](model, optimizer)._replace(update=update)


def stops():
    raise SystemExit(3)


def data():
    return 3
'''


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The folder of a user with a module in it, in which they work."""
    (tmp_path / "mine.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("mine", None)


def settings(**data):
    """The shipped config at toy size."""
    config = configs.get_config("digits")
    config.data.update(data)
    config.seeds = 2
    config.trainings = ("oracle", "vanilla", "readiness")
    config.equal_flops, config.variants = False, ml_collections.ConfigDict()
    config.model.options.widths = (4,)
    config.train.update({"steps": 8, "batch_size": 16})
    config.forget.target = 1
    config.request.update({"learning_rates": (0.1,), "max_steps": 2, "observe": 20, "unlearners": ("mine:halve",)})
    config.relearn.update({"steps": 1, "size": 20})
    return config


def pictures(root, count=40):
    for name in ("cat", "dog", "owl"):
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.random.default_rng([i, ord(name[0])]).integers(0, 256, (4, 5, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def table(path, count=120):
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["who", "age", "income", "kind"])
        for i in range(count):
            kind = ("a", "b", "c")[i % 3]
            writer.writerow([f"user{i}", 30 + 9 * rng.normal(), f"{2e4 * (i % 3 + 1) + 1e3 * rng.normal():.2f}", kind])
    return path


def test_a_folder_of_images_and_an_algorithm_of_a_users_own(mine):
    config = settings(name=f"folder:{pictures(mine / 'pets')}")
    config.request.options = {"halve": {"factor": 0.25}}
    config.request.unlearners = ("mine:halve", "mine:halve@level")
    config.request.to_level.max_steps = 3
    results = run.run(config, str(mine / "run"), "test")
    assert {row.unlearner for row in results.rows} == {"none", "halve", "halve@level"}
    assert {row.dataset for row in results.rows} == {config.data.name}
    report.present(str(mine / "run"), results)
    assert "halve" in (mine / "run" / "report.md").read_text() and (mine / "run" / "report.html").exists()


@pytest.mark.slow
def test_a_table_and_a_model_of_a_users_own_and_what_is_read_of_the_run(mine):
    config = settings(name=f"csv:{table(mine / 'people.csv')}", label="kind", id_column="who")
    config.model.factory, config.model.factory_options = "mine:network", {"width": 6}
    config.readiness.resistance = 0.5  # draws from the nearest classes
    run.run(config, str(mine / "run"), "test")
    kept = experiments.load(mine / "run")
    flat = kept.table()
    assert len(flat) == len(kept.rows) == 6 and flat[0]["after.test_accuracy"] == kept.rows[0].after["test_accuracy"]
    assert kept.csv().splitlines()[0].split(",")[0] == "training" and len(kept.csv().splitlines()) == 7
    dataset = datasets.load(config.data)
    for training in config.trainings:
        apply, network = kept.model(training, seed=1)
        assert type(network).__name__ == "MLP"
        right = np.argmax(apply(network, dataset.test.x, None), axis=1) == dataset.test.y
        (row,) = (row for row in kept.rows if (row.training, row.seed) == (training, 1))
        assert right.mean() == pytest.approx(row.before["test_accuracy"])
    with pytest.raises(WorkdirError, match=r"has no reweight .* of seed 0: it has oracle"):
        kept.model("reweight")
    (altered,) = (row for row in kept.rows if (row.training, row.seed) == ("vanilla", 0))
    altered.extra["params_sha256"]["before"] = "0"
    with pytest.raises(WorkdirError, match="other parameters"):
        kept.model("vanilla")
    shutil.rmtree(mine / "run/checkpoints/plain")  # two lanes stand where four were
    shutil.copytree(mine / "run/checkpoints/readiness-default", mine / "run/checkpoints/plain")
    with pytest.raises(WorkdirError, match=r"plain holds other parameters .* remove it and results.json and run again"):
        kept.model("vanilla", seed=1)
    (mine / "run/config.json").write_text("{}")
    with pytest.raises(WorkdirError, match=r"config.json is of no run: put a copy of it back"):
        experiments.load(mine / "run").model("vanilla")


@pytest.mark.slow
def test_a_table_is_judged_with_a_model_and_an_algorithm_of_a_users_own(mine):
    tiny = settings(name=f"csv:{table(mine / 'people.csv', 240)}", label="kind", id_column="who")
    config = judge_configs.get_config("digits")
    for part in ("data", "train", "model"):
        config[part].update({name: value for name, value in tiny[part].items() if name in config[part]})
    config.model.factory = "mine:network"
    config.trainings = ("oracle", "heldout_oracle", "vanilla")
    config.seeds = 2
    config.relearn.update(tiny.relearn)
    config.request.unlearners = ("mine:halve",)
    config.judge.update({"lanes": 12, "private_lanes": 12, "memorisation_lanes": 6, "batch_size": 8, "retain": 20})
    config.judge.tuning.update({"lanes": 2, "learning_rates": (0.01,), "steps": (1, 2)})
    config.judge.sets = ml_collections.ConfigDict(
        {"some": {"setting": "random", "fraction": 0.2}, "close": {"setting": "near_duplicates", "fraction": 0.05}}
    )
    rows = judge_run.run(config, str(mine / "judged"), "test").rows
    assert {(row.setting, row.unlearner) for row in rows} == {(s, u) for s in ("some", "close") for u in ("none", "halve")}
    with pytest.raises(WorkdirError, match="a judgement keeps statistics"):
        experiments.load(mine / "judged").model("vanilla")


@pytest.mark.parametrize(
    "name, message",
    [
        ("mine:absent", "mine has no absent"),
        ("absent:halve", "there is no module 'absent'"),
        ("mine:nothing", r"is not called as nothing\(model, optimizer\)"),
        ("mine:wrong", "^config.request.unlearners 'mine:wrong' gives a NoneType: give an unlearn.UnlearnAlgorithm"),
        ("mine:bare", "^config.request.unlearners 'mine:bare' has an init that gives a dict: give an unlearn.UnlearnState"),
        ("mine:alone", "an update that gives a UnlearnState: give a pair"),
        ("mine:cast", r"an update that makes params\['Dense_0'\]\['bias'\] bfloat16\[4\], which was float32\[4\]: keep"),
        ("mine:widened", r"an update that makes .* float32\[1, 4\], which was float32\[4\]: keep"),
        ("mine:listed", "an update that gives params of another structure: keep"),
        ("mine:counted", r"an update that makes memory float32\[\], which was int32\[\]: keep"),
        ("mine:recast", r"an init that makes .* bfloat16\[4\], which was float32\[4\]: keep"),
        ("mine:leaves", "^config.request.unlearners 'mine:leaves' fails on .* .SystemExit: 3.: mend it"),
        ("os:environ", "is a _Environ: name a function"),
        ("mine:", "give module:function"),
        ("ascend", "give one or more of level, ascent, .* or module:function"),
        ("mine:absent@level", "mine has no absent"),
        ("mine:bare@level", "'mine:bare@level' has an init that gives a dict"),
        ("mine:halve@levels", "give one or more of level, .*; NAME@level goes on"),
    ],
)
def test_an_algorithm_that_is_none_is_refused_in_one_line(mine, name, message):
    config = settings()
    config.request.unlearners = (name,)
    with pytest.raises(ValueError, match=message) as caught:
        run.run(config, str(mine / "run"))
    assert "\n" not in str(caught.value) and not (mine / "run").exists()


@pytest.mark.parametrize(
    "name, message",
    [
        (
            "mine:halve",
            "^config.readiness.algorithm 'mine:halve' fails .* argument 'mean'.*mend it, which readiness gives mean",
        ),
        ("mine:loops", "^config.readiness.algorithm 'mine:loops' fails on this run's model and data .*while_loop"),
    ],
)
def test_an_algorithm_that_cannot_be_rehearsed_is_refused_in_one_line(mine, name, message):
    config = settings()
    config.request.unlearners, config.readiness.algorithm = ("ascent",), name
    with pytest.raises(ValueError, match=message) as caught:
        run.run(config, str(mine / "run"))
    assert "\n" not in str(caught.value) and not (mine / "run").exists()


def test_a_judge_refuses_it_too(mine):
    config = judge_configs.get_config("digits")
    config.request.unlearners = ("mine:bare",)
    with pytest.raises(UserError, match=r"^config.request.unlearners 'mine:bare' has an init that gives a dict"):
        judge_run.run(config, str(mine / "run"))
    assert not (mine / "run").exists()


def test_an_algorithm_may_know_the_runs_model(mine):
    config = settings()
    config.request.unlearners, config.readiness.algorithm = ("mine:reads",), "mine:reads"
    config = checks.resolved(config)
    problem = comparisons.problem_of(config)
    model = models.build(config.model, problem.dataset.train.x[:1], problem.dataset.classes)
    checks.check_own(config.request, config.by_variant(), model, problem, 0)


def test_an_algorithm_of_the_shelf_may_need_what_a_model_has_not(mine):
    config = settings()
    config.request.unlearners, config.readiness.algorithm = ("ascent", "rmu"), "ascent"
    config = checks.resolved(config)
    problem = comparisons.problem_of(config)
    model = models.build(config.model, problem.dataset.train.x[:1], problem.dataset.classes)
    checks.check_own(config.request, config.by_variant(), model, problem, 0)
    with pytest.raises(
        UserError, match=r"^config.request.unlearners 'rmu' cannot be used \(rmu moves features, and"
    ) as error:
        checks.check_own(config.request, config.by_variant(), model._replace(features=None), problem, 0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["data.factory", "model.factory"])
def test_a_function_that_ends_the_program_is_told(mine, key):
    with pytest.raises(UserError, match=f"^{key} 'mine:stops' fails .SystemExit: 3.: mend it"):
        references.call(references.resolve("mine:stops", key), f"{key} 'mine:stops'")
    (mine / "ending.py").write_text("import sys\nsys.exit(4)\n")
    with pytest.raises(UserError, match=r"importing ending fails .SystemExit: 4.: mend it"):
        references.resolve("ending:make", key)


def section(**changes):
    return sections.Model(**changes)


IMAGE, ROW = np.zeros((1, 8, 8, 1), np.float32), np.zeros((1, 5), np.float32)
OWN = """
import equinox as eqx, flax.linen as nn, jax, jax.numpy as jnp
from flax import nnx
from experiments.models import ModelFns


class Averaged(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=True)(nn.Dense(3)(x))


class Normed(nnx.Module):
    def __init__(self, rngs):
        self.norm, self.dense = nnx.BatchNorm(5, rngs=rngs), nnx.Linear(5, 3, rngs=rngs)


def whole(example, classes):
    return ModelFns(lambda key: eqx.nn.MLP(5, classes, 4, 1, key=key), lambda p, x, key: jax.vmap(p)(x))


def averaged(example, classes):
    return ModelFns(lambda key: Averaged().init(key, example), lambda p, x, key: Averaged().apply(p, x))


def normed(example, classes):
    return ModelFns(lambda key: nnx.split(Normed(nnx.Rngs(key)))[1], lambda p, x, key: x)


def counted(example, classes):
    return ModelFns(lambda key: {"w": jnp.ones((5, 3)), "n": jnp.zeros((), int)}, lambda p, x, key: x @ p["w"])


def paired(example, classes):
    return ModelFns(lambda key: jnp.ones((5, 3)), lambda p, x, key: (x @ p, None))


def narrow(example, classes):
    return ModelFns(lambda key: jnp.ones((5, 2)), lambda p, x, key: x @ p)


def none(example, classes):
    return None


def fails(example, classes):
    raise KeyError("conf")


def keyed(example, classes):
    return ModelFns(lambda key: jnp.ones((5, 3)), lambda p, x, key: x @ p + jax.random.normal(key, (3,)))


def linear(features=None, apply=lambda p, x, key: x @ p):
    return lambda example, classes: ModelFns(lambda key: jnp.ones((5, 3)), apply, features)


two = linear(apply=lambda p, x, key: (x @ p)[:1].repeat(2, 0))
fixed = linear(apply=lambda p, x, key: x.reshape(2, -1) @ p)
featureless = linear(features=lambda p, x, key: 1 / 0)
summed = linear(features=lambda p, x, key: x.sum())
listed = linear(features=lambda p, x, key: [x])


def leaves(example, classes):
    raise SystemExit(3)
"""


@pytest.mark.parametrize(
    "name, message",
    [
        ("whole", "eqx.partition"),
        ("averaged", "has state among its parameters .batch_stats."),
        ("normed", "has state among its parameters .BatchStat."),
        ("counted", "a parameter 'n' of type int32"),
        ("paired", "gives 2 things: give logits alone"),
        ("narrow", r"gives \[2, 2\] for 2 examples: give logits \[examples, 3\]"),
        ("none", "gives a NoneType: give an experiments.models.ModelFns"),
        ("fails", "KeyError: 'conf'"),
        ("keyed", "apply, key None, of"),
        ("two", r"gives \[2, 3\] for 3 examples: give logits"),
        ("fixed", r"apply of .* fails .*called with params and x \[3, 5\]"),
        ("featureless", "features of .* fails .ZeroDivisionError"),
        ("summed", r"features of .* give \[\] for 2 examples: give one array \[examples, ...\]"),
        ("listed", "features of .* give list for 2 examples"),
        ("leaves", "fails .SystemExit: 3.: mend it"),
    ],
)
def test_a_model_that_cannot_be_trained_is_refused_in_one_line(mine, name, message):
    (mine / "networks.py").write_text(OWN)
    with pytest.raises(ValueError, match=message) as caught:
        models.build(section(factory=f"networks:{name}"), ROW, 3)
    assert "\n" not in str(caught.value)
    sys.modules.pop("networks", None)


@pytest.mark.parametrize("name", ["cnn", "resnet18", "vit", "whitened"])
def test_what_looks_at_images_refuses_a_table(name):
    with pytest.raises(ValueError, match="looks at images, these data are a table"):
        models.build(section(name=name, options={}), ROW, 3)


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_parameters_begin_as_a_file_has_them(tmp_path, suffix):
    from safetensors.numpy import save_file

    drawn = models.build(section(), IMAGE, 3).init(jax.random.key(5))
    path = tmp_path / f"params.{suffix}"
    flat = {name: np.asarray(leaf) for name, leaf in params.flatten(drawn).items()}
    np.savez(path, **flat) if suffix == "npz" else save_file(flat, path)
    model = models.build(section(params=str(path)), IMAGE, 3)
    lanes = jax.vmap(model.init)(jax.random.split(jax.random.key(0), 2))
    for lane in range(2):
        assert tree.bits_equal(jax.tree.map(lambda leaf, lane=lane: leaf[lane], lanes), drawn)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda flat: flat.pop("Dense_0/bias"), "lacks 'Dense_0/bias'"),
        (lambda flat: flat.update(more=np.zeros(3)), "has 'more'"),
        (lambda flat: flat.update({"Dense_0/bias": np.zeros(3)}), r"'Dense_0/bias' in .* is float64\[3\]"),
        (lambda flat: flat["Dense_0/bias"].fill(np.nan), "is not finite"),
        (lambda flat: flat.update({"Dense_0/bias": np.full(128, 1e300)}), "'Dense_0/bias' in .* is not finite as float32"),
    ],
)
def test_a_file_of_other_parameters_is_refused(tmp_path, change, message):
    flat = params.flatten(models.build(section(), IMAGE, 3).init(jax.random.key(5)))
    flat = {name: np.array(leaf) for name, leaf in flat.items()}
    change(flat)
    np.savez(tmp_path / "params.npz", **flat)
    with pytest.raises(ValueError, match=message) as caught:
        models.build(section(params=str(tmp_path / "params.npz")), IMAGE, 3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in ("vit", "whitened"))) for n in models.MODELS]
)
def test_dropout_and_short_activations_leave_parameters_and_predictions_alike(name):
    options = {
        "mlp": {"widths": (8,)},
        "vit": {"width": 8, "depth": 1, "heads": 2},
        "resnet18": {"width": 8, "stages": (1,)},
        "whitened": {"widths": (8,)},
    }
    one, other = (
        models.build(section(name=name, options=options.get(name, {}), **kw), IMAGE, 3)
        for kw in ({}, {"dropout": 0.5, "dtype": "bfloat16"})
    )
    drawn = one.init(jax.random.key(0))
    assert tree.bits_equal(drawn, other.init(jax.random.key(0)))
    x = jax.random.normal(jax.random.key(1), (4, 8, 8, 1))
    predicted = other.apply(drawn, x, None)
    np.testing.assert_allclose(predicted, one.apply(drawn, x, None), atol=0.1)
    dropped = other.apply(drawn, x, jax.random.key(2))
    assert predicted.dtype == dropped.dtype == np.float32 and np.abs(dropped - predicted).max() > 1e-3


def test_factory_options_that_cannot_be_compared_are_refused(mine):
    with pytest.raises(ValueError, match=r"model.factory_options are .*: give numbers, texts"):
        models.build(section(factory="mine:network", factory_options={"width": {"a": [1]}}), ROW, 3)
