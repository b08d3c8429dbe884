"""What a comparison refuses, one case per kind of mistake; what suits a kind of request; what is set by flags."""

import ml_collections
import pytest
from absl import flags
from ml_collections import config_flags

from experiments.configs import readiness as configs
from experiments.configs.begun import as_begun
from experiments.configs.comparison import Comparison
from experiments.core import forgetting
from experiments.core.config import validated
from experiments.core.errors import ConfigError, UserError
from tests.helpers.configs import with_keys

D = ml_collections.ConfigDict
NAN = float("nan")


def refusals(config):
    with pytest.raises(ConfigError) as caught:
        validated(Comparison, config).resolved()
    return caught.value.mistakes


def refused(changes, name="digits"):
    (line,) = refusals(with_keys(configs.get_config(name), changes))
    return line


@pytest.mark.parametrize(
    "key, value, said",
    [
        ("train.steps", 0, "is 0: give a whole number from 1 to 100000000"),
        ("train.optimizer", "odd", "is 'odd': choose sgd, nesterov or adamw"),
        ("readiness.order", 3, "is 3: choose 1 or 2"),
        ("data.score_examples", 4, "is 4: give 0 for all, or a whole number from 5 to 2147483647"),
        ("request.learning_rates", (0.1, NAN), "is (0.1, nan): give one or more numbers above 0 and up to 1000"),
        ("request.unlearners", ("ascent", "ascent"), "is ('ascent', 'ascent'): give each once"),
        ("request.unlearners", ("scrub2",), "of your own; NAME@level goes on to the level of unseen examples"),
        ("request.unlearners", ("ascent@loss",), "NAME@level goes on to the level of unseen examples"),
        ("request.unlearners", ("level@level",), "NAME@level goes on to the level of unseen examples"),
        ("trainings", ("oracle",), "is ('oracle',): every comparison needs vanilla, add it"),
        ("readiness.cap", "nan", "give log_classes, a text with a number above 0 and up to 1000000, or nothing"),
        ("readiness.step_size", (0.5, 0.3), "give (lowest, highest), numbers above 0 and up to 1000, as in (0.3, 0.5)"),
        ("model.options", D({"widths": (2**64,)}), "is (18446744073709551616,): give finite numbers up to 2147483647"),
        ("train", 5, "dict of steps, batch_size, microbatches, optimizer, learning_rate, momentum, weight_decay, clip"),
        ("data.odd", 1, "score_examples, stream, canaries"),
        ("seed", 2**32 - 1, "is 4294967295: give one from 0 to 4294967286, so that seeds stay apart"),
        ("reweight.others", (0.1, 0.1 + 1e-9), "give other weights, each once"),
        ("reweight.others", (0.2,), "is (0.2,) beside weight 0.2: give other weights, each once"),
        ("request.options", D({"npo": {"beta": 0.1}}), "add it to --config.request.unlearners"),
        (
            "request", D(configs.get_config().request.to_dict() | {"unlearners": ("ascent",), "repair": 5}),
            "is 5, but no request settles: add level to --config.request.unlearners",
        ),
        ("request.options", D({"odd": {}}), "has odd, which serves no request: add it to --config.request.unlearners"),
        ("request.options", D({"ascent": {"cap": "a"}}), "is 'a': give a number from 0 to 1000000"),
        ("suited", D({"odd": {}}), "has no such name: choose class or random"),
        ("suited", D({"class": 3}), "is 3: give a dict of form, efficiency, retention, algorithm, normalise, step_size"),
        ("suited", D({"class": {"order": 1}}), "is no key of this config: did you mean config.readiness.order?"),
        ("variants", D({"x": {"ordr": 1}}), "is no key of this config: did you mean config.variants.x.order?"),
        ("variants", D({"x": {"order": 3}}), "is 3: choose 1 or 2"),
        ("variants", D({"first order": {"start": 1500}}), "is 1500, but training ends after 1500 steps: start sooner"),
        ("variants", D({"x": 3}), "is 3: give a dict of overrides of readiness"),
        ("variants", D({"default": {}}), "choose one other than 'default', printable and without '/'"),
        ("variants", D({"a/b": {}}), "choose one other than 'default', printable and without '/'"),
        ("variants", D({34 * "√": {}}), "is a long name of a variant: choose one of at most 100 bytes"),
        ("variants", D({3: {}}), "has no such name: give a text"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_names_its_key_and_says_what_to_do(key, value, said):
    line = refused({key: value})
    assert line.startswith(f"config.{key}") and line.endswith(said)


def test_a_section_given_as_a_whole_must_be_whole():
    told = refusals(with_keys(configs.get_config(), {"train": D({"steps": 3})}))
    assert len(told) == 7 and told[0] == (
        "config.train.batch_size is missing: set single keys, as in --config.train.batch_size=VALUE"
    )


def test_several_mistakes_are_told_at_once():
    told = refusals(with_keys(configs.get_config(), {"train.stepz": 3, "seeds": 0, "relearn.learning_rate": 1e308}))
    assert [line.split()[0] for line in told] == ["config.seeds", "config.train.stepz", "config.relearn.learning_rate"]


def test_keys_that_do_not_go_together_are_refused():
    line = refused({"forget.revocable": 3}, "digits_random")
    assert line.endswith("random examples are forgotten: set --config.forget.revocable=-1")
    line = refused({"forget.also": (5,)}, "digits_random")
    assert line.endswith("is (5,), classes, but random examples are forgotten: set no --config.forget.also")
    line = refused({"forget.also": (5, 3)})
    assert line == "config.forget.also is (5, 3) beside the target 3: give each class once"
    line = refused({"readiness.start": 1500})
    assert line == "config.readiness.start is 1500, but training ends after 1500 steps: start sooner"
    line = refused({"readiness.relearning": 0.5, "readiness.relearn_steps": 0})
    assert line == "config.readiness.relearn_steps is 0, but relearning is rewarded: set 1 or more"
    line = refused({"readiness.resistance": 1.0, "data.stream": True})
    assert line.startswith("config.readiness.recovery is 'nearest_classes', which compares all images")
    assert line.endswith("set --config.readiness.recovery=stable")
    line = refused({"variants": D({"x": {"resistance": 1.0}}), "data.stream": True})
    assert line.startswith("config.variants.x.recovery is 'nearest_classes'")
    line = refused({"readiness.levels": "proxy", "readiness.requests": "classes"})
    assert line.startswith("config.readiness.requests is 'classes', but a proxy stands for one known set")
    line = refused({"readiness.levels": "proxy", "readiness.noise": 0.1, "variants": D()})
    assert line.startswith("config.readiness.noise is 0.1, but a proxy saw whom nobody told of")
    line = refused({"request.to_level.levels": "proxy", "readiness.noise": 0.1})
    assert line.endswith("nobody told of: set --config.request.to_level.levels=own")
    line = refused({"request.to_level.levels": "proxy", "forget.revocable": 5})
    assert line == "config.forget.revocable is 5, but a proxy saw class 3: set levels=own, or -1 here"


@pytest.mark.parametrize("requests", ["classes", "known"])
def test_a_models_own_levels_suit_random_examples(requests):
    config = with_keys(configs.get_config("digits_random"), {"readiness.form": "level", "readiness.requests": requests})
    assert validated(Comparison, config).resolved().readiness.levels == "own"


@pytest.mark.parametrize("name", ["level@level", "ascent@", "@level", "ascent@accuracy"])
def test_requests_end_at_an_accuracy_or_at_a_level(name):
    assert refused({"request.unlearners": (name,)}).endswith("NAME@level goes on to the level of unseen examples")


@pytest.mark.parametrize("option, key", [("beta", "betas"), ("target", "levels")])
def test_what_requests_to_a_level_have_keys_for_is_no_option(option, key):
    line = refused({"request.options": D({"level": {option: 0.5}})})
    assert line == (
        f"config.request.options has {option} of level, which is no option of requests: set --config.request.to_level.{key}"
    )


def test_an_override_that_is_unset_is_as_the_default_one():
    config = with_keys(configs.get_config(), {"variants": D({"x": {"efficiency": None}})})
    assert validated(Comparison, config).resolved().variant("x").readiness.efficiency == configs.LEVEL["efficiency"]


def test_what_readiness_leaves_unset_is_as_suits_the_kind_of_request():
    for name, form, retention, sizes in (
        ("digits", "level", 1.0, (0.1, 0.1)),
        ("digits_random", "gain", 1.0, (0.1, 0.1)),
        ("digits_weights", "gain", 8.0, (0.4, 0.4)),
    ):
        made = validated(Comparison, configs.get_config(name)).resolved().readiness
        assert (made.form, made.retention, made.step_size) == (form, retention, sizes)
    config = configs.get_config()
    config.readiness.retention = 2.0
    made = validated(Comparison, config).resolved()
    assert made.readiness.retention == 2.0 and made.readiness.step_size == (0.1, 0.1)
    assert made.resolved() == made


def test_the_paper_s_objective_beside_another_is_whole():
    """Whatever the default one has, a variant that is the paper's is what `digits_weights` rehearses."""
    config = with_keys(configs.get_config(), {"readiness.algorithm_options": D({"beta": 0.9})})
    paper = validated(Comparison, configs.get_config("digits_weights")).resolved().readiness
    assert validated(Comparison, config).resolved().variant("paper").readiness == paper


def test_a_folder_of_an_older_version_keeps_what_was_shipped_then_and_nothing_else():
    made, old = validated(Comparison, configs.get_config()), {"readiness": {"form": "gain", "order": 1}, "seed": 3}
    kept = as_begun(made, made, old)
    assert (kept.readiness.form, kept.readiness.order, kept.seed) == ("gain", 2, 0)
    asked = validated(Comparison, with_keys(configs.get_config(), {"readiness.form": "raw"}))
    assert as_begun(asked, made, old).readiness.form == "raw"
    assert as_begun(made, made, {"readiness": 3, "request": None}) == made, "refused later, as another config"
    assert as_begun(made, made, None) == as_begun(made, made, made.model_dump()) == made


def test_a_setting_for_which_nothing_is_suited_must_be_given_it():
    told = refusals(with_keys(configs.get_config(), {"suited": D()}))
    assert told[2] == (
        "config.readiness.retention is unset, and suited has none for 'class': set --config.readiness.retention"
    )
    assert len(told) == len(forgetting.Suited.model_fields)
    config = with_keys(configs.get_config(), {"suited": D({"random": {"retention": 1.0}}), "variants": {}})
    config.readiness.update(configs.PAPER)
    assert validated(Comparison, config).resolved().readiness.retention == 8.0


def test_a_variant_overrides_readiness_alone():
    made = validated(Comparison, configs.get_config("digits_ablation")).resolved()
    assert made.variant("raw").readiness == made.readiness.model_copy(update={"form": "raw"})
    assert made.variant("default") == made
    assert made.variant("step range").readiness.step_size == (0.1, 1.6)


# Flags


def by_flags(*given):
    """The config that a command line gives."""
    argv = ["main", f"--config={configs.__file__}:digits", *given]
    values = flags.FlagValues()
    config = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    values(argv)
    return config.value


def test_tuples_and_whole_dicts_are_given_as_python_literals():
    config = validated(
        Comparison,
        by_flags(
            "--config.readiness.step_size=(0.3, 0.5)",
            "--config.readiness.retention=4",
            "--config.suited['class'].retention=5",
            "--config.request.unlearners=('npo',)",
            '--config.request.options={"npo": {"beta": 0.2}}',
            '--config.model.options={"widths": (8, 4)}',
            '--config.readiness.algorithm_options={"cap": 2.0}',
            '--config.variants={"first order": {"order": 1}}',
        ),
    )
    assert config.readiness.step_size == (0.3, 0.5) and config.readiness.retention == 4.0
    assert config.suited["class"].retention == 5.0
    assert config.request.options == {"npo": {"beta": 0.2}}
    assert config.model.options == {"widths": (8, 4)}
    assert config.readiness.algorithm_options == {"cap": 2.0}
    assert config.variants == {"first order": {"order": 1}}


@pytest.mark.parametrize("given", ["a", "(0.3,)", "(0.5, 0.3)", "(nan, 1)", "('a', 'b')"])
def test_a_step_size_that_is_none_is_refused(given):
    (line,) = refusals(by_flags(f"--config.readiness.step_size={given}"))
    assert line.startswith("config.readiness.step_size is ")


@pytest.mark.parametrize("flag, value", [("train.steps=7", 7), ("equal_flops=False", False), ("readiness.cap=2.5", "2.5")])
def test_single_keys_are_flags(flag, value):
    made = validated(Comparison, by_flags(f"--config.{flag}")).model_dump()
    for part in flag.partition("=")[0].split("."):
        made = made[part]
    assert made == value


def test_mistakes_are_the_users():
    assert issubclass(ConfigError, UserError)
