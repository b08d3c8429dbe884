"""What methods are called on paper and how they are drawn: one table, the same on every page.

Rows keep the names of machines; these are for people, and nothing reads them back. Colours are told apart by colour-blind
readers too, and dashes and markers in grey print. Ours is the boldest.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

INK = "#1c2126"  # of text and of what has no colour; a page in the dark turns it light


class Style(NamedTuple):
    """A line: its colour, SVG's stroke-dasharray ("" for a solid one), matplotlib's marker, and its width in points."""

    colour: str
    dash: str
    marker: str
    width: float = 1.7


class Method(NamedTuple):
    """What a method is called and how it is drawn."""

    name: str
    style: Style
    ours: bool = False


OURS = Style("#009e73", "", "o", 3.0)
ORACLE = Style(INK, "7 3", "")

# (training, variant) of the comparison and the judge. Longer: trained for as many FLOPs as readiness used.
METHODS = {
    ("readiness", "default"): Method("Readiness", OURS, ours=True),
    ("readiness", "paper"): Method("Readiness, paper", Style("#e69f00", "6 1 1 1 1 1", "p")),
    ("readiness", "resist"): Method("Readiness, resist", Style("#44aa99", "10 3", "<")),
    ("oracle", "default"): Method("Oracle", ORACLE),
    ("heldout_oracle", "default"): Method("Held-out oracle", Style("#8a949e", "2 2", "x")),
    ("vanilla", "default"): Method("Vanilla", Style("#d55e00", "8 2 2 2", "s")),
    ("vanilla", "equal_flops"): Method("Vanilla, longer", Style("#a63603", "12 3", "P")),
    ("reweight", "default"): Method("Re-weighting", Style("#0072b2", "5 2", "^")),
    ("reweight", "equal_flops"): Method("Re-weighting, longer", Style("#08457e", "9 2 1 2", "<")),
    ("reweight", "weight=0.1"): Method("Re-weighting 0.1", Style("#56b4e9", "3 1 1 1", "v")),
    ("reweight", "weight=0.02"): Method("Re-weighting 0.02", Style("#3d4f9f", "1 2", ">")),
    ("dpsgd", "default"): Method("DP-SGD", Style("#cc79a7", "4 2", "D")),
    ("neftune", "default"): Method("NEFTune", Style("#7a5195", "5 1 1 1", "h")),
}
TRAININGS = {
    "readiness": "Readiness",
    "vanilla": "Vanilla",
    "reweight": "Re-weighting",
    "dpsgd": "DP-SGD",
    "neftune": "NEFTune",
}

ALGORITHMS = {
    "none": "as trained",
    "level": "Level",
    "ascent": "Ascent",
    "graddiff": "GradDiff",
    "neggrad_plus": "NegGrad+",
    "ascent_kl": "Ascent + KL",
    "npo": "NPO",
    "finetune": "Fine-tuning",
    "random_label": "Random labels",
    "simnpo": "SimNPO",
    "undial": "UNDIAL",
    "rmu": "RMU",
    "wga": "WGA",
    "dpo": "DPO",
    "idk_dpo": "IdkDPO",
}

# Plans of S3T, and what they are compared with.
PLANS = {
    "lattice": Method("Lattice", OURS, ours=True),
    "sisa": Method("SISA", Style("#d55e00", "8 2 2 2", "s")),
    "cyclic": Method("Cyclic", Style("#0072b2", "5 2", "^")),
    "stumps": Method("Stumps", Style("#e69f00", "3 1 1 1", "v")),
    "greedy": Method("Greedy", Style("#cc79a7", "2 2", "D")),
    "chains": Method("Chains", Style("#56b4e9", "10 3", "<")),
    "bms": Method("BMS", Style("#7a5195", "6 1 1 1 1 1", ">")),
    "conditional": Method("Conditional", Style("#8c6d31", "4 2", "P")),
    "random": Method("Random", Style("#4a7c59", "1 2", "X")),
    "full": Method("Full", Style("#332288", "12 3", "h")),
    "rollback": Method("SISA checkpoints", Style("#882255", "3 3", "p")),
    "retrain": Method("SISA, retrained", Style("#8a949e", "1 2", "s")),
    "retrain full": Method("Full retraining", Style(INK, "7 3", "o")),
}

# (variant, unlearner) of a judged exact model: what is served.
STATES = {
    ("oracle", ""): Method("Oracle", ORACLE),
    ("heldout_oracle", ""): Method("Held-out oracle", Style("#8a949e", "2 2", "x")),
    ("default", "none"): Method("Nothing deleted", Style("#d55e00", "8 2 2 2", "s")),
    ("same slice off in both", "off"): Method("Slice off, in both", Style("#0072b2", "5 2", "^")),
    ("beside whole models", "off"): Method("Slice off, beside whole models", Style("#e69f00", "3 1 1 1", "v")),
    ("default", "heal"): Method("Healed", OURS, ours=True),
}

# For methods of a user's own.
SPARE = (
    Style("#e69f00", "3 1 1 1", "v"),
    Style("#7a5195", "6 1 1 1 1 1", ">"),
    Style("#8c6d31", "4 2", "P"),
    Style("#44aa99", "10 3", "<"),
    Style("#882255", "3 3", "p"),
    Style("#5f6b76", "1 2", "X"),
    Style("#999933", "12 3", "h"),
    Style("#661100", "2 2", "*"),
)


def method(training: str, variant: str = "default", facts: Mapping[str, Any] | None = None) -> Method:
    """How a training and a variant of it are called and drawn; one that no table has keeps to its own spare style.

    Args:
      facts: those of its rows; a weight and a longer training are called by these.
    """
    if known := METHODS.get((training, variant)):
        return known
    name, facts = TRAININGS.get(training, training), facts or {}
    if "weight" in facts:
        name += f" {facts['weight']:g}" + (", longer" if facts.get("equal_flops") else "")
    elif variant != "default":
        name += f" {variant}"
    return Method(name, _spare(f"{training} {variant}"))


def plan(name: str) -> Method:
    """How a plan of S3T, or what it is compared with, is called and drawn."""
    return PLANS.get(name) or Method(name, _spare(name))


def algorithm(name: str) -> str:
    """What an unlearning algorithm is called, and where its requests end if not where they usually do."""
    base, _, end = name.partition("@")
    return ALGORITHMS.get(base, base) + (f" to the {end}" if end else "")


def asked(forget: Mapping[str, Any]) -> str:
    """Who is forgotten if somebody or something is named in the section `forget`; else nothing."""
    setting = forget.get("setting")
    if setting == "documents":
        count = len(forget["documents"])
        return forget["documents"][0] if count == 1 else f"{count} documents"
    return " and ".join(forget["groups"]) if setting == "group" else forget["partition"] if setting == "partition" else ""


def _spare(key: str) -> Style:
    """By the name alone, so that a method looks alike on all pages."""
    return SPARE[zlib.crc32(key.encode()) % len(SPARE)]


def distinct(styles: Sequence[Style]) -> list[Style]:
    """The same styles for one figure; a spare one that another has taken already gives way to the next that is free."""
    taken: list[Style] = []
    for style in styles:
        free = [spare for spare in SPARE if spare not in taken and spare not in styles]
        taken.append(free[0] if style in taken and free else style)
    return taken
