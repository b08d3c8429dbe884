"""Models by name, or of a user's own, as functions; `build` is the one door."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.core import keys
from experiments.core.config import shown
from experiments.core.errors import UserError, line
from experiments.core.sections import Model
from experiments.data.splits import Tokens
from experiments.models.convnets import CNN, ResNet18
from experiments.models.functions import ModelFns, as_features, as_model, of_module
from experiments.models.language import named, weights
from experiments.models.language.weights import digest
from experiments.models.mlp import MLP
from experiments.models.own import build_own
from experiments.models.params import begin
from experiments.models.vit import ViT
from experiments.models.whitened import Whitened

MODELS: dict[str, Any] = {"mlp": MLP, "cnn": CNN, "resnet18": ResNet18, "vit": ViT, "whitened": Whitened}
CONVOLUTIONAL = (
    "cnn",
    "resnet18",
    "whitened",
)  # loops and lanes cost these dearly on a CPU: see core.machines.fleet
TABULAR = ("mlp",)  # take a table; the others look at images
DTYPES = {"": None, "float32": None, "bfloat16": jnp.bfloat16}
SECTION = ("classes", "dtype", "dropout")  # fields of a module that are no options: the section has keys for them

__all__ = [
    "CONVOLUTIONAL",
    "MODELS",
    "ModelFns",
    "as_features",
    "as_model",
    "build",
    "classifies_text",
    "digest",
    "make_module",
    "of_module",
]


def build(section: Model, example: np.ndarray, classes: int, tokens: Tokens | None = None) -> ModelFns:
    """The model of a config's section `model`.

    Args:
      section: name and options, or factory and factory_options; params, dtype, dropout, lora.
      example: [1, ...], as the model will see examples.
      tokens: of texts, what a classifier of them has to know.

    Raises:
      UserError: no such model, or one that cannot take these data; one line that says what to do.
    """
    shape = tuple(example.shape[1:])
    is_text = np.issubdtype(example.dtype, np.integer)
    if section.factory and is_text:
        raise UserError("a model.factory is for images and tables, these data are text: set --config.model.name=gpt2 alone")
    if section.factory:
        for name in ("dtype", "dropout"):
            if getattr(section, name):
                raise UserError(f"model.{name} is for the shipped models: give it to yours in model.factory_options")
        options = section.factory_options
        try:
            hash(given := tuple(sorted(dict(options).items())))
        except TypeError as error:
            raise UserError(
                f"model.factory_options are {shown(dict(options))}: give numbers, texts, truth values and tuples of them"
            ) from error
        fns = build_own(section.factory, given, shape, classes)
    elif is_text:
        _check_no_factory(section)
        if section.is_pretrained:
            fns = weights.build(section, shape[0], classes, tokens)
        else:
            fns = named.build(section, shape[0], classes, tokens)
    else:
        fns = _shipped(section, shape, classes)
    return begin(fns, section.params) if section.params and not section.is_pretrained else fns


def classifies_text(section: Model) -> bool:
    """Whether it reads documents for their classes: the model alone says so, and the data are made to suit it.

    Raises:
      UserError: a folder that cannot be read.
    """
    if section.factory:
        return False
    return weights.classifies(section) if section.is_pretrained else section.name in named.ENCODERS


def _check_no_factory(section: Model) -> None:
    if section.factory_options:
        raise UserError("model.factory_options are for a model.factory: set that, or use --config.model.options")


def _shipped(section: Model, shape: tuple[int, ...], classes: int) -> ModelFns:
    name, options = section.name, section.options
    _check_no_factory(section)
    if name in named.OPTIONS or section.is_pretrained:
        raise UserError(f"model {name!r} reads text, these data are none: set another --config.model.name")
    dtype, dropout = section.dtype, section.dropout
    if name in MODELS and name not in TABULAR and len(shape) != 3:
        raise UserError(f"model {name!r} looks at images, these data are a table of {shape}: set --config.model.name=mlp")
    if name == "whitened" and section.params:
        raise UserError("model 'whitened' takes its filters from the training data: leave model.params empty, or use cnn")
    module = make_module(name, options, classes).clone(dtype=DTYPES[dtype], dropout=float(dropout))
    fns = of_module(module, shape, name in CONVOLUTIONAL)
    try:
        jax.eval_shape(fns.init, keys.unused())
    except Exception as error:  # Flax, JAX and the modules each raise their own kinds
        raise UserError(
            f"model {name!r} with {options} takes no images of {shape} ({line(error)}): set other --config.model.options"
        ) from error
    return fns


def make_module(name: str, options: dict[str, Any], classes: int) -> nn.Module:
    """The Linen module `name` with its options.

    Raises:
      ValueError: no such model, or an option that it does not have or that is none of its kind: a positive whole number,
        or several, or a truth value.
    """
    if name not in MODELS:
        raise ValueError(f"model {name!r} is unknown; choose one of {', '.join(MODELS)}")
    module = MODELS[name]
    fields = {name: field.default for name, field in module.__dataclass_fields__.items()}
    known = {name: isinstance(fields[name], tuple) for name in fields if name not in ("parent", "name", *SECTION)}
    for option, value in options.items():
        if option not in known:
            raise ValueError(f"model {name!r} has no option {option!r}; it takes {', '.join(known)}")
        if isinstance(fields[option], bool):
            if not isinstance(value, bool):
                raise ValueError(f"option {option!r} of model {name!r} is {value!r}: give True or False")
            continue
        sizes = value if known[option] else (value,)
        if not isinstance(sizes, list | tuple) or not all(type(size) is int and size >= 1 for size in sizes):
            what = "whole numbers" if known[option] else "a whole number"
            raise ValueError(f"option {option!r} of model {name!r} is {value!r}: give {what} from 1 up")
    return module(classes=classes, **{name: tuple(v) if known[name] else v for name, v in options.items()})
