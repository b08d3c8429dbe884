"""Train ready and unready, send deletion requests, judge what is left: one run of the readiness comparison.

`run(config, workdir)` is what the command line and a notebook call. It goes in stages - train, choose the request's
learning rate for vanilla on validation data, carry out the requests, score - and each finished stage is kept, so that the
same call resumes after a kill and ends with the same bytes.
"""

from __future__ import annotations

from typing import Any

from experiments.comparison import judging, trainings
from experiments.comparison.checks import check
from experiments.comparison.setup import Config, resolved, set_up
from experiments.core import progress, workdirs
from experiments.core.errors import blame_user
from experiments.data import datasets


def run(config: Config, workdir: str, command: str = "") -> dict[str, Any]:
    """Run or resume the comparison that `config` describes; a finished workdir is read back instead.

    Returns:
      The contents of results.json.

    Raises:
      UserError (WorkdirError and DataError among them): a config that cannot be run; one line that says what to do.
    """
    with blame_user():
        config = resolved(config)
        check(config)
        folder = workdirs.Workdir(workdir)
        if found := folder.finished(config.to_dict()):
            return found
        bench = set_up(config, folder, datasets.load(config.data))
        rehearsals = trainings.plan(bench)
    work = trainings.work(bench, rehearsals) + judging.work(bench, trainings.count(bench, rehearsals))
    # Claimed only now: a mistake in the config must not bind the folder to it.
    with folder.claimed(config.to_dict()), progress.Progress(work, "readiness"):
        fleets = trainings.train_all(bench, rehearsals)
        return folder.finish(command, judging.judge(bench, fleets))
