"""Every benchmark is imported, is listed with its command, and runs at toy size."""

import argparse
import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

import experiments.benchmarks
from experiments.benchmarks import finished, judge_parts, judge_power, readiness_attacks, readiness_invariance, smoke
from unlearn import classifier

ROOT = Path(experiments.benchmarks.__file__).resolve().parents[2]
PARTS = {"smoke", "finished", "readiness_torch", "language_torch", "s3t_peft"}  # no benchmarks of their own
NAMES = sorted(file.stem for file in Path(experiments.benchmarks.__file__).parent.glob("*.py") if file.stem != "__init__")
WHOLE = [name for name in NAMES if name not in PARTS]
HAVE = {name: importlib.util.find_spec(name) is not None for name in ("torch", "peft", "transformers")}


def run(name, *words, folder):
    env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    line = [sys.executable, "-m", f"experiments.benchmarks.{name}", *words]
    return subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, timeout=1500, check=False)


@pytest.mark.parametrize("name", WHOLE)
def test_every_benchmark_is_imported_and_listed(name):
    module = importlib.import_module(f"experiments.benchmarks.{name}")
    assert callable(module.main) and f"python -m experiments.benchmarks.{name}" in module.__doc__
    listed = Path(module.__file__).with_name("README.md").read_text()
    assert f"python -m experiments.benchmarks.{name}" in listed


def test_parts_that_need_other_projects_say_so(tmp_path):
    # With torch installed the module is imported; without, one sentence says what to install.
    if HAVE["torch"]:
        assert callable(importlib.import_module("experiments.benchmarks.readiness_torch").step)
    else:
        with pytest.raises(SystemExit, match="needs torch: pip install"):
            importlib.import_module("experiments.benchmarks.readiness_torch")
        done = run("language_torch", "{}", folder=tmp_path)
        assert done.returncode and "language_torch needs torch" in done.stderr and "Traceback" not in done.stderr
    if not all(HAVE.values()):
        done = run("s3t_peft", str(tmp_path), folder=tmp_path)
        assert done.returncode and "s3t_peft needs" in done.stderr and "Traceback" not in done.stderr


def test_smoke_gives_way_to_what_is_named(monkeypatch):
    def parsed(*words):
        monkeypatch.setattr(sys, "argv", ["benchmark", *words])
        parser = argparse.ArgumentParser()
        parser.add_argument("--steps", type=int, default=100)
        parser.add_argument("--dir", default=".")
        args = smoke.parse(parser, steps=2, dir=smoke.folder)
        return args.steps, Path(args.dir)

    assert parsed() == (100, Path(".")) and parsed("--steps=7") == (7, Path("."))
    steps, folder = parsed("--smoke")
    assert steps == 2 and folder.is_dir() and not list(folder.iterdir())
    assert parsed("--smoke", "--steps=7")[0] == 7


def test_models_of_known_truth_are_drawn_once_each_and_ranked_by_what_they_saw():
    included = judge_power.paired_halves(8, 5, 0)
    assert (included[::2] != included[1::2]).all(), "of each pair one model holds an example"
    rng = np.random.default_rng(0)
    mine, theirs = judge_power.pick(8, 4, 8, True, rng)
    assert sorted([*mine, *theirs]) == list(range(8)), "of one fleet, two parts that share no model"
    mine, theirs = judge_power.pick(4, 4, 9, False, rng)
    assert sorted(mine) == list(range(4)) and len(set(theirs)) == 4 and max(theirs) < 9
    null = [float(i) for i in range(101)]
    assert judge_power.power(null, [95.0, 95.5, 96.0, 0.0]) == 0.5
    means = {"held-out": 0.1, "other recipe": 0.2, "copies": 9.0, "half": 0.5, "saw": 1.0}
    assert judge_power.ranks_right(means)
    assert not judge_power.ranks_right(means | {"other recipe": 0.6}) and not judge_power.ranks_right(means | {"saw": 0.4})


def test_an_attack_on_some_layers_moves_no_others():
    params = {f"Dense_{i}": {"bias": np.zeros(2), "kernel": np.ones((2, 2))} for i in range(3)}
    last = readiness_attacks.of_last_layer(params)
    assert last == {name: {"bias": name == "Dense_2", "kernel": name == "Dense_2"} for name in params}
    optimizer = readiness_attacks.only(optax.sgd(1.0, momentum=0.9), last)
    updates, _ = optimizer.update(jax.tree.map(np.ones_like, params), optimizer.init(params), params)
    moved = jax.tree.map(lambda leaf: bool((leaf != 0).all()), updates)
    assert moved == last


def test_every_term_stands_beside_the_request_at_its_weight_or_at_all_of_them():
    model = classifier(lambda params, x, key: x, features=lambda params, x, key: x)
    terms, weights = readiness_invariance.TERMS, readiness_invariance.GRID
    chosen = list(readiness_invariance.ways(model, ["readiness"], 9, grid=False))
    assert [(way.after, way.training) for way in chosen] == [(0, "readiness"), *[(9, "readiness")] * (1 + len(terms))]
    assert all(f", {term.chosen['readiness']:g}" in way.name for term, way in zip(terms, chosen[2:], strict=True))
    all_of_them = list(readiness_invariance.ways(model, ["vanilla", "readiness"], 9, grid=True))
    assert len({way.name for way in all_of_them}) == len(all_of_them) == 2 * (2 + len(terms) * len(weights))
    assert all({*term.chosen.values()} <= {*weights} for term in terms)


def test_what_members_lie_above_the_unseen_is_a_mean_over_models_of_either_kind():
    margins, included = (
        np.array([[3.0, 1.0], [5.0, 1.0], [1.0, 2.0], [1.0, 4.0]]),
        np.array([[1, 0], [1, 0], [0, 1], [0, 1]]),
    )
    gap, spread = judge_parts.gaps(margins, included.astype(bool))
    assert gap.tolist() == [3.0, 2.0] and spread.tolist() == [0.5**0.5, 0.5**0.5]


def test_curves_of_attacks_are_told_by_steps():
    curves = np.zeros((3, 11))
    curves[:, 5:], curves[0, 2:] = 0.5, 1.0
    assert finished.back(curves) == "67/67" and finished.steps_shown(10) == "5/10"
    assert readiness_attacks.half_back(curves) == "5" and readiness_attacks.half_back(curves[:, :4]) == "> 3"
    stays = {"y": np.array([0, 7, 2, 0]), "id": np.arange(4)}
    assert readiness_attacks.other_task(stays)["y"].tolist() == [2, 0, 7, 2]


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_every_benchmark_runs_at_toy_size(name, tmp_path):
    done = run(name, "--smoke", folder=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() and not list(tmp_path.iterdir())
