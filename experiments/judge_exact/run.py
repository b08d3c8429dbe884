"""Exact unlearning before the judge: what U-LiRA, KLoM, a pair of checkpoints and adaptive requests find in S3T and SISA.

`run(config, workdir)` trains four fleets of each kind (see `fleets`), deletes, heals, keeps what they answer, and
computes every number from what was kept. Each finished fleet is kept, so the same call resumes after a kill.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from experiments.configs.judge_exact import ExactJudgement, JudgeExact
from experiments.core import progress, workdirs
from experiments.core.config import validated
from experiments.core.errors import UserError, blame_user, line
from experiments.core.machines import environment, processes, switches
from experiments.core.results import Row, Run, rows_from
from experiments.core.workdirs import Workdir
from experiments.exact import data, factory, sharing
from experiments.exact.nodes import Nodes
from experiments.judge_exact import answer_files, attacks, fleets, rows
from experiments.judge_exact.fleets import HELDOUT, ORACLE, REPEATS, ROLES, SHADOWS, Answers, Case, Fleet, Kind
from experiments.judge_exact.rows import States
from s3t.plans import structure
from s3t.training.source import Source

Told = dict[str, Any]  # what fleets left beside their answers
WORDS = {SHADOWS: "shadows", REPEATS: "repeats", ORACLE: "oracles", HELDOUT: "held-out oracles"}


def run(config: ml_collections.ConfigDict | JudgeExact, workdir: str, command: str = "") -> Run:
    """Run or resume the judgement that `config` describes; a finished workdir is read back instead.

    Returns:
      What results.json holds.

    Raises:
      UserError: a config that cannot be run; one line that says what to do.
    """
    with blame_user():
        config = validated(JudgeExact, config).resolved()
        folder = workdirs.Workdir(workdir, config.retired, JudgeExact().model_dump())
        if found := folder.finished(config.model_dump()):
            return found
        switches.settle()
        sharing.check_stack()
        seen = None if config.checkpoint else config.pretrain
        source = factory.make(config.hyper(), **config.arguments())
        _check_sizes(source, config.exact, config.slices, config.model)
        data.check_trainable(source, seen)
        held = data.load(source)
        inputs = data.inputs(source, config.checkpoint)
        as_kind = functools.partial(
            fleets.make_kind, planner=config.planner, slices=config.slices, train=config.train, full_lora=config.full_lora
        )
        fleets_in_all = [(as_kind(name, source), role) for name in config.kinds for role in ROLES]
        total = data.passes(seen) + sum(_passes(kind, role, config.exact) for kind, role in fleets_in_all)
    with folder.claimed(config.model_dump(), inputs), progress.Progress(total, "judge exact"):
        held = data.pretrained(held, config.arguments(), seen, folder.path)
        source = dataclasses.replace(held.source, most_lanes=config.lanes, turns=processes.turns)
        found_rows: list[Row] = []
        for name in config.kinds:
            found_rows += judge(fleets.make_case(as_kind(name, source), held, config.exact, config.seed), folder)
        return folder.finish(command, found_rows)


def _check_sizes(source: Source, exact: ExactJudgement, slices: int, model: str) -> None:
    """Refuse a judgement that asks for more examples or blocks than there are.

    Raises:
      UserError: one line that says what to do.
    """
    wanted, examples = exact.asked + exact.same + exact.apart + exact.requests, len(source.ids)
    if wanted > examples:
        raise UserError(
            f"exact.asked, same, apart and requests need {wanted} training examples, there are {examples}: set fewer, or a "
            "larger --config.data.train_size"
        )
    for name in ("validation", "test"):
        if not len(source.split(name)[0]):
            raise UserError(f"there are no {name} examples: set a larger --config.data.validation_fraction")
    depth = source.backbone.depth
    if slices > depth:
        raise UserError(f"slices is {slices}, but model {model!r} has {depth} blocks: set fewer slices")


# --- Fleets -----------------------------------------------------------------------------------------------------------


def judge(case: Case, workdir: Workdir) -> list[Row]:
    """Train, delete, heal and judge one kind: its rows.

    Raises:
      UserError: models that a metric cannot be computed of.
    """
    told: Told = {}
    files = {role: workdir.path / "answers" / f"{case.name}-{role}.npz" for role in ROLES}
    for role in ROLES:
        old = workdir.path / "logits" / files[role].name
        processes.first(functools.partial(answer_files.convert, old, files[role], case.y))
        progress.stage(f"{case.name}: {WORDS[role]}", _passes(case.kind, role, case.exact))
        make: Callable[[], Told] = functools.partial(_kept, case, role, told, files[role])
        told[role] = workdir.stage(f"fleet-{case.name}-{role}", make, beside=files[role])
        progress.skip()  # what was not reported had been done before
    progress.stage(f"{case.name}: attacks")
    return rows_from(workdir.stage(f"rows-{case.name}", lambda: processes.first(lambda: _attacked(case, told, files))))


def _attacked(case: Case, told: Told, files: Mapping[str, Path]) -> list[Row]:
    """What attacks find in the answers that were kept."""
    try:
        return rows.rows(case, {role: answer_files.read(files[role]) for role in ROLES}, told)
    except UserError:
        raise
    except ValueError as refused:  # a metric: models that all serve nothing, say, which few may do by chance
        raise UserError(
            f"{case.name} cannot be judged by these models ({line(refused)}): set --config.exact.models to more, or "
            "another --config.seed, and use an empty --workdir"
        ) from refused


def _kept(case: Case, role: str, told: Told, file: Path) -> Told:
    """Train and ask a fleet, and keep its answers; what it leaves beside them."""
    make = {SHADOWS: _shadows, REPEATS: _repeats, ORACLE: _oracle, HELDOUT: _heldout}[role]
    answers, left = make(case, told)
    processes.first(lambda: answer_files.write(file, answers))
    return left


def _passes(kind: Kind, role: str, exact: ExactJudgement) -> float:
    """What a fleet is expected to take: its training, and what is trained again; see `nodes.passes`."""
    plan = kind.plan

    def after(requests: int) -> float:
        """Healing all models once after so many requests that fall anywhere."""
        hit = ((node, 1 - (1 - len(node) / plan.slices) ** requests) for node in plan.nodes)
        return exact.models * sum(share * kind.passes(node) for node, share in hit)

    whole, one, stream = exact.models * sum(map(kind.passes, plan.nodes)), after(1), after(exact.requests)
    again = {
        SHADOWS: one + whole * exact.audited / exact.models,
        REPEATS: 2 * one,
        ORACLE: 2 * len(attacks.HOW) * stream,
        HELDOUT: len(attacks.HOW) * stream,
    }
    return whole + again[role]


def _trained(case: Case, role: str) -> tuple[Fleet, Nodes, Told]:
    """A fleet's models, and the seconds of one model's training."""
    fleet = fleets.make_fleet(case, role)
    with environment.stopwatch() as seconds:
        trained = fleets.train_fleet(case, fleet)
        return fleet, trained, {"train_seconds": seconds() / len(fleet.member)}


def _of_group(case: Case, fleet: Fleet) -> np.ndarray:
    """[models, training examples] bool, the whole group."""
    return np.broadcast_to(np.isin(np.arange(fleet.member.shape[1]), case.cast.asked), fleet.member.shape)


def _shadows(case: Case, _: Told) -> tuple[States, Told]:
    """Whoever holds a half of the group deletes it, and heals."""
    fleet, trained, told = _trained(case, SHADOWS)
    gone = _of_group(case, fleet)
    healed = fleets.heal(case, fleet, trained, gone)
    told["audit"] = fleets.audit(case, fleet, gone, healed, case.exact.audited)
    return _before_and_after(case, fleet, trained, gone) | {"heal": _whole(case, fleet, healed)}, told


def _repeats(case: Case, _: Told) -> tuple[States, Told]:
    """Models that hold all data delete the whole group, and once more a single example of it, and heal."""
    fleet, trained, told = _trained(case, REPEATS)
    gone = _of_group(case, fleet)
    with environment.stopwatch() as seconds:
        healed = fleets.heal(case, fleet, trained, gone)
        told["heal_seconds"] = seconds() / len(gone)
    one = np.arange(gone.shape[1]) == fleets.single(case)[:, None]
    alone = fleets.heal(case, fleet, trained, one)
    found = _before_and_after(case, fleet, trained, gone)
    return found | {"heal": _whole(case, fleet, healed), "heal_one": _whole(case, fleet, alone)}, told


def _whole(case: Case, fleet: Fleet, trained: Nodes) -> Answers:
    return fleets.answers(case, fleet, trained, [structure.served(fleet.setup.plan, ())] * len(fleet.member))


def _before_and_after(case: Case, fleet: Fleet, trained: Nodes, gone: np.ndarray) -> States:
    hit = fleets.hits(fleet, gone)
    off = fleets.answers(case, fleet, trained, fleets.switched_off(fleet, hit))
    return {"none": _whole(case, fleet, trained), "off": off}


def _oracle(case: Case, _: Told) -> tuple[States, Told]:
    """Models without the group, which adaptive streams are asked of: each of its own, and each of its neighbour's."""
    fleet, trained, told = _trained(case, ORACLE)
    states = fleets.states(case, fleet, trained)
    worlds = fleets.worlds(fleet, states)
    known, allowed = attacks.siblings(worlds.margins[0]), np.zeros(len(case.x), bool)
    allowed[: fleet.member.shape[1]] = fleet.member[0]
    found = {"states": states}
    told["streams"] = {}
    for how in attacks.HOW:
        asked = functools.partial(attacks.stream, worlds, known, allowed, how, case.exact.requests)
        chosen = processes.first(asked)
        told["streams"][how] = chosen.tolist()
        found[f"own-{how}"] = _healed_of(case, fleet, trained, chosen)
        found[f"neighbour-{how}"] = _healed_of(case, fleet, trained, attacks.neighbours(chosen))
    return found, told


def _heldout(case: Case, told: Told) -> tuple[States, Told]:
    """Models of other keys without the group, which delete what the streams asked of the oracles: oracles of theirs."""
    fleet, trained, mine = _trained(case, HELDOUT)
    found = {"states": fleets.states(case, fleet, trained)}
    for how, chosen in told[ORACLE]["streams"].items():
        found[f"own-{how}"] = _healed_of(case, fleet, trained, np.array(chosen))
    return found, mine


def _healed_of(case: Case, fleet: Fleet, trained: Nodes, chosen: np.ndarray) -> Answers:
    gone = np.zeros(fleet.member.shape, bool)
    np.put_along_axis(gone, chosen, True, axis=1)
    return _whole(case, fleet, fleets.heal(case, fleet, trained, gone))
