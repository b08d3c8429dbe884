"""Who serves requests: the setting chosen for vanilla by a sweep, and a request carried out on lanes, part after part."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.core import environment, fleet, keys, progress, sections, workdirs
from experiments.core.keys import Hash, Purpose
from experiments.data.problem import Problem
from experiments.data.sets import subsample
from experiments.scoring import algorithms, cost, evaluation, requests
from experiments.scoring.requests import Setting
from experiments.scoring.scorer import Scorer
from experiments.training.fleets import PER_STEP
from unlearn.until import DIVERGED, REACHED


class Served(NamedTuple):
    """How the lanes came out of a request, or of several in a row: a stop is the worst of them, steps are their sum."""

    params: Any
    steps: np.ndarray
    stop: np.ndarray
    curve: dict[str, np.ndarray]


class Requests(NamedTuple):
    """Who serves requests of a problem on lanes, one per seed.

    section: how requests are carried out.
    tune_batch: examples in a step of the fine-tuning that may come before a request.
    """

    scorer: Scorer
    problem: Problem
    section: sections.Request
    seeds: range
    tune_batch: int
    workdir: workdirs.Workdir

    def keys(self, purpose: Purpose) -> jax.Array:
        """Raw keys of the lanes for what happens after training, the same for all ways of training."""
        return keys.raw(self.seeds, purpose)

    @property
    def work(self) -> float:
        """What a request is expected to take, in steps of one model."""
        return self.section.parts * self.section.max_steps * (len(self.seeds) + PER_STEP)

    def met(self, trained: Any) -> Any:
        """The parameters that meet a request: as trained, or after fine-tuning on new data in between."""
        section, scorer = self.section, self.scorer
        if not section.tune_steps:
            return trained
        tune = evaluation.make_relearn(scorer.model, section.tune_rate, section.tune_steps, self.tune_batch, scorer.devices)
        fresh = jax.tree.map(jnp.asarray, self.problem.sets.fresh)
        return tune((trained, self.keys(Purpose.FINE_TUNING)), fresh, fresh)[0]

    def data(self) -> list[requests.RequestData]:
        """What is asked for, in order: all at once, or in parts that share `overlap` of the part before."""
        section, problem = self.section, self.problem
        watch = subsample(problem.sets.test_retain, section.observe, Hash.OBSERVE)
        parts = []
        for asked in requests.parts(problem.asked["id"], section.parts, section.overlap, problem.seed):
            forget = {name: leaf[asked] for name, leaf in problem.asked.items()}
            parts.append(requests.RequestData(*jax.tree.map(jnp.asarray, (forget, problem.sets.retain, watch))))
        return parts

    def targets(self, oracle: Any) -> jax.Array:
        """Forget accuracy at which a request is fulfilled, for each lane: 0 for a class, the oracle's for random data.

        Args:
          oracle: parameters as trained.
        """
        if self.problem.by_class:
            return jnp.zeros(len(self.seeds))
        right, _ = self.scorer.measure(self.met(oracle), self.problem.asked)
        return jnp.asarray(right.mean(axis=1), jnp.float32)

    def setting(self, learning_rate: float, clip: float) -> Setting:
        """A point of the grid."""
        return Setting(learning_rate, clip, self.section.max_steps, self.section.batch_size)

    def carry_out(self, params: Any, oracle: Any, name: str, setting: Setting) -> tuple[Served, float]:
        """Carry out the request, part after part, on all lanes.

        Args:
          params: that meet the request.
          oracle: parameters as trained, for `targets`.
          name: of the algorithm.

        Returns:
          the outcome, and the program's seconds without compiling.
        """
        options = algorithms.options(self.section, name)
        run = requests.make_request(self.scorer.model, name, setting, options, self.scorer.devices)
        raw, targets = self.keys(Purpose.REQUEST), self.targets(oracle)
        steps, stop, curves, seconds = np.zeros(len(self.seeds), int), np.zeros(len(self.seeds), int), [], 0.0
        for part in self.data():
            with environment.stopwatch() as stopwatch:
                outcome = jax.block_until_ready(run((params, raw, targets), part))
            params, seconds = outcome.state.params, seconds + stopwatch()
            steps, stop = steps + np.asarray(outcome.steps), _worst(stop, np.asarray(outcome.stop))
            curves.append(outcome.curve)
        joined = {which: np.concatenate([np.asarray(curve[which]) for curve in curves], axis=1) for which in curves[0]}
        return Served(params, steps, stop, joined), seconds

    def update_flops(self, params: Any, name: str, setting: Setting) -> float:
        """FLOPs of one update on one of the lanes, counted once."""

        def count() -> float:
            options, one = algorithms.options(self.section, name), fleet.lane(params, 0)
            return cost.of_update(self.scorer.model, name, options, one, self.data()[0], setting)

        return self.workdir.stage(f"flops-{name}", count)

    def choose(self, vanilla: Any, oracle: Any) -> dict[str, Setting]:
        """For each unlearner, the learning rate and clipping that serve vanilla best on validation data, by a kept sweep.

        Best is the highest mean accuracy on the validation examples that stay, among the settings that fulfil the request
        in every lane; failing that, among those that fulfil it in the most lanes.

        Args:
          vanilla, oracle: parameters as trained.
        """
        settings, grid = {}, [(rate, clip) for clip in self.section.clips for rate in self.section.learning_rates]
        for name in self.section.unlearners:

            def sweep(name: str = name) -> list[dict[str, Any]]:
                return [self._trial(vanilla, oracle, name, *point) for point in grid]

            progress.stage(f"try {len(grid)} settings of {name}", len(grid) * self.work)
            if self.workdir.has(f"sweep-{name}"):
                progress.skip()
            trials = self.workdir.stage(f"sweep-{name}", sweep)
            best = max(trials, key=lambda t: (t["reached"], t["validation_retain_accuracy"]))
            chosen = {which: best[which] for which in ("learning_rate", "clip")}
            settings[name] = self.setting(**chosen)
            short = algorithms.short(name)
            self.workdir.log("sweep", unlearner=short, trials=trials, chosen=chosen, selected_for="vanilla")
        return settings

    def _trial(self, vanilla: Any, oracle: Any, name: str, learning_rate: float, clip: float) -> dict[str, Any]:
        served, _ = self.carry_out(self.met(vanilla), oracle, name, self.setting(learning_rate, clip))
        right, _ = self.scorer.measure(served.params, self.problem.sets.validation_retain)
        progress.advance(self.work)
        return {
            "learning_rate": learning_rate,
            "clip": clip,
            "reached": int((served.stop == REACHED).sum()),
            "steps": served.steps,
            "validation_retain_accuracy": np.nan_to_num(right).mean(),
        }


def _worst(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where((a == DIVERGED) | (b == DIVERGED), DIVERGED, np.maximum(a, b))
