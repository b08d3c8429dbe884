"""Take a user out of the model that is served, by the archive alone: the erased model, and a certificate of it.

No client is asked and no engine is needed. The rule is `federated.erase.medu` on the updates as they are stored: exact
where updates do not depend on the model, an approximation of retraining elsewhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp

from experiments.core.errors import UserError, blame_user
from experiments.federated import archives, layout
from experiments.federated.engine import serving
from experiments.federated.log import ArchiveError
from experiments.federated.store import check_user
from federated.erase import medu


class Erasure(NamedTuple):
    """What an erasure left.

    model: the file of the model without the user.  certificate: its file.
    rounds, bytes: of the history that was deleted.
    distance: between the models before and after, in the Euclidean norm.
    """

    model: Path
    certificate: Path
    rounds: int
    bytes: int
    distance: float


def erase(root: Path, user: str, alpha: float = 0.0) -> Erasure:
    """Free the model of a user and delete the user's history; when this returns both are on the disk.

    Args:
      root: the archive.
      user: who leaves.
      alpha: see `federated.erase.fast_fedul`.

    Raises:
      ArchiveError: no archive, one that a server writes to, no user's id, or nothing of the user.
      UserError: an alpha that cannot be, or that gives no finite model; nobody else took part.
    """
    with serving.open_archive(root) as opened:
        users = sorted({name for entries in opened.rounds.values() for name in entries})
        if user not in users:
            check_user(user)
            gone = user in serving.erased_users(opened)
            there = ", ".join(users[:5]) + (", ..." if len(users) > 5 else "")
            done = f"was erased already: its certificate is in {root / 'certificates'}"
            why = done if gone else f"is not in the archive {root}: it has {there or 'nobody'}"
            raise ArchiveError(f"{user} {why}")
        if len(users) == 1:
            raise UserError(f"{user} is the only one in the archive: nobody would be left to have a model of; start anew")
        before, (history, users) = jnp.asarray(serving.read_model(opened)), archives.read_history(opened)
        with blame_user():
            after = medu(before, history, jnp.asarray([name == user for name in users]), alpha=alpha).model
        if not jnp.isfinite(after).all():
            raise UserError(
                f"alpha = {alpha:g} gives a model that is not finite, so nothing was erased: give one nearer to 0"
            )
        serving.write_model(root, after)
        row = archives.erase(opened, user, f"after MEDU, alpha = {alpha:g}", before, after)
        serving.remove_others(opened)
        return Erasure(
            model=serving.model_path(root, serving.model_digest(opened)),
            certificate=layout.certificate(root, row),
            rounds=len(row["removed"]),
            bytes=sum(entry["bytes"] for entry in row["removed"]),
            distance=float(jnp.linalg.norm(after - before)),
        )
