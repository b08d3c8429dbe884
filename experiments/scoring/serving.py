"""Who serves requests: the setting chosen for vanilla by a sweep, and a request carried out on lanes, part after part."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.core import forgetting, keys, progress, values, workdirs
from experiments.core.keys import Hash, Purpose
from experiments.core.machines import environment, fleet
from experiments.data.problem import Problem
from experiments.data.sets import subsample
from experiments.scoring import aims, algorithms, cost, evaluation, requests
from experiments.scoring.requests import Setting
from experiments.scoring.scorer import Scorer
from experiments.training.fleets import PER_STEP
from unlearn.base import Batch
from unlearn.until import DIVERGED, REACHED


class Served(NamedTuple):
    """How the lanes came out of a request, or of several in a row: a stop is the worst of them, steps are their sum.

    undone: of the steps, how many were taken back.  level: at which the last request of a level ended; NaN without one.
    way: the share of the way to its end that the request led, [lanes]; of several the least, NaN if one failed.
    """

    params: Any
    steps: np.ndarray
    stop: np.ndarray
    curve: dict[str, np.ndarray]
    undone: np.ndarray | int = 0
    level: np.ndarray | float = float("nan")
    way: np.ndarray | float = float("nan")


class Teachers(NamedTuple):
    """Models that never saw what is asked for, of all lanes: oracles, and proxies if some were trained."""

    oracle: Any
    proxy: Any = None


class Requests(NamedTuple):
    """Who serves requests of a problem on lanes, one per seed.

    section: how requests are carried out.
    tune_batch: examples in a step of the fine-tuning that may come before a request.
    """

    scorer: Scorer
    problem: Problem
    section: forgetting.Request
    seeds: range
    tune_batch: int
    workdir: workdirs.Workdir

    def keys(self, purpose: Purpose) -> jax.Array:
        """Raw keys of the lanes for what happens after training, the same for all ways of training."""
        return keys.raw(self.seeds, purpose)

    def work(self, name: str) -> float:
        """What a request by an algorithm is expected to take, in steps of one model."""
        return self.section.parts * (self._most(name) + self._repair(name)) * (len(self.seeds) + PER_STEP)

    def _most(self, name: str) -> int:
        section = self.section
        return section.to_level.max_steps if algorithms.ends_at_level(name) else section.max_steps

    def _repair(self, name: str) -> int:
        return self.section.repair if name == "level" else 0

    def met(self, trained: Any) -> Any:
        """The parameters that meet a request: as trained, or after fine-tuning on new data in between."""
        section, scorer = self.section, self.scorer
        if not section.tune_steps:
            return trained
        tune = evaluation.make_relearn(scorer.model, section.tune_rate, section.tune_steps, self.tune_batch, scorer.devices)
        fresh = jax.tree.map(jnp.asarray, self.problem.sets.fresh)
        return tune((trained, self.keys(Purpose.FINE_TUNING)), fresh, fresh)[0]

    def data(self, name: str) -> list[requests.RequestData]:
        """What an algorithm is asked for, in order: all at once, or in parts that share `overlap` of the part before."""
        section, problem = self.section, self.problem
        watch = subsample(problem.sets.test_retain, section.observe, Hash.OBSERVE)
        retained, parts = None, []
        if algorithms.ends_at_level(name):
            retained = jax.tree.map(jnp.asarray, self._watched())
        for forget in self._asked():
            asked, retain, watched = jax.tree.map(jnp.asarray, (forget, problem.sets.retain, watch))
            parts.append(requests.RequestData(asked, retain, watched, retained))
        return parts

    def _asked(self) -> list[Batch]:
        """Who is asked for, part by part, on the host."""
        section, problem = self.section, self.problem
        asked = requests.parts(problem.units, section.parts, section.overlap, problem.seed, problem.labels)
        return [jax.tree.map(lambda leaf: leaf[part], dict(problem.asked)) for part in asked]  # noqa: B023

    def targets(self, oracle: Any) -> jax.Array:
        """Forget accuracy at which a request is fulfilled, for each lane: 0 for a class, the oracle's for random data.

        Args:
          oracle: parameters as trained.
        """
        if self.problem.by_class:
            return jnp.zeros(len(self.seeds))
        right, _ = self.scorer.measure(self.met(oracle), self.problem.asked)
        return jnp.asarray(right.mean(axis=1), jnp.float32)

    def levels(
        self, params: Any, teachers: Teachers, asked: Batch, levels: str | None = None, *, single: bool = False
    ) -> aims.Levels:
        """The end of a request to levels, for each lane.

        Args:
          params: that meet the request.
          levels: where these are, if not where the config says.
          single: whether each example of a class has a level of its own, if another model's are asked for.
        """
        where = levels or self.section.to_level.levels
        if where == "proxy" and teachers.proxy is None:
            raise ValueError("levels of a proxy are asked for, and none was trained")
        teacher = {"proxy": teachers.proxy, "oracle": teachers.oracle}.get(where)
        teacher = None if teacher is None else self.met(teacher)  # fine-tuned if those that meet the request are
        sets = self.problem.sets
        ground = aims.Ground(self.scorer.statistics, self.problem.by_class, self._watched(), sets.validation)
        return aims.to_levels(ground, params, teacher, asked, number=values.level_number(where), single=single)

    def _watched(self) -> Batch:
        return aims.watched(self.problem.sets.retain, self.section.to_level.retained)

    def setting(self, name: str, learning_rate: float, clip: float = 0.0, **options: float) -> Setting:
        """A point of the grid."""
        most, every = self._most(name), tuple(sorted(options.items()))
        return Setting(learning_rate, clip, most, self.section.batch_size, every, self._repair(name))

    def carry_out(
        self, params: Any, teachers: Teachers, name: str, setting: Setting, levels: str | None = None
    ) -> tuple[Served, float]:
        """Carry out the request, part after part, on all lanes.

        Args:
          params: that meet the request.
          teachers: as trained, for where requests end.
          name: of the algorithm.
          levels: of unseen examples, if not as the config says.

        Returns:
          the outcome, and the program's seconds without compiling.
        """
        options = algorithms.options(self.section, name)
        run = requests.make_request(self.scorer.model, name, setting, options, self.scorer.devices)
        single = bool((options | dict(setting.options)).get("each"))
        raw, ends = self.keys(Purpose.REQUEST), self._ends(params, teachers, name, levels, single)
        steps, stop, undone = (np.zeros(len(self.seeds), int) for _ in range(3))
        curves, ways, seconds = [], [], 0.0
        for part, end in zip(self.data(name), ends, strict=True):
            with environment.stopwatch() as stopwatch:
                outcome = jax.block_until_ready(run((params, raw, end), part))
            params, seconds = outcome.state.params, seconds + stopwatch()
            steps, stop = steps + np.asarray(outcome.steps), _worst(stop, np.asarray(outcome.stop))
            undone = undone + np.asarray(outcome.undone)
            rows, lanes = {which: np.asarray(each) for which, each in outcome.curve.items()}, np.arange(len(self.seeds))
            at = lambda step: {which: each[lanes, step] for which, each in rows.items()}  # noqa: B023, E731
            way = aims.way(at(np.asarray(outcome.steps)), at(0), end)
            ways.append(np.where(stop == DIVERGED, np.nan, way))  # who failed tells nothing right
            curves.append(rows)
        joined = {which: np.concatenate([curve[which] for curve in curves], axis=1) for which in curves[0]}
        level = np.asarray(ends[-1].aim.level) if isinstance(ends[-1], aims.Levels) else float("nan")
        return Served(params, steps, stop, joined, undone, level, np.min(ways, axis=0)), seconds

    def _ends(self, params: Any, teachers: Teachers, name: str, levels: str | None, single: bool) -> list[Any]:
        """Where each part of a request ends. Levels are those of the parameters that meet the first."""
        every = self._asked()
        if algorithms.ends_at_level(name):
            return [self.levels(params, teachers, asked, levels, single=single) for asked in every]
        return [self.targets(teachers.oracle)] * len(every)

    def update_flops(self, params: Any, name: str, setting: Setting) -> float:
        """FLOPs of one update on one of the lanes, counted once."""

        def count() -> float:
            options, one = algorithms.options(self.section, name) | dict(setting.options), fleet.lane(params, 0)
            return cost.of_update(self.scorer.model, name, options, one, self.data(name)[0], setting)

        return self.workdir.stage(f"flops-{name}", count)

    def choose(self, vanilla: Any, teachers: Teachers) -> dict[str, Setting]:
        """For each unlearner whose requests end at an accuracy, the learning rate and clipping that serve vanilla best.

        Best is what keeps most of what stays (`_kept`), among the settings that fulfil the request in every lane; failing
        that, among those that fulfil it in the most lanes and lead at least half of the way (`aims.merit`).

        Args:
          vanilla, teachers: parameters as trained.
        """
        names = [name for name in self.section.unlearners if not algorithms.ends_at_level(name)]
        return {name: self._chosen(f"sweep-{name}", "vanilla", vanilla, teachers, name) for name in names}

    def choose_to_level(self, way: str, trained: Any, teachers: Teachers, name: str, levels: str | None = None) -> Setting:
        """The setting of requests to a level that serves a way of training best; every way has as many trials.

        Args:
          way: what it is called.
          trained, teachers: parameters as trained.
          levels: of unseen examples, if not as the config says.
        """
        return self._chosen(f"sweep-{way}-{name}", way, trained, teachers, name, levels)

    def _grid(self, name: str) -> list[dict[str, float]]:
        section = self.section
        if name == "level":
            rates, betas = section.to_level.learning_rates, section.to_level.betas
            return [{"learning_rate": rate, "beta": beta} for beta in betas for rate in rates]
        return [{"learning_rate": rate, "clip": clip} for clip in section.clips for rate in section.learning_rates]

    def settings(self, name: str) -> int:
        """How many settings of an algorithm are tried."""
        return len(self._grid(name))

    def _chosen(
        self, stage: str, way: str, trained: Any, teachers: Teachers, name: str, levels: str | None = None
    ) -> Setting:
        """The best point of the grid for a way of training, by a kept sweep."""
        grid = self._grid(name)

        def sweep() -> list[dict[str, Any]]:
            return [self._trial(trained, teachers, name, point, levels) for point in grid]

        progress.stage(f"try {len(grid)} settings of {name}", len(grid) * self.work(name))
        if self.workdir.has(stage):
            progress.skip()
        trials = self.workdir.stage(stage, sweep)
        best = max(trials, key=lambda trial: aims.merit(trial, _kept(trial)))
        chosen = {which: best[which] for which in grid[0]}
        self.workdir.log("sweep", unlearner=algorithms.short(name), trials=trials, chosen=chosen, selected_for=way)
        return self.setting(name, **chosen)

    def _trial(
        self, trained: Any, teachers: Teachers, name: str, point: dict[str, float], levels: str | None
    ) -> dict[str, Any]:
        served, _ = self.carry_out(self.met(trained), teachers, name, self.setting(name, **point), levels)
        right, _ = self.scorer.measure(served.params, self.problem.sets.validation_retain)
        trial = point | {
            "reached": int((served.stop == REACHED).sum()),
            "way": float(np.nan_to_num(served.way).mean()),
            "steps": served.steps,
            "validation_retain_accuracy": np.nan_to_num(right).mean(),
        }
        if self.problem.dataset.is_text:
            _, losses = self.scorer.measure(served.params, self._watched())
            trial["retained_loss"] = losses.mean() if np.isfinite(losses).all() else None
        progress.advance(self.work(name))
        return trial


def _kept(trial: dict[str, Any]) -> float:
    """How well a trial kept what stays: accuracy on validation data or, of texts, minus the loss of retained documents.

    What a language model knows by heart is what it loses; held-out documents it never knew.
    """
    if "retained_loss" not in trial:
        return float(trial["validation_retain_accuracy"])
    return -math.inf if trial["retained_loss"] is None else -float(trial["retained_loss"])


def _worst(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where((a == DIVERGED) | (b == DIVERGED), DIVERGED, np.maximum(a, b))
