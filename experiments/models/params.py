"""Parameters in a file: an .npz or .safetensors whose arrays have the names of the parameters, as in `Dense_0/kernel`.

They are where every model begins, oracles too: what they have seen before, no request makes them forget.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.core import archives
from experiments.core.errors import UserError, line
from experiments.models.functions import ModelFns

Array = np.ndarray


def begin(fns: ModelFns, path: str) -> ModelFns:
    """The model that begins with the parameters in a file, whatever the key.

    Raises:
      UserError: a file that cannot be read, or holds other parameters than the model's; one line that says what to do.
    """
    found = read(Path(path).expanduser())
    wanted = jax.eval_shape(fns.init, jax.random.key(0))
    names = flatten(wanted)
    for kind, odd in (("lacks", names.keys() - found.keys()), ("has", found.keys() - names.keys())):
        if odd:
            raise UserError(
                f"{path} {kind} {min(odd)!r}, the model's parameters are {', '.join(sorted(names)[:4])}"
                f"{', ...' if len(names) > 4 else ''}: give a file of just these"
            )
    leaves = []
    for name, like in names.items():
        leaves.append(_cast(f"{name!r} in {path}", found[name], like))
    loaded = jax.tree.unflatten(jax.tree.structure(wanted), leaves)
    return fns._replace(init=lambda key: jax.tree.map(jnp.asarray, loaded))


def _cast(what: str, array: Array, like: Any) -> Array:
    """An array as the model takes it; refused if it has another shape, or is not finite once it is cast."""
    mend = f"the model takes finite {like.dtype}{list(like.shape)}"
    if array.shape != like.shape or array.dtype.kind != "f":
        raise UserError(f"{what} is {array.dtype}{list(array.shape)}: {mend}")
    with np.errstate(over="ignore"):  # what is beyond the model's precision becomes infinite, and is refused
        cast = array.astype(like.dtype)
    if not np.isfinite(cast.astype(np.float32)).all():
        raise UserError(f"{what} is not finite as {like.dtype}: {mend}")
    return cast


def flatten(params: Any) -> dict[str, Any]:
    """Name -> leaf, in the order of the leaves."""
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def read(path: Path) -> dict[str, Array]:
    """The arrays of an .npz or .safetensors file.

    Raises:
      UserError: a file that is neither.
    """
    try:
        if archives.is_endless(path):
            raise archives.Unusable("it is no file")
        if path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            return load_file(path)
        return archives.read(path)
    except Exception as error:  # safetensors raises a kind of its own
        told = isinstance(error, OSError | archives.Unusable)
        why = line(error) if told else "not of that format, or damaged"
        raise UserError(f"cannot read model.params {path} ({why}): give an .npz or .safetensors of parameters") from error


def write(path: Path, params: Any) -> None:
    """An .npz that `begin` reads."""
    arrays: dict[str, Any] = {name: np.asarray(leaf) for name, leaf in flatten(params).items()}
    np.savez(path, **arrays)
