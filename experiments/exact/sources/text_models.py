"""Language models that s3t freezes: real weights of a folder, or a small decoder that is pre-trained here."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.core import keys
from experiments.core.keys import Purpose
from experiments.core.sections import LEARNED
from experiments.data.text.loading import tokeniser_named
from experiments.data.text.tokenisers import FILE, Tokeniser, byte_level, from_file
from experiments.models.language import folders, packaged, small
from experiments.models.language.backbones import as_backbone, as_functions
from experiments.models.language.decoder import Decoder, DecoderConfig
from experiments.models.language.encoder import Encoder, EncoderConfig
from experiments.models.language.folders import Pretrained
from s3t.training.backbone import Backbone

Tree = Any

GIVEN = ("minilm", "folder")  # real weights: an installed package's, or those of a Hugging Face folder
MODELS = (*GIVEN, *small.DECODERS)
AT_ONCE = 16  # documents whose logits are held at once: there is one for each place and entry of the vocabulary
LEAST = 1e-30  # of a probability, so that its logarithm is finite


class Opened(NamedTuple):
    """A model before its data are known.

    name: one of MODELS.
    loaded: the weights; None of a decoder that is random.
    tokeniser: that goes with it.
    """

    name: str
    loaded: Pretrained | None
    tokeniser: Tokeniser

    @property
    def classifies(self) -> bool:
        """Whether it is an encoder, which classifies; a decoder predicts tokens."""
        return self.loaded is not None and isinstance(self.loaded.config, EncoderConfig)


def opened(name: str, checkpoint: str, tokeniser: str, learn: Callable[[], Tokeniser] | None = None) -> Opened:
    """A model by its name, with its weights and its tokeniser.

    Args:
      name: one of MODELS: 'minilm', 'folder' or of `small.DECODERS`.
      checkpoint: a Hugging Face folder of a bert, roberta, gpt2 or llama; '' of 'minilm', whose package has it, and of a
        decoder that is random.
      tokeniser: a tokenizer.json; '' is the folder's own or, of a decoder of `small.DECODERS` without one, bytes; one to be
        learned, as bpe:512, if the folder does not have it.
      learn: learns it of documents that nobody is to delete; None: there are none.

    Raises:
      ValueError (UserError among them): weights or a tokeniser that are absent or do not fit; one line.
    """
    if name == "minilm" and checkpoint:
        raise ValueError("model 'minilm' has the weights of its package: give no checkpoint, or the model 'folder'")
    if name == "folder" and not checkpoint:
        raise ValueError("model 'folder' has its weights in a checkpoint: give a Hugging Face folder as the checkpoint")
    folder = packaged.minilm_folder() if name == "minilm" else Path(checkpoint).expanduser() if checkpoint else None
    loaded = folders.load_folder(folder) if folder else None
    found = _tokeniser(name, folder, tokeniser, learn)
    if loaded and found.vocabulary > loaded.config.vocabulary:
        raise ValueError(
            f"the tokeniser has {found.vocabulary} entries and the model of {folder} embeds {loaded.config.vocabulary}: "
            f"give the {FILE} that it was trained with"
        )
    return Opened(name, loaded, found)


def _tokeniser(name: str, folder: Path | None, asked: str, learn: Callable[[], Tokeniser] | None) -> Tokeniser:
    to_learn = asked.startswith(LEARNED)
    if to_learn and name in GIVEN:
        raise ValueError(
            f"{asked!r} would learn a tokeniser, and model {name!r} has the one that it was trained with: give ''"
        )
    if to_learn and learn is None:
        raise ValueError("a tokeniser that is learned of the data holds what is to be deleted: give a tokenizer.json")
    if asked and not to_learn:
        return tokeniser_named(asked)
    if folder and (folder / FILE).exists():
        return from_file(folder / FILE)
    if to_learn and learn is not None:
        return learn()
    if name in small.DECODERS:
        return byte_level()
    raise ValueError(f"{folder} has no {FILE}: put the model's there, or give one as the tokeniser")


def classifier(found: Opened, classes: int) -> tuple[Backbone, Tree]:
    """An encoder and its frozen parameters; the mean of all tokens is classified, as sentence embeddings are made."""
    assert found.loaded is not None and isinstance(found.loaded.config, EncoderConfig)
    return as_backbone(Encoder(found.loaded.config, classes, "mean")), _on_host(found.loaded.params)


def predictor(found: Opened, length: int, seed: int) -> tuple[Backbone, Tree]:
    """A decoder that predicts tokens and its frozen parameters, random by the seed if there are none."""
    if found.loaded is None:
        module = small.decoder_of(found.name, length, found.tokeniser.vocabulary)
        params = jax.jit(as_functions(module).init)(keys.key(seed, Purpose.BACKBONE))
    else:
        assert isinstance(found.loaded.config, DecoderConfig)
        module, params = Decoder(found.loaded.config), found.loaded.params
    return token_probabilities(module), _on_host(params)


def _on_host(params: Tree) -> Tree:
    return jax.tree.map(np.asarray, params)


@functools.lru_cache
def token_probabilities(module: Decoder) -> Backbone:
    """A decoder whose outputs are the probabilities of the tokens that come next, [documents, length].

    x is {"tokens": [n, L], "next": those to predict [n, L]}, y is {"weight": [n, L]}. An ensemble's output, the weighted
    mean of its members', is then the probability under their mixture, and there is no need to hold logits of a whole
    vocabulary for every place. The loss of a document is the mean of -log p over its tokens under their weights.
    """
    plain = as_backbone(module)

    def embed(frozen: Tree, x: Tree, keys: jax.Array | None) -> Tree:
        return {"hidden": plain.embed(frozen, x["tokens"], keys), "next": x["next"]}

    def block(frozen: Tree, i: int, h: Tree, adapters: Any) -> Tree:
        return h | {"hidden": plain.block(frozen, i, h["hidden"], adapters)}

    def head(frozen: Tree, head_params: Tree, h: Tree) -> jax.Array:
        @jax.checkpoint  # logits are made again for the gradient
        def of_document(h: Tree) -> jax.Array:
            logits = plain.head(frozen, head_params, h["hidden"][None])[0]
            at_next = jnp.take_along_axis(logits, h["next"][:, None], axis=-1)[:, 0]
            return jnp.exp(at_next - jax.nn.logsumexp(logits, axis=-1))

        found: jax.Array = jax.lax.map(of_document, h, batch_size=AT_ONCE)
        return found

    def loss(outputs: jax.Array, y: Tree) -> jax.Array:
        total = y["weight"].sum(axis=-1)
        nats = -jnp.log(jnp.maximum(outputs, LEAST))
        return (nats * y["weight"]).sum(axis=-1) / jnp.where(total > 0, total, 1.0)

    return Backbone(embed, block, head, plain.init_head, plain.layers, loss=loss, classifies=False)
