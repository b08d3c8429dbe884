"""Stores that somebody else gave: nothing that they name runs, and nothing outside of them is read, written or removed."""

import json
import shutil
import sqlite3
import sys

import numpy as np
import pytest

from s3t.service import factory, serving
from s3t.store import certificates, disk, manifests
from s3t.store.ledger import database, hash_chain
from tests.helpers import builds, commands, servers, stores
from tests.helpers.compilations import counted_compilations

pytestmark = pytest.mark.untrusting


def forged(root, **changes):
    """A whole store whose manifest says something else, made by whoever gives it away."""
    text = certificates.canonical({**vars(stores.manifest()), **changes})
    (root / "nodes").mkdir(parents=True)
    database.create_ledger(root / "ledger.sqlite", manifests.digest_of(text)).close()
    (root / "manifest.json").write_bytes(text)
    return root


SOURCES = [
    ("os:system", {"source": "touch ran"}),
    ("subprocess:check_output", {"source": ["touch", "ran"]}),
    ("builtins:exec", {"source": "open('ran', 'w')"}),
    ("marked_by_a_stranger:make", {"source": {}}),
    ("experiments.exact.factory:make", {"source": {"dataset": "factory:marked_by_a_stranger:make"}}),
    ("experiments.exact.factory:make", {"source": {"deep": [{"er": "factory:os:system"}]}}),
]


@pytest.mark.parametrize("name, hyper", SOURCES)
@pytest.mark.parametrize("command", [("predict", "--ids", "1"), ("heal",), ("train",), ("verify", "--replay", "1")])
def test_no_command_calls_or_imports_what_a_store_names(tmp_path, monkeypatch, capsys, name, hyper, command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "marked_by_a_stranger.py").write_text("open('ran', 'w')\nmake = lambda hyper: None\n")
    root = forged(tmp_path / "store", factory=name, hyper=hyper)
    status, out, err = commands.run(capsys, *command, "--store", root)
    assert not (tmp_path / "ran").exists() and "marked_by_a_stranger" not in sys.modules
    assert status == 2 and out is None
    assert "hyper.source is a JSON object" in err or "repeat the command with --trust-factory" in err


@pytest.mark.parametrize("name", ["os:system; curl x|sh #\x1b[8m", "os", "", "a:b:c", f"{'m' * 300}:f", "os:system\n"])
def test_what_is_no_function_stands_in_no_advice(tmp_path, capsys, name):
    """The line is copied into a shell."""
    source = {"dataset": f"factory:{name}"}
    root = forged(tmp_path / "store", factory="experiments.exact.factory:make", hyper={"source": source})
    status, _, err = commands.run(capsys, "heal", "--store", root)
    assert status == 2 and "which is no module:function" in err
    assert "--trust-factory" not in err and "\x1b" not in err and err.count("\n") == 1


def test_a_store_does_not_say_where_to_write(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(factory, "source_of", lambda name, hyper, arguments: seen.append(arguments))
    kept = {"cache_dir": str(tmp_path / "x"), "data_dir": "store:data"}
    root = forged(tmp_path / "store", factory="experiments.exact.factory:make", hyper={"source": {}}, arguments=kept)
    opened = disk.open(root)
    factory.source_for(opened, {})
    factory.source_for(opened, {"cache_dir": "here"})
    data = {"data_dir": str(root / "data")}
    assert seen == [data, data | {"cache_dir": "here"}]


@pytest.mark.parametrize("command", [("status",), ("verify",), ("heal",), ("delete", "--ids", "1")])
def test_a_store_of_more_nodes_than_can_be_listed_is_one_line(tmp_path, capsys, command):
    root = forged(tmp_path / "store", shards=1 << 20)
    status, _, err = commands.run(capsys, *command, "--store", root)
    assert status == 2 and "places, the most are 2097152: give fewer shards or a smaller plan" in err


def test_a_function_that_is_named_may_run(tmp_path, template, capsys):
    with stores.copied(template, tmp_path / "store") as opened:
        words = ("predict", "--ids", opened.ledger.execute("SELECT min(id) FROM examples").fetchone()[0])
        status, _, err = commands.run(capsys, *words, "--store", opened.root)
        assert status == 2 and f"repeat the command with --trust-factory {builds.FACTORY}\n" in err
        status, answer, _ = commands.run(capsys, *words, "--store", opened.root, "--trust-factory", builds.FACTORY)
        assert status == 0 and len(answer["labels"]) == 1
        status, _, _ = commands.run(capsys, "train", "--store", opened.root, "--factory", builds.FACTORY)
        assert status == 0  # who names it in the command trusts it


@pytest.mark.parametrize(
    "name, message",
    [
        ("os.path:join", "failed: TypeError"),
        ("builtins:exec", "is no function of Python's"),
        ("os:environ", "is no function of Python's"),
        ("os:system", "is no function of Python's"),
        ("os:sep.join", "cannot be found"),
        ("os", "is named module:function"),
        (".os:sep", "is named module:function"),
    ],
)
def test_what_is_no_factory_is_one_short_line(tmp_path, capsys, name, message):
    words = ("--planner", "sisa", "--slices", "2", "--shards", "1", "--store", tmp_path / "store")
    status, _, err = commands.run(capsys, "train", "--factory", name, *words)
    assert status == 2 and message in err and len(err) < 300 and not (tmp_path / "store").exists()


def test_a_factory_that_fails_is_one_line(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "failing_factory.py").write_text("def make(hyper):\n    return {}['gone']\n")
    (tmp_path / "failing_module.py").write_text("1 / 0\n")
    with pytest.raises(ValueError, match="failing_factory:make failed: KeyError: 'gone'"):
        factory.source_of("failing_factory:make", {}, {})
    with pytest.raises(ValueError, match="failing_module:make cannot be found: ZeroDivisionError"):
        factory.source_of("failing_module:make", {}, {})


SIZES = dict.fromkeys(manifests.SIZES, 1)  # of a program
WRONG = [
    {field: value}
    for field, values in {
        "factory": [1, None, "os", "a:b:c", ["os:system"]],
        "arguments": ["x", 1, None, []],
        "backbone": [1, None],
        "hyper": [
            "x",
            1,
            None,
            [],
            {"shapes": 1},
            {"shapes": [1]},
            {"shapes": [{}]},
            {"source": "x"},
            {"shapes": [SIZES | {"depth": [{}]}]},
            {"shapes": [SIZES | {"depth": 9}]},
            {"shapes": [SIZES | {"steps": 1 << 31}]},
        ],
        "root_key": ["x", -1, 1 << 32, 0.5, True, None],
        "shards": ["x", 0, -1, 1 << 40, 0.5, True, None],
        "slices": ["x", 0, -1, 1 << 40, 0.5, None],
        "nodes": [[], [[]], [["x"]], [[0.5]], [[True]], [[0, 0]], [[-1]], [[9]], [[1, 0]]],
        "partition_key": [1, None, "", "xy", "00" * 65],
    }.items()
    for value in values
]


@pytest.mark.parametrize("change", WRONG, ids=json.dumps)
def test_a_manifest_of_wrong_types_is_one_line(tmp_path, capsys, change):
    root = forged(tmp_path / "store", **change)
    for words in (("status",), ("delete", "--ids", "1"), ("predict", "--ids", "1"), ("heal",), ("verify",)):
        status, _, err = commands.run(capsys, *words, "--store", root)
        assert status == 2 and ("manifest" in err or "program" in err or "slices" in err), (words, err)


# a server


def test_a_server_sees_what_others_append_or_refuses(tmp_path, monkeypatch):
    """On a disk that is read-only here and not elsewhere, a look may be a look at yesterday."""
    opened = servers.fill(servers.make(tmp_path / "store"))
    frozen = database._probed(opened.root / "ledger.sqlite", "ro&immutable=1", False)
    assert frozen.frozen
    monkeypatch.setattr(database, "_connect", lambda path, mode, *more: _refuse(mode))
    with pytest.raises(ValueError, match=r"cannot be used \(unable to open"):
        servers.server(opened)


def _refuse(mode):
    error = sqlite3.OperationalError("unable to open database file")
    error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
    assert "immutable" not in mode
    raise error


@pytest.mark.parametrize("way", ["replaced", "moved", "removed"])
def test_a_ledger_that_another_file_replaced_serves_and_records_nothing(tmp_path, way):
    root, bak = tmp_path / "store", tmp_path / "store.bak"
    opened = servers.fill(servers.make(root))
    server = servers.server(opened)
    server.predict(servers.inputs(1))
    if way == "removed":
        (root / "ledger.sqlite").unlink()
    else:
        root.rename(bak)
    if way == "replaced":
        shutil.copytree(bak, root)
        other = disk.open(root)
        disk.delete(other, [servers.ids_at(other, 0, 0)[0]], "after")
    for act in (
        lambda: server.predict(servers.inputs(1)),
        lambda: disk.delete(opened, [1]),
        lambda: disk.purge(opened),
        lambda: servers.ids_at(opened, 0, 0),
    ):
        with pytest.raises(ValueError, match="was moved or replaced while it was open: open the store anew"):
            act()


def test_a_server_takes_heads_that_were_acknowledged(tmp_path):
    opened = servers.fill(servers.make(tmp_path / "store"))
    opened.ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = (opened.root / "ledger.sqlite").read_bytes()
    head = disk.delete(opened, [servers.ids_at(opened, 0, 0)[0]])["head"]
    with servers.server(opened, expect_heads=[head]) as server:
        server.predict(servers.inputs(1))
    disk.close(opened)
    for name in ("ledger.sqlite-wal", "ledger.sqlite-shm"):
        (opened.root / name).unlink(missing_ok=True)
    (opened.root / "ledger.sqlite").write_bytes(before)
    old = disk.look(opened.root)
    servers.server(old).predict(servers.inputs(1))  # a copy from before is whole by itself
    with pytest.raises(ValueError, match=r"never had the head .* a copy from before a deletion, which must not serve"):
        servers.server(old, expect_heads=[head])


@pytest.mark.parametrize(
    "statement, message",
    [
        ("UPDATE nodes SET dropped = NULL", "its ledger's tables were altered"),
        ("UPDATE nodes SET dropped = 1 WHERE rowid = 3", "its ledger's tables were altered"),
        ("UPDATE log SET detail = '[]' WHERE seq = 3", "row 3 was changed"),
        ("UPDATE nodes SET shard = 'x' WHERE rowid = 3", "ledger is damaged"),
    ],
)
def test_a_server_believes_neither_tables_nor_rows_alone(tmp_path, statement, message):
    opened = servers.fill(servers.make(tmp_path / "store"))
    disk.delete(opened, [servers.ids_at(opened, 0, 0)[0]])
    opened.ledger.execute(statement)
    with pytest.raises(database.Damaged, match=message):
        servers.server(opened)


def test_a_server_does_not_follow_a_ledger_back(tmp_path):
    opened = servers.fill(servers.make(tmp_path / "store"))
    server = servers.server(opened)
    opened.ledger.execute("DELETE FROM nodes WHERE published = (SELECT max(seq) FROM log)")
    opened.ledger.execute("DELETE FROM log WHERE seq = (SELECT max(seq) FROM log)")
    with pytest.raises(database.Damaged, match="its ledger is older than it was"):
        server.predict(servers.inputs(1))


def test_a_server_says_what_it_serves(tmp_path):
    opened = servers.fill(servers.make(tmp_path / "store"))
    with servers.server(opened, example=servers.inputs(1)) as server:
        assert server.report() | {"head": ""} == {
            "depth": [4, 4], "head": "", "problems": [], "oldest_open": None, "last_heal": None,
        }  # fmt: skip
        disk.delete(opened, [servers.ids_at(opened, 0, 0)[0]], "r")
        report = server.report()
        assert report["oldest_open"]["request"] == "r" and report["oldest_open"]["seconds"] < 60
        assert report["depth"][0] < 4
    with pytest.raises(Exception, match="closed"):
        server.predict(servers.inputs(1))


def test_the_first_request_compiles_nothing(tmp_path):
    opened = servers.fill(servers.make(tmp_path / "store"))
    server = servers.server(opened, example=servers.inputs(1))
    with counted_compilations() as compiled:
        server.predict(servers.inputs(3))
    assert compiled == [] and isinstance(server, serving.Server)


def test_an_interrupted_look_spoils_no_server(tmp_path, monkeypatch):
    opened = servers.fill(servers.make(tmp_path / "store"))
    with servers.server(opened) as server:
        disk.delete(opened, [servers.ids_at(opened, 0, 0)[0]], "r")
        follows, calls = hash_chain.follows, []

        def interrupted(before, row):
            calls.append(row)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return follows(before, row)

        monkeypatch.setattr(hash_chain, "follows", interrupted)
        with pytest.raises(KeyboardInterrupt):
            server.predict(servers.inputs(1))
        assert server.predict(servers.inputs(1)).depth[0] < 4
        rows = database.head(opened.ledger).rows
        opened.ledger.execute("DELETE FROM log WHERE seq = ?", (rows,))
        with pytest.raises(database.Damaged, match=r"its ledger is older than it was|tables were altered"):
            server.predict(servers.inputs(1))


@pytest.mark.parametrize(
    "x, message",
    [
        (None, "give at least one example"),
        (np.float32(1), "give at least one example"),
        ([], "give at least one example"),
        (np.zeros((0, 5), np.float32), "there is nothing to predict"),
        ("text", "give at least one example"),
        (np.full((2, 5), np.nan, np.float32), "example 0 of the inputs is not finite"),
        (np.zeros((2, 4), np.float32), r"inputs of shape \(4,\) do not fit the model"),
        (np.zeros((2, 3, 3), np.float32), r"inputs of shape \(3, 3\) do not fit the model"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_inputs_that_do_not_fit_are_one_line_and_spoil_nothing(tmp_path, x, message):
    opened = servers.fill(servers.make(tmp_path / "store"))
    with servers.server(opened) as server:
        with pytest.raises(ValueError, match=message) as raised:
            server.predict(x)
        assert "\n" not in str(raised.value)
        assert server.predict(servers.inputs(1)).depth == (4, 4)
