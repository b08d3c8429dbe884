"""The rows of an exact judgement, from the answers that its fleets left."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from experiments.core.keys import Hash
from experiments.core.results import Estimate, Row
from experiments.judge import ulira
from experiments.judge_exact import attacks, fleets
from experiments.judge_exact.fleets import HELDOUT, ORACLE, REPEATS, ROLES, SHADOWS, Answers, Case

States = dict[str, Answers]


class Found(NamedTuple):
    """What rows are made of.

    answers, margins: of each role, by state; told: of each role, what its fleet left beside answers.
    tier: [asked] by memorisation.
    streams: what `_adaptive` says.
    """

    answers: dict[str, States]
    margins: dict[str, dict[str, np.ndarray]]
    told: dict[str, Any]
    tier: np.ndarray
    streams: dict[str, Any]


def rows(case: Case, kept: dict[str, States], told: dict[str, Any]) -> list[Row]:
    """One line of results.json for each state of each fleet; every metric as an Estimate."""
    models = np.arange(len(case.included))
    for role in (ORACLE, HELDOUT):
        states, fleet = kept[role]["states"], fleets.make_fleet(case, role)
        group_off = 1 << fleet.slice_of[:, case.cast.asked[0]]  # though nobody of the group is there
        served = {"none": np.zeros_like(group_off), "off": group_off}
        kept[role] |= {name: Answers(*(leaf[mask, models] for leaf in states)) for name, mask in served.items()}
    margins = {
        role: {state: one.margin.astype(np.float64) for state, one in states.items() if state != "states"}
        for role, states in kept.items()
    }
    tier = attacks.tiers(*(margins[role]["none"][:, case.cast.asked] for role in (REPEATS, ORACLE)))
    found = Found(kept, margins, told, tier, _adaptive(case, kept, told[ORACLE]["streams"]))
    return [*_oracle_rows(case, found), *_kind_rows(case, found)]


def _oracle_rows(case: Case, found: Found) -> list[Row]:
    """The reference, and the floor of each kind of comparison."""
    repeats, oracle, heldout = (found.margins[role] for role in (REPEATS, ORACLE, HELDOUT))
    reference = {
        "ulira": _blind(case, oracle["none"], found.tier),
        "pair": _pair(case, repeats["none"], oracle["none"], None),
    }
    whole = {
        "ulira": _blind(case, np.concatenate([oracle["none"], heldout["none"]]), found.tier),
        "klom": _klom(case, heldout["none"], oracle["none"]),
        "pair": _pair(case, oracle["none"], heldout["none"], None),
        "adaptive": found.streams["floor healed"],
    }
    off = {
        "ulira": _blind(case, np.concatenate([oracle["off"], heldout["off"]]), found.tier),
        "klom": _klom(case, heldout["off"], oracle["off"]),
        "adaptive": found.streams["floor off"],
    }
    return [
        _row(case, found, (ORACLE, case.name, "none"), (ORACLE, "none"), reference),
        _row(case, found, (HELDOUT, case.name, "none"), (HELDOUT, "none"), whole),
        _row(case, found, (HELDOUT, f"{case.name}, same slice off", "none"), (HELDOUT, "off"), off),
    ]


def _kind_rows(case: Case, found: Found) -> list[Row]:
    """What exact unlearning serves: before, with slices off (beside either reference), and healed."""
    shadows, repeats, oracle, _ = (found.margins[role] for role in ROLES)
    held = np.zeros(shadows["none"].shape, bool)  # who never held an example has switched nothing off for its sake
    held[:, case.cast.asked] = case.included
    one = fleets.single(case)
    none = {
        "ulira": _ulira(case, shadows["none"], found.tier),
        "klom": _klom(case, repeats["none"], oracle["none"]),
    }
    same = {
        "ulira": _ulira(case, shadows["off"], found.tier),
        "klom": _klom(case, repeats["off"], oracle["off"]),
        "adaptive": found.streams["off"],
        # Margins of models that serve nothing are all alike, and so tell nothing.
        "silent": {role: int(found.answers[role]["off"].silent.sum()) for role in (SHADOWS, REPEATS)},
    }
    whole = {
        "ulira": _ulira(case, np.where(held, shadows["off"], shadows["none"]), found.tier),
        "klom": _klom(case, repeats["off"], oracle["none"]),
        "pair": _pair(case, repeats["none"], repeats["off"], one),
    }
    healed = {
        "ulira": _ulira(case, shadows["heal"], found.tier),
        "klom": _klom(case, repeats["heal"], oracle["none"]),
        "pair": _pair(case, repeats["none"], repeats["heal_one"], one),
        "adaptive": found.streams["healed"],
        "audit": found.told[SHADOWS]["audit"],
    }
    return [
        _row(case, found, (case.name, "default", "none"), (REPEATS, "none"), none),
        _row(case, found, (case.name, "same slice off in both", "off"), (REPEATS, "off"), same),
        _row(case, found, (case.name, "beside whole models", "off"), (REPEATS, "off"), whole),
        _row(case, found, (case.name, "default", "heal"), (REPEATS, "heal"), healed),
    ]


def _ulira(case: Case, margins: np.ndarray, tier: np.ndarray) -> dict[str, Any]:
    """Either half of a fleet is attacked with the other."""
    return _attacked(case, margins, case.included, tier)


def _blind(case: Case, margins: np.ndarray, tier: np.ndarray) -> dict[str, Any]:
    """Models that never held the examples are attacked for memberships that are nobody's.

    Estimates are the mean and the central AUCs of all of them; tiers and curves are those of the first.
    """
    ids, models = case.setup.source.ids[case.cast.asked], len(margins)
    redrawn = ulira.nobodys(ids, models, case.seed, Hash.EXACT_SHADOW)
    blind = ulira.blind(margins[:, case.cast.asked], redrawn, ulira.second_half(models))
    found = _attacked(case, margins, redrawn[0], tier)
    return found | blind


def _attacked(case: Case, margins: np.ndarray, included: np.ndarray, tier: np.ndarray) -> dict[str, Any]:
    asked, second = margins[:, case.cast.asked], ulira.second_half(len(margins))
    groups = {name: tier == i for i, name in enumerate(attacks.TIERS)}
    return ulira.attacked(asked, included, second, groups)


def _klom(case: Case, margins: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    examples = len(case.setup.source.ids)
    validation = np.arange(examples, examples + case.held)
    parts = {"forget": case.cast.asked, "same": case.cast.same, "apart": case.cast.apart, "validation": validation}
    found = {name: attacks.closeness(margins[:, part], reference[:, part]) for name, part in parts.items()}
    return {"estimate": found["forget"]["estimate"], **found}


def _pair(case: Case, before: np.ndarray, after: np.ndarray, deleted: np.ndarray | None) -> dict[str, Estimate]:
    """The pair of checkpoints: the deleted (the group, or one example of each model) beside others that stayed."""
    at, everyone = np.arange(before.shape[1]), np.ones((len(before), 1), bool)
    out = everyone & np.isin(at, case.cast.asked) if deleted is None else at == deleted[:, None]
    parts = {"same": case.cast.same, "apart": case.cast.apart}
    others = {name: everyone & np.isin(at, part) for name, part in parts.items()}
    return {name: attacks.which_deleted(before, after, out, rest) for name, rest in others.items()}


def _adaptive(case: Case, kept: dict[str, States], streams: dict[str, Any]) -> dict[str, Any]:
    """What depth and margins tell of models whose requests watched them, beside those that other models' requests met.

    Oracles are held-out ones of the same requests, under keys that no request knows of. Depth and margins are looked at
    after every request while slices are off, and margins after the last, healed.
    """
    worlds = {role: fleets.worlds(fleets.make_fleet(case, role), kept[role]["states"]) for role in (ORACLE, HELDOUT)}
    known = attacks.siblings(worlds[ORACLE].margins[0])
    judged = lambda mine, theirs: attacks.apart(mine, theirs, case.seed, case.exact.resamples)  # noqa: E731
    back = lambda values: np.roll(values, -1)  # noqa: E731  # to the world whose requests they were
    found: dict[str, Any] = {name: {} for name in ("off", "floor off", "healed", "floor healed")}
    for how, listed in streams.items():
        chosen = np.array(listed)
        for name in ("off", "floor off"):
            found[name][how] = {"depth": [], "margin": []}
        for asked in (chosen[:, :n] for n in range(1, 1 + chosen.shape[1])):
            own, other, oracle = (
                attacks.seen(worlds[role], known, requests)
                for role, requests in ((ORACLE, asked), (ORACLE, attacks.neighbours(asked)), (HELDOUT, asked))
            )
            for measure, theirs in oracle.items():
                found["off"][how][measure].append(judged(own[measure], theirs))
                found["floor off"][how][measure].append(judged(back(other[measure]), theirs))
        told = lambda role, whose, asked, how=how: attacks.told_by(  # noqa: E731
            kept[role][f"{whose}-{how}"].margin.astype(np.float64), known, asked
        )
        theirs = told(HELDOUT, "own", chosen)
        found["healed"][how] = {"margin": judged(told(ORACLE, "own", chosen), theirs)}
        found["floor healed"][how] = {"margin": judged(back(told(ORACLE, "neighbour", attacks.neighbours(chosen))), theirs)}
    return found


def _row(case: Case, found: Found, name: tuple[str, str, str], of: tuple[str, str], extra: dict[str, Any]) -> Row:
    """A row by its training, variant and unlearner, with the accuracies of a role in a state."""
    training, variant, unlearner = name
    role, state = of
    return Row(
        training=training,
        variant=variant,
        unlearner=unlearner,
        setting="group",
        dataset=case.dataset,
        seed=case.seed,
        before=_accuracies(case, found.answers[role]["none"]),
        after=_accuracies(case, found.answers[role][state]),
        steps=0 if unlearner == "none" else 1,
        stop="reached",
        train_seconds=found.told[role]["train_seconds"],
        unlearn_seconds=found.told[REPEATS]["heal_seconds"] if unlearner == "heal" else 0.0,
        facts={"kind": case.name, "slice_off": state == "off"},
        extra=extra,
    )


def _accuracies(case: Case, answers: Answers) -> dict[str, float]:
    """Means over models; a model that serves nothing is never right."""
    examples, held = len(case.setup.source.ids), case.held
    asked = np.isin(np.arange(len(case.y)), case.cast.asked)
    train = np.arange(len(case.y)) < examples
    parts = {
        "forget": asked,
        "retain": train & ~asked,
        "validation": ~train & (np.arange(len(case.y)) < examples + held),
        "test": np.arange(len(case.y)) >= examples + held,
    }
    return {f"{name}_accuracy": float(answers.correct[:, part].mean()) for name, part in parts.items()}
