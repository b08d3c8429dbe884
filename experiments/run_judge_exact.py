"""Exact unlearning before the judge: what U-LiRA, KLoM, a pair of checkpoints and adaptive requests find in S3T and SISA.

`run(config, workdir)` trains four fleets of each kind (see `judge_exact_fleet`), deletes, heals, keeps their logits, and
computes every number from what was kept. Each finished fleet is kept, so the same call resumes after a kill.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from experiments import checks, data, judge_exact, judge_metrics, results, s3t_bench, s3t_factory
from experiments import judge_exact_fleet as fleets
from experiments.configs import judge_exact as configs
from experiments.errors import UserError, blame_user
from experiments.judge_exact_fleet import HELDOUT, ORACLE, REPEATS, ROLES, SHADOWS, Case, Fleet
from experiments.s3t_bench import Config, Nodes
from s3t import plan as plans
from s3t import planners
from s3t.source import Source
from unlearn.metrics import scores

KINDS = ("s3t", "sisa")
LEAST = {
    "exact.models": 12,  # intervals need ten models, and each half of the shadows three of either kind
    "exact.asked": 3,
    "exact.same": 1,
    "exact.apart": 1,
    "exact.requests": 1,
    "exact.resamples": 20,
    "exact.audited": 0,
    "slices": 2,
    "lora.rank": 1,
    "train.epochs": 1,
    "train.batch_size": 1,
    "full_lora.epochs": 1,
    "lanes": 1,
    "cache_bytes": 0,
}
PAIRS = 200  # of a model and an example, half of them without it: for a true-positive rate at 1%
MOST_SLICES = 6  # the logits of all 2^L states of every model are held at once
Logits = dict[str, np.ndarray]
Row = dict[str, Any]


def run(config: Config, workdir: str, command: str = "") -> dict[str, Any]:
    """Run or resume the judgement that `config` describes; a finished workdir is read back instead.

    Returns:
      The contents of results.json.

    Raises:
      UserError: a config that cannot be run; one line that says what to do.
    """
    with blame_user():
        checks.check_keys(config, configs.get_config())
        config = s3t_bench.resolved(config)
        checks.check_values(config)
        check(config)
        folder = results.Workdir(workdir)
        if found := folder.finished(config.to_dict()):
            return found
        source = look(config)
    with folder.claimed(config.to_dict()):
        bench = s3t_bench.set_up(config, folder, source)
        rows = [row for kind in config.kinds for row in judge(fleets.make_case(kind, bench))]
        return folder.finish(command, rows)


def check(config: Config) -> None:
    """Refuse what a judgement cannot work with.

    Raises:
      UserError: one line that says what to do.
    """
    flat = config.to_dict()
    for name, least in LEAST.items():
        section, _, key = name.rpartition(".")
        value = (flat[section] if section else flat)[key]
        if value < least:
            raise UserError(f"{name} is {value}: set --config.{name} to {least} or more")
    kinds = tuple(config.kinds)
    if not kinds or len(set(kinds)) < len(kinds) or set(kinds) - set(KINDS):
        raise UserError(f"kinds is {kinds}: give one or both of {', '.join(KINDS)}, each once")
    if config.slices > MOST_SLICES:
        raise UserError(f"slices is {config.slices}: set --config.slices to {MOST_SLICES} or less")
    if config.planner not in planners.PLANNERS:
        raise UserError(f"planner {config.planner!r} is unknown; choose from {', '.join(planners.PLANNERS)}")
    one = config.exact
    if one.models * one.asked < PAIRS:
        raise UserError(
            f"{one.models} models asked for {one.asked} examples are too few: set --config.exact.asked to "
            f"{-(-PAIRS // one.models)} or more"
        )
    if one.audited > one.models:
        raise UserError(f"exact.audited is {one.audited} of {one.models} models: set --config.exact.audited to fewer")
    if not config.checkpoint:
        s3t_bench.check_pretraining(config)


def look(config: Config) -> Source:
    """The data, with the given backbone or a random one, refused if they will not do.

    Raises:
      ValueError (DataError among them): one line that says what to do.
    """
    source = s3t_factory.make(s3t_bench.hyper(config), **s3t_bench.arguments_of(config))
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
    s3t_bench.check_source(config, source)
    return source


# --- Fleets -----------------------------------------------------------------------------------------------------------


def judge(case: Case) -> list[Row]:
    """Train, delete, heal and judge one kind: its rows."""
    told: dict[str, Any] = {}
    with tqdm(ROLES, desc=f"fleets of {case.name}", unit="fleet") as bar:
        for role in bar:
            make = {SHADOWS: _shadows, REPEATS: _repeats, ORACLE: _oracle, HELDOUT: _heldout}[role]
            told[role] = _kept(case, role, lambda make=make: make(case, told))
    kept = {role: fleets.load(_file(case, role)) for role in ROLES}
    return case.bench.workdir.stage(f"rows-{case.name}", lambda: _rows(case, kept, told))


def _file(case: Case, role: str) -> Path:
    return case.bench.workdir.path / "logits" / f"{case.name}-{role}.npz"


def _kept(case: Case, role: str, make: Callable[[], tuple[Logits, dict[str, Any]]]) -> dict[str, Any]:
    def compute() -> dict[str, Any]:
        logits, told = make()
        judge_metrics.keep(_file(case, role), logits)
        return told

    return case.bench.workdir.stage(f"fleet-{case.name}-{role}", compute, beside=_file(case, role))


def _trained(case: Case, role: str) -> tuple[Fleet, Nodes, dict[str, Any]]:
    """A fleet's models, and the seconds of one model's training."""
    fleet = fleets.make_fleet(case, role)
    with results.stopwatch() as seconds:
        nodes = fleets.train_fleet(case, fleet)
        return fleet, nodes, {"train_seconds": seconds() / len(fleet.member)}


def _of_group(case: Case, fleet: Fleet) -> np.ndarray:
    """[models, training examples] bool, the whole group."""
    return np.broadcast_to(np.isin(np.arange(fleet.member.shape[1]), case.cast.asked), fleet.member.shape)


def _group_off(case: Case, fleet: Fleet) -> np.ndarray:
    """[models] bit mask of the group's slice, whether or not a model holds any of it."""
    return 1 << fleet.slice_of[:, case.cast.asked[0]]


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
    with results.stopwatch() as seconds:
        healed = fleets.heal(case, fleet, nodes, gone)
        told["heal_seconds"] = seconds() / len(gone)
    one = np.arange(gone.shape[1]) == single(case)[:, None]
    alone = fleets.heal(case, fleet, nodes, one)
    found = _before_and_after(case, fleet, nodes, gone)
    return found | {"heal": _whole(case, fleet, healed), "heal_one": _whole(case, fleet, alone)}, told


def single(case: Case) -> np.ndarray:
    """[models] position of the one example of the group that each repeat deletes, by a hash of the ids."""
    ids, config = case.setup.source.ids[case.cast.asked], case.bench.config
    drawn = [data.hash_uniform(ids, f"deleted by {model}", config.seed).argmin() for model in range(config.exact.models)]
    return case.cast.asked[drawn]


def _whole(case: Case, fleet: Fleet, nodes: Nodes) -> np.ndarray:
    return fleets.logits(case, fleet, nodes, [plans.served(fleet.setup.plan, ())] * len(fleet.member))


def _before_and_after(case: Case, fleet: Fleet, nodes: Nodes, gone: np.ndarray) -> Logits:
    hit = fleets.hits(fleet, gone)
    off = fleets.logits(case, fleet, nodes, fleets.switched_off(fleet, hit))
    return {"none": _whole(case, fleet, nodes), "off": off}


def _oracle(case: Case, _: dict[str, Any]) -> tuple[Logits, dict[str, Any]]:
    """Models without the group, which adaptive streams are asked of: each of its own, and each of its neighbour's."""
    fleet, nodes, told = _trained(case, ORACLE)
    states = fleets.states(case, fleet, nodes)
    worlds, config = _worlds(case, fleet, states), case.bench.config.exact
    known, allowed = judge_exact.siblings(worlds.margins[0]), np.zeros(len(case.x), bool)
    allowed[: fleet.member.shape[1]] = fleet.member[0]
    found = {"states": states}
    told["streams"] = {}
    for how in judge_exact.HOW:
        chosen = judge_exact.stream(worlds, known, allowed, how, config.requests)
        told["streams"][how] = chosen.tolist()
        found[f"own-{how}"] = _healed_of(case, fleet, nodes, chosen)
        found[f"neighbour-{how}"] = _healed_of(case, fleet, nodes, _neighbours(chosen))
    return found, told


def _heldout(case: Case, told: dict[str, Any]) -> tuple[Logits, dict[str, Any]]:
    """Models of other keys without the group, which delete what the streams asked of the oracles: oracles of theirs."""
    fleet, nodes, mine = _trained(case, HELDOUT)
    found = {"states": fleets.states(case, fleet, nodes)}
    for how, chosen in told[ORACLE]["streams"].items():
        found[f"own-{how}"] = _healed_of(case, fleet, nodes, np.array(chosen))
    return found, mine


def _neighbours(chosen: np.ndarray) -> np.ndarray:
    """To each model the requests that another's answers gave rise to."""
    return np.roll(chosen, 1, axis=0)


def _healed_of(case: Case, fleet: Fleet, nodes: Nodes, chosen: np.ndarray) -> np.ndarray:
    gone = np.zeros(fleet.member.shape, bool)
    np.put_along_axis(gone, chosen, True, axis=1)
    return _whole(case, fleet, fleets.heal(case, fleet, nodes, gone))


def _worlds(case: Case, fleet: Fleet, states: np.ndarray) -> judge_exact.Worlds:
    margins = np.stack([scores.margin(state, case.y) for state in states])
    return judge_exact.Worlds(margins, plans.depth_table(fleet.setup.plan), fleet.slice_of)


# --- Rows -------------------------------------------------------------------------------------------------------------


def _rows(case: Case, kept: dict[str, Logits], told: dict[str, Any]) -> list[Row]:
    """One line of results.json for each state of each fleet; every metric as {"value", "interval"}."""
    fleet = {role: fleets.make_fleet(case, role) for role in ROLES}
    models = np.arange(len(case.included))
    for role in (ORACLE, HELDOUT):
        states = kept[role]["states"]
        kept[role] |= {"none": states[0], "off": states[_group_off(case, fleet[role]), models]}
    margins = {role: _margins_of(case, logits) for role, logits in kept.items()}
    shadows, repeats, oracle, heldout = (margins[role] for role in ROLES)
    tier = judge_exact.tiers(shadows["none"][:, case.cast.asked], case.included)
    seen_off = shadows["off"].copy()  # who never held an example has switched nothing off for its sake
    seen_off[:, case.cast.asked] = np.where(
        case.included, *(shadows[state][:, case.cast.asked] for state in ("off", "none"))
    )

    def row(training: str, variant: str, unlearner: str, of: tuple[str, str], **extra: Any) -> Row:
        return _row(case, training, variant, unlearner, kept[of[0]], of[1], told) | {"extra": extra}

    attack = lambda found: _ulira(case, found, tier)  # noqa: E731
    near = lambda found, reference: _klom(case, found, reference)  # noqa: E731
    pair = lambda before, after, deleted=None: _pair(case, fleet, before, after, deleted)  # noqa: E731
    streams = _adaptive(case, fleet, kept, told[ORACLE]["streams"])
    name, one = case.name, single(case)
    return [
        row(
            ORACLE, name, "none", (ORACLE, "none"), ulira=attack(oracle["none"]), pair=pair(repeats["none"], oracle["none"])
        ),
        row(
            HELDOUT,
            name,
            "none",
            (HELDOUT, "none"),
            ulira=attack(heldout["none"]),
            klom=near(heldout["none"], oracle["none"]),
            pair=pair(oracle["none"], heldout["none"]),
            adaptive=streams["floor healed"],
        ),
        row(
            HELDOUT,
            f"{name}, same slice off",
            "none",
            (HELDOUT, "off"),
            ulira=attack(heldout["off"]),
            klom=near(heldout["off"], oracle["off"]),
            adaptive=streams["floor off"],
        ),
        row(
            name,
            "default",
            "none",
            (REPEATS, "none"),
            ulira=attack(shadows["none"]),
            klom=near(repeats["none"], oracle["none"]),
        ),
        row(
            name,
            "same slice off in both",
            "off",
            (REPEATS, "off"),
            ulira=attack(shadows["off"]),
            klom=near(repeats["off"], oracle["off"]),
            adaptive=streams["off"],
        ),
        row(
            name,
            "beside whole models",
            "off",
            (REPEATS, "off"),
            ulira=attack(seen_off),
            klom=near(repeats["off"], oracle["none"]),
            pair=pair(repeats["none"], repeats["off"], one),
        ),
        row(
            name,
            "default",
            "heal",
            (REPEATS, "heal"),
            ulira=attack(shadows["heal"]),
            klom=near(repeats["heal"], oracle["none"]),
            pair=pair(repeats["none"], repeats["heal_one"], one),
            adaptive=streams["healed"],
            audit=told[SHADOWS]["audit"],
        ),
    ]


def _margins_of(case: Case, logits: Logits) -> Logits:
    return {state: scores.margin(one, case.y) for state, one in logits.items() if one.ndim == 3}


def _ulira(case: Case, margins: np.ndarray, tier: np.ndarray) -> dict[str, Any]:
    config = case.bench.config
    second = np.isin(np.arange(len(margins)), fleets.halves(len(margins))[1])
    group = margins[:, case.cast.asked]
    return judge_exact.ulira(group, case.included, second, tier, config.seed, config.exact.resamples)


def _klom(case: Case, margins: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    examples = len(case.setup.source.ids)
    validation = np.arange(examples, examples + case.bench.held)
    parts = {"forget": case.cast.asked, "same": case.cast.same, "apart": case.cast.apart, "validation": validation}
    return {name: judge_exact.closeness(margins[:, part], reference[:, part]) for name, part in parts.items()}


def _pair(
    case: Case, fleet: dict[str, Fleet], before: np.ndarray, after: np.ndarray, deleted: np.ndarray | None
) -> dict[str, Any]:
    """The pair of checkpoints: the deleted (the group, or one example of each model) beside others that stayed."""
    at, everyone = np.arange(before.shape[1]), np.ones((len(before), 1), bool)
    out = everyone & np.isin(at, case.cast.asked) if deleted is None else at == deleted[:, None]
    parts = {"same": case.cast.same, "apart": case.cast.apart}
    others = {name: everyone & np.isin(at, part) for name, part in parts.items()}
    return {name: judge_exact.which_deleted(before, after, out, rest) for name, rest in others.items()}


def _adaptive(case: Case, fleet: dict[str, Fleet], kept: dict[str, Logits], streams: dict[str, Any]) -> dict[str, Any]:
    """What depth and margins tell of models whose requests watched them, beside those that other models' requests met.

    Oracles are held-out ones of the same requests, under keys that no request knows of. Depth and margins are looked at
    after every request while slices are off, and margins after the last, healed.
    """
    config, worlds = case.bench.config, {r: _worlds(case, fleet[r], kept[r]["states"]) for r in (ORACLE, HELDOUT)}
    known, models = judge_exact.siblings(worlds[ORACLE].margins[0]), np.arange(config.exact.models)
    judged = lambda mine, theirs: judge_exact.apart(mine, theirs, config.seed, config.exact.resamples)  # noqa: E731
    back = lambda values: np.roll(values, -1)  # noqa: E731  # to the world whose requests they were

    def seen(role: str, chosen: np.ndarray) -> dict[str, np.ndarray]:
        """What is served with the slices of the requests off: depth, and how confidently the deleted are answered."""
        mask, one = judge_exact.off(worlds[role], chosen), worlds[role]
        return {"depth": one.depth[mask], "margin": judge_exact.told_by(one.margins[mask, models], known, chosen)}

    found: dict[str, Any] = {name: {} for name in ("off", "floor off", "healed", "floor healed")}
    for how, listed in streams.items():
        chosen = np.array(listed)
        numbers = range(1, chosen.shape[1] + 1)
        own, oracle = ([seen(role, chosen[:, :n]) for n in numbers] for role in (ORACLE, HELDOUT))
        other = [seen(ORACLE, _neighbours(chosen)[:, :n]) for n in numbers]
        measures = ("depth", "margin")
        found["off"][how] = {m: [judged(a[m], b[m]) for a, b in zip(own, oracle, strict=True)] for m in measures}
        found["floor off"][how] = {
            m: [judged(back(a[m]), b[m]) for a, b in zip(other, oracle, strict=True)] for m in measures
        }
        told = lambda role, state, asked, how=how: judge_exact.told_by(  # noqa: E731
            scores.margin(kept[role][f"{state}-{how}"], case.y), known, asked
        )
        theirs = told(HELDOUT, "own", chosen)
        found["healed"][how] = {"margin": judged(told(ORACLE, "own", chosen), theirs)}
        found["floor healed"][how] = {"margin": judged(back(told(ORACLE, "neighbour", _neighbours(chosen))), theirs)}
    return found


def _row(case: Case, training: str, variant: str, unlearner: str, kept: Logits, state: str, told: dict[str, Any]) -> Row:
    config = case.bench.config
    of_method = training == case.name
    return {
        "training": training,
        "variant": variant,
        "unlearner": unlearner,
        "setting": "group",
        "dataset": config.data.name,
        "seed": config.seed,
        "before": _accuracies(case, kept["none"]),
        "after": _accuracies(case, kept[state]),
        "steps": 1 if unlearner != "none" else 0,
        "stop": "reached",
        "train_seconds": told[REPEATS if of_method else training]["train_seconds"],
        "unlearn_seconds": told[REPEATS]["heal_seconds"] if unlearner == "heal" else 0.0,
    }


def _accuracies(case: Case, logits: np.ndarray) -> dict[str, float]:
    """Means over models; a model that serves nothing is never right."""
    examples, held = len(case.setup.source.ids), case.bench.held
    right = (logits.argmax(axis=-1) == case.y) & logits.any(axis=-1)
    asked = np.isin(np.arange(len(case.y)), case.cast.asked)
    train = np.arange(len(case.y)) < examples
    parts = {
        "forget": asked,
        "retain": train & ~asked,
        "validation": ~train & (np.arange(len(case.y)) < examples + held),
        "test": np.arange(len(case.y)) >= examples + held,
    }
    return {f"{name}_accuracy": float(right[:, part].mean()) for name, part in parts.items()}
