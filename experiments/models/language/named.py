"""Decoders by the names and options of a config, with random parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from experiments.core.errors import UserError
from experiments.core.sections import Model
from experiments.models.functions import ModelFns
from experiments.models.language import decoder
from experiments.models.language.backbones import as_functions

# What a config may give of each; the vocabulary and the positions are those of the data.
SIZES = {"width": 64, "depth": 2, "heads": 4}
OPTIONS: dict[str, dict[str, int]] = {"gpt2": SIZES, "llama": SIZES | {"mlp": 0, "kv_heads": 0}}
MADE: dict[str, Callable[..., decoder.DecoderConfig]] = {"gpt2": decoder.gpt2, "llama": decoder.llama}


def build(section: Model, length: int, vocabulary: int) -> ModelFns:
    """The decoder of a config's section `model`, for rows of so many tokens.

    Raises:
      UserError: no decoder, or an option that it does not have or that cannot be; one line that says what to do.
    """
    name = section.name
    if name not in MADE:
        raise UserError(f"model {name!r} looks at images or tables, these data are text: set --config.model.name=gpt2")
    known = OPTIONS[name]
    remat = section.options.get("remat", False)
    if not isinstance(remat, bool):
        raise UserError(f"option 'remat' of model {name!r} is {remat!r}: give True or False")
    given = {option: value for option, value in section.options.items() if option != "remat"}
    for option, value in given.items():
        if option not in known:
            raise UserError(f"model {name!r} has no option {option!r}; it takes {', '.join((*known, 'remat'))}")
        if type(value) is not int or value < 1:
            raise UserError(f"option {option!r} of model {name!r} is {value!r}: give a whole number from 1 up")
    sizes: dict[str, Any] = known | given
    if name == "llama":  # as Llama itself: two thirds of four widths, and a key-value head for each head
        sizes["mlp"] = sizes["mlp"] or -(-8 * sizes["width"] // 3)
        sizes["kv_heads"] = sizes["kv_heads"] or sizes["heads"]
    try:
        config = MADE[name](vocabulary=vocabulary, positions=length, **sizes)
    except ValueError as error:
        raise UserError(f"model {name!r} with {section.options} cannot be: {error}") from error
    dtype = jnp.bfloat16 if section.dtype == "bfloat16" else None
    return as_functions(decoder.Decoder(config, dtype, remat, float(section.dropout)))
