"""Exact unlearning before the judge: what U-LiRA, KLoM, a pair of checkpoints and adaptive requests find in S3T and SISA.

`run(config, workdir)` trains four fleets of each kind (see `judge_exact_fleet`), deletes, heals, keeps their logits, and
computes every number from what was kept. Each finished fleet is kept, so the same call resumes after a kill.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np
from tqdm import tqdm

from experiments.configs.judge_exact import JudgeExact
from experiments.core import environment, workdirs
from experiments.core.config import validated
from experiments.core.errors import UserError, blame_user, line
from experiments.core.results import Row, Run, rows_from
from experiments.exact import context, factory
from experiments.exact.context import Nodes
from experiments.judge import metrics
from experiments.judge_exact import attacks, fleets, rows
from experiments.judge_exact.fleets import HELDOUT, ORACLE, REPEATS, ROLES, SHADOWS, Case, Fleet
from experiments.judge_exact.rows import Logits
from s3t.plans import structure
from s3t.training.source import Source


def run(config: ml_collections.ConfigDict | JudgeExact, workdir: str, command: str = "") -> Run:
    """Run or resume the judgement that `config` describes; a finished workdir is read back instead.

    Returns:
      What results.json holds.

    Raises:
      UserError: a config that cannot be run; one line that says what to do.
    """
    with blame_user():
        config = validated(JudgeExact, config).resolved()
        folder = workdirs.Workdir(workdir, config.retired)
        if found := folder.finished(config.model_dump()):
            return found
        source = look(config)
    with folder.claimed(config.model_dump()):
        bench = context.set_up(config, folder, source)
        rows = [row for kind in config.kinds for row in judge(fleets.make_case(kind, bench))]
        return folder.finish(command, rows)


def look(config: JudgeExact) -> Source:
    """The data, with the given backbone or a random one, refused if they will not do.

    Raises:
      ValueError (DataError among them): one line that says what to do.
    """
    source = factory.make(context.hyper(config), **context.arguments_of(config))
    one, examples = config.exact, len(source.ids)
    if one.asked + one.same + one.apart + one.requests > examples:
        raise UserError(
            f"exact.asked, same, apart and requests need {one.asked + one.same + one.apart + one.requests} training "
            f"examples, there are {examples}: set fewer, or a larger --config.data.train_size"
        )
    for name in ("validation", "test"):
        if not len(source.split(name)[0]):
            raise UserError(f"there are no {name} examples: set a larger --config.data.validation_fraction")
    depth = source.backbone.depth
    if config.slices > depth:
        raise UserError(f"slices is {config.slices}, but model {config.model!r} has {depth} blocks: set fewer slices")
    context.check_source(config, source)
    return source


# --- Fleets -----------------------------------------------------------------------------------------------------------


def judge(case: Case) -> list[Row]:
    """Train, delete, heal and judge one kind: its rows.

    Raises:
      UserError: models that a metric cannot be computed of.
    """
    told: dict[str, Any] = {}
    with tqdm(ROLES, desc=f"fleets of {case.name}", unit="fleet") as bar:
        for role in bar:
            make = {SHADOWS: _shadows, REPEATS: _repeats, ORACLE: _oracle, HELDOUT: _heldout}[role]
            told[role] = _kept(case, role, lambda make=make: make(case, told))
    kept = {role: metrics.read(_file(case, role)) for role in ROLES}
    try:
        return rows_from(case.bench.workdir.stage(f"rows-{case.name}", lambda: rows.rows(case, kept, told)))
    except UserError:
        raise
    except ValueError as refused:  # a metric: models that all serve nothing, say, which few may do by chance
        raise UserError(
            f"{case.name} cannot be judged by these models ({line(refused)}): set --config.exact.models to more, or "
            "another --config.seed, and use an empty --workdir"
        ) from refused


def _file(case: Case, role: str) -> Path:
    return case.bench.workdir.path / "logits" / f"{case.name}-{role}.npz"


def _kept(case: Case, role: str, make: Callable[[], tuple[Logits, dict[str, Any]]]) -> dict[str, Any]:
    def compute() -> dict[str, Any]:
        logits, told = make()
        metrics.keep(_file(case, role), logits)
        return told

    return case.bench.workdir.stage(f"fleet-{case.name}-{role}", compute, beside=_file(case, role))


def _trained(case: Case, role: str) -> tuple[Fleet, Nodes, dict[str, Any]]:
    """A fleet's models, and the seconds of one model's training."""
    fleet = fleets.make_fleet(case, role)
    with environment.stopwatch() as seconds:
        nodes = fleets.train_fleet(case, fleet)
        return fleet, nodes, {"train_seconds": seconds() / len(fleet.member)}


def _of_group(case: Case, fleet: Fleet) -> np.ndarray:
    """[models, training examples] bool, the whole group."""
    return np.broadcast_to(np.isin(np.arange(fleet.member.shape[1]), case.cast.asked), fleet.member.shape)


def _shadows(case: Case, _: dict[str, Any]) -> tuple[Logits, dict[str, Any]]:
    """Whoever holds a half of the group deletes it, and heals."""
    fleet, nodes, told = _trained(case, SHADOWS)
    gone = _of_group(case, fleet)
    healed = fleets.heal(case, fleet, nodes, gone)
    told["audit"] = fleets.audit(case, fleet, gone, healed, case.bench.config.exact.audited)
    return _before_and_after(case, fleet, nodes, gone) | {"heal": _whole(case, fleet, healed)}, told


def _repeats(case: Case, _: dict[str, Any]) -> tuple[Logits, dict[str, Any]]:
    """Models that hold all data delete the whole group, and once more a single example of it, and heal."""
    fleet, nodes, told = _trained(case, REPEATS)
    gone = _of_group(case, fleet)
    with environment.stopwatch() as seconds:
        healed = fleets.heal(case, fleet, nodes, gone)
        told["heal_seconds"] = seconds() / len(gone)
    one = np.arange(gone.shape[1]) == fleets.single(case)[:, None]
    alone = fleets.heal(case, fleet, nodes, one)
    found = _before_and_after(case, fleet, nodes, gone)
    return found | {"heal": _whole(case, fleet, healed), "heal_one": _whole(case, fleet, alone)}, told


def _whole(case: Case, fleet: Fleet, nodes: Nodes) -> np.ndarray:
    return fleets.logits(case, fleet, nodes, [structure.served(fleet.setup.plan, ())] * len(fleet.member))


def _before_and_after(case: Case, fleet: Fleet, nodes: Nodes, gone: np.ndarray) -> Logits:
    hit = fleets.hits(fleet, gone)
    off = fleets.logits(case, fleet, nodes, fleets.switched_off(fleet, hit))
    return {"none": _whole(case, fleet, nodes), "off": off}


def _oracle(case: Case, _: dict[str, Any]) -> tuple[Logits, dict[str, Any]]:
    """Models without the group, which adaptive streams are asked of: each of its own, and each of its neighbour's."""
    fleet, nodes, told = _trained(case, ORACLE)
    states = fleets.states(case, fleet, nodes)
    worlds, config = fleets.worlds(case, fleet, states), case.bench.config.exact
    known, allowed = attacks.siblings(worlds.margins[0]), np.zeros(len(case.x), bool)
    allowed[: fleet.member.shape[1]] = fleet.member[0]
    found = {"states": states}
    told["streams"] = {}
    for how in attacks.HOW:
        chosen = attacks.stream(worlds, known, allowed, how, config.requests)
        told["streams"][how] = chosen.tolist()
        found[f"own-{how}"] = _healed_of(case, fleet, nodes, chosen)
        found[f"neighbour-{how}"] = _healed_of(case, fleet, nodes, attacks.neighbours(chosen))
    return found, told


def _heldout(case: Case, told: dict[str, Any]) -> tuple[Logits, dict[str, Any]]:
    """Models of other keys without the group, which delete what the streams asked of the oracles: oracles of theirs."""
    fleet, nodes, mine = _trained(case, HELDOUT)
    found = {"states": fleets.states(case, fleet, nodes)}
    for how, chosen in told[ORACLE]["streams"].items():
        found[f"own-{how}"] = _healed_of(case, fleet, nodes, np.array(chosen))
    return found, mine


def _healed_of(case: Case, fleet: Fleet, nodes: Nodes, chosen: np.ndarray) -> np.ndarray:
    gone = np.zeros(fleet.member.shape, bool)
    np.put_along_axis(gone, chosen, True, axis=1)
    return _whole(case, fleet, fleets.heal(case, fleet, nodes, gone))
