"""What is refused before anything is computed: one line that names the key; and what is set by flags."""

import jax
import ml_collections
import pytest
from absl import flags
from ml_collections import config_flags

from experiments import main
from experiments.comparison import checks, run, setup
from experiments.configs import judge, pretrain, s3t
from experiments.configs import readiness as configs
from experiments.core.errors import UserError, blame_user
from experiments.data import datasets
from experiments.pretrain import run as pretrain_run
from tests.experiments.comparison.run_test import shrink

NAN, INFINITY = float("nan"), float("inf")
D = ml_collections.ConfigDict


def changed(path, value, name="digits"):
    config = configs.get_config(name)
    with config.ignore_type():
        config.update_from_flattened_dict({path: value})
    return config


def refusal(config):
    with pytest.raises(UserError) as caught, blame_user():
        checks.check(setup.resolved(config))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", configs.EXPERIMENTS)
def test_every_shipped_comparison_passes(name):
    checks.check(setup.resolved(configs.get_config(name)))


@pytest.mark.parametrize("name", pretrain.EXPERIMENTS)
def test_every_shipped_pre_training_passes(name):
    checks.check_keys(pretrain.get_config(name), pretrain.get_config())
    checks.check_values(pretrain.get_config(name))


def test_the_tables_name_keys_that_exist():
    """A key that no config has would be passed over."""
    listed = [*checks.CHOICES, *checks.NAME_LISTS, *checks.NUMBER_LISTS, *checks.FREE]
    for key in [*listed, *(key for _, keys in checks.NUMBERS.values() for key in keys)]:
        *section, name = key.split(".")
        every = (configs.defaults(), pretrain.get_config(), s3t.get_config(), judge.defaults())
        assert any(name in (config.get(section[0], {}) if section else config) for config in every), key


@pytest.mark.parametrize("value", [NAN, INFINITY, -1.0, "a"])
@pytest.mark.parametrize("key", [key for _, keys in checks.NUMBERS.values() for key in keys])
def test_no_key_takes_what_is_no_number_for_it(key, value):
    section, _, name = key.rpartition(".")
    if name in configs.defaults().get(section, {}) or not section:
        assert key in refusal(changed(key, value))
        return
    config = s3t.get_config()
    with config.ignore_type():
        config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=key):
        checks.check_values(config)


@pytest.mark.parametrize("key", checks.CHOICES)
def test_no_key_takes_a_name_that_nothing_has(key):
    assert key in refusal(changed(key, 7 if "order" in key else "odd"))


@pytest.mark.parametrize(
    "key, value, said",
    [
        ("data.validation_fraction", 0.0, "both excluded"),
        ("data.validation_fraction", 1.0, "both excluded"),
        ("data.score_examples", 1, "0 for all, or 5 or more"),
        ("data.score_examples", 4, "0 for all, or 5 or more"),
        ("request.overlap", 1.1, "from 0 to 1"),
        ("request.clips", (0.0, -1.0), "numbers from 0 up"),
        ("request.learning_rates", (0.1, NAN), "numbers above 0"),
        ("request.learning_rates", (), "one or more"),
        ("request.unlearners", (), "one or more"),
        ("request.unlearners", ("ascent", "ascent"), "each once"),
        ("request.parts", 0, "1 or more"),
        ("request.max_steps", 100_001, "from 1 to 100000"),
        ("reweight.others", (NAN,), "numbers from 0 up"),
        ("relearn.share", 0.0, "above 0 and up to 1"),
        ("relearn.share", 1.5, "above 0 and up to 1"),
        ("train.learning_rate", 0.0, "a number above 0"),
        ("train.momentum", 1.0, "below 1"),
        ("dpsgd.clip", 0.0, "a number above 0"),
        ("seed", 2**32, "so that seeds stay apart"),
        ("readiness.cap", "nan", "no number above 0"),
        ("readiness.cap", "-1", "no number above 0"),
        ("readiness.cap", "odd", "no number above 0"),
        ("readiness.step_size", ("a", "b"), "give (lowest, highest)"),
        ("readiness.step_size", (NAN, 0.5), "give (lowest, highest)"),
        ("readiness.step_size", (0.5, INFINITY), "give (lowest, highest)"),
        ("readiness.step_size", (0.5, 0.3), "give (lowest, highest)"),
        ("readiness.step_size", 0.5, "which is no tuple"),
        ("train.steps", 3.5, "which is no int"),
        ("train", D({"steps": 3}), "no train.batch_size"),
        ("train", 5, "train is 5"),
        ("odd", 1, "no key odd"),
        ("data.odd", 1, "no key data.odd"),
        ("variants", D({"x": {"odd": 1}}), "readiness.odd, which does not exist"),
        ("variants", D({"x": {"order": "a"}}), "variant 'x' sets readiness.order"),
        ("variants", D({"x": {"order": 3}}), "variant 'x': readiness.order 3 is unknown"),
        ("variants", D({"x": {"start": 1500}}), "variant 'x': readiness.start is 1500"),
        ("variants", D({"x": 3}), "give a dict of overrides"),
        ("variants", D({"default": {}}), "choose one other than 'default'"),
        ("variants", D({"a/b": {}}), "without '/'"),
        ("variants", D({"a\0": {}}), "printable"),
        ("variants", D({"": {}}), "is no name"),
        ("variants", D({3: {}}), "is no name"),
        ("variants", D({101 * "x": {}}), "at most 100 bytes"),
        ("variants", D({34 * "√": {}}), "at most 100 bytes"),
        ("suited", D({"class": 3}), "suited 'class' is 3: give a dict"),
        ("suited", D({"class": {"odd": 1}}), "suited 'class' has 'odd', which readiness never leaves"),
        ("suited", D({"class": {"order": 1}}), "suited 'class' has 'order', which readiness never leaves"),
        ("suited", D({"odd": {}}), "suited has 'odd', which is no forget.setting; choose class or random"),
        ("reweight.others", (0.1, 0.02, 0.1), "each once"),
        ("reweight.others", (0.1, 0.1 + 1e-9), "each once"),
        ("reweight.others", (0.2,), "each once"),
        ("request.options", D({"npo": {"beta": 0.1}}), "add it to --config.request.unlearners"),
        ("request.options", D({"ascent": {"gamma": 1.0}}), "no option 'gamma'"),
        ("request.options", D({"ascent": {"mean": 1.0}}), "cannot be used"),
        ("request.options", D({"ascent": {"cap": "a"}}), "a number from 0 up"),
        ("request.options", D({"ascent": 3}), "a number from 0 up"),
        ("readiness.algorithm_options", D({"odd": 1.0}), "no option 'odd'"),
    ],
)
def test_what_cannot_work_is_refused(key, value, said):
    message = refusal(changed(key, value))
    assert said in message and key.split(".")[-1].removesuffix("s") in message


def test_keys_that_do_not_go_together_are_refused():
    config = configs.get_config("digits_random")
    config.forget.revocable = 3
    assert "set --config.forget.revocable=-1" in refusal(config)
    config = configs.get_config("digits")
    config.readiness.relearning, config.readiness.relearn_steps = 0.5, 0
    assert "readiness.relearn_steps to 1 or more" in refusal(config)
    config = configs.get_config("digits")
    config.request.unlearners = ("npo",)
    config.request.options = D({"npo": {"beta": 0.0}})
    assert "request.options of npo cannot be used" in refusal(config)


def test_a_setting_for_which_nothing_is_suited_must_be_given_it():
    assert "set --config.readiness.retention to" in refusal(changed("suited", D()))
    assert "give (lowest, highest)" in refusal(changed("suited", D({"class": {"retention": 8.0, "step_size": 0.4}})))
    config = changed("suited", D({"random": {"retention": 1.0}}))
    config.readiness.retention, config.readiness.step_size = 8.0, (0.4, 0.4)
    checks.check(setup.resolved(config))


def test_options_that_an_algorithm_has_are_taken():
    config = configs.get_config("digits")
    config.request.unlearners = ("npo", "graddiff")
    config.request.options = D({"npo": {"beta": 0.2}, "graddiff": {"gamma": 0}})
    config.readiness.algorithm, config.readiness.algorithm_options = "graddiff", D({"gamma": 0.5})
    config.variants = D({"x": {"algorithm": "neggrad_plus", "algorithm_options": {}}})
    assert "variant 'x': readiness.algorithm_options" in refusal(config), "those of graddiff are not neggrad_plus's"
    config.variants = D({"x": {"algorithm": "ascent_kl", "algorithm_options": {"gamma": 2.0}}})
    checks.check(setup.resolved(config))


@pytest.mark.parametrize(
    "key, value, said",
    [
        ("forget.fraction", 0.0, "fraction is 0.0"),
        ("forget.fraction", 1.0, "fraction is 1.0"),
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
        run.run(changed(key, value, "digits_random"), str(tmp_path / "new"))
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_options_that_flax_rejects_are_told_with_the_images(tmp_path):
    config = shrink(configs.get_config("cifar10"))
    config.model.options = D({"widths": (9,)})  # 8 groups
    with pytest.raises(UserError, match=r"takes no images of \(8, 8, 1\) .*set other --config.model.options") as caught:
        run.run(config, str(tmp_path / "new"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "key, value, said",
    [
        ("train.learning_rate", NAN, "train.learning_rate is nan"),
        ("train.optimizer", "odd", "'odd' is unknown"),
        ("data.validation_fraction", 1.0, "both excluded"),
        ("data.stream", True, "set --config.data.stream=False"),
        ("train.batch_size", 10_000, "training examples here"),
        ("train", D({"steps": 3}), "no train.batch_size"),
    ],
)
def test_pre_training_refuses_as_well(key, value, said, tmp_path):
    config = pretrain.get_config("digits")
    with config.ignore_type():
        config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=said):
        pretrain_run.run(config, str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


# Flags


def by_flags(*given):
    """The config that a command line gives."""
    argv = ["main", f"--config={configs.__file__}:digits", *given]
    values = flags.FlagValues()
    config = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    values(argv)
    return config.value


def test_tuples_and_whole_dicts_are_given_as_python_literals():
    config = by_flags(
        "--config.readiness.step_size=(0.3, 0.5)",
        "--config.request.unlearners=('npo',)",
        '--config.request.options={"npo": {"beta": 0.2}}',
        '--config.model.options={"widths": (8, 4)}',
        '--config.readiness.algorithm_options={"cap": 2.0}',
        '--config.variants={"first order": {"order": 1}}',
    )
    checks.check(setup.resolved(config))
    assert config.readiness.step_size == (0.3, 0.5)
    assert config.request.options.npo.beta == 0.2
    assert config.model.options.to_dict() == {"widths": (8, 4)}
    assert config.readiness.algorithm_options.cap == 2.0
    assert config.variants["first order"].order == 1


@pytest.mark.parametrize("given", ["a", "(0.3,)", "(0.5, 0.3)", "(nan, 1)", "('a', 'b')"])
def test_a_step_size_that_is_none_is_refused(given):
    assert "readiness.step_size" in refusal(by_flags(f"--config.readiness.step_size={given}"))


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


def test_an_interrupt_is_one_line(monkeypatch, tmp_path, capsys):
    assert called(monkeypatch, tmp_path, error=KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "interrupted: the same command goes on from the last checkpoint\n"


def test_an_unknown_runner_is_one_line(monkeypatch, tmp_path, capsys):
    assert called(monkeypatch, tmp_path, runner="odd") == 2
    told = "error: config.runner 'odd' is unknown; choose one of readiness, pretrain, s3t, judge, judge_exact\n"
    assert capsys.readouterr().err == told


def test_what_is_raised_while_resolving_counts_as_the_users():
    with pytest.raises(UserError, match=r"^two lines$"), blame_user():
        raise TypeError("two\n  lines")
    with pytest.raises(RuntimeError), blame_user():
        raise RuntimeError("not his")
