"""Predictions by the command line, and its mistakes."""

import argparse
import dataclasses
import json

import numpy as np
import pytest

from experiments.benchmarks import s3t_serve
from s3t.cli import main
from s3t.cli.arguments import predict_arguments
from s3t.service import ensemble
from s3t.store import disk
from s3t.store.ledger import database
from tests.helpers import servers
from tests.helpers.answers import twin


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return servers.full(tmp_path_factory.mktemp("template") / "store")


# the command line


def test_the_command_line_predicts(opened, capsys):
    server = servers.server(opened)
    x = servers.inputs(servers.EXAMPLES)
    for arguments, ids in ((["--ids", "3,70,3"], [3, 70, 3]), (["--split", "test"], [78, 79])):
        assert main(["predict", "--store", str(opened.root), *arguments, "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        assert list(result) == ["ids", "labels", "logits", "depth", "head", "problems"]
        assert (result["ids"], result["depth"], result["problems"]) == (ids, [4, 4], [])
        assert result["head"] == database.head(opened.ledger).digest
        np.testing.assert_allclose(result["logits"], server.predict(x[ids]).logits, rtol=1e-5, atol=1e-5)
        assert result["labels"] == np.argmax(result["logits"], axis=1).tolist()
    disk.delete(opened, servers.ids_at(opened, 0, 1)[:1])
    for aggregate in ensemble.AGGREGATES:
        assert main(["predict", "--store", str(opened.root), "--ids", "5", "--aggregate", aggregate, "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        np.testing.assert_allclose(result["logits"], twin(opened, x[5:6], aggregate)[0], rtol=1e-5, atol=1e-5)
        assert result["depth"] == [3, 4]
    assert main(["predict", "--store", str(opened.root), "--ids", "5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("5: ") and lines[1] == "depth served by shard 3, 4" and lines[2].startswith("head: ")


def test_the_command_line_names_mistakes(opened, capsys, tmp_path):
    root = str(opened.root)
    other = tmp_path / "other"
    disk.close(disk.create(other, dataclasses.replace(opened.manifest, arguments={"seed": 1})))
    told = tmp_path / "told"
    disk.close(disk.create(told, dataclasses.replace(opened.manifest, hyper={"source": {"kind": "other"}, "shapes": []})))
    empty = tmp_path / "empty"
    disk.close(disk.create(empty, opened.manifest))
    for arguments, message in (
        (["--store", root, "--ids", "5,1000"], "there is no example 1000"),
        (["--store", root, "--ids", str(10**19)], f"there is no example {10**19}"),
        (["--store", root, "--split", "night"], "there is no split 'night'"),
        (["--store", root, "--ids", "five"], "expected whole numbers between commas, got 'five'"),
        (["--store", root], "one of the arguments --ids --split is required"),
        (["--store", root, "--ids", "5", "--split", "test"], "not allowed with argument"),
        (["--store", root, "--ids", "5", "--aggregate", "median"], "invalid choice: 'median'"),
        (["--store", str(tmp_path), "--ids", "5"], "there is no store at"),
        (["--store", str(other), "--ids", "5"], "the backbone is not the one"),
        (["--store", str(told), "--ids", "5"], "the factory gives other hyper-parameters"),
        (["--store", root, "--ids", "5", "--arguments", '{"where": 1}'], "does not take these arguments"),
        (["--store", str(empty), "--ids", "5"], "needs rebuild: no shard has a model"),
    ):
        try:
            status = main(["predict", *arguments, "--json"])
        except SystemExit as exit_:
            status = exit_.code
        out, err = capsys.readouterr()
        assert (status, out, err.count("\n")) == (2, "", 1) and message in err, err


def test_the_choices_of_the_command_line_are_those_of_the_module():
    parser = argparse.ArgumentParser()
    predict_arguments(parser)
    (aggregate,) = (action for action in parser._actions if action.dest == "aggregate")
    assert aggregate.choices == ensemble.AGGREGATES


@pytest.mark.slow
def test_the_benchmark_counts_no_program(tmp_path):
    lines = s3t_serve.report(tmp_path / "store", "digits", batch_size=2, rounds=1)
    assert lines.startswith("digits, batches of 2: plain ") and lines.endswith("programs compiled meanwhile 0")
