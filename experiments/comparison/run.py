"""Train ready and unready, send deletion requests, judge what is left: one run of the readiness comparison.

`run(config, workdir)` is what the command line and a notebook call. It goes in stages - train, choose the request's
learning rate for vanilla on validation data, carry out the requests, score - and each finished stage is kept, so that the
same call resumes after a kill and ends with the same bytes.
"""

from __future__ import annotations

import ml_collections

from experiments import models
from experiments.comparison import checks, rows, trainings
from experiments.comparison.rehearsals import rehearsal
from experiments.configs.comparison import Comparison
from experiments.core import forgetting, progress, workdirs
from experiments.core.errors import blame_user
from experiments.core.machines import execution, switches
from experiments.core.notices import LOG
from experiments.core.results import Run
from experiments.data import datasets, digests, ids, problem
from experiments.scoring import algorithms, tofu, verbatim
from experiments.scoring.scorer import Scorer
from experiments.scoring.serving import Requests
from experiments.training import fleets, neftune, privacy, room


def run(config: ml_collections.ConfigDict | Comparison, workdir: str, command: str = "") -> Run:
    """Run or resume the comparison that `config` describes; a finished workdir is read back instead.

    Returns:
      What results.json holds.

    Raises:
      UserError (WorkdirError and DataError among them): a config that cannot be run; one line that says what to do.
    """
    with blame_user():
        folder = workdirs.Workdir(workdir, defaults=Comparison().model_dump())
        config = checks.resolved(config, folder.begun)
        if found := folder.finished(config.model_dump()):
            return found
        tofu.check_begun(folder)
        switches.settle()
        dataset = datasets.load(config.data, models.classifies_text(config.model))
        datasets.check_splits(dataset, config.train.batch_size)
        if "dpsgd" in config.trainings:
            checks.check_private(dataset)
            if not config.dpsgd.shuffled:
                privacy.warn()
        rehearsed = [section.rehearsed for section in config.by_variant().values()]
        asked = problem.make(
            dataset,
            config.forget,
            score_examples=config.data.score_examples,
            halve=bool(config.request.tune_steps),
            alternatives=algorithms.are_told([*config.request.unlearners, *rehearsed]),
        )
        model = models.build(config.model, dataset.train.x[:1], dataset.classes, dataset.tokens)
        if neftune.NAME in config.trainings:
            neftune.check(model, f"trainings has {neftune.NAME!r}")
        checks.check_problem(asked, config.readiness.noise, config.request.parts, config.request.overlap)
        checks.check_own(config.request, config.by_variant(), model, asked, config.request.batch_size)
        devices = execution.make(config.parallel, fsdp=config.fsdp, convolutional=model.convolutional)
        trainer = fleets.make(
            model,
            devices,
            dataset.train,
            config.train,
            folder,
            alternatives=problem.alternatives_of(dataset, dataset.asked_as) if algorithms.are_told(rehearsed) else None,
            on_disk=config.data.stream,
            save_every=config.checkpoint_seconds,
        )
        plan = planned(config, trainer, asked)
        room.check(model, trainer.way().optimizer, trainings.most_lanes(plan))
        if dataset.is_text and (why := verbatim.lacking()):
            LOG.warning("%s: rows will have no ROUGE-L, and no model utility of TOFU", why)
        scorer = Scorer(models.as_model(model), devices, asked.sets, model.generate)
        requests = Requests(scorer, asked, config.request, plan.seeds, config.train.batch_size, folder)
        inputs = _inputs(config, dataset, asked)
    work = trainings.work(plan, config.train.steps) + rows.work(requests, config.relearn, trainings.count(plan))
    # Claimed only now: a mistake in the config must not bind the folder to it.
    with folder.claimed(config.model_dump(), inputs, config.tracker), progress.Progress(work, "readiness"):
        sizes = {name: len(getattr(dataset, name).id) for name in ("train", "validation", "test")}
        folder.log("data", name=dataset.name, classes=dataset.classes, **sizes, ids=ids.naming(config.data.model_dump()))
        proxies = trainings.train_proxies(trainer, scorer, asked, plan) if plan.wants_proxies else None
        trained = trainings.train_all(trainer, scorer, asked, plan, proxies)
        return folder.finish(command, rows.judge(requests, config.relearn, trained, proxies and proxies.params))


def planned(config: Comparison, trainer: fleets.Trainer, asked: problem.Problem) -> trainings.Plan:
    """What is trained, in which ways."""
    names = ("default", *config.variants) if "readiness" in config.trainings else ()
    return trainings.Plan(
        config.trainings,
        range(config.seed, config.seed + config.seeds),
        asked.told(config.readiness.noise),
        config.reweight,
        config.dpsgd,
        config.equal_flops,
        [rehearsal(name, config.variant(name).readiness, trainer, asked) for name in names],
        config.request.to_level.levels == "proxy",
        config.neftune,
    )


def _inputs(config: Comparison, dataset: datasets.Dataset, asked: problem.Problem) -> dict[str, str]:
    """Digests of what a run depends on beside its config; a workdir is bound to them."""
    inputs = {"data": digests.digest(dataset[1:4]), "parameters": models.digest(config.model)}
    if config.forget.setting in forgetting.ASKED_BY:  # names: whose rows they are is part of the data
        inputs["request"] = digests.of_ids(asked.asked["id"])
    if dataset.corpus is not None:
        inputs["questions"] = digests.of_queries(dataset.corpus.queries)
    return inputs
