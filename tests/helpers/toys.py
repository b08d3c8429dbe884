"""Small models and data that the tests share, and every objective written out a second time, literally, as an oracle.

Nothing here calls the code under test except for its plain containers (Request, Model). Data are numpy arrays in float64:
jax takes them as float32 or float64, as a test has set it.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from unlearn import Model, Request, classifier, sequence_model

CLASSES, FEATURES, HIDDEN = 3, 2, 3
LENGTH_OF_STEERING, KEPT = 1.5, 0.7  # of rmu
LEVEL = -1.5  # the target of `level` where no other classes tell: of sequences and mappings
LENGTH = 4  # of a document, and so many of them are asked for at once: the trap of means over the wrong axis


@functools.cache
def quick_options():
    """XLA options that compile about four times quicker to a slower program; those that this version knows."""

    def known(option):
        try:
            jax.jit(lambda: 0, compiler_options=option)()
        except jax.errors.JaxRuntimeError:
            return {}
        return option

    return known({"xla_backend_optimization_level": 0}) | known({"xla_cpu_use_fusion_emitters": False})


def quick_jit(f, **kwargs):
    """`jax.jit` for small programs, which run once: compiling is most of what they cost."""
    return jax.jit(f, compiler_options=quick_options(), **kwargs)


def mlp_features(params, x, key):
    return jnp.tanh(x @ params["hidden"]["w"] + params["hidden"]["b"])


def mlp_apply(params, x, key):
    return mlp_features(params, x, key) @ params["out"]["w"] + params["out"]["b"]


def dropped(function):
    """The function with inputs dropped at random: shows whether keys are passed on. Without a key, a prediction."""
    return lambda params, x, key: function(params, x if key is None else x * jax.random.bernoulli(key, 0.7, x.shape), key)


def loss_per_example(logits, batch):
    return jax.nn.logsumexp(logits, axis=-1) - jnp.sum(logits * jax.nn.one_hot(batch["y"], logits.shape[-1]), axis=-1)


MLP = classifier(mlp_apply, mlp_features)._replace(loss=loss_per_example)
DROPOUT_MLP = classifier(dropped(mlp_apply), dropped(mlp_features))._replace(loss=loss_per_example)


def mlp_params(seed=0, hidden=HIDDEN, features=FEATURES, classes=CLASSES):
    rng = np.random.default_rng(seed)
    w = {"hidden": (features, hidden), "out": (hidden, classes)}
    return {k: {"w": rng.normal(size=s), "b": 0.1 * rng.normal(size=s[1])} for k, s in w.items()}


def batch(seed, examples, padded=0, steps=None):
    """Random examples with unequal weights, the last `padded` of them 0; with a leading step axis if `steps` is given."""
    rng = np.random.default_rng(1000 + seed)
    shape = (examples,) if steps is None else (steps, examples)
    weight = rng.uniform(0.5, 1.5, size=shape)
    weight[..., examples - padded :] = 0
    return {
        "x": rng.normal(size=(*shape, FEATURES)),
        "y": rng.integers(0, CLASSES, size=shape, dtype=np.int32),
        "id": rng.integers(0, 10**6, size=shape, dtype=np.int32),
        "weight": weight,
    }


def token_batch(seed, examples, padded=0, steps=None):
    """As `batch`, of documents of LENGTH tokens; tokens have unequal weights, and the last one of each has none.

    Beside each is an alternative of other tokens, as if it were to be preferred.
    """
    plain = batch(seed, examples, padded, steps)

    def documents(rng):
        shape = (*plain["weight"].shape, LENGTH)
        tokens = rng.integers(0, CLASSES, size=(2, *shape), dtype=np.int32)
        token_weight = rng.uniform(0.5, 1.5, size=shape) * (np.arange(LENGTH) < LENGTH - 1)
        return {"x": tokens[0], "y": tokens[1], "token_weight": token_weight}

    alternative = documents(np.random.default_rng(4000 + seed))
    return plain | documents(np.random.default_rng(2000 + seed)) | {"alternative": alternative}


def token_params(seed=0):
    rng = np.random.default_rng(3000 + seed)
    return {"embed": rng.normal(size=(CLASSES, HIDDEN)), "out": {"w": rng.normal(size=(HIDDEN, CLASSES))}}


def token_features(params, x, key):
    """What was read so far, [examples, length, features]."""
    return jnp.tanh(jnp.cumsum(params["embed"][x], axis=-2))


def token_apply(params, x, key):
    return token_features(params, x, key) @ params["out"]["w"]


def dropout_token_apply(params, x, key):
    return token_apply(params, x, key) * jax.random.bernoulli(key, 0.7, (*x.shape, 1))


def as_pytree(batch):
    """The same examples, x and y as mappings."""
    return dict(batch, x={"first": batch["x"][..., :1], "rest": batch["x"][..., 1:]}, y={"label": batch["y"]})


def as_flat(batch):
    """The batch that `as_pytree` was made of."""
    x = jnp.concatenate([batch["x"]["first"], batch["x"]["rest"]], axis=-1)
    return dict(batch, x=x, y=batch["y"]["label"])


def pytree_model(model):
    """The model of `as_pytree`: logits are a mapping, too."""
    flat = lambda batch: dict(batch, y=batch["y"]["label"])  # noqa: E731
    joined = lambda x: jnp.concatenate([x["first"], x["rest"]], axis=-1)  # noqa: E731
    return Model(
        lambda params, x, key: {"label": model.apply(params, joined(x), key)},
        lambda logits, batch: model.loss(logits["label"], flat(batch)),
        lambda logits, batch: model.margin(logits["label"], flat(batch)),
        lambda reference, logits, batch: model.divergence(reference["label"], logits["label"], flat(batch)),
        lambda params, x, key: model.features(params, joined(x), key),
    )


def requests(seed=0, steps=3):
    """A request for each of `steps` steps, one forget row of it padding."""
    return Request(batch(seed, 4, padded=1, steps=steps), batch(seed + 500, 3, steps=steps))


def first(requests):
    return jax.tree.map(lambda leaf: leaf[0], requests)


def stack(trees):
    """One tree with a leading lane axis from several."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def lane(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


OPTIMIZERS = {
    "sgd": lambda rate: optax.sgd(rate),
    "momentum": lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True),
    "adam": lambda rate: optax.adam(rate),
    "clip": lambda rate: optax.chain(optax.clip_by_global_norm(0.1), optax.add_decayed_weights(0.01), optax.sgd(rate)),
}


def log_p(logits):
    return logits - jnp.log(jnp.sum(jnp.exp(logits), axis=-1, keepdims=True))


def average(values, weights):
    return jnp.sum(values * weights) / jnp.sum(weights)


def example_losses(model, params, data):
    """-log p_y, one per example."""
    return -log_p(model.apply(params, data["x"], None))[jnp.arange(data["y"].shape[0]), data["y"]]


def label_loss(model, params, data, key, labels=None):
    """L(params; data): the mean of -log p_label."""
    at = (jnp.arange(data["y"].shape[0]), data["y"] if labels is None else labels)
    return -average(log_p(model.apply(params, data["x"], key))[at], data["weight"])


class Kind(NamedTuple):
    """A kind of model and its data, with what its losses and divergences are by the formula.

    trait: its name among the kinds that algorithms declare.
    nll: (model, params, batch, key, labels) -> [examples].  kl: (model, start, params, batch, key) -> [examples].
    """

    trait: str
    model: Model
    dropout: Model
    params: Callable
    requests: Callable
    nll: Callable
    kl: Callable


def class_nll(model, params, data, key, labels=None):
    labels = data["y"] if labels is None else labels
    return -log_p(model.apply(params, data["x"], key))[jnp.arange(labels.shape[0]), labels]


def class_kl(model, start, params, data, key):
    q, p = (jnp.exp(log_p(model.apply(at, data["x"], key))) for at in (start, params))
    return jnp.sum(q * jnp.log(q / p), axis=-1)


def token_nll(model, params, data, key, labels=None):
    """A weighted mean over tokens, position by position."""
    logs, total, weight = log_p(model.apply(params, data["x"], key)), 0.0, 0.0
    for t in range(LENGTH):
        w = data["token_weight"][:, t]
        total -= w * logs[jnp.arange(w.shape[0]), t, data["y"][:, t]]
        weight += w
    return total / weight


def token_log_p(model, params, data, key):
    """Of the right tokens, [examples, length]."""
    logs = log_p(model.apply(params, data["x"], key))
    return jnp.sum(logs * (jnp.arange(CLASSES) == data["y"][..., None]), axis=-1)


def token_average(values, data):
    """Over the tokens of each document by their weights; values of whole examples are what they are."""
    if values.ndim == 1:
        return values
    return jnp.sum(values * data["token_weight"], axis=1) / jnp.sum(data["token_weight"], axis=1)


def document_ratio(model, start, params, data, key):
    """log p - log p_start of each document, the sum over its tokens."""
    before, after = (token_log_p(model, at, data, key) for at in (start, params))
    return jnp.sum((after - before) * data["token_weight"], axis=1)


def token_kl(model, start, params, data, key):
    q, p = (jnp.exp(log_p(model.apply(at, data["x"], key))) for at in (start, params))
    each, weight = jnp.sum(q * jnp.log(q / p), axis=-1), data["token_weight"]
    return sum(weight[:, t] * each[:, t] for t in range(LENGTH)) / sum(weight[:, t] for t in range(LENGTH))


def _of_label(function):
    """The formula on the flat twin of a pytree model's data."""

    def run(model, *args):
        *states, data, key = args[:-1] if function is class_nll else args
        labels = ({"label": None} if args[-1] is None else args[-1],) if function is class_nll else ()
        return function(MLP, *states, as_flat(data), key, *(each["label"] for each in labels))

    return run


def token_requests(seed=0, steps=3):
    return Request(token_batch(seed, 4, padded=1, steps=steps), token_batch(seed + 500, 3, steps=steps))


def pytree_requests(seed=0, steps=3):
    return Request(*map(as_pytree, requests(seed, steps)))


def class_margin(logits, label):
    """log p - log(1 - p) of a label, one example."""
    p = jnp.exp(log_p(logits))[label]
    return jnp.log(p) - jnp.log(1 - p)


def class_levels(model, params, retain):
    """[classes]: the mean margin that retained examples of other classes give to a class, example by example."""
    logits, found = model.apply(params, retain["x"], None), []
    for label in range(logits.shape[-1]):
        total = weight = 0.0
        for row in np.flatnonzero(retain["weight"]):
            if int(retain["y"][row]) != label:
                total += retain["weight"][row] * class_margin(logits[row], label)
                weight += retain["weight"][row]
        found.append(total / weight if weight else 0.0)
    return jnp.stack([jnp.asarray(level) for level in found])


def options(name, model):
    """What an algorithm is told of a model beside its defaults: `level` a target, where no other classes tell it.

    And `rmu` of a length and a weight that suit features of three numbers.
    """
    if name == "rmu":
        return {"length": LENGTH_OF_STEERING, "gamma": KEPT}
    told = [model for kind in ("sequence", "pytree") for model in (KINDS[kind].model, KINDS[kind].dropout)]
    return {"target": LEVEL} if name == "level" and model in told else {}


def literal_objective(name, model, params, start, request, key, wrong=None, kind=None, levels=None):
    """The objective of each algorithm at its default options and `options`, from the formula.

    Args:
      start: the reference parameters of ascent_kl, npo, undial, dpo and idk_dpo; of rmu with the key of its direction.
      wrong: the labels of random_label.
      levels: of the classes, that level aims at where the data do not tell; LEVEL of all if None.
      kind: of the model; a classifier if None.
    """
    forget, retain = request
    kind = kind or KINDS["classifier"]
    loss = lambda data, labels=None: average(kind.nll(model, params, data, key, labels), data["weight"])  # noqa: E731
    if name == "ascent":
        return -loss(forget)
    if name == "level":
        p = jnp.exp(-kind.nll(model, params, forget, key, None))
        goals = LEVEL if levels is None else forget["level"] if "level" in forget else levels[forget["y"]]
        away = average(jnp.log(p) - jnp.log(1 - p) - goals, forget["weight"])
        return 0.5 * loss(retain) + 0.5 * jnp.where(jnp.abs(away) < 2, away**2 / 4, jnp.abs(away) - 1)
    if name == "graddiff":
        return -loss(forget) + loss(retain)
    if name == "neggrad_plus":
        return 0.95 * loss(retain) - 0.05 * loss(forget)
    if name == "ascent_kl":
        return -loss(forget) + average(kind.kl(model, start, params, retain, key), retain["weight"])
    if name == "npo":
        log_ratio = kind.nll(model, start, forget, key, None) - kind.nll(model, params, forget, key, None)
        return 2 / 0.1 * average(-jnp.log(1 / (1 + jnp.exp(0.1 * log_ratio))), forget["weight"])
    if name == "finetune":
        return loss(retain)
    if name == "random_label":
        return loss(forget, wrong) + loss(retain)
    if name == "simnpo":
        return 2 / 2.5 * average(jnp.log(1 + jnp.exp(-2.5 * kind.nll(model, params, forget, key, None))), forget["weight"])
    if name == "wga":
        return average(token_average(jnp.exp(token_log_p(model, params, forget, key)) - 1, forget), forget["weight"])
    if name in ("dpo", "idk_dpo"):
        better, worse = (document_ratio(model, start, params, each, key) for each in (forget["alternative"], forget))
        preferred = 2 / 0.1 * average(jnp.log(1 + jnp.exp(-0.1 * (better - worse))), forget["weight"])
        return preferred + (loss(retain) if name == "idk_dpo" else 0)
    if isinstance(forget["x"], dict):
        forget, retain, model = as_flat(forget), as_flat(retain), MLP
    if name == "undial":
        before, after = (model.apply(at, forget["x"], key) for at in (start, params))
        q = jnp.exp(log_p(before - 10 * (jnp.arange(CLASSES) == forget["y"][..., None])))
        return average(token_average(jnp.sum(q * (jnp.log(q) - log_p(after)), axis=-1), forget), forget["weight"])
    if name == "rmu":
        start, direction_key = start
        direction = jax.random.uniform(direction_key, (HIDDEN,), jnp.float32).astype(float)
        goal = LENGTH_OF_STEERING * direction / jnp.sqrt(jnp.sum(direction**2))
        gone, stays, stayed = (
            model.features(at, each["x"], key) for at, each in ((params, forget), (params, retain), (start, retain))
        )
        square = lambda away, data: token_average(jnp.sum(away**2, axis=-1) / HIDDEN, data)  # noqa: E731
        moved = average(square(stays - stayed, retain), retain["weight"])
        return average(square(gone - goal, forget), forget["weight"]) + KEPT * moved
    raise KeyError(f"write the formula of {name!r} here: each entry of ALGORITHMS is tested against one")


KINDS = {
    "classifier": Kind("classifier", MLP, DROPOUT_MLP, mlp_params, requests, class_nll, class_kl),
    "sequence": Kind(
        "language",
        sequence_model(token_apply, token_features),
        sequence_model(dropout_token_apply, token_features),
        token_params,
        token_requests,
        token_nll,
        token_kl,
    ),
    "pytree": Kind(
        "classifier",
        pytree_model(MLP),
        pytree_model(DROPOUT_MLP),
        mlp_params,
        pytree_requests,
        _of_label(class_nll),
        _of_label(class_kl),
    ),
}


def central_differences(f, params, width=1e-5):
    """The gradient of scalar `f` coordinate by coordinate, as a tree: two calls per coordinate."""
    flat, unflatten = jax.flatten_util.ravel_pytree(params)
    flat, steps = np.asarray(flat), width * np.eye(flat.size)
    as_tree = lambda at: jax.tree.map(np.asarray, unflatten(at))  # noqa: E731
    slope = [(f(as_tree(flat + step)) - f(as_tree(flat - step))) / (2 * width) for step in steps]
    return as_tree(np.array(slope))


def relative_error(tree, reference):
    """||tree - reference|| / ||reference||, over all leaves."""
    a, b = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(t)]) for t in (tree, reference))
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def assert_close(a, b, tolerance):
    """Equal structures, and equal leaves within `tolerance` (relative and absolute); NaN agrees with NaN."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(_plain(x), _plain(y), rtol=tolerance, atol=tolerance), a, b)


def _plain(leaf):
    return jax.random.key_data(leaf) if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key) else leaf
