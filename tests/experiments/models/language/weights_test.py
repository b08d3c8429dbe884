"""Pre-trained weights in a run: a folder or a package, all of it trained or adapters alone; what does not fit is told."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import models
from experiments.core.config import validated
from experiments.core.errors import ConfigError, UserError
from experiments.core.machines import environment
from experiments.core.sections import Lora, Model
from experiments.data.splits import Tokens
from experiments.models.language import adapted, packaged, weights
from experiments.models.language.backbones import as_functions
from experiments.models.language.decoder import Decoder, gpt2
from experiments.models.language.encoder import Encoder, EncoderConfig
from experiments.models.params import flatten
from s3t.training.adapters import Adapter
from tests.helpers.toys import quick_jit

FIXTURES = Path(__file__).resolve().parents[3] / "fixtures/language"
KEY = jax.random.key(5)
OPTIONS = {"options": {}}


def section(family="llama3", **changes):
    return Model(**({"name": "folder", "params": str(FIXTURES / family)} | OPTIONS | changes))


def build(made, length=12, vocabulary=48):
    return models.build(made, np.zeros((1, length), np.int32), vocabulary)


def classifier(family, length=12, vocabulary=48, **changes):
    """Of four classes, where the folder's head has three."""
    pad = {"bert": 0, "roberta": 1}[family]
    made = section(family, **changes)
    return models.build(made, np.zeros((1, length), np.int32), 4, Tokens(vocabulary, pad))


def expected(family):
    with np.load(FIXTURES / family / "expected.npz") as file:
        return file["tokens"], file["logits"]


@pytest.mark.parametrize(("family", "lora"), [("gpt2", {}), ("llama3", {"rank": 2})])
def test_every_seed_begins_with_the_weights_of_the_folder(family, lora):
    """Adapters change nothing before they are trained."""
    fns, (tokens, logits) = build(section(family, lora=lora)), expected(family)
    for seed in (0, 1):
        params = fns.init(jax.random.key(seed))
        np.testing.assert_allclose(jax.jit(fns.apply)(params, tokens, None), logits, atol=1e-4)
    assert fns.language and models.as_model(fns).token_loss is not None


def moved(fns):
    """Adapters far from where they begin."""
    params = fns.init(KEY)
    leaves, structure = jax.tree.flatten(params)
    drawn = [0.3 * jax.random.normal(jax.random.fold_in(KEY, i), leaf.shape) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, drawn)


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("lora", [{}, {"rank": 2}])
def test_an_encoder_begins_with_the_weights_of_the_folder_and_a_head_of_its_seed(family, lora):
    """What is classified is the mean of what the encoder makes of tokens, with adapters as without."""
    fns, (tokens, _) = classifier(family, lora=lora), expected(family)
    _, config, frozen = weights.load("folder", section(family).params)
    every = [fns.init(jax.random.key(seed)) for seed in (0, 1)]
    read = quick_jit(lambda params: (fns.apply(params, tokens, None), fns.features(params, tokens, None)))
    logits, features = read(every[1])
    whole = {"params": frozen | {"head": every[1]["head"]}}
    pooled = quick_jit(lambda whole: Encoder(config, 4, "mean").apply(whole, tokens, method="mean"))
    np.testing.assert_allclose(features, pooled(whole), atol=1e-5)
    first, dense = (params["head"]["classifier"] for params in every)
    np.testing.assert_allclose(logits, features @ dense["kernel"] + dense["bias"], atol=1e-5)
    assert logits.shape == (3, 4) and (first["kernel"] != dense["kernel"]).all()
    assert fns.generate is None and not fns.language


def test_adapters_of_an_encoder_act_as_those_of_one_whose_blocks_run_one_after_another():
    made = {"rank": 4, "alpha": 6.0, "targets": ("query", "mlp/up")}
    fns, (tokens, _) = classifier("roberta", lora=made, options={"remat": True}), expected("roberta")
    params, (_, config, frozen) = moved(fns), weights.load("folder", section("roberta").params)
    module = Encoder(config, 4, "mean")

    def slow(params):
        whole = {"params": frozen | {"head": params["head"]}}
        h = module.apply(whole, tokens, method="embed")
        for i in range(2):
            places = (("attention", "query"), ("mlp", "up"))
            factors = {f"{part}/{name}": params[part][name] for part, name in places}
            adapters = {name: Adapter(f["a"][i], 3.0 * f["b"][i], None) for name, f in factors.items()}
            h = module.apply(whole, h, i, adapters, method="block")
        return module.apply(whole, h, method="head")

    total = lambda apply: lambda params: jnp.mean(jnp.square(apply(params)))  # noqa: E731
    quick = lambda params: fns.apply(params, tokens, None)  # noqa: E731
    (loss, gradient), (by_hand, other) = (quick_jit(jax.value_and_grad(total(f)))(params) for f in (quick, slow))
    np.testing.assert_allclose(loss, by_hand, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), gradient, other)


def test_what_fills_rows_up_is_the_data_s():
    """A pad that is no BERT's own is as little looked at."""
    tokens, _ = expected("bert")
    filled = np.where(tokens == 0, 2, tokens)
    fns = models.build(section("bert"), tokens[:1], 4, Tokens(48, 2))
    params = fns.init(KEY)
    odd, usual = quick_jit(fns.apply)(params, filled, None), quick_jit(classifier("bert").apply)(params, tokens, None)
    np.testing.assert_allclose(odd, usual, atol=1e-5)


def test_a_folder_says_itself_whether_it_classifies():
    said = {name: models.classifies_text(section(name)) for name in ("gpt2", "llama2", "bert", "roberta")}
    assert said == {"gpt2": False, "llama2": False, "bert": True, "roberta": True}
    packages = {name: models.classifies_text(Model(name=name, options={})) for name in ("minilm", "smollm2", "bert", "mlp")}
    assert packages == {"minilm": True, "smollm2": False, "bert": True, "mlp": False}
    assert not models.classifies_text(Model(factory="mine:model"))
    with pytest.raises(UserError, match=r"nowhere/config\.json"):
        models.classifies_text(section("nowhere"))


def test_a_classifier_that_is_left_out_is_told_of(caplog):
    classifier("bert")
    assert "bert is left out: one for the classes of these data is trained" in caplog.text


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"length": 19}, "rows of 19 tokens are too long for the 18 positions of .*roberta: set --config.data.length"),
        ({"vocabulary": 49}, "the data have tokens up to 48, .*roberta knows 48: leave --config.data.tokeniser"),
        ({"lora": {"rank": 1, "targets": ("gate",)}}, "model.lora.targets is .*no layer is called 'gate'"),
    ],
)
def test_an_encoder_that_does_not_fit_is_one_line(changes, line):
    with pytest.raises(UserError, match=line):
        classifier("roberta", **changes)


def test_adapters_act_as_those_of_a_model_whose_blocks_run_one_after_another():
    """The slow twin: the decoder itself, each block with adapters of its own; gradients too, with remat and with noise."""
    made = section(lora={"rank": 4, "alpha": 6.0, "targets": ("query", "mlp/up")}, options={"remat": True})
    fns, (tokens, _) = build(made), expected("llama3")
    params, (_, config, frozen) = moved(fns), weights.load("folder", made.params)
    assert {name: leaf.shape for name, leaf in flatten(params).items()} == {
        "attention/query/a": (2, 24, 4), "attention/query/b": (2, 4, 24), "mlp/up/a": (2, 24, 4), "mlp/up/b": (2, 4, 40),
    }  # fmt: skip
    noise = 0.1 * jax.random.normal(KEY, (*tokens.shape, 24))

    def noisy(params):
        return fns.noisy(params, tokens, None, noise)

    def slow(params):
        adapters = [
            {
                f"{part}/{name}": Adapter(params[part][name]["a"][i], 3.0 * params[part][name]["b"][i], None)
                for part, name in (("attention", "query"), ("mlp", "up"))
            }
            for i in range(2)
        ]
        return Decoder(config).apply({"params": frozen}, tokens, adapters, noise)

    one_by_one, together = (environment.products(jax.make_jaxpr(f)(params).jaxpr) for f in (slow, noisy))
    assert one_by_one == together > 0
    total = lambda apply: lambda params: jnp.mean(jnp.square(apply(params)))  # noqa: E731
    (quick, gradient), (by_hand, other) = (jax.jit(jax.value_and_grad(total(apply)))(params) for apply in (noisy, slow))
    np.testing.assert_allclose(quick, by_hand, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), gradient, other)


@pytest.mark.parametrize(
    ("family", "changes"),
    [("gpt2", {}), ("llama3", {"options": {"remat": True}}), ("llama2", {"dtype": "bfloat16"})],
)
def test_adapters_continue_texts(family, changes):
    """The slow twin reads the whole text for each token, as training does; without adapters something else is said."""
    fns = build(section(family, lora={"rank": 2, "targets": ("attention", "mlp")}, **changes))
    params, (tokens, _) = moved(fns), expected(family)
    prompts, lengths, new = tokens[:, :4], np.array([4, 1, 2]), 5
    read = quick_jit(lambda text: fns.apply(params, text, None))
    text = np.zeros((len(prompts), 4 + new), np.int32)
    text[:, :4] = np.where(np.arange(4) < lengths[:, None], prompts, 0)
    rows = np.arange(len(prompts))
    for end in lengths + np.arange(new)[:, None]:
        text[rows, end] = read(text)[rows, end - 1].argmax(axis=-1)
    said = np.asarray(fns.generate(params, prompts, lengths, new))
    assert said.tolist() == [row[end : end + new].tolist() for row, end in zip(text, lengths, strict=True)]
    assert (said != fns.generate(fns.init(KEY), prompts, lengths, new)).any()


def test_a_short_backbone_has_adapters_in_full_precision():
    fns = build(section("llama2", lora={"rank": 2}, dtype="bfloat16"))
    params, (tokens, logits) = fns.init(KEY), expected("llama2")
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    made = jax.jit(fns.apply)(params, tokens, None)
    assert made.dtype == jnp.float32 and float(jnp.mean(jnp.abs(made - logits))) < 0.05 * float(np.std(logits))


@pytest.mark.parametrize(
    ("made", "length", "vocabulary", "line"),
    [
        (
            section("gpt2"),
            33,
            48,
            "rows of 33 tokens are too long for the 32 positions of .*: set --config.data.length",
        ),
        (section("gpt2"), 12, 49, "the data have tokens up to 48, .*gpt2 knows 48: leave --config.data.tokeniser empty"),
        (
            section("gpt2", options={"width": 8}),
            12,
            48,
            "option 'width' of model 'folder' is 8: its sizes are those of",
        ),
        (section("bert"), 12, 48, "bert is an encoder, which tells no next token: give a gpt2 or llama"),
        (section("nowhere"), 12, 48, "nowhere/config.json"),
        (
            section(lora={"rank": 1, "targets": ("odd",)}),
            12,
            48,
            "model.lora.targets is .*no layer is called 'odd'",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(made, length, vocabulary, line):
    with pytest.raises(UserError, match=line):
        build(made, length, vocabulary)


def test_images_are_refused():
    with pytest.raises(UserError, match="reads text, these data are none"):
        models.build(section("gpt2"), np.zeros((1, 8, 8, 1), np.float32), 10)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"name": "folder"}, "params is empty, but model.name is 'folder': set --config.model.params=FOLDER"),
        ({"name": "smollm2", "params": "x"}, "params is 'x', but smollm2 has weights of its own: leave it empty"),
        ({"name": "minilm", "params": "x"}, "params is 'x', but minilm has weights of its own: leave it empty"),
        ({"name": "gpt2", "lora": {"rank": 2}}, "rank is 2, but 'gpt2' is not pre-trained: set 0, or --config"),
    ],
)
def test_a_section_that_makes_no_sense_is_one_line(values, line):
    with pytest.raises(ConfigError, match=line):
        validated(Model, Model().model_dump() | values)


def test_a_digest_binds_every_file_of_the_weights(tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((FIXTURES / "gpt2" / name).read_bytes())
    here = lambda: models.digest(section("gpt2", params=str(tmp_path)))  # noqa: E731
    first = here()
    assert first == models.digest(section("gpt2")) and models.digest(Model()) == ""
    (tmp_path / "model.safetensors").write_bytes(b"others")
    assert here() != first


@pytest.mark.slow
def test_smollm2_in_a_run_is_that_of_its_package():
    """Adapters of nothing leave its greedy continuation: "The capital of Italy is" -> " Rome"."""
    try:
        packaged.smollm2_file()
    except UserError as error:
        pytest.skip(str(error))
    from experiments.data.text import tokenisers

    tokeniser = tokenisers.packaged("smollm2")
    tokens = np.array([tokeniser.encode("The capital of Italy is")], np.int32)
    fns = build(Model(name="smollm2", options={}, lora={"rank": 1}), tokens.shape[1], tokeniser.vocabulary)
    logits = jax.jit(fns.apply)(fns.init(KEY), tokens, None)
    assert tokeniser.decode([int(logits[0, -1].argmax())]) == " Rome"


@pytest.mark.parametrize("module", [
    Decoder(gpt2(vocabulary=270, width=16, depth=2, heads=2, positions=24)),
    Encoder(EncoderConfig(270, 16, 2, 2, 24, 20, 2, 1e-12, 0), classes=3),
], ids=["gpt2", "bert"])  # fmt: skip
def test_many_rows_of_adapted_models_at_once(module):
    """Lanes on 512 rows, as the same rows few at a time; a lookup behind a barrier ended the process at these sizes."""
    fns = adapted.build(module, as_functions(module).init(KEY), Lora(rank=2))
    lanes = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), moved(fns))
    tokens = np.random.default_rng(0).integers(2, 270, (512, 16)).astype(np.int32)
    every = jax.jit(jax.vmap(lambda params, x: fns.apply(params, x, None), (0, None)))
    np.testing.assert_allclose(every(lanes, tokens)[:, :8], every(lanes, tokens[:8]), atol=1e-5)
