"""Federated erasure: federations of several seeds, the leavers taken out by every way, each beside retraining without them.

`run(config, workdir)` chooses settings on other federations, then takes seed by seed. Each seed that is done is kept, so
the same call resumes after a kill, with the same rows but for seconds. Several processes share the seeds.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import ml_collections
import numpy as np

from experiments.configs.federated import Erasing, Federated, Leaver
from experiments.core import progress, workdirs
from experiments.core.config import validated
from experiments.core.errors import blame_user
from experiments.core.machines import processes, switches
from experiments.core.notices import LOG
from experiments.core.results import Run
from experiments.data import datasets, digests
from experiments.erasure import archives, calibration, methods, problem, rows, trial
from experiments.erasure.problem import Problem

# What older versions' configs lack, which does not count while it has its defaults.
NEW = {"erase": {"repairs": Erasing().repairs}, "leaver": Leaver().model_dump(include={"request", "label", "examples"})}
CALIBRATING = 10.0  # what a federation of calibration takes, in erasures


def run(config: ml_collections.ConfigDict | Federated, workdir: str, command: str = "") -> Run:
    """Run or resume the experiment that `config` describes; a finished workdir is read back instead.

    Returns:
      What results.json holds.

    Raises:
      UserError: a config that cannot be run; one line that says what to do.
    """
    with blame_user():
        config = validated(Federated, config)
        folder = workdirs.Workdir(workdir, config.retired, NEW)
        if found := folder.finished(config.model_dump()):
            return found
        switches.settle()
        tell_what_is_not_read(config.leaver, config.federation.weighting)
        if "medu" in methods.able(config):
            archives.check_coder()
        dataset = datasets.load(config.data)
        made = problem.make(config, dataset)
        inputs = {"data": digests.digest(dataset[1:4])}
    calibrations = CALIBRATING * config.erase.calibrations
    total = calibrations + config.seeds * trial.work(config)
    with folder.claimed(config.model_dump(), inputs, config.tracker), progress.Progress(total, "federated"):
        progress.stage("settings", calibrations)
        chosen = folder.stage("calibration", lambda: calibration.calibrate(made))
        programs = trial.programs(made, calibration.settings(chosen, config.erase.repairs))
        trials = _trials(folder, programs)
        progress.stage("rows")
        tell_what_some_seeds_lack(programs, trials)
        return folder.finish(command, rows.rows(programs, trials), facts(made, chosen, trials))


def _trials(folder: workdirs.Workdir, programs: trial.Programs) -> list[trial.Told]:
    """What each seed leads to; several processes take turns at the seeds that are lacking."""
    config = programs.problem.config
    lacking = [seed for seed in problem.seeds(config) if not folder.has(_stage(seed))]
    if done := config.seeds - len(lacking):
        progress.stage("seeds", done * trial.work(config))
        progress.skip()
    found = processes.turns([functools.partial(_trial, programs, seed) for seed in lacking], waits=False)
    trials = [folder.stage(_stage(seed), lambda: next(found)) for seed in problem.seeds(config)]
    rest = list(found)  # which ends the last turn
    assert not rest
    return trials


def _stage(seed: int) -> str:
    return f"seed-{seed}"


def _trial(programs: trial.Programs, seed: int) -> trial.Told:
    """One seed; what the others do meanwhile counts as done when the next begins."""
    progress.stage(f"seed {seed}", jax.process_count() * trial.work(programs.problem.config))
    return trial.trial(programs, seed)


def tell_what_is_not_read(leaver: Leaver, weighting: str) -> None:
    """A warning of what was set of other requests, of a backdoor nobody plants, or of a claim where clients weigh alike."""
    changed = {name for name, field in type(leaver).model_fields.items() if getattr(leaver, name) != field.default}
    of_backdoor = [name for name in ("target", "share", "stamp", "claim") if name in changed]
    readers = {"clients": ("client", "examples"), "label": ("class",), "examples": ("examples",)}
    for name, requests in readers.items():
        if leaver.request not in requests and name in changed:
            LOG.warning(
                "leaver.%s: not of request %s; set leaver.request=%s, or leave it out", name, leaver.request, requests[0]
            )
    if of_backdoor and leaver.request != "client":
        LOG.warning("leaver.%s: of a backdoor, which clients have that leave; leave it out", ", leaver.".join(of_backdoor))
    elif of_backdoor and not leaver.backdoor:
        named = ", ".join(f"leaver.{name}" for name in of_backdoor)
        LOG.warning("%s: of a backdoor alone, and the leavers are honest; set leaver.backdoor=True to plant one", named)
    elif "claim" in of_backdoor and weighting == "equal":
        LOG.warning("leaver.claim: counts where examples weigh; set federation.weighting=examples, or leave it out")


def tell_what_some_seeds_lack(programs: trial.Programs, trials: Sequence[trial.Told]) -> None:
    """A warning of ways without a row, since an older version made seeds without them."""
    every = dict.fromkeys([*(way.name for way, _ in programs.ways), *(name for told in trials for name in told["ways"])])
    if lacking := [name for name in every if name not in rows.ways(trials)]:
        LOG.warning(
            "no rows of %s: seeds of an older version have none; use an empty --workdir for them", "; ".join(lacking)
        )


def facts(made: Problem, chosen: calibration.Told, trials: Sequence[trial.Told]) -> dict[str, object]:
    """What belongs to the run and to no row: sizes, what was chosen, and among what."""
    fed, train = made.config.federation, made.dataset.train
    return {
        "parameters": made.parameters,
        "examples": len(train.id),
        "leavers_examples": [int(np.isin(part, made.going).sum()) for part in made.leaving] or [len(made.going)],
        # A byte for each pixel of an image, four for each number of a table, and one for the label.
        "raw_bytes": len(train.id) * (int(train.x[0].size) * (1 if train.x.ndim == 4 else methods.FLOAT) + 1),
        "sums_bytes": methods.sums_bytes(fed.clients, made.parameters),
        "calibration": chosen,
        "sweep": rows.swept(made.config.erase.alphas, [one["sweep"] for one in trials]),
    }
