"""Ready2Unlearn: training through a simulated unlearning step, so that a later request is quick, keeps the rest and lasts.

A reconstruction after Duan et al. (2505.10845): the paper's equations were not available, so every choice is a switch.

Example, three classes of points on a plane; class 0 may be asked for one day. Every fourth step rehearses that:

  >>> import jax, jax.numpy as jnp, numpy as np, optax
  >>> from unlearn import Request, classifier, level, unlearn
  >>> y = np.arange(60) % 3
  >>> x = np.array([[2.0, 0.0], [-1.0, 2.0], [-1.0, -2.0]])[y] + np.random.default_rng(0).normal(size=(60, 2)) / 2
  >>> data = dict(x=jnp.asarray(x, jnp.float32), y=jnp.asarray(y), id=jnp.arange(60), weight=jnp.ones(60))
  >>> model = classifier(lambda params, x, key: x @ params["w"] + params["b"])
  >>> rehearsed = lambda rate: level(model, optax.sgd(rate))
  >>> readiness = make_readiness(model, rehearsed, Terms())
  >>> optimizer, pools, draw = optax.sgd(0.1), make_pools((y == 0)[None]), Draw(size=16, retain=True)
  >>> step = jax.jit(make_step(model, optimizer, readiness=readiness))
  >>> state = init_state({"w": jnp.zeros((2, 3)), "b": jnp.zeros(3)}, optimizer)
  >>> for i in range(40):
  ...     key = jax.random.fold_in(jax.random.key(0), i)
  ...     rehearsal = (draw_meta_batch(key, data, pools, draw), 0.1) if i % 4 == 0 else ()
  ...     state, info = step(state, data, key, *rehearsal)
  >>> right = lambda params: (model.apply(params, data["x"], None).argmax(axis=1) == data["y"])
  >>> bool(right(state.params).all())
  True

The request, by the same algorithm: to the level at which the model sees other examples with regard to class 0.

  >>> goes, stays = (jax.tree.map(lambda leaf: leaf[rows], data) for rows in (y == 0, y != 0))
  >>> batches = jax.tree.map(lambda leaf: jnp.stack([leaf] * 100), Request(goes, stays))
  >>> after, _ = unlearn(rehearsed(0.1), state.params, Request(goes, stays), batches, key)
  >>> print(right(after.params)[y == 0].mean(), right(after.params)[y != 0].mean())
  0.0 1.0
"""

from importlib import metadata

from readiness.objective import MetaBatch, Readiness, Rehearsal, Terms, make_readiness, paper_terms
from readiness.requests import (
    Draw,
    Pools,
    draw_meta_batch,
    make_pools,
    nearest_classes,
    nearest_examples,
    take,
)
from readiness.step import Step, StepInfo, TrainState, init_state, make_step

__all__ = [
    "Draw", "MetaBatch", "Pools", "Readiness", "Rehearsal", "Step", "StepInfo", "Terms", "TrainState", "draw_meta_batch",
    "init_state", "make_pools", "make_readiness", "make_step", "nearest_classes", "nearest_examples", "paper_terms",
    "take",
]  # fmt: skip

try:
    __version__ = metadata.version("forethought")
except metadata.PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0+unknown"
