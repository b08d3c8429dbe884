"""Folders of all four families: the logits of `transformers`, tensors byte for byte, and every difference named."""

import json
import shutil
from pathlib import Path

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from experiments.core.errors import UserError
from experiments.models.language import configs, folders
from experiments.models.language.decoder import Decoder, DecoderConfig, llama
from experiments.models.language.encoder import Encoder
from tests.helpers.toys import quick_jit

FIXTURES = Path(__file__).resolve().parents[3] / "fixtures/language"
NAMES = ("gpt2", "llama2", "llama3", "bert", "roberta")


def logits(loaded, given):
    if isinstance(loaded.config, DecoderConfig):
        module, params, x = Decoder(loaded.config), loaded.params, given["tokens"]
    else:
        module, params = Encoder(loaded.config, classes=3), loaded.params | {"head": loaded.head}
        x = {"tokens": given["tokens"], "mask": given["mask"]}
    return quick_jit(lambda params, x: module.apply({"params": params}, x))(params, x)


def expected(name):
    with np.load(FIXTURES / name / "expected.npz") as arrays:
        return dict(arrays)


@pytest.fixture
def copied(tmp_path):
    """copied(name) -> a copy of a fixture, to be damaged."""

    def copy(name):
        folder = tmp_path / "copy"
        shutil.copytree(FIXTURES / name, folder)
        return folder

    return copy


def edit(folder, change):
    path = folder / "model.safetensors"
    arrays = load_file(path)
    change(arrays)
    save_file(arrays, path)


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_transformers(name):
    given = expected(name)
    made = logits(folders.load_folder(FIXTURES / name), given)
    np.testing.assert_allclose(made, given["logits"], atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_saved_has_the_tensors_that_were_read(name, tmp_path):
    loaded = folders.load_folder(FIXTURES / name)
    folders.save_folder(tmp_path, loaded.config, loaded.params, loaded.head, loaded.values)
    before, after = (load_file(folder / "model.safetensors") for folder in (FIXTURES / name, tmp_path))
    assert before.keys() == after.keys()
    assert all(before[key].tobytes() == after[key].tobytes() and before[key].shape == after[key].shape for key in before)
    again = folders.load_folder(tmp_path)
    assert again.config == loaded.config and jax.tree.structure(again.params) == jax.tree.structure(loaded.params)
    with safe_open(tmp_path / "model.safetensors", "numpy") as file:
        assert file.metadata() == {"format": "pt"}
    assert again.values["bos_token_id"] == loaded.values["bos_token_id"]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_short_tensors_are_read_and_made(dtype, tmp_path):
    loaded = folders.load_folder(FIXTURES / "llama3", dtype)
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded.params)} == {jnp.dtype(dtype)}
    assert loaded.values["dtype"] == "float32"
    folders.save_folder(tmp_path, loaded.config, loaded.params, None, loaded.values)
    written = json.loads((tmp_path / "config.json").read_text())
    assert {written[key] for key in ("dtype", "torch_dtype")} == {jnp.dtype(dtype).name}
    again = folders.load_folder(tmp_path)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.float32(a), b), loaded.params, again.params)


def test_shards_are_one_model(copied):
    folder = copied("llama2")
    arrays = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    shards = {name: f"model-{1 + i % 2}-of-2.safetensors" for i, name in enumerate(sorted(arrays))}
    for file in set(shards.values()):
        save_file({name: arrays[name] for name in shards if shards[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    whole = folders.load_folder(FIXTURES / "llama2")
    jax.tree.map(np.testing.assert_array_equal, folders.load_folder(folder).params, whole.params)
    for odd, says in (
        ({"x": "../model.safetensors"}, "no weight_map"),
        (shards | {"x": shards["model.norm.weight"]}, "differ about x"),
        ({name: file for name, file in shards.items() if name != "model.norm.weight"}, "differ about model.norm.weight"),
    ):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": odd}))
        with pytest.raises(UserError, match=says):
            folders.load_folder(folder)
    (folder / "model.safetensors.index.json").unlink()
    says = r"has shards, as model-1-of-2\.safetensors, but no model\.safetensors\.index\.json, which says what is where"
    with pytest.raises(UserError, match=says):
        folders.load_folder(folder)


@pytest.mark.parametrize("name, prefix", [("gpt2", "transformer."), ("bert", "bert.")])
def test_a_bare_model_lacks_the_prefix(name, prefix, copied):
    folder = copied(name)
    headless = {key: array for key, array in load_file(folder / "model.safetensors").items() if key.startswith(prefix)}
    save_file({key.removeprefix(prefix): array for key, array in headless.items()}, folder / "model.safetensors")
    loaded, whole = folders.load_folder(folder), folders.load_folder(FIXTURES / name)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, whole.params)
    assert name == "gpt2" or loaded.head.keys() == {"pooler"}


def test_what_is_harmless_is_passed_over(copied):
    folder = copied("llama3")
    edit(folder, put("model.layers.1.self_attn.rotary_emb.inv_freq", np.zeros(3)))
    loaded, whole = folders.load_folder(folder), folders.load_folder(FIXTURES / "llama3")
    jax.tree.map(np.testing.assert_array_equal, loaded.params, whole.params)


@pytest.mark.parametrize("name, embedding", [("gpt2", "transformer.wte.weight"), ("llama3", "model.embed_tokens.weight")])
def test_a_tied_output_is_the_embedding_or_refused(name, embedding, copied, monkeypatch):
    """Untied, as the message says, it is another model."""
    monkeypatch.setattr(folders, "ROWS", 10)
    folder = copied(name)
    table = load_file(folder / "model.safetensors")[embedding]
    edit(folder, put("lm_head.weight", table))
    assert "output" not in folders.load_folder(folder).params
    other = table.copy()
    other[-1, 0] += 1
    for odd in (other, table[:-1]):
        edit(folder, put("lm_head.weight", odd))
        with pytest.raises(UserError, match=rf"lm_head\.weight differs from {embedding}, .*: set tie_word_embeddings to f"):
            folders.load_folder(folder)
    edit(folder, put("lm_head.weight", other))
    edit_config(folder, tie_word_embeddings=False)
    np.testing.assert_array_equal(folders.load_folder(folder).params["output"]["embedding"], other)


def test_a_repeated_output_is_compared_in_short_precision(copied):
    folder = copied("llama3")
    loaded = folders.load_folder(folder, jnp.bfloat16)
    folders.save_folder(folder, loaded.config, loaded.params, None, loaded.values)
    edit(folder, lambda arrays: arrays.update({"lm_head.weight": arrays["model.embed_tokens.weight"]}))
    assert "output" not in folders.load_folder(folder).params


def drop(name):
    return lambda arrays: arrays.pop(name)


def put(name, array):
    return lambda arrays: arrays.update({name: array})


@pytest.mark.parametrize(
    "change, says",
    [
        (drop("model.layers.1.mlp.up_proj.weight"), "lacks model.layers.1.mlp.up_proj.weight"),
        (drop("lm_head.weight"), "lacks lm_head.weight"),
        (
            put("model.layers.2.mlp.up_proj.weight", np.ones((40, 24), np.float32)),
            "holds model.layers.2.mlp.up_proj.weight",
        ),
        (put("model.norm.weight", np.ones(23, np.float32)), r"model.norm.weight is \[23\], its config.json tells \[24\]"),
        (put("model.norm.weight", np.ones(24, np.int32)), "model.norm.weight is of I32"),
        (put("model.norm.weight", np.full(24, np.nan, np.float32)), "model.norm.weight is not finite as float32"),
    ],
)
def test_a_tensor_that_differs_is_named(change, says, copied):
    folder = copied("llama2")
    edit(folder, change)
    with pytest.raises(UserError, match=says) as raised:
        folders.load_folder(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "name, changes, says",
    [
        ("gpt2", {"model_type": "opt"}, "config.json: model_type is 'opt'"),
        ("gpt2", {"activation_function": "relu"}, "activation_function is 'relu': only 'gelu_new'"),
        ("gpt2", {"n_embd": 24.0}, "n_embd is 24.0"),
        ("gpt2", {"n_embd": 10**12}, "n_embd is 1000000000000: give a whole number from 1 to"),
        ("gpt2", {"n_head": 5}, "24 is not shared among 5 heads"),
        ("llama2", {"attention_bias": True}, "attention_bias is True"),
        ("llama2", {"head_dim": 12}, "head_dim is 12"),
        ("llama2", {"num_key_value_heads": 3}, "4 heads do not share 3"),
        ("llama2", {"rope_parameters": {"rope_type": "yarn"}}, "config.json: rope_parameters: rope_type is 'yarn'"),
        ("llama2", {"rope_parameters": None, "rope_scaling": {"type": "linear"}}, "rope_scaling: type is 'linear'"),
        ("llama2", {"rope_parameters": {"rope_type": "llama3"}}, "factor is None"),
        ("llama2", {"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no'"),
        ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
    ],
)
def test_a_config_of_another_model_is_refused(name, changes, says, copied):
    folder = copied(name)
    edit_config(folder, **changes)
    with pytest.raises(UserError, match=says) as raised:
        folders.load_folder(folder)
    assert "\n" not in str(raised.value)


ODD = (["x"], {"x": 1}, "12", "", True, -1, 10**400, float("nan"), float("inf"))


@pytest.mark.parametrize(
    "name, keys",
    [
        ("gpt2", ("model_type", "activation_function", "n_embd", "n_layer", "n_positions", "layer_norm_epsilon")),
        ("llama3", ("model_type", "num_key_value_heads", "rms_norm_eps", "rope_theta", "hidden_act", "head_dim")),
        ("roberta", ("model_type", "pad_token_id", "type_vocab_size", "layer_norm_eps", "is_decoder")),
    ],
)
@pytest.mark.parametrize("value", [*ODD, pytest.param(None, id="null")])
def test_a_value_of_another_type_is_one_line_that_names_its_key(name, keys, value):
    given = json.loads((FIXTURES / name / "config.json").read_text())
    defaults = ("layer_norm_epsilon", "num_key_value_heads", "rms_norm_eps", "rope_theta", "head_dim", "pad_token_id")
    for key in keys:
        if value is None and key in (*defaults, "type_vocab_size", "layer_norm_eps"):
            continue
        with pytest.raises(UserError, match=rf"config\.json: {key} is ") as raised:
            configs.read(Path("config.json"), given | {"rope_parameters": None} | {key: value})
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("key", ["rope_theta", "rope_type", *configs.SCALING])
@pytest.mark.parametrize("value", ODD)
def test_a_value_of_another_type_among_rope_parameters_is_one_line(key, value):
    given = json.loads((FIXTURES / "llama3/config.json").read_text())
    with pytest.raises(UserError, match=rf"rope_parameters: {key} is "):
        configs.read(Path("config.json"), given | {"rope_parameters": given["rope_parameters"] | {key: value}})
    with pytest.raises(UserError, match=r"rope_parameters is .*: give a mapping"):
        configs.read(Path("config.json"), given | {"rope_parameters": [value]})


@pytest.mark.parametrize("key, value", [*((key, 0) for key in configs.SCALING), ("factor", 0.5), ("high_freq_factor", 1.0)])
def test_a_stretching_that_divides_by_zero_or_quickens_is_one_line(key, value):
    """The low factor of the fixture is 1."""
    given = json.loads((FIXTURES / "llama3/config.json").read_text())
    with pytest.raises(UserError, match=r"config\.json: rotary positions are stretched by .*: give a factor") as raised:
        configs.read(Path("config.json"), given | {"rope_parameters": given["rope_parameters"] | {key: value}})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("layer", ["classifier.dense", "classifier.out_proj", "bert.pooler.dense", "classifier"])
@pytest.mark.parametrize("parts", [("weight",), ("bias",), ("weight", "bias")])
def test_half_a_head_is_refused_by_the_name_of_what_is_missing(layer, parts, copied):
    """All but the pooler of a BERT, as it is pre-trained."""
    folder = copied("bert" if layer in ("bert.pooler.dense", "classifier") else "roberta")
    whole = folders.load_folder(folder)
    for part in parts:
        edit(folder, drop(f"{layer}.{part}"))
    if (layer, len(parts)) == ("classifier", 2):
        assert folders.load_folder(folder).head.keys() == {"pooler"}
        return
    with pytest.raises(UserError, match=f"lacks {layer}.{parts[0]}, and holds others of the head: add it, or leave"):
        folders.load_folder(folder)
    ours = "classifier" if layer in ("classifier.out_proj", "classifier") else "pooler"
    kept = {"weight": "bias", "bias": "kernel"}
    head = {name: dict(leaves) for name, leaves in whole.head.items()}
    head[ours] = {} if len(parts) == 2 else {kept[parts[0]]: head[ours][kept[parts[0]]]}
    with pytest.raises(ValueError, match=f"the head lacks {layer}.{parts[0]}: give all of a"):
        folders.save_folder(folder, whole.config, whole.params, head)


def test_a_depth_that_no_folder_has_is_told_at_once(copied):
    folder = copied("gpt2")
    edit_config(folder, n_layer=10**9)
    with pytest.raises(UserError, match=r"lacks transformer\.h\.2\.ln_1\.weight"):
        folders.load_folder(folder)


def test_names_of_classes_that_are_none_are_made_anew(tmp_path):
    loaded = folders.load_folder(FIXTURES / "bert")
    folders.save_folder(tmp_path, loaded.config, loaded.params, loaded.head, loaded.values | {"id2label": None})
    assert len(folders.load_folder(tmp_path).values["id2label"]) == 3


def test_pickles_and_other_files_are_refused(copied, tmp_path):
    folder = copied("gpt2")
    (folder / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read"):
        folders.load_folder(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pickled pytorch_model.bin, .*: save the model as safetensors"):
        folders.load_folder(folder)
    (folder / "pytorch_model.bin").rename(folder / "adapter_model.safetensors")
    with pytest.raises(UserError, match=r"has no model\.safetensors \(it holds adapter_model\.safetensors\): save"):
        folders.load_folder(folder)
    with pytest.raises(UserError, match=r"config.json cannot be read"):
        folders.load_folder(tmp_path / "nowhere")


def test_what_is_of_no_family_is_not_saved(tmp_path):
    config = llama(vocabulary=5, width=4, depth=1, heads=2, mlp=6, positions=8)
    params = jax.eval_shape(Decoder(config).init, jax.random.key(0), np.zeros((1, 2), int))["params"]
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), params)
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    with pytest.raises(ValueError, match="mixes families"):
        configs.write(llama(vocabulary=5, width=4, depth=1, heads=2, mlp=6, positions=8, norm="layer"))
    with pytest.raises(ValueError, match="the parameters hold more"):
        folders.save_folder(tmp_path, config, params | {"more": np.ones(2)})
    del flat["norm/scale"]
    with pytest.raises(ValueError, match="the parameters lack norm/scale"):
        folders.save_folder(tmp_path, config, flax.traverse_util.unflatten_dict(flat, sep="/"))
