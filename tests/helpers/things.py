"""Data, models and algorithms of a user's own."""

import contextlib
import sys

MODULE = '''
import equinox as eqx
import jax
from experiments.models import ModelFns
from unlearn import ALGORITHMS, UnlearnAlgorithm


def network(example, classes, width=8):
    def whole(key):
        return eqx.nn.MLP(example[0].size, classes, width, 1, key=key)

    static = eqx.partition(whole(jax.random.key(0)), eqx.is_inexact_array)[1]

    def init(key):
        return eqx.partition(whole(key), eqx.is_inexact_array)[0]

    def apply(params, x, key):
        return jax.vmap(eqx.combine(params, static))(x.reshape(len(x), -1))

    return ModelFns(init, apply)


def halve(model, optimizer, factor=0.5):
    """Ascent after the weights have been scaled."""
    ascent = ALGORITHMS["ascent"](model, optimizer)

    def update(state, *rest):
        state, info = ascent.update(state, *rest)
        return state._replace(params=jax.tree.map(lambda leaf: factor * leaf, state.params)), info

    return UnlearnAlgorithm(ascent.init, update)


def nothing(model):
    return None


def wrong(model, optimizer):
    return None


def altered(init=lambda state: state, update=lambda state, info: (state, info)):
    """Ascent that gives something else."""

    def make(model, optimizer):
        ascent = ALGORITHMS["ascent"](model, optimizer)
        return UnlearnAlgorithm(lambda *a: init(ascent.init(*a)), lambda *a: update(*ascent.update(*a)))

    return make


def each(change):
    return lambda state: state._replace(params=jax.tree.map(change, state.params))


bare = altered(init=lambda state: state.params)
alone = altered(update=lambda state, info: state)
cast = altered(update=lambda state, info: (each(lambda leaf: leaf.astype("bfloat16"))(state), info))
widened = altered(update=lambda state, info: (each(lambda leaf: leaf[None])(state), info))
listed = altered(update=lambda state, info: (state._replace(params=jax.tree.leaves(state.params)), info))
counted = altered(init=lambda state: state._replace(memory=0), update=lambda s, i: (s._replace(memory=0.5), i))
recast = altered(init=each(lambda leaf: leaf.astype("bfloat16")))


def leaves(model, optimizer):
    raise SystemExit(3)


def reads(model, optimizer, *, mean=None, grad=None):
    """Ascent that knows the run's model."""
    ascent = ALGORITHMS["ascent"](model, optimizer)

    def init(params, request, key):
        params["Dense_0"]["kernel"], model.features(params, request.forget["x"], None)
        return ascent.init(params, request, key)

    return UnlearnAlgorithm(init, ascent.update)


def loops(model, optimizer, *, mean=None, grad=None):
    """What no derivative can be taken of."""

    def update(state, request, key):
        return jax.lax.while_loop(lambda s: jax.tree.leaves(s.params)[0][0] > 9, each(lambda leaf: leaf / 2), state), None

    return ALGORITHMS["ascent"](model, optimizer)._replace(update=update)


def stops():
    raise SystemExit(3)


def data():
    return 3
'''


@contextlib.contextmanager
def folder_of(path, monkeypatch):
    """The folder of a user with a module in it, in which they work."""
    (path / "mine.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(path)
    yield path
    sys.modules.pop("mine", None)
