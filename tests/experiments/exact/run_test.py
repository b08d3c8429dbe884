"""One run of s3t from pre-training to report, everything tiny: what it leaves, resuming, refusals."""

import functools
import io
import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.configs import s3t
from experiments.core import progress
from experiments.core.config import validated
from experiments.core.errors import UserError
from experiments.exact import baselines, curves, data, factory, node_files, nodes, run, store
from experiments.exact.nodes import Builder
from experiments.exact.pages import report
from experiments.models import vits
from experiments.pretrain import run as pretrain_run
from s3t.cli import main
from s3t.plans import planners, structure
from s3t.service import healing, verify
from s3t.store import disk, state
from tests.helpers import kills
from tests.helpers.studies import TINY, config
from unlearn import tree


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setitem(vits.VITS, "tiny", TINY)
    monkeypatch.setattr(pretrain_run, "run", pretrain)


def pretrain(config, workdir):
    """What pre-training leaves, at once: `run_pretrain_test` has the real one."""
    module = vits.vit(config.model, 5)
    Path(workdir).mkdir(exist_ok=True)
    vits.save_npz(Path(workdir) / pretrain_run.CHECKPOINT, vits.init(module, jax.random.key(0), np.zeros((1, 8, 8, 1))))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(vits.VITS, "tiny", TINY)
        patch.setattr(pretrain_run, "run", pretrain)
        folder = tmp_path_factory.mktemp("whole")
        found = run.run(config(), str(folder), "the command")
        run.present(str(folder), found)
    return folder, found


def rows(found, training, variant):
    return [row for row in found.rows if (row.training, row.variant) == (training, variant)]


# a whole run


def test_a_run_has_a_row_for_every_way_in_the_house_s_schema(finished):
    found = finished[1]
    ways = [(row.training, row.variant) for row in found.rows]
    study = [("s3t", f"{name} / {kind}") for name in ("sisa", "lattice") for kind in ("mean", "depth", "all")]
    others = [("lora", "default"), ("full", "default"), ("sisa", "retrain"), ("sisa", "rollback"), ("s3t", "one shard")]
    assert ways == [("s3t", "lattice / store"), *study, *others]
    assert found.command == "the command"
    for row in found.rows:
        assert all(
            0 <= getattr(row, when)[f"{split}_accuracy"] <= 1
            for when in ("before", "after")
            for split in ("test", "validation")
        )
        assert row.train_flops > 0


def reopened(folder):
    """What the run had, made anew."""
    resolved = validated(s3t.S3TStudy, config()).resolved()
    source = factory.make(resolved.hyper(), **resolved.arguments())
    held = data.pretrained(data.load(source), resolved.arguments(), resolved.pretrain, folder)
    return held, Builder(held.source, 2, 2, resolved.train, resolved.full_lora)


def test_what_the_store_served_is_what_the_study_s_logits_say(finished):
    """The same nodes and deletions by two ways: from files after real deletions, and from tabled logits."""
    folder, found = finished
    (row,) = rows(found, "s3t", "lattice / store")
    held, builder = reopened(folder)
    logits = node_files.read_logits(folder / "logits" / "nodes-0.npz")
    where, ids, gone = builder.places(0), held.source.ids.tolist(), [set(), set()]
    for one in [row.extra["built"], *row.extra["stream"]]:
        for deleted in one.get("ids", []):
            at = ids.index(deleted)
            gone[where.shard[at]].add(int(where.slice[at]))
        best = [structure.served(planners.lattice(2), hit) for hit in gone]
        assert one["depth"] == [len(node) for node in best]
        served = [logits[shard, node] for shard, node in enumerate(best) if node]
        assert served and one["test_accuracy"] == held.scored(np.mean(served, axis=0))["test_accuracy"]


def test_the_store_is_healed_without_the_deleted_and_verifies(finished):
    folder, found = finished
    (row,) = rows(found, "s3t", "lattice / store")
    extra = row.extra
    assert len(extra["stream"]) == 3 and row.steps == 3
    assert extra["healed"]["depth"] == [2, 2] and extra["healed"]["requests"] == 3
    assert extra["healed"]["nodes"] == sum(one["nodes_dropped"] for one in extra["stream"]) > 0
    assert extra["verified"]["ok"] and verify.verify(folder / "store", extra["stream"][0]["head"])["ok"]


def test_healed_nodes_are_those_of_a_build_that_never_had_the_deleted(finished):
    held, builder = reopened(finished[0])
    build = builder.of_plan(planners.lattice(2), 0, 2)
    fresh, spent = nodes.train(build, nodes.deletion_order(held.source.ids, 0)[:3])
    served = store.serving(disk.look(finished[0] / "store"), held)
    assert fresh.keys() == served.keys() and all(tree.bits_equal(fresh[job], served[job]) for job in fresh)
    assert spent.keys() == fresh.keys() and all(seconds >= 0 for seconds in spent.values())


def test_the_report_has_its_sections_from_files_alone(finished):
    folder, found = finished
    (folder / "report.html").unlink()
    file = report.write(folder)
    page, text = file.read_text(), (folder / "report.md").read_text()
    sections = (
        "Planners",
        "Accuracy by number of deletions",
        "Ensembles",
        "Full LoRA and the deepest node",
        "Cost",
        "A stream of real deletions",
        "Files",
        "Settings",
        "Environment",
    )
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == list(sections)
    assert page.count("<figure>") == page.count('role="img"') == 6
    for name in (
        "SISA",
        "Lattice",
        "SISA checkpoints",
        "Full retraining",
        "S3T, depth 2",
        "Verify found nothing to object",
    ):
        assert name in page
    told = run.present(str(folder), found)
    assert str(file) in told and all(f"\n{name} " in told for name in ("SISA", "Lattice", "SISA checkpoints"))


def test_a_finished_workdir_is_read_back_and_refuses_another_config(finished, monkeypatch):
    folder, found = finished
    monkeypatch.setattr(factory, "make", None)  # nothing is run
    assert run.run(config(), str(folder)) == found
    other = config()
    other.train.epochs = 2
    with pytest.raises(ValueError, match=r"another config \(config.train.epochs differ\)"):
        run.run(other, str(folder))


def test_a_run_cut_short_goes_on_to_the_same_results(finished, tmp_path):
    """Cut in a baseline, where what was finished is not done again; and once its store is built anew, after the heal."""
    folder, found = finished
    cut = tmp_path / "cut"
    shutil.copytree(folder, cut)
    for name in ("results.json", "stages/lora-0-3.json"):
        (cut / name).unlink()
    again = run.run(config(), str(cut), "the command")
    assert kills.timeless(again) == kills.timeless(found)
    shutil.rmtree(cut / "store")
    (cut / "results.json").unlink()
    for stage in (*(cut / "stages").glob("deletion-*"), cut / "stages" / "build.json", cut / "stages" / "heal.json"):
        stage.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "mark_healed", lambda opened: 1 / 0)  # dies after the heal, before it is noted
        with pytest.raises(ZeroDivisionError):
            run.run(config(), str(cut), "the command")
    (cut / "stages" / "verify.json").unlink()
    assert kills.timeless(run.run(config(), str(cut), "the command")) == kills.timeless(found)


def test_one_bar_tells_every_stage_and_its_work_adds_up(finished, tmp_path, monkeypatch):
    """Pre-training is a part of it. What an earlier process did is passed over."""

    def before(seen, _):
        progress.stage("pre-trained before", pretrain_run.passes(seen.train))
        progress.skip()

    monkeypatch.setattr(pretrain_run, "run", before)
    cut, stream = tmp_path / "cut", io.StringIO()
    shutil.copytree(finished[0], cut)
    (cut / "results.json").unlink()
    with progress.shown(stream):
        run.run(config(), str(cut), "the command")
    lines = [line.split(",")[0].split("% s3t: ") for line in stream.getvalue().splitlines()]
    told = [name for _, name in lines]
    assert list(dict.fromkeys(told)) == [
        "pre-trained before",
        "build the store",
        "train the nodes of all planners",
        "streams of deletions",
        "full LoRA without 0 examples",
        "full LoRA without 3 examples",
        "SISA and its retraining",
        "S3T in one shard",
        "delete 3 examples",
        "heal the store",
        "verify the store",
        "done",
    ]
    assert dict(zip(told, (int(percent) for percent, _ in lines), strict=True))["verify the store"] == 100
    assert [int(percent) for percent, _ in lines] == sorted(int(percent) for percent, _ in lines)


def test_a_study_cut_short_trains_no_node_twice(finished, tmp_path):
    cut = tmp_path / "cut"
    shutil.copytree(finished[0], cut)
    for name in ("results.json", "stages/nodes-0.json", "logits/nodes-0.npz"):
        (cut / name).unlink()
    trained = []

    def counted(folder, job, node, seconds, keep=node_files.keep, most=3):
        if len(trained) == most:
            raise KeyboardInterrupt
        trained.append(job)
        keep(folder, job, node, seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(node_files, "keep", counted)
        with pytest.raises(KeyboardInterrupt):
            run.run(config(), str(cut), "the command")
        kept = sorted((cut / "nodes-0").glob("*.npz"))
        assert [node_files.parse(path.stem) for path in kept] == sorted(trained)
        patch.setattr(node_files, "keep", functools.partial(counted, most=99))
        damaged, whole = kept[0], kept[0].read_bytes()
        damaged.write_bytes(whole[:100])
        with pytest.raises(UserError, match=f"{damaged.name} cannot be read .*remove it and run again"):
            run.run(config(), str(cut), "the command")
        damaged.write_bytes(whole)
        assert kills.timeless(run.run(config(), str(cut), "the command")) == kills.timeless(finished[1])
    assert len(set(trained)) == len(trained) == 6 and not (cut / "nodes-0").exists()


def test_damaged_logits_of_a_study_are_named(finished, tmp_path):
    cut = tmp_path / "cut"
    shutil.copytree(finished[0], cut)
    (cut / "results.json").unlink()
    (cut / "logits" / "nodes-0.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"nodes-0.npz cannot be read .*remove it and run again"):
        run.run(config(), str(cut), "the command")
    (cut / "logits" / "nodes-0.npz").unlink()
    assert kills.timeless(run.run(config(), str(cut), "the command")) == kills.timeless(finished[1])


@pytest.mark.parametrize("stage", ["build", "deletion-00001"])
def test_what_was_served_before_a_deletion_or_a_heal_is_not_measured_after_it(finished, tmp_path, stage):
    shutil.copytree(finished[0], tmp_path / "run")
    for name in ("results.json", f"stages/{stage}.json"):
        (tmp_path / "run" / name).unlink()
    with pytest.raises(UserError, match=f"lacks stages/{stage}.json, and its store has changed since: put a copy"):
        run.run(config(), str(tmp_path / "run"))


@pytest.mark.parametrize("lost", ["store", "store/manifest.json", "store/ledger.sqlite"])
def test_a_store_that_is_lost_is_not_built_anew(finished, tmp_path, lost):
    """Another one would serve who was deleted, beside stages that say that they are gone."""
    cut = tmp_path / "cut"
    shutil.copytree(finished[0], cut)
    for name in ("results.json", "stages/heal.json", "stages/verify.json"):
        (cut / name).unlink()
    (shutil.rmtree if lost == "store" else os.remove)(cut / lost)
    left = sorted(cut.rglob("*"))
    message = "there is no ledger at" if "ledger" in lost else "was built but is no store now: restore it from a copy"
    with pytest.raises(UserError, match=message):
        run.run(config(), str(cut), "the command")
    assert sorted(path for path in cut.rglob("*") if path.name != "lock") == [p for p in left if p.name != "lock"]


def test_a_store_that_forgot_its_deletions_does_not_verify(finished, tmp_path):
    """Put in the place of the run's store: the heads that were acknowledged are not in its ledger."""
    cut = tmp_path / "cut"
    shutil.copytree(finished[0], cut)
    shutil.rmtree(cut / "store")
    for name in ("results.json", "stages/build.json", "stages/heal.json", "stages/verify.json"):
        (cut / name).unlink()
    found = run.run(config(), str(cut), "the command")
    extra = rows(found, "s3t", "lattice / store")[0].extra
    heads = [one["head"] for one in extra["stream"]]
    assert not extra["verified"]["ok"] and len(extra["verified"]["problems"]) == len(heads) == 3
    for head, problem in zip(heads, extra["verified"]["problems"], strict=True):
        assert problem.startswith(f"the ledger never had the head {head}")


# stores of version 0.1, and workdirs that were moved


def manifest(folder):
    return json.loads((folder / "store" / "manifest.json").read_text())


@pytest.fixture(scope="module")
def killed_of_0_1(tmp_path_factory):
    """A workdir as version 0.1 made it: an old name of the factory, an absolute path to the backbone; killed in healing."""
    folder = tmp_path_factory.mktemp("old") / "run"

    def killed(*_, **__):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(vits.VITS, "tiny", TINY)
        patch.setattr(pretrain_run, "run", pretrain)
        patch.setattr(store, "FACTORY", "experiments.s3t_factory:make")
        patch.setattr(data, "beside", lambda seen: {"checkpoint": str((folder / "pretrain" / "vit.npz").absolute())})
        patch.setattr(healing, "heal", killed)
        patch.setattr(curves, "rows", lambda *_: [])
        patch.setattr(baselines, "rows", lambda *_: [])
        with pytest.raises(KeyboardInterrupt):
            run.run(config(), str(folder), "the command")
    return folder


def test_a_store_names_its_factory_and_its_backbone_from_where_it_stands(finished):
    made = manifest(finished[0])
    assert made["factory"] == "experiments.exact.factory:make"
    assert made["arguments"]["checkpoint"] == "store:../pretrain/vit.npz"


def test_a_workdir_of_version_0_1_goes_on_to_the_same_results(killed_of_0_1, finished, tmp_path):
    """Where it was, and moved: the names in its manifest stay, and its nodes are those of this version."""
    old, moved = manifest(killed_of_0_1), tmp_path / "moved"
    assert old["factory"] == "experiments.s3t_factory:make" and os.path.isabs(old["arguments"]["checkpoint"])
    shutil.copytree(killed_of_0_1, moved)
    (moved.parent / "away").mkdir()
    shutil.move(moved, moved.parent / "away" / "run")
    for folder in (killed_of_0_1, moved.parent / "away" / "run"):
        assert kills.timeless(run.run(config(), str(folder), "the command")) == kills.timeless(finished[1])
        assert manifest(folder) == old


def test_a_store_of_a_moved_workdir_is_asked_as_before(finished, tmp_path, capsys):
    """Its backbone is found beside it; one that lies elsewhere is given."""
    folder = tmp_path / "moved"
    shutil.copytree(finished[0], folder)
    asked = ["predict", f"--store={folder / 'store'}", "--split=test", "--json"]
    assert main(asked) == 0
    served = json.loads(capsys.readouterr().out)
    assert main([*asked, "--arguments", json.dumps({"checkpoint": str(finished[0] / "pretrain" / "vit.npz")})]) == 0
    assert json.loads(capsys.readouterr().out)["logits"] == served["logits"]
    (folder / "pretrain" / "vit.npz").unlink()
    assert main(asked) == 2
    assert f"{folder / 'store'}/../pretrain/vit.npz cannot be read" in capsys.readouterr().err


CHILD = """
import sys
from tests.experiments.exact.run_test import TINY, config, pretrain, pretrain_run, run, vits
vits.VITS["tiny"], pretrain_run.run = TINY, pretrain
run.run(config(), sys.argv[1], "the command")
"""


WHILE_IT_BUILDS = "store/nodes/*.safetensors"


WHILE_IT_DELETES = "stages/deletion-00000.json"


WHILE_IT_HEALS = "stages/deletion-00002.json"


WHILE_IT_STUDIES = "logits/*"


@pytest.mark.slow
@pytest.mark.parametrize(
    "moments", [[WHILE_IT_DELETES], [WHILE_IT_BUILDS, WHILE_IT_HEALS, WHILE_IT_STUDIES]], ids=["one kill", "three kills"]
)
def test_a_run_killed_with_kill_9_ends_with_the_same_results(moments, finished, tmp_path):
    whole, broken = finished[0], tmp_path / "broken"
    for moment in moments:
        kills.kill_when(CHILD, broken, moment)
        assert verify.verify(broken / "store")["ok"]
    assert kills.start(CHILD, broken).wait() == 0
    assert kills.settled(broken) == kills.settled(whole)
    files = [
        {path.name: path.read_bytes() for path in (folder / "store" / "nodes").iterdir()} for folder in (broken, whole)
    ]
    assert files[0] == files[1] and len(files[0]) == 6
