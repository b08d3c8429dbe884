"""The guard of S3T's backbone: it has not seen what is to be unlearned, however that is spelled."""

import pytest

from experiments.configs import judge_exact, s3t
from experiments.core.config import validated
from experiments.core.errors import ConfigError

SEEN = "config.pretrain.classes has examples that s3t is to unlearn: set --config.pretrain.classes apart from --config."
NESTED = "config.pretrain.data.name has examples that s3t is to unlearn: one folder lies in the other, give two apart"


def told(changes, configs=s3t, kind=s3t.S3TStudy):
    """What is said of a config; '' if nothing is."""
    config = configs.get_config("digits")
    config.update_from_flattened_dict(changes)
    try:
        validated(kind, config)
    except ConfigError as refused:
        return str(refused)
    return ""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder `pics`, a link to it, and a folder below; one works beside it."""
    (tmp_path / "pics" / "train").mkdir(parents=True)
    (tmp_path / "link").symlink_to("pics")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("configs, kind", [(s3t, s3t.S3TStudy), (judge_exact, judge_exact.JudgeExact)])
def test_one_data_set_in_two_spellings_is_refused_unless_classes_are_apart(home, configs, kind):
    whole = f"folder:{home}/pics"
    pairs = [
        (whole, other) for other in ("folder:pics", f"{whole}/", "folder:./link/../pics", "folder:link", "folder:~/pics")
    ]
    pairs += [("mnist", "mnist:3.0.1"), ("cifar10_1/v4", "cifar10_1/v6:1.1.0"), ("npz:a.npz", f"npz:{home}/a.npz")]
    for pair in pairs:
        for seen, mine in (pair, pair[::-1]):
            names = {"pretrain.data.name": seen, "data.name": mine}
            assert told(names | {"classes": (), "pretrain.classes": ()}, configs, kind).startswith(SEEN), (seen, mine)
            assert told(names | {"classes": (1, 2), "pretrain.classes": (2,)}, configs, kind).startswith(SEEN)
            assert not told(names, configs, kind), "0 to 4 and 5 to 9 are apart"
            assert not told(names | {"pretrain.classes": (), "checkpoint": "vit.npz"}, configs, kind)


def test_data_sets_that_differ_are_taken(home):
    apart = ("folder:pics", "folder:other", "folder:pics2", "npz:pics", "csv:pics", "mnist", "fashion_mnist", "digits")
    for seen in apart:
        for mine in apart:
            found = told({"pretrain.data.name": seen, "data.name": mine, "classes": (), "pretrain.classes": ()})
            assert bool(found) == (seen == mine), (seen, mine)


def test_a_folder_within_the_other_is_refused(home):
    for pair in (("folder:pics", "folder:link/train"), ("folder:pics/train", "folder:link/")):
        assert told({"pretrain.data.name": pair[0], "data.name": pair[1]}).startswith(NESTED)


def test_a_factory_is_what_its_data_are(home):
    own = {"data.factory": "my:make", "pretrain.classes": ()}
    assert not told(own), "both names are digits, but s3t's data are the factory's"
    assert told(own | {"pretrain.data.factory": "my:make"}).startswith(SEEN)
    assert not told(own | {"pretrain.data.factory": "my:other"})


def test_a_scale_without_effect_is_refused():
    own = {"data.factory": "my:make", "scale.range": 255.0}
    assert not told(own), "pre-training's images are scaled"
    for both in (own | {"pretrain.data.factory": "my:other"}, own | {"checkpoint": "vit.npz"}):
        assert told(both).startswith("config.scale is set, but what a data.factory makes is taken as it is")
    other = {"pretrain.data.scale": {"range": 255.0, "mean": (0.5,), "std": (0.5,)}}
    config = s3t.get_config("digits")
    config.pretrain.data.scale = other["pretrain.data.scale"]
    with pytest.raises(ConfigError, match=r"config.pretrain.data.scale is another than --config.scale, which serves both"):
        validated(s3t.S3TStudy, config)


def test_folders_of_prepared_data_are_handed_on_to_prepared_data_alone():
    for name, folder in (("mnist", "/there"), ("folder:pics", "")):
        config = s3t.get_config("digits")
        config.update_from_flattened_dict(
            {"pretrain.data.name": name, "data.name": "fashion_mnist", "data.data_dir": "/there"}
        )
        assert validated(s3t.S3TStudy, config).resolved().pretrain.data.data_dir == folder
