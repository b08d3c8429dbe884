"""Generation: the cache against reading everything anew for each token, and what it refuses."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.models.language import folders
from experiments.models.language.backbones import layers
from experiments.models.language.decoder import Cache, Decoder
from experiments.models.language.generate import generate
from s3t.training.adapters import Lora, init_slot, switched
from tests.helpers.toys import quick_jit

FIXTURES = Path(__file__).resolve().parents[3] / "fixtures/language"
NEW = 5
PROMPTS, LENGTHS = np.array([[5, 9, 30, 7], [8, 0, 0, 0], [3, 3, 0, 0]]), np.array([4, 1, 2])


def loaded(name):
    made = folders.load_folder(FIXTURES / name)
    return Decoder(made.config), made.params


def twin(module, params):
    """Each row alone, without a cache: the whole text is read for each token."""
    rows = []
    read = quick_jit(lambda tokens: module.apply({"params": params}, tokens))
    for prompt, length in zip(PROMPTS, LENGTHS, strict=True):
        text = prompt[:length].tolist()
        for _ in range(NEW):
            padded = np.zeros((1, 9), np.int32)
            padded[0, : len(text)] = text
            text.append(int(jnp.argmax(read(padded)[0, len(text) - 1])))
        rows.append(text[length:])
    return rows


@pytest.mark.parametrize("name", ["gpt2", "llama3"])
def test_the_cache_says_what_reading_anew_says(name):
    module, params = loaded(name)
    assert generate(module, params, PROMPTS, LENGTHS, NEW).tolist() == twin(module, params)


@pytest.mark.parametrize("name", ["gpt2", "llama3"])
@pytest.mark.parametrize("key", [None, jax.random.key(3)])
def test_each_row_has_its_own_room_beside_long_ones(name, key):
    """Prompts of 32 positions, of all but one, and short ones: each says what it says alone, and then only the stop."""
    module, params = loaded(name)
    read = quick_jit(lambda tokens: module.apply({"params": params}, tokens))
    lengths, new, stop = np.array([32, 31, 3, 1, 20]), 40, 46
    prompts = np.random.default_rng(2).integers(1, 45, (5, 32))
    said = np.asarray(generate(module, params, prompts, lengths, new, stop=stop, key=key))
    for row, prompt, length in zip(said, prompts, lengths, strict=True):
        room = 32 - length
        assert row[room:].tolist() == [stop] * (new - room)
        if room and key is None:
            alone = generate(module, params, prompt[None, :length], [length], room, stop=stop)
            assert row[:room].tolist() == np.asarray(alone)[0].tolist()
            assert row[:room].tolist() == read_anew(read, prompt[:length], room, stop)
    if key is not None:  # draws are of the whole batch: rows that are full change nobody's
        narrow = np.asarray(generate(module, params, prompts[:, :20], np.minimum(lengths, 20), 12, stop=stop, key=key))
        np.testing.assert_array_equal(said[2:, :12], narrow[2:])


def read_anew(read, prompt, new, stop):
    """What comes after a prompt: the whole text is read for each token, until the stop."""
    text = prompt.tolist()
    for _ in range(new):
        padded = np.zeros((1, 32), np.int32)
        padded[0, : len(text)] = text
        text.append(int(jnp.argmax(read(padded)[0, len(text) - 1])))
        if text[-1] == stop:
            break
    said = text[len(prompt) :]
    return said + [stop] * (new - len(said))


@pytest.mark.parametrize("name", ["gpt2", "llama3"])
def test_adapters_act_in_the_cache_as_they_do_without(name):
    """A text read in two parts, and at once: the same logits, which those of no adapters are not."""
    module, params = loaded(name)
    tokens, places = np.tile(PROMPTS[:1], (2, 2)), np.tile(np.arange(8), (2, 1))
    slot = init_slot(jax.random.key(1), Lora(2, 4.0, ("attention", "mlp/up")), (layers(module),) * 2)
    adapters = switched(Lora(2, 4.0, ()), jax.tree.map(lambda leaf: leaf + 0.3, slot))
    blank = jnp.zeros((2, 8, module.config.kv_heads, module.config.head_width))

    def in_two(params, adapters):
        read = lambda *given: module.apply({"params": params}, *given, adapters, method="read")  # noqa: E731
        first, caches = read(tokens[:, :5], places[:, :5], (Cache(blank, blank),) * 2)
        last, _ = read(tokens[:, 5:], places[:, 5:], caches)
        return module.apply({"params": params}, jnp.concatenate([first, last], axis=1), method="head")

    at_once = lambda params, adapters: module.apply({"params": params}, tokens, adapters)  # noqa: E731
    with_, without = (quick_jit(at_once)(params, given) for given in (adapters, ()))
    np.testing.assert_allclose(quick_jit(in_two)(params, adapters), with_, atol=2e-5)
    assert float(jnp.abs(with_ - without).max()) > 0.1


def test_pads_say_nothing_and_stops_stay():
    module, params = loaded("llama2")
    rubbish = np.where(np.arange(4) < LENGTHS[:, None], PROMPTS, 41)
    said = np.asarray(generate(module, params, PROMPTS, LENGTHS, NEW))
    np.testing.assert_array_equal(said, generate(module, params, rubbish, LENGTHS, NEW))
    stop = int(said[0, 1])
    stopped = np.asarray(generate(module, params, PROMPTS, LENGTHS, NEW, stop=stop))
    first = [row.tolist().index(stop) if stop in row else NEW for row in said]
    for row, before, place in zip(stopped, said, first, strict=True):
        assert row.tolist() == before[:place].tolist() + [stop] * (NEW - place)


def test_draws_follow_key_and_temperature():
    """Of a cold draw the likeliest token; of many warm ones the frequencies of the softmax."""
    module, params = loaded("gpt2")
    cold = generate(module, params, PROMPTS, LENGTHS, NEW, key=jax.random.key(0), temperature=1e-4)
    np.testing.assert_array_equal(cold, generate(module, params, PROMPTS, LENGTHS, NEW))
    many = np.tile([[5, 9]], (4000, 1))
    drawn = generate(module, params, many, np.full(4000, 2), 1, key=jax.random.key(1), temperature=2.0)
    law = quick_jit(lambda params: jax.nn.softmax(module.apply({"params": params}, many[:1])[0, -1] / 2))(params)
    seen = np.bincount(np.asarray(drawn)[:, 0], minlength=48) / 4000
    assert np.abs(seen - law).max() < 4 * np.sqrt(0.25 / 4000)


@pytest.mark.parametrize(
    "given, says",
    [
        ({"lengths": [4, 0, 2]}, "lengths of prompts are 0 to 4: give 1 to 4"),
        ({"lengths": [4, 5, 2]}, "lengths of prompts are 2 to 5"),
        ({"lengths": [4, 1]}, r"lengths \(2,\)"),
        ({"new": 29}, "29 tokens after prompts of 4 are not within 1 and 32 positions: ask for 28, or give a stop"),
        ({"new": 0, "stop": 1}, "0 tokens after"),
        ({"prompts": np.ones((3, 33), int), "stop": 1}, "prompts of 33 tokens are wider than 32 positions"),
        ({"temperature": 0.0}, "temperature of 0.0"),
    ],
)
def test_refusals_are_one_line(given, says):
    module, params = loaded("gpt2")
    with pytest.raises(ValueError, match=says):
        generate(module, params, **{"prompts": PROMPTS, "lengths": LENGTHS, "new": NEW, **given})
