"""Every field of every config: outside its range a value is one line that names the key, and inside it is taken."""

import json
import math
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from experiments import main, models
from experiments.configs import begun, comparison, federated, judge, judge_exact, judged_sets, pretrain, readiness, s3t
from experiments.core import files, sections, values, workdirs
from experiments.core.config import Section, as_config, describe, dumped, expected, fields, key, limits, shown, validated
from experiments.core.errors import ConfigError
from experiments.core.machines import execution
from experiments.data import forget_sets
from experiments.judge.run import attacked_as_begun
from experiments.models.language import named
from federated.archive import LATTICES
from federated.erase import METHODS, REQUESTS
from s3t.plans import planners
from unlearn import ALGORITHMS
from unlearn.metrics.membership import FOLDS

RUNS = (comparison.Comparison, judge.Judge, judge_exact.JudgeExact, s3t.S3TStudy, pretrain.Pretrain, federated.Federated)
FILES = (readiness, judge, s3t, pretrain, federated)
DEFAULTS = {run: dumped(run()) for run in RUNS}
NAN, INFINITY = float("nan"), float("inf")


def bare(annotation):
    """A type without the None beside it and the metadata around it, and the metadata."""
    if type(None) in get_args(annotation):
        annotation = next(one for one in get_args(annotation) if one is not type(None))
    if get_origin(annotation) is Annotated:
        kind, *metadata = get_args(annotation)
        return kind, [entry for m in metadata for entry in getattr(m, "metadata", [m])]
    return annotation, []


def every_field():
    return [(run, loc, info) for run in RUNS for loc, info in fields(run)]


def numbers():
    """(run, key, field, kind, lowest, highest) of every field that is a number."""
    for run, loc, info in every_field():
        kind, metadata = bare(info.annotation)
        if kind in (int, float):
            yield run, loc, info, kind, *limits([*info.metadata, *metadata])


NUMBERS = list(numbers())


def with_value(run, loc, value):
    """The values of a run with another one at a key."""
    values = json.loads(json.dumps(DEFAULTS[run]))
    holder = values
    for part in loc[:-1]:
        holder = holder[part]
    holder[loc[-1]] = value
    return values


def refusals(run, values):
    with pytest.raises(ConfigError) as caught:
        validated(run, values)
    return caught.value.mistakes


def outside(kind, low, high):
    """Values that a number may not have."""
    below = {"max_value": low.value, "exclude_max": low.taken} if kind is float else {"max_value": low.value - low.taken}
    above = (
        {"min_value": high.value, "exclude_min": high.taken} if kind is float else {"min_value": high.value + high.taken}
    )
    draw = st.floats if kind is float else st.integers
    never = [NAN, INFINITY, -INFINITY, 2**64, -(2**64), True, "3", (1,), {}, *([low.value + 0.5] if kind is int else [])]
    return st.one_of(draw(**below), draw(**above), st.sampled_from(never))


def inside(kind, low, high):
    if kind is int:
        return st.integers(math.ceil(low.value) + (not low.taken), math.floor(high.value) - (not high.taken))
    return st.floats(low.value, high.value, exclude_min=not low.taken, exclude_max=not high.taken)


def test_every_number_is_bounded_on_both_sides():
    assert len(NUMBERS) > 150
    for run, loc, _, _, low, high in NUMBERS:
        assert math.isfinite(low.value) and math.isfinite(high.value), (run, loc)


@given(st.data())
def test_a_number_outside_its_range_is_one_line_that_names_its_key(data):
    run, loc, info, kind, low, high = data.draw(st.sampled_from(NUMBERS))
    value = data.draw(outside(kind, low, high))
    (line,) = refusals(run, with_value(run, loc, value))
    assert line == f"{key(loc)} is {shown(value)}: give {expected(info.annotation, info.metadata)}"


ABSURD = (NAN, INFINITY, -INFINITY, 2**64, -(2**64), 1e308, -1e308, 2**31, True, None, "3", (1,), {})


def test_every_number_refuses_what_is_absurd_in_one_line():
    for run, loc, info, kind, low, high in NUMBERS:
        for value in (*ABSURD, -1, 1e-320, 0):
            sensible = isinstance(value, int) or kind is float
            if type(value) in (int, float) and sensible and low.value <= value <= high.value and abs(value) != 1e-320:
                continue  # of some it is no absurdity: a seed of 2**31, say
            if value is None and type(None) in get_args(info.annotation):
                continue
            (line,) = refusals(run, with_value(run, loc, value))
            assert line.startswith(f"{key(loc)} is {shown(value)}: give "), (run, loc, value)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.data())
def test_whatever_stands_in_one_field_the_config_is_taken_or_refused_in_lines(data):
    run, loc, _ = data.draw(st.sampled_from(every_field()))
    try:
        validated(run, with_value(run, loc, data.draw(ANYTHING)))
    except ConfigError as refused:
        assert refused.mistakes and all(line.startswith("config") and "\n" not in line for line in refused.mistakes)


@given(st.data())
def test_a_number_inside_its_range_is_taken(data):
    """By its field; rules of the run may ask for more."""
    _, loc, info, kind, low, high = data.draw(st.sampled_from(NUMBERS))
    value = data.draw(inside(kind, low, high))
    if loc == ("data", "score_examples") and 0 < value < FOLDS:
        return  # 0 is all
    field = TypeAdapter(
        Annotated[info.annotation, info.description, *info.metadata], config={"strict": True, "allow_inf_nan": False}
    )
    assert field.validate_python(value) == value


@given(st.data())
def test_no_config_that_is_taken_holds_what_no_computation_can(data):
    run, loc, _ = data.draw(st.sampled_from(every_field()))
    evil = data.draw(st.sampled_from([NAN, INFINITY, -INFINITY, 2**64, -(2**64), 1e308]))
    wrapped = data.draw(
        st.sampled_from([evil, (evil,), (0.1, evil), {"a": evil}, {"class": {"target": evil}}, {"a": (1, (evil,))}])
    )
    assert refusals(run, with_value(run, loc, wrapped))


@given(st.data())
def test_an_unknown_key_is_refused_with_the_nearest(data):
    run, loc, _ = data.draw(st.sampled_from(every_field()))
    place = data.draw(st.integers(0, len(loc[-1])))
    wrong = loc[-1][:place] + "q" + loc[-1][place:]
    (line,) = refusals(run, with_value(run, (*loc[:-1], wrong), 1))
    assert line.startswith(f"{key((*loc[:-1], wrong))} is no key of this config: did you mean ") and key(loc) in line


@pytest.mark.parametrize("run", RUNS)
def test_every_field_has_a_sentence_and_is_listed(run):
    for loc, info in fields(run):
        assert info.description and info.description.endswith("."), loc
        assert f"\n{key(loc)}: " in "\n" + describe(run)


@pytest.mark.parametrize("run", RUNS)
def test_sections_come_back_from_files_as_they_were(run):
    made = run()
    assert validated(run, as_config(made)) == made
    assert as_config(made).to_dict() == dumped(made)


@pytest.mark.parametrize(
    "file, name", [(file, name) for file in FILES for name in file.EXPERIMENTS] + [(judge_exact, "digits")]
)
def test_every_shipped_config_is_taken(file, name):
    run = getattr(file, main.MODELS[file.__name__.rpartition(".")[2]])
    config = file.get_config(name)
    made = validated(run, config)
    assert made.name == name and dumped(made) == config.to_dict()


def choices(section: type[Section], name: str) -> tuple[Any, ...]:
    return get_args(section.model_fields[name].annotation)


def test_choices_are_what_there_is():
    """Configs are read before anything heavy is imported, so they name what is elsewhere."""
    assert set(choices(sections.Model, "name")) == {*models.MODELS, *named.OPTIONS, sections.FOLDER, *sections.PACKAGED}
    assert set(values.SHELF) == set(ALGORITHMS)
    assert set(get_args(s3t.Planner)) == set(planners.PLANNERS)
    assert choices(comparison.Comparison, "parallel") == execution.MODES
    assert choices(judged_sets.MemorisedSet, "tier") == forget_sets.TIERS
    assert values.LEAST_SCORED == FOLDS
    assert set(get_args(federated.Method)) == set(METHODS)
    assert get_args(federated.Request) == REQUESTS
    assert set(get_args(federated.Lattice)) == set(LATTICES)


OLD = json.loads((Path(__file__).parents[2] / "fixtures" / "configs_0_1.json").read_text())


@pytest.mark.parametrize("name", OLD)
def test_a_workdir_of_version_0_1_is_still_the_run_s(name, tmp_path):
    file, _, experiment = name.partition(":")
    run = {"readiness": comparison.Comparison, "judge": judge.Judge, "judge_exact": judge_exact.JudgeExact}.get(
        file, s3t.S3TStudy if file == "s3t" else pretrain.Pretrain
    )
    made = validated(run, globals()[file].get_config(experiment))
    files.write_json(tmp_path / "config.json", OLD[name])
    folder = workdirs.Workdir(tmp_path, getattr(made, "retired", None), DEFAULTS[run])
    if file in ("readiness", "judge"):  # what is shipped is another objective since
        made = begun.as_begun(made, made, folder.begun())
        assert begun.as_begun(made, made, folder.begun()) == made
    made = attacked_as_begun(made, folder.begun()) if file == "judge" else made
    made = made.resolved() if hasattr(made, "resolved") else made
    assert folder.finished(made.model_dump()) is None
    with folder.claimed(made.model_dump()):
        pass
    changed = made.model_copy(update={"seed": 5})
    with pytest.raises(workdirs.WorkdirError, match=r"\(config.seed differ\)"):
        folder.finished(changed.model_dump())
    if file == "judge":
        files.write_json(tmp_path / "config.json", OLD[name] | {"parallel": "pmap"})
        with pytest.raises(workdirs.WorkdirError, match=r"\(config.parallel differ\)"):
            folder.finished(made.model_dump())
