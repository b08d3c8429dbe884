"""What the ways of federated erasure are called and drawn like, and which of them stand where."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.core.results import Row
from experiments.erasure.methods import HELDOUT, ORACLE, RIDGE, SERVED
from experiments.erasure.trial import RIDGE_ORACLE, RIDGE_SERVED
from experiments.reporting.names import INK, OURS, Style
from experiments.reporting.numbers import minus

LABELS = {
    SERVED: "Nothing done",
    ORACLE: "Retrained",
    HELDOUT: "Retrained in other batches",
    "rollback": "Rollback",
    "fast_fedul": "Fast-FedUL",
    "medu": "after MEDU",
    "running_sums": "Running sums, α = 0",
    "federaser": "FedEraser",
    "fedrecover": "FedRecover",
    "crab": "after Crab",
    "fused": "after FUSED",
    "mpu": "after MPU",
    "rr_du": "after RR-DU",
    RIDGE_SERVED: "Ridge head, nothing done",
    RIDGE: "Ridge head, subtracted",
    RIDGE_ORACLE: "Ridge head, retrained",
}
STYLES = {
    SERVED: Style("#d55e00", "8 2 2 2", "s"),
    ORACLE: Style(INK, "7 3", "o"),
    HELDOUT: Style("#8a949e", "2 2", "x"),
    "running_sums": Style("#e69f00", "3 1 1 1", "v"),
    "fast_fedul": Style("#0072b2", "5 2", "^"),
    "medu": OURS,
}
OTHER = Style("#5f6b76", "1 2", "D")
LATTICES = {
    "hexagonal": OURS,
    "scalar": Style("#0072b2", "5 2", "^"),
    "E8": Style("#e69f00", "3 1 1 1", "v"),
    "D2": Style("#cc79a7", "4 2", "D"),
}


def alpha(row: Row) -> str:
    """A row's alpha, as in α = −0.2."""
    return f"α = {minus(format(float(row.facts['alpha'] or 0.0), 'g'))}"


def label(row: Row) -> str:
    """What a way is called; no two rows of a run share one."""
    rounds = row.facts.get("repair")
    return f"{_label(row)}, then {rounds} round{'s' * (rounds != 1)}" if rounds else _label(row)


def _label(row: Row) -> str:
    if row.unlearner == "fast_fedul" and "alpha" in row.facts:
        return f"Fast-FedUL, {alpha(row)}"
    if row.unlearner == "medu" and "scheme" in row.facts:
        return f"MEDU, {row.facts['scheme']}, {alpha(row)}"
    if row.unlearner == "fedrecover" and "scheme" in row.facts:
        return f"FedRecover by {row.facts['scheme']}"
    if row.unlearner == SERVED:
        return LABELS[SERVED]
    return LABELS.get(row.variant, row.variant)


def style(row: Row) -> Style:
    """How a way is drawn."""
    return STYLES.get(row.variant, STYLES.get(row.unlearner, OTHER))


def archives(rows: Sequence[Row], chosen: bool) -> list[Row]:
    """The rows of archives, at the chosen alpha or at 0; the same ones if 0 was chosen."""
    found = [row for row in rows if row.unlearner == "medu" and "scheme" in row.facts and "repair" not in row.facts]
    return [row for row in found if (row.facts["chosen"] if chosen else row.facts["alpha"] == 0)]


def is_whole(row: Row) -> bool:
    """Whether it is the rule on the uncompressed history, at the chosen alpha and without a repair."""
    return row.unlearner == "fast_fedul" and bool(row.facts.get("chosen")) and "repair" not in row.facts


def is_plain(row: Row) -> bool:
    """Whether an archive stores every entry of every update."""
    return row.facts["entries"] == "all" and row.facts["users"] is None


def main_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows of the main table: all but the archives that vary the main one."""
    first = next((row.facts["lattice"] for row in rows if row.unlearner == "medu" and "scheme" in row.facts), "")
    return [row for row in rows if "scheme" not in row.facts or (is_plain(row) and row.facts["lattice"] == first)]
