"""What only algorithms and data can tell, refused in one line before anything is written; and whose mistake an error is."""

from pathlib import Path

import jax
import ml_collections
import pytest

from experiments import main
from experiments.comparison import checks, run
from experiments.configs import judge, pretrain, s3t
from experiments.configs import readiness as configs
from experiments.core import forgetting, sections, values
from experiments.core.errors import ConfigError, UserError, blame_user
from experiments.data import datasets
from experiments.exact import run as exact_run
from experiments.judge import run as judge_run
from experiments.pretrain import run as pretrain_run
from tests.experiments.comparison.run_test import shrink
from tests.helpers.configs import with_keys
from unlearn.base import LANGUAGE

D = ml_collections.ConfigDict


def refusals(changes):
    with pytest.raises(ConfigError) as caught:
        checks.resolved(with_keys(configs.get_config("digits"), changes))
    return caught.value.mistakes


@pytest.mark.parametrize(
    "changes, said",
    [
        (
            {"request.options": D({"ascent": {"gamma": 1.0}})},
            "config.request.options.ascent cannot be used (.*unexpected keyword argument 'gamma'",
        ),
        ({"request.options": D({"ascent": {"mean": 1.0}})}, "config.request.options.ascent cannot be used"),
        (
            {"request.unlearners": ("npo",), "request.options": D({"npo": {"beta": 0.0}})},
            "config.request.options.npo cannot be used",
        ),
        (
            {"readiness.algorithm_options": D({"odd": 1.0})},
            "config.readiness.algorithm_options cannot be used (.*unexpected keyword argument 'odd'",
        ),
        (
            {"variants": D({"x": {"algorithm": "neggrad_plus", "algorithm_options": {"odd": 1.0}}})},
            "config.variants.x.algorithm_options cannot be used (.*unexpected keyword argument 'odd'",
        ),
    ],
)
def test_options_that_an_algorithm_cannot_take_are_refused(changes, said):
    (line,) = refusals(changes)
    start, _, reason = said.partition(".*")
    assert line.startswith(start) and reason in line and line.endswith("set others")


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"request.unlearners": ("level", "wga@level")}, "'wga' in request.unlearners"),
        ({"readiness.algorithm": "dpo", "readiness.form": "gain"}, "'dpo' in config.readiness.algorithm"),
    ],
)
def test_algorithms_of_language_models_are_refused_for_classifiers(changes, said):
    suited = ", ".join(name for name in values.SHELF if name not in ("wga", "dpo", "idk_dpo"))
    with pytest.raises(UserError) as caught:
        checks.resolved(with_keys(configs.get_config("digits"), changes))
    assert str(caught.value) == f"{said} does not unlearn classifiers, as this run trains: choose from {suited}"


def test_options_of_algorithms_of_language_models_are_tried_on_one():
    options = {"wga": {"alpha": 2.0}, "idk_dpo": {"gamma": 0.5}, "rmu": {"length": 3.0}}
    request = forgetting.Unlearners(unlearners=tuple(options), options=options)
    checks.check_options(request, {}, LANGUAGE)
    with pytest.raises(ConfigError, match=r"config\.request\.options\.wga cannot be used \(alpha is 0.* set others$"):
        checks.check_options(request.model_copy(update={"options": {"wga": {"alpha": 0.0}}}), {}, LANGUAGE)
    with pytest.raises(UserError, match=r"'random_label' in request\.unlearners does not unlearn language models"):
        checks.check_options(forgetting.Unlearners(unlearners=("random_label",)), {}, LANGUAGE)


def test_options_that_an_algorithm_has_are_taken():
    config = configs.get_config("digits")
    config.request.unlearners = ("npo", "graddiff")
    config.request.options = D({"npo": {"beta": 0.2}, "graddiff": {"gamma": 0}})
    config.readiness.algorithm, config.readiness.algorithm_options = "graddiff", D({"gamma": 0.5})
    config.variants = D({"x": {"algorithm": "neggrad_plus", "algorithm_options": {}}})
    with pytest.raises(
        ConfigError, match=r"config\.variants\.x\.algorithm_options"
    ):  # those of graddiff are not neggrad_plus's
        checks.resolved(with_keys(config, {"variants": D({"x": {"algorithm": "neggrad_plus"}})}))
    config.variants = D({"x": {"algorithm": "ascent_kl", "algorithm_options": {"gamma": 2.0}}})
    checks.resolved(config)


@pytest.mark.parametrize(
    "key, value, said",
    [
        ("forget.fraction", 1.0, "config.forget.fraction is 1.0: give a number between 0 and 1, both excluded"),
        ("forget.fraction", 0.003, "there are 3 examples to forget, 5 or more"),
        ("data.validation_fraction", 1e-9, "no validation examples"),
        ("request.parts", 2000, "set fewer --config.request.parts"),
        ("train.batch_size", 1022, "has 1021 training examples here: set --config.train.batch_size to 1021 or less"),
        ("model.options.widths", (0,), "give whole numbers from 1 up"),
        ("model.options.widths", (-8,), "give whole numbers from 1 up"),
        ("model.options.widths", ("a",), "give whole numbers from 1 up"),
        ("model.options.widths", 8, "give whole numbers from 1 up"),
        ("model.options", D({"odd": 1}), "no option 'odd'"),
    ],
)
def test_sets_and_models_that_cannot_work_are_refused(key, value, said, tmp_path):
    with pytest.raises(UserError) as caught:
        run.run(with_keys(configs.get_config("digits_random"), {key: value}), str(tmp_path / "new"))
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


FIXTURES = Path(__file__).resolve().parents[2] / "fixtures/language"
FOLDER = {"model.name": "folder", "model.options": D()}


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"request.unlearners": ("level", "dpo")}, "'dpo' cannot be used (forget data have no 'alternative'"),
        (
            {"readiness.algorithm": "dpo"},
            "config.readiness.algorithm 'dpo' cannot be used (forget data have no 'alternative'",
        ),
        ({"readiness.resistance": 0.1}, "text to predict has no classes: set --config.readiness.recovery=nearest_examples"),
        (
            {"trainings": ("oracle", "vanilla", "dpsgd"), "data.length": 16},
            "dpsgd guards single rows, and a document here has",
        ),
        (
            {"trainings": ("oracle", "vanilla", "dpsgd"), "data.length": 64}
            | {"data.canaries.count": 2, "data.canaries.repeats": 3},
            "a document here has 3 of them: set --config.data.canaries.repeats=1, or",
        ),
        ({"model.name": "bert", "data.canaries.count": 1}, "data.canaries is for text to predict, and the model class"),
        ({"model.factory": "mine:model", "model.options": D()}, "a model.factory is for images and tables"),
        ({"model.name": "bert"}, "has no classes for an encoder to tell: choose a decoder, as --config.model.name=gpt2"),
        (FOLDER | {"model.params": f"{FIXTURES}/bert"}, "has no classes for an encoder to tell: choose a decoder, as"),
        (FOLDER | {"model.params": f"{FIXTURES}/nowhere"}, "nowhere/config.json"),
        (
            {"forget.setting": "class", "readiness.levels": "own"},
            "is text to predict, which has no classes: set --config.forget.setting=random, or a model that classifies",
        ),
    ],
)
def test_what_cannot_work_on_text_is_refused(changes, said, tmp_path):
    for i in range(90):
        (tmp_path / f"{i}.txt").write_text(f"Document {i} of ninety.")
    toy = {"data.name": f"texts:{tmp_path}", "data.tokeniser": "", "data.train_size": 0, "data.length": 32}
    toy |= {"train.batch_size": 8, "forget.fraction": 0.3, "model.options": D({"width": 8, "depth": 1, "heads": 1})}
    with pytest.raises(UserError) as caught:
        run.run(with_keys(configs.get_config("pydoc"), toy | changes), str(tmp_path / "new"))
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "runner, config, said",
    [
        (judge_run, judge, "model 'mlp' looks at images or tables, these data are text"),
        (pretrain_run, pretrain, "'pydoc' is text"),
        (exact_run, s3t, "'pydoc' is text"),
    ],
    ids=["judge", "pretrain", "s3t"],
)
def test_runs_of_images_refuse_text(runner, config, said, tmp_path):
    for changes, line in (({"data.name": "pydoc"}, said), ({"data.length": 8}, "length is for text")):
        with pytest.raises(UserError, match=line) as caught:
            runner.run(with_keys(config.get_config("digits"), changes), str(tmp_path / "new"))
        assert "\n" not in str(caught.value) and not (tmp_path / "new").exists()


def test_options_that_flax_rejects_are_told_with_the_images(tmp_path):
    config = shrink(configs.get_config("cifar10"))
    config.model.options = D({"widths": (9,)})  # 8 groups
    with pytest.raises(UserError, match=r"takes no images of \(8, 8, 1\) .*set other --config.model.options") as caught:
        run.run(config, str(tmp_path / "new"))
    assert "\n" not in str(caught.value)


# Whose mistake it was


def called(monkeypatch, tmp_path, runner="readiness", error=None):
    config = configs.get_config("digits")
    config.runner = runner

    def raising(*_):
        raise error

    monkeypatch.setattr(run, "run", raising)
    return main.execute(config, str(tmp_path), "command")


@pytest.mark.parametrize("error", [UserError("set\nthis"), datasets.DataError("set this"), OSError("set this")])
def test_what_a_user_can_mend_is_one_line(monkeypatch, tmp_path, capsys, error):
    assert called(monkeypatch, tmp_path, error=error) == 2
    assert capsys.readouterr().err == "error: set this\n"


BUGS = TypeError("add got incompatible shapes"), ValueError("shapes"), KeyError("x"), jax.errors.JaxRuntimeError("INTERNAL")


@pytest.mark.parametrize("error", BUGS)
def test_a_bug_keeps_its_traceback(monkeypatch, tmp_path, error):
    with pytest.raises(type(error)):
        called(monkeypatch, tmp_path, error=error)


@pytest.mark.parametrize("error", [MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of\nmemory")])
def test_running_out_of_memory_is_one_line(monkeypatch, tmp_path, capsys, error):
    assert called(monkeypatch, tmp_path, error=error) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith("error: out of memory (")
    for key in ("train.batch_size", "seeds", "model.options", "request.max_steps"):
        assert key in told


def test_every_mistake_of_a_config_is_a_line_of_its_own(monkeypatch, tmp_path, capsys):
    assert called(monkeypatch, tmp_path, error=ConfigError(["config.a is 1: give 2", "config.b is 2: give 3"])) == 2
    assert capsys.readouterr().err == "error: config.a is 1: give 2\nerror: config.b is 2: give 3\n"


def test_an_interrupt_is_one_line(monkeypatch, tmp_path, capsys):
    assert called(monkeypatch, tmp_path, error=KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "interrupted: the same command goes on from the last checkpoint\n"


def test_an_unknown_runner_is_one_line(monkeypatch, tmp_path, capsys):
    assert called(monkeypatch, tmp_path, runner="odd") == 2
    told = "error: config.runner 'odd' is unknown; choose one of readiness, pretrain, s3t, judge, judge_exact, federated\n"
    assert capsys.readouterr().err == told


def test_what_is_raised_while_resolving_counts_as_the_users():
    with pytest.raises(UserError, match=r"^two lines$"), blame_user():
        raise TypeError("two\n  lines")
    with pytest.raises(RuntimeError), blame_user():
        raise RuntimeError("not his")


@pytest.mark.parametrize("made", [configs.Comparison(), judge.Judge()])
def test_text_without_a_tokeniser_has_that_of_its_pre_trained_weights(made):
    smollm2 = sections.Model(name="smollm2", options={})
    named = lambda **data: made.model_copy(  # noqa: E731
        update={"data": made.data.model_copy(update=data), "model": smollm2}
    )
    assert checks.with_tokeniser(named(name="pydoc")).data.tokeniser == "smollm2"
    assert checks.with_tokeniser(named(name="pydoc", tokeniser="bpe:512")).data.tokeniser == "bpe:512"
    assert checks.with_tokeniser(made) is made
