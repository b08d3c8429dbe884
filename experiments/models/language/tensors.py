"""How Hugging Face names the tensors of each family, and which parameters of ours they are."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping
from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Entry(NamedTuple):
    """Where one of their tensors goes.

    ours: paths of parameters; several share the tensor, side by side along its last axis.
    transposed: theirs is [out, in], as PyTorch's Linear has it.
    """

    ours: tuple[str, ...]
    transposed: bool = False


def _entries(table: Mapping[str, str]) -> dict[str, Entry]:
    """Their name -> Entry; '.T' behind our path says transposed, 'a,b' several."""
    return {theirs: Entry(tuple(ours.removesuffix(".T").split(",")), ours.endswith(".T")) for theirs, ours in table.items()}


GPT2 = _entries(
    {
        "transformer.wte.weight": "tokens/embedding",
        "transformer.wpe.weight": "positions/embedding",
        "transformer.h.{i}.ln_1.weight": "blocks_{i}/attention_norm/scale",
        "transformer.h.{i}.ln_1.bias": "blocks_{i}/attention_norm/bias",
        "transformer.h.{i}.attn.c_attn.weight": (
            "blocks_{i}/attention/query/kernel,blocks_{i}/attention/key/kernel,blocks_{i}/attention/value/kernel"
        ),
        "transformer.h.{i}.attn.c_attn.bias": (
            "blocks_{i}/attention/query/bias,blocks_{i}/attention/key/bias,blocks_{i}/attention/value/bias"
        ),
        "transformer.h.{i}.attn.c_proj.weight": "blocks_{i}/attention/out/kernel",
        "transformer.h.{i}.attn.c_proj.bias": "blocks_{i}/attention/out/bias",
        "transformer.h.{i}.ln_2.weight": "blocks_{i}/mlp_norm/scale",
        "transformer.h.{i}.ln_2.bias": "blocks_{i}/mlp_norm/bias",
        "transformer.h.{i}.mlp.c_fc.weight": "blocks_{i}/mlp/up/kernel",
        "transformer.h.{i}.mlp.c_fc.bias": "blocks_{i}/mlp/up/bias",
        "transformer.h.{i}.mlp.c_proj.weight": "blocks_{i}/mlp/down/kernel",
        "transformer.h.{i}.mlp.c_proj.bias": "blocks_{i}/mlp/down/bias",
        "transformer.ln_f.weight": "norm/scale",
        "transformer.ln_f.bias": "norm/bias",
        "lm_head.weight": "output/embedding",
    }
)

LLAMA = _entries(
    {
        "model.embed_tokens.weight": "tokens/embedding",
        "model.layers.{i}.input_layernorm.weight": "blocks_{i}/attention_norm/scale",
        "model.layers.{i}.self_attn.q_proj.weight": "blocks_{i}/attention/query/kernel.T",
        "model.layers.{i}.self_attn.k_proj.weight": "blocks_{i}/attention/key/kernel.T",
        "model.layers.{i}.self_attn.v_proj.weight": "blocks_{i}/attention/value/kernel.T",
        "model.layers.{i}.self_attn.o_proj.weight": "blocks_{i}/attention/out/kernel.T",
        "model.layers.{i}.post_attention_layernorm.weight": "blocks_{i}/mlp_norm/scale",
        "model.layers.{i}.mlp.gate_proj.weight": "blocks_{i}/mlp/gate/kernel.T",
        "model.layers.{i}.mlp.up_proj.weight": "blocks_{i}/mlp/up/kernel.T",
        "model.layers.{i}.mlp.down_proj.weight": "blocks_{i}/mlp/down/kernel.T",
        "model.norm.weight": "norm/scale",
        "lm_head.weight": "output/embedding",
    }
)

_ENCODER = {
    "embeddings.word_embeddings.weight": "tokens/embedding",
    "embeddings.position_embeddings.weight": "positions/embedding",
    "embeddings.token_type_embeddings.weight": "types/embedding",
    "embeddings.LayerNorm.weight": "embedding_norm/scale",
    "embeddings.LayerNorm.bias": "embedding_norm/bias",
    "encoder.layer.{i}.attention.self.query.weight": "blocks_{i}/attention/query/kernel.T",
    "encoder.layer.{i}.attention.self.query.bias": "blocks_{i}/attention/query/bias",
    "encoder.layer.{i}.attention.self.key.weight": "blocks_{i}/attention/key/kernel.T",
    "encoder.layer.{i}.attention.self.key.bias": "blocks_{i}/attention/key/bias",
    "encoder.layer.{i}.attention.self.value.weight": "blocks_{i}/attention/value/kernel.T",
    "encoder.layer.{i}.attention.self.value.bias": "blocks_{i}/attention/value/bias",
    "encoder.layer.{i}.attention.output.dense.weight": "blocks_{i}/attention/out/kernel.T",
    "encoder.layer.{i}.attention.output.dense.bias": "blocks_{i}/attention/out/bias",
    "encoder.layer.{i}.attention.output.LayerNorm.weight": "blocks_{i}/attention_norm/scale",
    "encoder.layer.{i}.attention.output.LayerNorm.bias": "blocks_{i}/attention_norm/bias",
    "encoder.layer.{i}.intermediate.dense.weight": "blocks_{i}/mlp/up/kernel.T",
    "encoder.layer.{i}.intermediate.dense.bias": "blocks_{i}/mlp/up/bias",
    "encoder.layer.{i}.output.dense.weight": "blocks_{i}/mlp/down/kernel.T",
    "encoder.layer.{i}.output.dense.bias": "blocks_{i}/mlp/down/bias",
    "encoder.layer.{i}.output.LayerNorm.weight": "blocks_{i}/mlp_norm/scale",
    "encoder.layer.{i}.output.LayerNorm.bias": "blocks_{i}/mlp_norm/bias",
}
BERT = _entries(
    {f"bert.{theirs}": ours for theirs, ours in _ENCODER.items()}
    | {
        "bert.pooler.dense.weight": "head/pooler/kernel.T",
        "bert.pooler.dense.bias": "head/pooler/bias",
        "classifier.weight": "head/classifier/kernel.T",
        "classifier.bias": "head/classifier/bias",
    }
)
ROBERTA = _entries(
    {f"roberta.{theirs}": ours for theirs, ours in _ENCODER.items()}
    | {
        "classifier.dense.weight": "head/pooler/kernel.T",
        "classifier.dense.bias": "head/pooler/bias",
        "classifier.out_proj.weight": "head/classifier/kernel.T",
        "classifier.out_proj.bias": "head/classifier/bias",
    }
)


class Family(NamedTuple):
    """One model type.

    table: their names, `{i}` standing for a block.
    base: the prefix that files of the bare model lack.
    harmless: names, as patterns, that a file may have though no parameter is made of them: buffers, what is tied to
      another tensor, heads of the first training.
    """

    table: Mapping[str, Entry]
    base: str
    harmless: tuple[str, ...]


FAMILIES = {
    "gpt2": Family(GPT2, "transformer.", (r"transformer\.h\.\d+\.attn\.(bias|masked_bias)",)),
    "llama": Family(LLAMA, "model.", (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",)),
    "bert": Family(BERT, "bert.", (r"bert\.embeddings\.position_ids", r"cls\..+")),
    "roberta": Family(ROBERTA, "roberta.", (r"roberta\.embeddings\.position_ids", r"roberta\.pooler\..+", r"lm_head\..+")),
}
TIED = "lm_head.weight"  # of a decoder that takes logits with the token embeddings: a file may repeat them
CLASSIFIERS = ("classifier.weight", "classifier.bias", "classifier.out_proj.weight", "classifier.out_proj.bias")


def entries(family: Family, depth: int) -> Iterator[tuple[str, Entry]]:
    """(their name, Entry) of a model of so many blocks."""
    for theirs, entry in family.table.items():
        for i in range(depth) if "{i}" in theirs else (0,):
            yield theirs.replace("{i}", str(i)), entry._replace(ours=tuple(p.replace("{i}", str(i)) for p in entry.ours))


def is_harmless(family: Family, name: str, tied: bool) -> bool:
    """Whether a file may have a tensor that no parameter is made of."""
    return (tied and name == TIED) or any(re.fullmatch(pattern, name) for pattern in family.harmless)


def embedding(family: Family) -> str:
    """Their name of the token embeddings."""
    return next(theirs for theirs, entry in family.table.items() if entry.ours == ("tokens/embedding",))


def is_of_head(entry: Entry) -> bool:
    """Whether a file may lack a tensor: a new task brings a head of its own."""
    return entry.ours[0].startswith("head/")


def missing_of_head(family: Family, held: Container[str]) -> str | None:
    """The first tensor that a head lacks of which a part is held; BERT's pooler may stand alone, as it is pre-trained."""
    names = [name for name, entry in family.table.items() if is_of_head(entry)]
    whole = any(name in held for name in names if not name.startswith(family.base))
    pooler = [name for name in names if name.startswith(family.base)]
    needed = names if whole else pooler if any(name in held for name in pooler) else []
    return next((name for name in needed if name not in held), None)


def theirs_to_ours(entry: Entry, tensor: Array) -> tuple[Array, ...]:
    """The parameters that a tensor holds, in the order of `entry.ours`."""
    if entry.transposed:
        tensor = tensor.T
    return tuple(np.split(tensor, len(entry.ours), axis=-1)) if len(entry.ours) > 1 else (tensor,)


def ours_to_theirs(entry: Entry, params: tuple[Array, ...]) -> Array:
    """The tensor that some parameters make, contiguous."""
    tensor = np.concatenate(params, axis=-1) if len(params) > 1 else params[0]
    return np.ascontiguousarray(tensor.T if entry.transposed else tensor)
