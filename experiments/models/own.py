"""A model of a user's own: `--config.model.factory=module:function`, called as `make(example, classes, **options)`.

Options are `--config.model.factory_options`. The function gives a ModelFns; in Equinox, for example,

    import equinox as eqx
    import jax
    from experiments.models import ModelFns

    def make(example, classes, width=32):                    # example: [1, ...], as the model will see examples
        def whole(key):
            return eqx.nn.MLP(example[0].size, classes, width, 1, key=key)

        static = eqx.partition(whole(jax.random.key(0)), eqx.is_inexact_array)[1]

        def init(key):
            return eqx.partition(whole(key), eqx.is_inexact_array)[0]

        def apply(params, x, key):
            return jax.vmap(eqx.combine(params, static))(x.reshape(len(x), -1))

        return ModelFns(init, apply)

In Linen, init is `lambda key: module.init(key, example)["params"]` and apply `lambda params, x, key:
module.apply({"params": params}, x)`. In NNX, split the model, `graph, params, rest = nnx.split(model, nnx.Param, ...)`,
give the params, and merge them in apply. Running averages (BatchNorm) are refused: they hold the data that are to be
forgotten.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from experiments.core.errors import UserError, kind
from experiments.core.references import call, resolve
from experiments.models.functions import ModelFns, convolves
from unlearn.checking import FLOATS, held_state


@functools.lru_cache
def build_own(factory: str, options: tuple[tuple[str, Any], ...], shape: tuple[int, ...], classes: int) -> ModelFns:
    """The model that a user's function makes, its parameters under flat names, so that any library's can be kept.

    Equal arguments give the same functions, for which programs were compiled.

    Raises:
      UserError: a function that fails, or makes no model that can be trained here; one line that says what to do.
    """
    what = f"model.factory {factory!r}"
    example = jnp.zeros((1, *shape), jnp.float32)
    made = call(resolve(factory, "model.factory"), what, example, classes, **dict(options))
    if not isinstance(made, ModelFns):
        raise UserError(f"{what} gives a {type(made).__name__}: give an experiments.models.ModelFns(init, apply)")
    tree = _traced(what, "init", FLOATS, made.init, jax.random.key(0))
    _check_params(what, tree)
    for examples in (2, 3):  # a model that knows how many there are is right for one of them alone
        _check_logits(what, made, tree, (examples, *shape), classes)
        _check_features(what, made, tree, (examples, *shape))
    structure = jax.tree.structure(tree)
    names = _names(tree)

    def pack(tree: Any) -> dict[str, Any]:
        return dict(zip(names, jax.tree.leaves(tree), strict=True))

    def unpack(params: dict[str, Any]) -> Any:
        return jax.tree.unflatten(structure, [params[name] for name in names])

    def apply(params: Any, x: Any, key: Any) -> Any:
        return made.apply(unpack(params), x, key).astype(jnp.float32)

    own = made.features
    features = own and (lambda params, x, key: own(unpack(params), x, key))
    fns = ModelFns(lambda key: pack(made.init(key)), apply, features, None, made.convolutional, unpack, made.apply)
    return fns._replace(convolutional=made.convolutional or convolves(fns, shape))


def _traced(what: str, part: str, mend: str, fn: Callable[..., Any], *args: Any) -> Any:
    """Shapes of what a user's function gives.

    Raises:
      UserError: it cannot be traced by JAX.
    """
    try:
        return jax.eval_shape(fn, *args)
    except (Exception, SystemExit) as error:  # whatever a user's function raises
        raise UserError(f"{part} of {what} fails ({kind(error, 160)}): {mend}") from error


def _check_params(what: str, tree: Any) -> None:
    """Refuse parameters that gradient descent must not touch."""
    if held := held_state(tree):
        raise UserError(
            f"{what} has state among its parameters ({held}), as BatchNorm does: it would keep what is to be forgotten; "
            "use GroupNorm or LayerNorm"
        )
    if not jax.tree.leaves(tree):
        raise UserError(f"{what} has no parameters: {FLOATS}")
    for name, leaf in zip(_names(tree), jax.tree.leaves(tree), strict=True):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise UserError(f"{what} has a parameter {name!r} of type {leaf.dtype}: {FLOATS}")


def _check_logits(what: str, made: ModelFns, tree: Any, shape: tuple[int, ...], classes: int) -> None:
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    for name, key in (("", jax.random.key(0)), (", key None,", None)):
        mend = f"it is called with params and x {list(shape)}"
        given = _traced(what, f"apply{name}", mend, lambda p, x, key=key: made.apply(p, x, key), tree, x)
        if isinstance(given, tuple):
            raise UserError(f"apply of {what} gives {len(given)} things: give logits alone; state beside them is refused")
        if not isinstance(given, jax.ShapeDtypeStruct) or given.shape != (shape[0], classes):
            found = list(given.shape) if isinstance(given, jax.ShapeDtypeStruct) else type(given).__name__
            raise UserError(f"apply of {what} gives {found} for {shape[0]} examples: give logits [examples, {classes}]")


def _check_features(what: str, made: ModelFns, tree: Any, shape: tuple[int, ...]) -> None:
    features = made.features
    if features is None:
        return
    x, mend = jax.ShapeDtypeStruct(shape, jnp.float32), f"it is called with params, x {list(shape)} and key None"
    given = _traced(what, "features", mend, lambda p, x: features(p, x, None), tree, x)
    found = list(given.shape) if isinstance(given, jax.ShapeDtypeStruct) else type(given).__name__
    if not isinstance(found, list) or found[:1] != [shape[0]]:
        raise UserError(f"features of {what} give {found} for {shape[0]} examples: give one array [examples, ...]")


def _names(tree: Any) -> list[str]:
    """A name for each leaf, distinct."""
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]
    names = [jax.tree_util.keystr(path, simple=True, separator="/") or "params" for path in paths]
    return names if len(set(names)) == len(names) else [f"{i}/{name}" for i, name in enumerate(names)]
