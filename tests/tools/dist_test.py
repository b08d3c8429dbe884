"""What is tried of a release: the commands of the quickstart, and what is said of one that is not ready."""

import pytest

from tests.helpers import docs
from tests.helpers.docs import ROOT

CHANGELOG = "# Changelog\n\n## [Unreleased]\n\n## [1.2.0] - 2026-01-02\n\n- A line.\n\n## 1.1.0\n"


@pytest.fixture(scope="module")
def dist():
    """It names the notebooks; the extra `notebooks` brings what they stand on."""
    pytest.importorskip("jupytext", reason="needs the extra notebooks")
    pytest.importorskip("nbclient", reason="needs the extra notebooks")
    from tools import dist

    return dist


def test_nothing_is_said_of_what_is_ready(dist):
    assert dist.remarks("1.2.0", CHANGELOG, "someone/forethought", "") == []


@pytest.mark.parametrize("changed, says", [
    ({"version": "1.2.0.dev0"}, ["1.2.0.dev0 of setup.cfg is no release's", "no dated section 1.2.0.dev0"]),
    ({"version": "1.3.0"}, ["no dated section 1.3.0"]),
    ({"version": "1.1.0"}, ["no dated section 1.1.0"]),
    ({"changelog": CHANGELOG.replace("[Unreleased]\n", "[Unreleased]\n\n- More.\n")}, ["lines under Unreleased"]),
    ({"repository": "OWNER/forethought"}, ["badges of the notebooks lead to OWNER/forethought"]),
    ({"changes": " M README.md\n"}, ["files differ from the last commit"]),
])  # fmt: skip
def test_what_must_not_be_so_at_a_release_is_a_line_each(dist, changed, says):
    ready = {"version": "1.2.0", "changelog": CHANGELOG, "repository": "someone/forethought", "changes": ""}
    lines = dist.remarks(**(ready | changed))
    assert len(lines) == len(says) and all(part in line for part, line in zip(says, lines, strict=True))
    assert not any("\n" in line for line in lines)


def test_all_commands_of_the_quickstart_are_tried(dist):
    page = ROOT / "docs/quickstart.md"
    tried = dist.quickstart(page.read_text("utf-8"))
    whole = docs.commands(page)
    assert [words[: len(command)] for words, command in zip(tried, whole, strict=True)] == whole
    assert {words[0] for words in tried} == {"forethought", "python"}
    grown = [words for words, command in zip(tried, whole, strict=True) if words != command]
    assert [words for words in grown if "--workdir" in " ".join(words) or words[3] == "train"] == grown != []


def test_a_python_that_is_missing_is_one_line_and_nothing_is_built(dist, capsys):
    assert dist.main(["python3.99"]) == 1
    out, told = capsys.readouterr()
    assert out == "" and told.startswith("error: python3.99 is no Python >= 3.11") and told.count("\n") == 1


def test_a_command_that_fails_is_told_with_its_last_line(dist, tmp_path):
    with pytest.raises(dist.Failed, match=r"ended with status 3:\nno") as caught:
        dist.run(["sh", "-c", "echo no >&2; exit 3"], tmp_path)
    assert str(caught.value).count("\n") == 1


def test_versions_agree():
    from configparser import ConfigParser

    import yaml

    settings = ConfigParser()
    settings.read(ROOT / "setup.cfg")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert cited["version"] == settings["metadata"]["version"].split(".dev")[0]
