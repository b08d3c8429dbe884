"""Results: what is written is read, an altered file is named, the schema is that of the types, version 0.1 still opens."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.core import files, results, workdirs
from experiments.core.errors import WorkdirError
from experiments.core.results import Estimate, Row, Run

ROW = Row("readiness", "wide", "ascent", "class", "digits", 3, {"a": 0.5, "b": None}, {}, 7, "reached", train_flops=1e9)


def run_of(**changes):
    return Run(
        "the command",
        {"jax": "0.10"},
        [dataclasses.replace(ROW, **changes)],
        {"sets": {"class": {"forget": 3}}, "a": Estimate(0.5)},
    )


number = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**60), 2**60)
estimates = st.builds(Estimate, number | st.none(), number | st.none(), number | st.none(), st.integers(0, 99) | st.none())
values = st.recursive(
    number | st.none() | st.booleans() | st.text() | estimates,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=5), values.filter(lambda value: "value" not in str(value)), max_size=4))
def test_what_is_written_is_read(extra):
    run = run_of(extra=extra)
    assert results.from_json(results.to_json(run)) == run


def test_arrays_are_lists_and_what_is_not_finite_is_none():
    (row,) = results.from_json(results.to_json(run_of(extra={"a": np.arange(3), "b": math.nan, "c": [math.inf]}))).rows
    assert row.extra == {"a": [0, 1, 2], "b": None, "c": [None]}
    assert Estimate.of((0.5, math.nan, math.nan, 1)) == Estimate(0.5, None, None, 1)
    assert Estimate.of((math.nan, math.nan, math.nan, 0)) == Estimate(None, None, None, 0, "no finite value")


def test_the_published_schema_is_that_of_the_types():
    assert json.loads(results.SCHEMA_FILE.read_text()) == results.json_schema(), (
        "write dumps(json_schema(), indent=1) into results.schema.json, and raise SCHEMA if old files no longer fit"
    )


def test_a_file_has_every_field_of_the_schema():
    content, schema = json.loads(results.to_json(run_of(extra={"x": Estimate(1.0)}))), results.json_schema()
    assert content.keys() == schema["properties"].keys() == set(schema["required"])
    assert content["rows"][0].keys() == schema["$defs"]["Row"]["properties"].keys()
    assert content["rows"][0]["extra"]["x"].keys() == schema["$defs"]["Estimate"]["properties"].keys()


@pytest.mark.parametrize("change, said", [
    (lambda text: text.replace('"seed": 3', '"seed": 4'), "its checksum differs"),
    (lambda text: text[:-20], "cannot be read"),
    (lambda text: text.replace('"schema": 2', '"schema": 9'), "schema 9 is of a newer version"),
    (lambda text: text.replace('"schema": 2', '"schema": 9'), "update this installation, and keep the file"),
    (lambda text: text.replace('"schema": 2', '"schema": "2"'), "schema '2' is of no version): remove it"),
    (lambda text: text.replace('"schema": 2', '"schema": 1'), "schema 1 has no checksum and no facts): remove it"),
    (lambda text: re.sub(r'"sha256": "\w+"', '"sha256": ""', text), "its checksum differs"),
    (lambda text: text.replace('"sha256"', '"sum"'), "its checksum differs"),
])  # fmt: skip
def test_an_altered_or_cut_file_is_named_in_one_line(change, said, tmp_path):
    file = tmp_path / "results.json"
    files.write_text(file, change(results.to_json(run_of())))
    with pytest.raises(WorkdirError) as caught:
        workdirs.read_results(file)
    assert str(file) in str(caught.value) and said in str(caught.value) and "\n" not in str(caught.value)


def test_another_indentation_is_no_alteration():
    text = results.to_json(run_of())
    assert results.from_json(json.dumps(json.loads(text), sort_keys=True)) == results.from_json(text)


@pytest.mark.parametrize("row, said", [
    ({"seed": "3"}, "'seed' of a row is '3'"),
    ({"seed": True}, "'seed' of a row is 'True'"),
    ({"before": {"a": "x"}}, "'before' of a row"),
    ({"odd": 1}, "a row has no 'odd'"),
    ({"stop": None}, "'stop' of a row is 'None'"),
])  # fmt: skip
def test_rows_of_other_types_are_refused(row, said):
    with pytest.raises(ValueError, match=said):
        results.row_from(files.plain(ROW) | row)
    with pytest.raises(ValueError, match="a row without 'seed'"):
        results.row_from({name: value for name, value in files.plain(ROW).items() if name != "seed"})


# Version 0.1

OLD = {
    "training": "vanilla", "variant": "default", "unlearner": "none", "dataset": "digits", "seed": 0,
    "before": {}, "after": {}, "steps": 0, "extra": {},
}  # fmt: skip


def old(**changes):
    return results.from_json(json.dumps({"schema": 1, "rows": [OLD | changes]})).rows[0]


@pytest.mark.parametrize("changes, facts", [
    ({"training": "s3t", "variant": "lattice / mean"}, {"planner": "lattice", "aggregate": "mean"}),
    ({"training": "s3t", "variant": "lattice / store"}, {"planner": "lattice", "store": True}),
    ({"training": "s3t", "variant": "one shard"}, {}),
    ({"training": "reweight", "variant": "weight=0.02"}, {"weight": 0.02}),
    ({"training": "reweight", "variant": "weight=0.02 equal_flops"}, {"weight": 0.02, "equal_flops": True}),
    ({"training": "vanilla", "variant": "equal_flops"}, {"equal_flops": True}),
    ({"training": "reweight", "extra": {"matched": True}}, {"matched": True}),
    ({"training": "heldout_oracle", "variant": "sisa, same slice off"}, {"kind": "sisa", "slice_off": True}),
    ({"training": "oracle", "variant": "s3t"}, {"kind": "s3t", "slice_off": False}),
    ({"training": "s3t", "unlearner": "off", "setting": "group"}, {"kind": "s3t", "slice_off": True}),
    ({"training": "readiness", "variant": "weight=9"}, {}),
])  # fmt: skip
def test_facts_are_read_out_of_labels_of_version_0_1_once(changes, facts):
    assert old(**changes).facts == facts


def test_values_with_intervals_of_version_0_1_become_estimates():
    auc = {
        "value": 0.5,
        "interval": [0.4, 0.6],
        "interval90": [0.45, 0.55],
        "groups": {"a": {"value": 1, "interval": [0, 2]}},
    }
    row = old(extra={
        "ulira": auc,
        "mia": {"value": 0.5, "interval": [0.4, 0.6], "lanes": 8},
        "cka": {"value": None, "interval": [None, None], "refused": "too few"},
        "storage_bytes": 8,
        "curve": [{"value": 1, "interval": [1, 1]}],
    })  # fmt: skip
    assert row.storage_bytes == 8
    assert row.extra == {
        "ulira": {
            "estimate": Estimate(0.5, 0.4, 0.6),
            "groups": {"a": Estimate(1, 0, 2)},
            "estimate90": Estimate(0.5, 0.45, 0.55),
        },
        "mia": Estimate(0.5, 0.4, 0.6, 8),
        "cka": Estimate(None, None, None, reason="too few"),
        "curve": [Estimate(1, 1, 1)],
    }


def test_what_a_judgement_of_version_0_1_repeated_in_its_rows_is_of_the_run():
    rows = [
        OLD
        | {"setting": name, "extra": {"set": {"forget": 3}, "calibration": {"shadows": {"value": 0.5, "interval": [0, 1]}}}}
        for name in ("class", "tier")
    ]
    run = results.from_json(json.dumps({"rows": rows, "command": "c", "environment": {"jax": "1"}}))
    assert run.facts == {
        "calibration": {"shadows": Estimate(0.5, 0, 1)},
        "sets": {"class": {"forget": 3}, "tier": {"forget": 3}},
    }
    assert (run.command, run.environment) == ("c", {"jax": "1"}) and run.rows[0].extra == {}
