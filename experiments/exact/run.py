"""Build a store, delete a stream of examples, heal, and judge S3T beside its peers.

`run(config, workdir)` is what the command line and a notebook call. Every finished stage is kept, a store resumes by
itself, and a repeated deletion is answered as it was: the same call goes on after a kill.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import ml_collections

from experiments.configs.s3t import S3TStudy
from experiments.core import progress, workdirs
from experiments.core.config import validated
from experiments.core.errors import blame_user
from experiments.core.machines import processes, switches
from experiments.core.results import Row, Run
from experiments.exact import baselines, curves, data, factory, nodes, sharing, store
from experiments.exact.nodes import Builder
from experiments.exact.pages import report
from experiments.exact.sources import questions
from experiments.exact.store import Design
from s3t.training import arrangement
from s3t.training.source import Source


def run(config: ml_collections.ConfigDict | S3TStudy, workdir: str, command: str = "") -> Run:
    """Run or resume what `config` describes; a finished workdir is read back instead.

    Returns:
      What results.json holds.

    Raises:
      UserError (WorkdirError and DataError among them): a config that cannot be run; one line that says what to do.
    """
    with blame_user():
        config = validated(S3TStudy, config).resolved()
        plan = store.make_plan(config.planner, config.slices, config.budget)
        folder = workdirs.Workdir(workdir, config.retired, S3TStudy().model_dump())
        if found := folder.finished(config.model_dump()):
            return found
        switches.settle()
        sharing.check_stack()
        seen = None if config.given else config.pretrain
        seeds = range(config.seed, config.seed + config.seeds)  # the first one's store is kept and deleted from
        source = factory.make(config.hyper(), **config.arguments())
        _check_sizes(source, max(config.deletions, *config.retrain_after, 0))
        _check_slices(source, config.shards, config.slices, seeds)
        data.check_trainable(source, seen)
        asked = questions.of(source)
        held = questions.among(data.load(source), asked)
        inputs = data.inputs(source, config.checkpoint, config.given) | ({"questions": asked.digest} if asked else {})
    builder = Builder(source, config.shards, config.slices, config.train, config.full_lora)
    arguments = config.arguments() | (data.beside(seen) if seen else {})
    design = Design(config.planner, plan, config.seed, arguments, config.deletions)
    after = sorted({0, *config.retrain_after})
    of_seed = curves.passes(builder, config.study) + baselines.passes(builder, len(after))
    total = data.passes(seen) + store.passes(held, builder, design) + len(seeds) * of_seed
    with folder.claimed(config.model_dump(), inputs), progress.Progress(total, "s3t"):
        held = data.pretrained(held, config.arguments(), seen, folder.path)
        builder = dataclasses.replace(builder, source=dataclasses.replace(held.source, turns=processes.turns))
        built = store.build(folder, held, builder, design)
        rows: list[Row] = []
        for seed in seeds:
            rows += curves.rows(folder, held, builder, config.study, seed)
            rows += baselines.rows(folder, held, builder, config.study, after, seed)
        return folder.finish(command, [store.row(folder, held, builder, design, built), *rows])


def _check_sizes(source: Source, deletions: int) -> None:
    """Refuse more deletions than there are examples, and data without examples to choose settings on."""
    if deletions >= len(source.ids):
        raise ValueError(f"{deletions} deletions are asked of {len(source.ids)} training examples: ask for fewer")
    if not len(source.split("validation")[0]):
        raise ValueError("settings are chosen on validation data: set data.validation_fraction above 0")


def _check_slices(source: Source, shards: int, slices: int, seeds: Iterable[int]) -> None:
    """Refuse a partition with a slice that holds nobody."""
    for seed in seeds:
        if not arrangement.counts(nodes.places(source, shards, slices, seed), shards, slices).all():
            raise ValueError(f"with seed {seed} a slice has no example: set shards or slices lower")


def present(workdir: str, found: Run) -> str:
    """Write the report of a finished run; what the command line prints of it."""
    return report.present(workdir, found)
