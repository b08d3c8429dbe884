"""Linen models by name, and their view as the pure rooms' `Model`."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn

from experiments.models.convnets import CNN, ResNet18
from experiments.models.mlp import MLP
from experiments.models.vit import ViT
from experiments.models.whitened import Whitened
from unlearn import Model, classifier

MODELS = {"mlp": MLP, "cnn": CNN, "resnet18": ResNet18, "vit": ViT, "whitened": Whitened}
CONVOLUTIONAL = ("cnn", "resnet18", "whitened")  # loops and lanes cost these dearly on a CPU: see experiments.core.fleet


def build(name: str, options: dict[str, Any], classes: int) -> nn.Module:
    """The module `name` with its options.

    Raises:
      ValueError: no such model, or an option that it does not have or that is no positive whole number, or several.
    """
    if name not in MODELS:
        raise ValueError(f"model {name!r} is unknown; choose one of {', '.join(MODELS)}")
    module = MODELS[name]
    fields = {name: field.default for name, field in module.__dataclass_fields__.items()}
    known = {name: isinstance(fields[name], tuple) for name in fields if name not in ("parent", "name", "classes")}
    for option, value in options.items():
        if option not in known:
            raise ValueError(f"model {name!r} has no option {option!r}; it takes {', '.join(known)}")
        sizes = value if known[option] else (value,)
        if not isinstance(sizes, list | tuple) or not all(type(size) is int and size >= 1 for size in sizes):
            what = "whole numbers" if known[option] else "a whole number"
            raise ValueError(f"option {option!r} of model {name!r} is {value!r}: give {what} from 1 up")
    return module(classes=classes, **options)


@functools.lru_cache
def as_model(module: nn.Module) -> Model:
    """The module as pure functions, those of a classifier; its features are what its last Dense layer is given.

    Equal modules give one Model, so that programs compiled for it are found again.
    """

    def apply(params: Any, x: Any, key: Any) -> Any:
        return module.apply({"params": params}, x, rngs={"dropout": key})

    def features(params: Any, x: Any, key: Any) -> Any:
        given = []

        def watch(layer: Any, args: Any, kwargs: Any, context: Any) -> Any:
            if isinstance(context.module, nn.Dense):
                given.append(args[0])
            return layer(*args, **kwargs)

        with nn.intercept_methods(watch):
            apply(params, x, key)
        return given[-1]

    return classifier(apply, features)


def as_features(module: nn.Module) -> Model:
    """The module without its last layer: `apply` gives its features, [examples, width]."""
    model = as_model(module)
    return model._replace(apply=model.features)
