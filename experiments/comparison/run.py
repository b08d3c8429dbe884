"""Train ready and unready, send deletion requests, judge what is left: one run of the readiness comparison.

`run(config, workdir)` is what the command line and a notebook call. It goes in stages - train, choose the request's
learning rate for vanilla on validation data, carry out the requests, score - and each finished stage is kept, so that the
same call resumes after a kill and ends with the same bytes.
"""

from __future__ import annotations

import ml_collections

from experiments.comparison import judging, trainings
from experiments.comparison.setup import resolved, set_up
from experiments.configs.readiness import Comparison
from experiments.core import progress, workdirs
from experiments.core.errors import blame_user
from experiments.core.results import Run
from experiments.data import datasets, ids


def run(config: ml_collections.ConfigDict | Comparison, workdir: str, command: str = "") -> Run:
    """Run or resume the comparison that `config` describes; a finished workdir is read back instead.

    Returns:
      What results.json holds.

    Raises:
      UserError (WorkdirError and DataError among them): a config that cannot be run; one line that says what to do.
    """
    with blame_user():
        config = resolved(config)
        folder = workdirs.Workdir(workdir)
        if found := folder.finished(config.model_dump()):
            return found
        dataset = datasets.load(config.data)
        bench = set_up(config, folder, dataset)
        rehearsals = trainings.plan(bench)
    work = trainings.work(bench, rehearsals) + judging.work(bench, trainings.count(bench, rehearsals))
    # Claimed only now: a mistake in the config must not bind the folder to it.
    with folder.claimed(config.model_dump()), progress.Progress(work, "readiness"):
        sizes = {name: len(getattr(dataset, name).id) for name in ("train", "validation", "test")}
        folder.log("data", name=dataset.name, classes=dataset.classes, **sizes, ids=ids.naming(config.data.model_dump()))
        fleets = trainings.train_all(bench, rehearsals)
        return folder.finish(command, judging.judge(bench, fleets))
