"""Real weights, from the packages of the extra `weights`: what they are known to say. Nothing here is quick."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.core.errors import UserError
from experiments.models.language import folders, gguf, packaged
from experiments.models.language.decoder import Decoder
from experiments.models.language.encoder import Encoder
from experiments.models.language.generate import generate

pytestmark = pytest.mark.slow
FIXTURES = Path(__file__).resolve().parents[3] / "fixtures/language"
SUN = """
The sun is a star. It is the star at the center of our solar system, and it gives the Earth light and heat. Without the sun,
there would be no life on our planet. The sun is made of hot gas, mostly hydrogen and helium. It is much bigger than the
Earth: more than one million Earths could fit inside it. Plants use the light of the sun to make their food, and animals eat
the plants.
"""
TOWNS = """
The Industrial Revolution began in Great Britain in the second half of the eighteenth century. It changed the way goods were
made: work moved from homes and small workshops into factories, where machines driven by water and later by steam did what
people had done by hand. Towns grew quickly, and many families left the countryside to look for work. Life in the new cities
was often hard, with long hours, low wages and crowded houses, but over time the new methods made goods cheaper and raised
the standard of living for most people.
"""
PEAK = """
import json, os, sys, threading
import jax
from experiments.models.language import folders

tiny, folder, dtype = sys.argv[1:]
folders.load_folder(tiny, dtype)  # what the libraries take is not the model's

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

before, peak, done = resident(), 0, threading.Event()

def watch():
    global peak
    while not done.wait(0.0005):
        peak = max(peak, resident())

watcher = threading.Thread(target=watch)
watcher.start()
loaded = jax.block_until_ready(folders.load_folder(folder, dtype))
done.set(), watcher.join()
print(json.dumps([peak - before, sum(leaf.nbytes for leaf in jax.tree.leaves(loaded.params))]))
"""


def need(find):
    """A file of a package, or the test is skipped with the reason."""
    try:
        return find()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    """(folder, tokeniser) of SmolLM2, converted once."""
    tokenizers = pytest.importorskip("tokenizers", reason="no tokenizers on this machine: the extra `text` has them")
    folder = tmp_path_factory.mktemp("smollm2")
    gguf.convert(need(packaged.smollm2_file), folder)
    return folder, tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


def test_minilm_knows_who_is_happy():
    tokenizers = pytest.importorskip("tokenizers", reason="no tokenizers on this machine: the extra `text` has them")
    folder = need(packaged.minilm_folder)
    texts = "That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day"
    encodings = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).encode_batch(list(texts))
    x = {"tokens": np.array([e.ids for e in encodings]), "mask": np.array([e.attention_mask for e in encodings])}
    loaded = folders.load_folder(folder)
    means = np.asarray(Encoder(loaded.config).apply({"params": loaded.params}, x, method="mean"))
    unit = means / np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(unit[1:] @ unit[0], [0.6946, 0.9429, 0.2569], atol=1e-3)


def test_smollm2_knows_the_capital_of_italy(smollm2):
    folder, tokenizer = smollm2
    loaded = folders.load_folder(folder)
    assert sum(leaf.size for leaf in jax.tree.leaves(loaded.params)) == 134_515_008
    prompts = [tokenizer.encode(text).ids for text in ("The capital of Italy is", "Once upon a time there was a")]
    padded = [ids + [0] * (8 - len(ids)) for ids in prompts]
    said = generate(Decoder(loaded.config), loaded.params, padded, [len(ids) for ids in prompts], 12)
    words = [tokenizer.decode(row) for row in said.tolist()]
    assert words[0].startswith(" Rome.") and words[1].startswith(" small town")


@pytest.mark.parametrize("dtype, near", [(None, 1e-3), (jnp.bfloat16, 0.02)], ids=["float32", "bfloat16"])
def test_smollm2_has_the_nats_of_transformers(smollm2, dtype, near):
    """Per token of two plain paragraphs; the numbers are those of `transformers` on the same folder."""
    folder, tokenizer = smollm2
    loaded = folders.load_folder(folder, dtype or jnp.float32)
    module = Decoder(loaded.config, dtype=dtype)
    for text, nats in ((SUN, 1.8650), (TOWNS, 2.9019)):
        tokens = np.array([tokenizer.encode(" ".join(text.split())).ids])
        log_p = jax.nn.log_softmax(module.apply({"params": loaded.params}, tokens[:, :-1]))
        loss = -np.take_along_axis(np.asarray(log_p), tokens[:, 1:, None], axis=-1).mean()
        np.testing.assert_allclose(loss, nats, atol=near)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_more_than_the_model_is_in_memory_while_it_is_read(smollm2, dtype):
    if not Path("/proc/self/statm").exists():
        pytest.skip("this system does not tell a process's resident memory in /proc")
    command = [sys.executable, "-c", PEAK, FIXTURES / "llama3", smollm2[0], dtype]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    peak, size = json.loads(done.stdout)
    assert peak <= 1.3 * size


@pytest.mark.parametrize("name", ["gpt2", "llama2", "llama3", "bert", "roberta"])
def test_transformers_loads_what_is_saved(name, tmp_path):
    torch = pytest.importorskip("torch", reason="no PyTorch on this machine: the extra `peers` has it")
    transformers = pytest.importorskip("transformers", reason="no transformers on this machine: the extra `peers` has it")
    loaded = folders.load_folder(FIXTURES / name)
    folders.save_folder(tmp_path, loaded.config, loaded.params, loaded.head)
    kind = "AutoModelForSequenceClassification" if loaded.head else "AutoModelForCausalLM"
    model, told = getattr(transformers, kind).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with np.load(FIXTURES / name / "expected.npz") as given, torch.no_grad():
        tokens, mask = (torch.tensor(given[key].astype(np.int64)) for key in ("tokens", "mask"))
        logits = model.eval()(tokens, attention_mask=mask).logits
        np.testing.assert_allclose(logits, given["logits"], atol=1e-5)
