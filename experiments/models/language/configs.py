"""`config.json` of Hugging Face's folders: read into sizes, refused where they ask for what is not here, and written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.core.errors import UserError
from experiments.core.files import is_number
from experiments.models.language.decoder import DecoderConfig, RopeScaling, gpt2, llama
from experiments.models.language.encoder import EncoderConfig

Config = DecoderConfig | EncoderConfig
Json = Mapping[str, Any]

# What a key must be if it is there: anything else is another model.
REQUIRED: dict[str, dict[str, tuple[Any, ...]]] = {
    "gpt2": {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    },
    "llama": {
        "hidden_act": ("silu",),
        "attention_bias": (False,),
        "mlp_bias": (False,),
        "pretraining_tp": (1,),
    },
    "bert": {
        "hidden_act": ("gelu",),
        "position_embedding_type": ("absolute",),
        "is_decoder": (False,),
        "add_cross_attention": (False,),
    },
}
REQUIRED["roberta"] = REQUIRED["bert"]
ARCHITECTURES = {"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM"} | {
    kind: f"{name}ForSequenceClassification" for kind, name in (("bert", "Bert"), ("roberta", "Roberta"))
}
MOST_WHOLE, MOST = 10**9, 1e30  # of sizes and of other numbers
# Their names of sizes, ours.
GPT2_SIZES = {
    "vocab_size": "vocabulary",
    "n_embd": "width",
    "n_layer": "depth",
    "n_head": "heads",
    "n_positions": "positions",
}
SIZES = {
    "vocab_size": "vocabulary",
    "hidden_size": "width",
    "num_hidden_layers": "depth",
    "num_attention_heads": "heads",
    "intermediate_size": "mlp",
    "max_position_embeddings": "positions",
}
SCALING = {
    "factor": "factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_max_position_embeddings": "original_positions",
}


class _Reader:
    """The keys of one file; each mistake names file and key."""

    def __init__(self, path: Path, given: Json) -> None:
        self.path, self.given = path, given

    def refuse(self, key: str, mend: str) -> UserError:
        return UserError(f"{self.path}: {key} is {self.given.get(key)!r:.80}: {mend}")

    def number(self, key: str, default: float | None = None, whole: bool = False, least: float = 0.0) -> Any:
        value: Any = self.given.get(key)
        value = default if value is None else value
        most = MOST_WHOLE if whole else MOST
        if not is_number(value) or not least <= value <= most or (whole and not isinstance(value, int)):  # NaN is not, too
            raise self.refuse(key, f"give a {'whole ' if whole else ''}number from {least:g} to {most:g}")
        return value if whole else float(value)

    def sizes(self, names: Mapping[str, str]) -> dict[str, int]:
        return {ours: self.number(theirs, whole=True, least=1) for theirs, ours in names.items()}

    def flag(self, key: str, default: bool) -> bool:
        value = self.given.get(key, default)
        if not isinstance(value, bool):
            raise self.refuse(key, "give true or false")
        return value


def read(path: Path, given: Json) -> tuple[str, Config]:
    """(model type, sizes) of a `config.json` whose values are `given`.

    Raises:
      UserError: a model that is not one of the four families, or a choice within a family that is not here.
    """
    reader, kind = _Reader(path, given), given.get("model_type")
    if not isinstance(kind, str) or kind not in REQUIRED:
        raise reader.refuse("model_type", f"choose a folder of one of {', '.join(REQUIRED)}")
    for key, allowed in REQUIRED[kind].items():
        if key in given and not any(given[key] is value or given[key] == value for value in allowed):
            raise reader.refuse(key, f"only {' or '.join(map(repr, allowed))} is supported in a {kind}")
    try:
        return kind, {"gpt2": _read_gpt2, "llama": _read_llama}.get(kind, _read_encoder)(reader)
    except ValueError as error:
        raise error if isinstance(error, UserError) else UserError(f"{path}: {error}") from error


def _read_gpt2(reader: _Reader) -> DecoderConfig:
    sizes = reader.sizes(GPT2_SIZES)
    return gpt2(
        **sizes,
        mlp=reader.number("n_inner", 4 * sizes["width"], whole=True, least=1),
        norm_epsilon=reader.number("layer_norm_epsilon", 1e-5),
        tied=reader.flag("tie_word_embeddings", True),
    )


def _read_llama(reader: _Reader) -> DecoderConfig:
    sizes = reader.sizes(SIZES)
    theta, scaling = _read_rope(reader)
    config = llama(
        **sizes,
        kv_heads=reader.number("num_key_value_heads", sizes["heads"], whole=True, least=1),
        norm_epsilon=reader.number("rms_norm_eps", 1e-6),
        rope_theta=theta,
        rope_scaling=scaling,
        tied=reader.flag("tie_word_embeddings", False),
    )
    if reader.given.get("head_dim") not in (None, config.head_width):
        raise reader.refuse("head_dim", f"only hidden_size / num_attention_heads = {config.head_width} is supported")
    return config


def _read_rope(reader: _Reader) -> tuple[float, RopeScaling | None]:
    """Base and scaling, from `rope_parameters` or from the older `rope_theta` and `rope_scaling`."""
    key = "rope_parameters" if reader.given.get("rope_parameters") is not None else "rope_scaling"
    given = reader.given.get(key)
    if given is None:
        return reader.number("rope_theta", 1e4, least=1), None
    if not isinstance(given, Mapping):
        raise reader.refuse(key, "give a mapping")
    inner = _Reader(Path(f"{reader.path}: {key}"), given)
    theta = inner.number("rope_theta", reader.number("rope_theta", 1e4, least=1), least=1)
    kind = given.get("rope_type", given.get("type", "default"))
    if given.get("partial_rotary_factor", 1) != 1:
        raise inner.refuse("partial_rotary_factor", "only 1 is supported")
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise inner.refuse("rope_type" if "rope_type" in given else "type", "only 'default' and 'llama3' are supported")
    sizes = {ours: inner.number(theirs, whole=ours == "original_positions") for theirs, ours in SCALING.items()}
    return theta, RopeScaling(**sizes)


def _read_encoder(reader: _Reader) -> EncoderConfig:
    is_roberta = reader.given["model_type"] == "roberta"
    pad = reader.number("pad_token_id", 1 if is_roberta else 0, whole=True)
    return EncoderConfig(
        **reader.sizes(SIZES),
        types=reader.number("type_vocab_size", 2, whole=True, least=1),
        norm_epsilon=reader.number("layer_norm_eps", 1e-12),
        pad=pad,
        position_offset=pad + 1 if is_roberta else 0,
    )


def write(config: Config) -> dict[str, Any]:
    """The values of a `config.json` that `read` and `transformers` take for this model.

    Raises:
      ValueError: a mixture of choices that is none of the four families.
    """
    kind = kind_of(config)
    sizes = GPT2_SIZES if kind == "gpt2" else SIZES
    values: dict[str, Any] = {"model_type": kind, "architectures": [ARCHITECTURES[kind]]}
    values |= {theirs: getattr(config, ours) for theirs, ours in sizes.items()}
    values |= {key: allowed[0] for key, allowed in REQUIRED[kind].items()}
    if isinstance(config, EncoderConfig):
        values |= {"type_vocab_size": config.types, "layer_norm_eps": config.norm_epsilon, "pad_token_id": config.pad}
    elif kind == "gpt2":
        values |= {"n_inner": config.mlp, "layer_norm_epsilon": config.norm_epsilon, "tie_word_embeddings": config.tied}
    else:
        values |= {"num_key_value_heads": config.kv_heads, "rms_norm_eps": config.norm_epsilon}
        values |= {"rope_theta": config.rope_theta, "rope_scaling": None, "tie_word_embeddings": config.tied}
        if scaling := config.rope_scaling:
            stretch = {theirs: getattr(scaling, ours) for theirs, ours in SCALING.items()}
            values["rope_scaling"] = {"rope_type": "llama3", **stretch}
    if read(Path("config.json"), values)[1] != config:
        raise ValueError(f"{config} mixes families and cannot be saved: make it with gpt2() or llama(), or as BERT's")
    return values


def kind_of(config: Config) -> str:
    """The model type of a config, if it is of one family."""
    if isinstance(config, EncoderConfig):
        return "roberta" if config.position_offset else "bert"
    return "gpt2" if config.rope_theta is None else "llama"
