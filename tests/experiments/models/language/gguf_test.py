"""A GGUF file of a tiny Llama, written by the library that defines the format, becomes the folder it was made of."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments.core.errors import UserError
from experiments.models.language import folders
from experiments.models.language import gguf as converter

gguf = pytest.importorskip("gguf", reason="no gguf on this machine (the extra `text`): no GGUF file is written or read")
tokenizers = pytest.importorskip("tokenizers", reason="no tokenizers on this machine: the extra `text` has them")
FIXTURE = Path(__file__).resolve().parents[3] / "fixtures/language/llama2"
WORDS = ["<end>", *"abcdefghijklmnopqrstuvwxyz", *"ABCDEFGHIJKLMNOPQRST", "ab"]
HEADS = {".attn_q.": 4, ".attn_k.": 4}


def permuted(rows, heads):
    """llama.cpp's order, one row after the other: of a head of d rows, 0, d/2, 1, d/2 + 1, ..."""
    d = len(rows) // heads
    order = [head * d + pair + side * d // 2 for head in range(heads) for pair in range(d // 2) for side in range(2)]
    return rows[order]


@pytest.fixture
def write(tmp_path):
    """write(**changes) -> a .gguf of the fixture; `change` is given its tensors by GGUF's names."""

    def write(architecture="llama", pre="smollm", change=lambda arrays: None):
        writer = gguf.GGUFWriter(tmp_path / "tiny.gguf", architecture)
        writer.add_block_count(2)
        writer.add_embedding_length(24)
        writer.add_feed_forward_length(40)
        writer.add_head_count(4)
        writer.add_head_count_kv(4)
        writer.add_layer_norm_rms_eps(1e-6)
        writer.add_rope_freq_base(1e4)
        writer.add_context_length(32)
        writer.add_vocab_size(48)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list(WORDS)
        writer.add_token_types([3] + [1] * 47)
        writer.add_token_merges(["a b"])
        writer.add_eos_token_id(0)
        theirs, arrays = load_file(FIXTURE / "model.safetensors"), {}
        for name, whole in converter.NAMES.items():
            for i in range(2) if "{i}" in name else (0,):
                rows = theirs[whole.replace("{i}", str(i))]
                heads = next((heads for part, heads in HEADS.items() if part in name), None)
                arrays[name.replace("{i}", str(i))] = permuted(rows, heads) if heads else rows
        change(arrays)
        for name, array in arrays.items():
            writer.add_tensor(name, np.ascontiguousarray(array))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return tmp_path / "tiny.gguf"

    return write


def test_the_folder_is_the_one_it_was_made_of(write, tmp_path):
    converter.convert(write(), tmp_path / "folder")
    made, wanted = (load_file(folder / "model.safetensors") for folder in (tmp_path / "folder", FIXTURE))
    assert made.keys() == wanted.keys()
    for name, tensor in wanted.items():
        np.testing.assert_array_equal(made[name], tensor, err_msg=name)
    loaded = folders.load_folder(tmp_path / "folder")
    assert loaded.config == folders.load_folder(FIXTURE).config and loaded.values["eos_token_id"] == 0
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "folder" / "tokenizer.json"))
    assert tokenizer.encode("<end>ab").ids == [0, 47] and json.loads(tokenizer.to_str())["model"]["type"] == "BPE"


def test_what_cannot_be_converted_is_named(write, tmp_path):
    for given, says in (
        ({"architecture": "gemma"}, "the architecture 'gemma': only 'llama'"),
        ({"pre": "qwen2"}, r"a tokeniser \('gpt2', 'qwen2'\)"),
        ({"change": lambda arrays: arrays.pop("blk.1.ffn_up.weight")}, r"lacks blk\.1\.ffn_up\.weight"),
        (
            {"change": lambda arrays: arrays.update({"rope_freqs.weight": np.ones(3, np.float32)})},
            "holds rope_freqs.weight",
        ),
    ):
        with pytest.raises(UserError, match=says):
            converter.convert(write(**given), tmp_path / "folder")
    for path in (FIXTURE / "config.json", tmp_path / "none.gguf"):
        with pytest.raises(UserError, match="cannot be read as GGUF"):
            converter.convert(path, tmp_path / "folder")
