"""The factory for ViTs: what it fetches, what it refuses, and that nothing of one example depends on another."""

import sys

import jax
import numpy as np
import pytest
from absl import logging
from PIL import Image

from experiments.configs import judge_exact, s3t
from experiments.core.errors import UserError
from experiments.core.sections import StreamedData
from experiments.data import datasets, ids
from experiments.exact import run
from experiments.exact.factory import ARGUMENTS, HYPER, RULES, make
from experiments.judge_exact import run as judge_run
from experiments.models import vits
from s3t.plans import planners
from s3t.service import creation
from s3t.service.factory import source_of
from s3t.store import disk
from s3t.store.ledger import records
from s3t.training import adapters, source
from unlearn import tree

NAME = "experiments.s3t_factory:make"


def test_digits_are_fetched_by_id_and_scaled_by_constants():
    source = make({})
    assert source.hyper == HYPER | {"range": 16.0} and make(source.hyper).hyper == source.hyper
    assert (np.diff(source.ids) > 0).all()
    some = source.ids[[5, 2, 700]]
    x, y = source.fetch(some)
    from sklearn.datasets import load_digits

    digits = load_digits()
    np.testing.assert_array_equal(x[..., 0], digits.images[some].astype(np.float32) / 8 - 1)
    np.testing.assert_array_equal(y, digits.target[some])
    assert (x.dtype, y.dtype) == (np.float32, np.int32)
    held_out = np.setdiff1d(np.arange(len(digits.target)), source.ids)[:1]
    with pytest.raises(ValueError, match=f"'digits' has no training example {held_out[0]}: "):
        source.fetch(held_out)


def test_splits_are_those_of_the_data_set():
    splits = datasets.raw(StreamedData(name="digits", validation_fraction=0.1))[1]
    for classes in ([], [7, 3]):
        source = make({"classes": classes})
        for name in ("train", "validation", "test"):
            ids, fetch = source.split(name)
            x, y = fetch(ids)
            assert x.shape == (len(ids), 8, 8, 1) and len(ids) and set(ids) <= set(splits[name])
            np.testing.assert_array_equal(np.unique(y), np.arange(len(classes) or 10))
        with pytest.raises(ValueError, match="has no test example 0: "):
            fetch(np.setdiff1d([0], ids))
        np.testing.assert_array_equal(source.split("train")[0], source.ids)
    with pytest.raises(ValueError, match="'digits' has no split 'night': it has train, validation, test"):
        source.split("night")


def test_classes_are_chosen_and_renumbered():
    source = make({"classes": [7, 3]})
    everyone = make({})
    y = everyone.fetch(everyone.ids)[1]
    np.testing.assert_array_equal(source.ids, everyone.ids[np.isin(y, [3, 7])])
    np.testing.assert_array_equal(source.fetch(source.ids)[1], np.where(y[np.isin(y, [3, 7])] == 7, 0, 1))
    assert jax.eval_shape(source.backbone.init_head, jax.random.key(0))["bias"].shape == (2,)


def placed(tmp_path, source_of_lines=None, **arguments):
    for name, lines in (source_of_lines or {}).items():
        (tmp_path / name).write_text("\n".join(lines))
        arguments[name] = str(tmp_path / name)
    return source.placed(make({}, **arguments), 2, 4, b"key")


def test_a_persons_examples_share_a_slice_of_the_store(tmp_path):
    ids = make({}).ids
    lines = [f"{one}, person {i % 30}" for i, one in enumerate(ids[:300])]
    where, alone = placed(tmp_path, {"groups": lines}), placed(tmp_path)
    together = np.stack(where)[:, :300].reshape(2, 10, 30)
    assert (together == together[:, :1]).all() and len(np.unique(together[:, 0], axis=1).T) == 8
    np.testing.assert_array_equal(np.stack(where)[:, 300:], np.stack(alone)[:, 300:])


def test_examples_at_risk_share_slices_of_the_store(tmp_path):
    ids = make({}).ids
    lines = [f"{one},{0.5 if i % 7 == 0 else 0.01}" for i, one in enumerate(ids)]
    where = placed(tmp_path, {"risks": lines}, edges=[0.1], band_slices=[3, 1])
    np.testing.assert_array_equal(where.slice == 3, np.arange(len(ids)) % 7 == 0)


def test_files_of_places_are_read_when_a_store_is_made_and_not_again(tmp_path):
    made = make({}, groups=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"nowhere cannot be read \(.*give a CSV file of lines `id,group`"):
        source.placed(made, 2, 4, b"key")


@pytest.mark.parametrize(
    "files, arguments, message",
    [
        ({"groups": ["1,a", "x,a"]}, {}, "line 2 of .*groups is 'x,a': give `id,group`"),
        ({"groups": ["1,a,b"]}, {}, "line 1 of .*groups is '1,a,b'"),
        ({"groups": ["1,a", "1,b"]}, {}, "says another group of example 1"),
        ({"risks": ["1,.5"]}, {"band_slices": [4]}, "has no line for example"),
        ({"risks": ["1,2"]}, {"band_slices": [4]}, "the probability '2': give a number from 0 to 1"),
        ({"risks": ["1,much"]}, {"band_slices": [4]}, "the probability 'much'"),
        ({"risks": ["1,.5"]}, {}, "risks and band_slices go together"),
        ({}, {"edges": [0.5]}, "edges are of risks"),
        ({}, {"edges": "odd"}, "the factory's 'edges' is odd: give a list"),
    ],
)
def test_files_of_places_that_cannot_be_used_are_one_line(tmp_path, files, arguments, message):
    with pytest.raises(ValueError, match=message) as refused:
        placed(tmp_path, files, **arguments)
    assert "\n" not in str(refused.value)


def test_a_backbone_is_random_by_seed_or_read_from_a_file(tmp_path):
    first, again, other = (make({"seed": seed}).frozen for seed in (1, 1, 2))
    assert tree.bits_equal(first, again) and not tree.bits_equal(first, other)
    module = vits.vit("digits", 10)
    params = vits.init(module, jax.random.key(9), np.zeros((1, 8, 8, 1), np.float32))
    vits.save_npz(tmp_path / "vit.npz", params)
    read = make({"classes": [1, 2]}, checkpoint=str(tmp_path / "vit.npz")).frozen
    assert tree.bits_equal(read, jax.tree.map(np.asarray, vits.split_head(params)[0]))


@pytest.mark.parametrize(
    "hyper, arguments, message",
    [
        ({"epoch": 3}, {}, "hyper has no 'epoch': it takes dataset, "),
        ({"classes": [3, 10]}, {}, "give distinct labels of 0..9"),
        ({"model": "huge"}, {}, "ViT 'huge' is unknown"),
        ({"model": "B/16"}, {}, "cannot be cut into patches"),
        ({"train_size": 10**6}, {}, "train_size is 1000000"),
        ({"rank": -1}, {}, "hyper's 'rank' is -1: give a whole number from 1 to "),
        ({"rank": True}, {}, "hyper's 'rank' is True: "),
        ({"epochs": "abc"}, {}, "hyper's 'epochs' is abc: give a whole number from 1 to "),
        ({"epochs": 0}, {}, "hyper's 'epochs' is 0: "),
        ({"batch_size": 0}, {}, "hyper's 'batch_size' is 0: "),
        ({"seed": 1 << 32}, {}, "hyper's 'seed' is 4294967296: give a whole number from 0 to 4294967295"),
        ({"learning_rate": "fast"}, {}, "hyper's 'learning_rate' is fast: give a number above 0"),
        ({"learning_rate": 10**400}, {}, "hyper's 'learning_rate' is 1000"),
        ({"alpha": float("nan")}, {}, "hyper's 'alpha' is nan: give a number above 0"),
        ({"std": [0.5, 0]}, {}, r"hyper's 'std' is \[0.5, 0\]: give a list, each a number above 0"),
        ({"mean": [0.1, 0.2, 0.3]}, {}, "mean has 3 numbers, images have 1 channels: give one, or one for each"),
        ({"std": [0.5, 0.5]}, {}, "std has 2 numbers, images have 1 channels: give "),
        ({"targets": "query"}, {}, "hyper's 'targets' is query: give a list, each a text"),
        ({"classes": [True]}, {}, r"hyper's 'classes' is \[True\]: "),
        ({"dataset": 3}, {}, "hyper's 'dataset' is 3: give a text"),
        ({}, {"checkpoint": "no.npz"}, "no.npz cannot be read"),
        ({}, {"most_lanes": 1.5}, "the factory's 'most_lanes' is 1.5: give a whole number from 1 to "),
        ({}, {"most_lanes": 0}, "the factory's 'most_lanes' is 0: "),
        ({}, {"cache_bytes": "x"}, "the factory's 'cache_bytes' is x: give a whole number from 0 to "),
        ({}, {"cache_bytes": -1}, "the factory's 'cache_bytes' is -1: "),
        ({}, {"checkpoint": 7}, "the factory's 'checkpoint' is 7: give a text"),
        ({}, {"stream": "no"}, "the factory's 'stream' is no: give true or false"),
        ({}, {"where": "x"}, "does not take these arguments: .*where"),
    ],
)
def test_what_will_not_do_is_named(hyper, arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        source_of(NAME, hyper, arguments)
    assert "\n" not in str(error.value)


def test_the_factory_silences_warnings_of_its_data_sets():
    logging.set_verbosity(logging.WARNING)
    make({})
    assert logging.get_verbosity() == logging.ERROR


def test_every_default_keeps_its_own_rule():
    assert RULES.keys() == HYPER.keys() and all(RULES[name][0](value) for name, value in HYPER.items())
    assert ARGUMENTS.keys() == make.__kwdefaults__.keys()
    assert all(ARGUMENTS[name][0](value) for name, value in make.__kwdefaults__.items())


@pytest.mark.parametrize("name", ["experiments.nowhere:make", "experiments.s3t_factory:nothing"])
def test_a_factory_that_does_not_exist_is_named(name):
    with pytest.raises(ValueError, match=f"the factory {name} cannot be found"):
        source_of(name, {}, {})


def test_raw_data_are_those_that_load_standardises():
    config = StreamedData(name="digits", train_size=50, validation_fraction=0.2)
    source, ids = datasets.raw(config)
    loaded = datasets.load(config)
    for name, own in ids.items():
        np.testing.assert_array_equal(own, getattr(loaded, name).id)
        np.testing.assert_array_equal(source.read(own)[1], getattr(loaded, name).y)


def test_the_scaling_of_the_adapters_is_what_hyper_says():
    lora = source_of(NAME, {"rank": 4, "alpha": 8.0, "rank_stabilised": False}, {}).recipe.lora
    assert adapters.scale(lora) == 2.0 and adapters.scale(lora._replace(rank_stabilised=True)) == 4.0


# Data of a user's own.

TINY = {"patch": 4, "width": 8, "depth": 2, "heads": 2, "mlp_dim": 8}
MINE = """
import numpy as np
from experiments.data.splits import Dataset, Split

def parts(x):
    ids = np.arange(60)
    part = lambda rows: Split(x[rows], ids[rows] % 3, ids[rows])
    return Dataset("mine", part(ids < 40), part((ids >= 40) & (ids < 50)), part(ids >= 50), classes=3)

def images():
    return parts(np.random.default_rng(0).normal(size=(60, 8, 8, 1)).astype("float32"))

def table():
    return parts(np.zeros((60, 5), "float32"))
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The folder of a user with a module in it, in which they work."""
    monkeypatch.setitem(vits.VITS, "tiny", TINY)
    (tmp_path / "factory_of_mine.py").write_text(MINE)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("factory_of_mine", None)


def pictures(root, count=20):
    """A folder of images of three classes, and each by its path."""
    drawn = {}
    for i in range(3 * count):
        below = f"{'abc'[i % 3]}/{i}.png"
        drawn[below] = np.random.default_rng(i).integers(0, 256, (8, 8), dtype=np.uint8)
        (root / below).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn[below]).save(root / below)
    return drawn


def npz(path, names, size=(8, 8)):
    x = np.random.default_rng(0).integers(0, 256, (len(names), *size), dtype=np.uint8)
    np.savez(path, x=x, y=np.arange(len(names)) % 3, id=names)
    return f"npz:{path}"


@pytest.mark.parametrize("stream", [False, True])
def test_a_store_is_made_of_a_folder_of_images(mine, stream):
    drawn = pictures(mine / "pics")
    made = make({"dataset": f"folder:{mine / 'pics'}", "model": "tiny", "classes": [2, 0]}, stream=stream)
    named = {ids.stored_id(below): (below, pixels) for below, pixels in drawn.items()}
    seen = []
    for split in ("train", "validation", "test"):
        known, fetch = made.split(split)
        assert len(known) and (np.diff(known) > 0).all() and known.max() < 1 << 32
        asked = known[::-1]
        x, y = fetch(asked)
        for one, pixels, label in zip(asked.tolist(), x, y.tolist(), strict=True):
            below, before = named[one]
            np.testing.assert_allclose(pixels[..., 0], before / 127.5 - 1, atol=1e-6)
            assert below[0] == "ca"[label]
        seen += known.tolist()
    assert len(set(seen)) == len(seen) == 40
    arguments = {"stream": stream}
    store = creation.make_store(
        str(mine / "store"), made, planners.lattice(2), 2, 0, b"key", factory=NAME, arguments=arguments
    )
    assert records.counts(store.ledger)["examples"] == len(made.ids) and store.manifest.hyper["source"] == made.hyper
    gone = int(made.ids[3])
    assert disk.delete(store, [gone], "one")["ids"] == [gone]
    other = int(made.ids[4])
    assert disk.delete(store, [named[other][0]], "two")["ids"] == [other]
    disk.close(store)


def test_examples_keep_the_names_that_are_no_numbers(mine):
    drawn = pictures(mine / "pics")
    (mine / "people.csv").write_text("id,group\n" + "".join(f"{below},person {i % 4}\n" for i, below in enumerate(drawn)))
    for dataset, name_of in (
        (f"folder:{mine / 'pics'}", {ids.stored_id(below): below for below in drawn}),
        (npz(mine / "named.npz", [f"p {i}" if i % 2 else str(i) for i in range(60)]), {
            ids.stored_id(f"p {i}"): f"p {i}" for i in range(1, 60, 2)
        }),
    ):  # fmt: skip
        made = make({"dataset": dataset, "model": "tiny"}, groups=str(mine / "people.csv"))
        assert made.names == [name_of.get(id_) for id_ in made.ids.tolist()] and any(made.names)
        if dataset.startswith("folder:"):  # lines may have names, those of examples of other splits too, or numbers
            assert set(made.placing().groups) == {f"person {i}" for i in range(4)}
            (mine / "people.csv").write_text(
                "".join(f"{name},{name[0]}\n" for name in made.names[1:]) + f"{made.ids[0]},c\n"
            )
            assert made.placing().groups == ["c", *(name[0] for name in made.names[1:])]
            (mine / "people.csv").write_text("a/nobody.png,a\n")
            with pytest.raises(ValueError, match=r"line 1 of .*people.csv is 'a/nobody.png,a': give `id,group`"):
                made.placing()
    assert make({}).names is None and make({"dataset": npz(mine / "n.npz", np.arange(60)), "model": "tiny"}).names is None


def test_ids_of_32_bits_stay_as_they_are(mine):
    name = npz(mine / "a.npz", [str(3 * i + 1) for i in range(60)])
    _, splits = datasets.raw(StreamedData(name=name, validation_fraction=0.1))
    known = make({"dataset": name, "model": "tiny"}).ids
    np.testing.assert_array_equal(known, splits["train"])
    assert known.dtype == splits["train"].dtype and make({}).ids.dtype == np.int32


def test_what_a_factory_makes_is_taken_as_it_is(mine):
    hyper = {"dataset": "factory:factory_of_mine:images", "model": "tiny"}
    made, x = make(hyper), np.random.default_rng(0).normal(size=(60, 8, 8, 1)).astype("float32")
    assert make(made.hyper).hyper == made.hyper and (made.hyper["range"], made.hyper["std"]) == (1.0, [1.0])
    for split, rows in (("train", range(40)), ("validation", range(40, 50)), ("test", range(50, 60))):
        known, fetch = made.split(split)
        np.testing.assert_array_equal(known, rows)
        got, labels = fetch(known)
        assert got.tobytes() == x[known].tobytes() and labels.tolist() == [i % 3 for i in rows]


def test_hyper_of_a_config_has_what_its_data_set_has_and_no_more():
    plain = s3t.S3TStudy()
    assert not {"label", "id_column"} & plain.hyper().keys() and plain.hyper()["dataset"] == "digits"
    data = plain.data.model_copy(update={"name": "csv:a.csv", "label": "kind", "id_column": "who"})
    named = plain.model_copy(update={"data": data}).hyper()
    assert named == plain.hyper() | {"dataset": "csv:a.csv", "label": "kind", "id_column": "who"}
    own = plain.model_copy(update={"data": plain.data.model_copy(update={"factory": "my:make"})}).hyper()
    assert own["dataset"] == "factory:my:make" and not {"range", "mean", "std"} & own.keys()


ALIKE = ("n32499", "n100378")  # names whose hashes have one lower half


def refused(configs, runner, workdir, changes):
    """The one line that a run is refused with, before it writes anything."""
    config = configs.get_config("digits")
    whole = {"data.train_size": 0, "classes": (), "model": "tiny", "pretrain.model": "tiny"}
    config.update_from_flattened_dict(whole | changes)
    with pytest.raises(UserError) as told:
        runner.run(config, str(workdir))
    assert "\n" not in str(told.value) and not workdir.exists()
    return str(told.value)


@pytest.mark.parametrize("configs, runner", [(s3t, run), (judge_exact, judge_run)], ids=["s3t", "judge_exact"])
def test_data_that_will_not_do_are_refused_at_the_door(mine, configs, runner):
    (mine / "a.csv").write_text("who,size,kind\n" + "".join(f"u{i},{i},{'ab'[i % 2]}\n" for i in range(40)))
    table = {"data.name": "csv:a.csv", "data.label": "kind", "data.id_column": "who"}
    for changes, message in (
        (table, "a ViT looks at images, these data are a table of (1,): use images"),
        (table | {"checkpoint": "no.npz"}, "a ViT looks at images, these data are a table of (1,): use images"),
        (table | {"data.label": ""}, "has no column 'label' (it has who, size, kind): set --config.data.label"),
        ({"data.factory": "factory_of_mine:table"}, "a ViT looks at images, these data are a table of (5,): use images"),
        ({"data.factory": "factory_of_mine:nothing"}, "factory_of_mine has no nothing: check its name"),
        ({"data.factory": "factory_of_mine:images", "data.train_size": 9}, "set it to 0, as in --config.data.train_size=0"),
        ({"data.label": "kind", "pretrain.classes": (1,), "classes": (2,)}, "data.label names a column of a csv"),
    ):
        assert message in refused(configs, runner, mine / "run", changes)


@pytest.mark.parametrize("configs, runner", [(s3t, run), (judge_exact, judge_run)], ids=["s3t", "judge_exact"])
def test_two_examples_of_one_stored_id_are_refused_at_the_door(mine, configs, runner):
    assert len({ids.stored_id(name) for name in ALIKE}) == 1 and len({ids.id_of(name) for name in ALIKE}) == 2
    name = npz(mine / "a.npz", [*ALIKE, *(f"u{i}" for i in range(58))])
    told = refused(configs, runner, mine / "run", {"data.name": name})
    assert f"have the id {ids.stored_id(ALIKE[0])} in a store" in told and "give each a number below 2^31" in told
