"""What is claimed of a store, and what came of looking: proved, refuted, or nothing was proved, which is never well."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

PROVED, REFUTED, NOTHING = "proved", "refuted", "nothing was proved"


class Claim(NamedTuple):
    """A claim, the verdict on it, and why, one line; empty if there is no more to say."""

    claim: str
    verdict: str
    reason: str = ""


def judged(claims: Iterable[Claim]) -> dict[str, Any]:
    """The verdict on all claims together: that of the worst.

    Returns:
      ok, whether every claim is proved and there is one; verdict; claims, a JSON object each.
    """
    claims = list(claims)
    found = {claim.verdict for claim in claims}
    verdict = REFUTED if REFUTED in found else PROVED if found == {PROVED} else NOTHING
    return {"ok": verdict == PROVED, "verdict": verdict, "claims": [claim._asdict() for claim in claims]}
