"""Decoders and encoders by the names and options of a config, with random parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from experiments.core.errors import UserError
from experiments.core.sections import Model
from experiments.data.splits import Tokens
from experiments.models.functions import ModelFns
from experiments.models.language import decoder
from experiments.models.language.backbones import as_functions
from experiments.models.language.encoder import Encoder, EncoderConfig

# What a config may give of each; the vocabulary and the positions are those of the data.
SIZES = {"width": 64, "depth": 2, "heads": 4}
OPTIONS: dict[str, dict[str, int]] = {"gpt2": SIZES, "llama": SIZES | {"mlp": 0, "kv_heads": 0}, "bert": SIZES}
ENCODERS = ("bert",)
MADE: dict[str, Callable[..., decoder.DecoderConfig]] = {"gpt2": decoder.gpt2, "llama": decoder.llama}


def build(section: Model, length: int, classes: int, tokens: Tokens | None = None) -> ModelFns:
    """The decoder or the encoder of a config's section `model`, for rows of so many tokens.

    Args:
      classes: to tell apart, or, of a decoder, the entries of the vocabulary.
      tokens: what an encoder reads.

    Raises:
      UserError: neither, or an option that it does not have or that cannot be; one line that says what to do.
    """
    name = section.name
    if name not in OPTIONS:
        raise UserError(
            f"model {name!r} looks at images or tables, these data are text: set --config.model.name=gpt2, which predicts "
            "tokens, or bert, which classifies documents"
        )
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
    if name == "bert" and tokens is None:
        raise UserError("model 'bert' classifies documents, these are rows to predict: set --config.model.name=gpt2")
    try:
        return as_functions(_module(section, length, classes, tokens, sizes, remat))
    except ValueError as error:
        raise UserError(f"model {name!r} with {section.options} cannot be: {error}") from error


def _module(
    section: Model, length: int, classes: int, tokens: Tokens | None, sizes: dict[str, Any], remat: bool
) -> decoder.Decoder | Encoder:
    dtype, dropout = jnp.bfloat16 if section.dtype == "bfloat16" else None, float(section.dropout)
    if tokens is None or section.name in MADE:
        config = MADE[section.name](vocabulary=classes, positions=length, **sizes)
        return decoder.Decoder(config, dtype, remat, dropout)
    # BERT's proportions, and the mean over tokens, which learns from few documents more than the first one's state does.
    proportions = EncoderConfig(
        tokens.vocabulary, **sizes, mlp=4 * sizes["width"], positions=length, types=1, norm_epsilon=1e-12, pad=tokens.pad
    )
    return Encoder(proportions, classes, "mean", dtype, remat, dropout)
