"""A server's part of a round: whose replies count, who is asked, and what a kill between two files leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.federated import archives
from experiments.federated.engine import erasing, rounds, serving
from experiments.federated.engine.rounds import Reply, Server, asked, sorted_out
from experiments.federated.log import ArchiveError
from federated import participation
from federated.archive import Scheme

EXACT = Scheme("none")


def ones(size=2, **changes):
    return Reply(1, "ann", np.ones(size, np.float32), 4.0)._replace(**changes)


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (ones(error="Node\n Unavailable"), "ann: Node Unavailable"),
        (ones(user="bob"), "says that it is bob, and its key is that of ann"),
        (ones(node=2), "its key is that of nobody"),
        (ones(user=3), "ann: a user is 3, no text"),
        (ones(user="1933777960571370878"), "looks like an engine's node id"),
        (ones(user="Zoe\u0308"), "accents as characters of their own: write it in Unicode's NFC"),
        (ones(size=3), r"the update is float32 \(3,\) and the model float32 \(2,\): use one task everywhere"),
        (ones(update=np.ones(2)), "the update is float64"),
        (ones(update=None), "the update is object"),
        (ones(update=np.array([1, np.nan], np.float32)), "not finite: lower the learning rate"),
        (ones(update=np.array([1, 1e16], np.float32)), r"has norm 1e\+16, above 1e\+15: lower the learning rate"),
        (ones(examples=0.0), "of 0.0 examples: give a number from 0.001 to 1e\\+09"),
        (ones(examples=np.inf), "of inf examples"),
        (ones(examples=1e39), "of 1e\\+39 examples"),
        (ones(examples=10**400), "of 10000"),
        (ones(error="\x1b[31m" + "long " * 99), r"ann: \?\[31mlong .*\.\.\.$"),
        (ones(examples="many"), "of 'many' examples"),
    ],
)
def test_a_reply_that_cannot_count_is_refused_in_one_line(reply, why):
    counted, refused = sorted_out([reply], 2, set(), {1: "ann"})
    assert not counted and len(refused) == 1 and "\n" not in refused[0]
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(refused[0])


@pytest.mark.parametrize("user", ["ann\nround 9: 5 of 5 clients", "\x1b[2J", "x" * 999, None, 3])
def test_who_is_refused_is_called_by_no_odd_name(user):
    (told,) = sorted_out([ones(user=user, update=None)], 2, set(), None)[1]
    assert told.startswith("node 1: a user") and told.isprintable() and len(told) < 250


def test_replies_count_by_user_and_two_of_one_user_do_not():
    replies = [ones(), ones(node=2, user="bob"), ones(node=3, user="carol"), ones(node=4, user="bob")]
    counted, refused = sorted_out(replies, 2, {"carol"}, None)
    assert list(counted) == ["ann"] and [line.split(":")[0] for line in refused] == ["carol", "bob"]
    counted, refused = sorted_out(replies, 2, set(), {1: "ann", 2: "bob", 3: "carol", 4: "dave"})
    assert list(counted) == ["ann", "bob", "carol"] and refused[0].startswith("dave: the node says that it is bob")


def test_who_is_asked_is_drawn_as_a_plan_is_and_by_users_alone():
    users = ["ann", "bob", "carol", "dave", "7"]
    numbers = jnp.asarray(archives.numbers(users))
    plan = participation(jax.random.fold_in(jax.random.key(5, impl="threefry2x32"), 102), numbers, rounds=4, count=2)
    for nodes in (range(10, 15), [3, 1, 4, 15, 9]):
        names = dict(zip(nodes, users, strict=True))
        drawn = [{names[node] for node in asked(names, 2, 5, t)} for t in range(4)]
        assert drawn == [{user for user, present in zip(users, row, strict=True) if present} for row in plan]
    assert len(asked(names, None, 5, 0)) == len(asked(names, 9, 5, 0)) == 5


@pytest.fixture
def opened(tmp_path):
    pytest.importorskip("constriction", reason="no constriction on this machine: the extra `federated` has it")
    with serving.create(tmp_path / "archive", EXACT, 0, jnp.zeros(2)) as made:
        yield made


def updates(**values):
    return {user: Reply(0, user, np.asarray(value, np.float32), count) for user, (value, count) in values.items()}


def test_rounds_by_hand_and_an_erasure_from_them(opened):
    server = Server(opened)
    server.take(updates(ann=([4.0, 0.0], 1.0), bob=([0.0, 8.0], 3.0)))
    assert server.model.tolist() == [1.0, 6.0] and opened.rounds[0]["bob"].weight == 0.75
    taken = server.take(updates(bob=([1.0, 1.0], 2.0), carol=([3.0, 1.0], 2.0)))
    assert server.model.tolist() == [3.0, 7.0] and taken.users == ["bob", "carol"] and taken.round == 1
    assert taken.bytes == sum(entry.bytes for entry in opened.rounds[1].values())
    opened.close()
    erased = erasing.erase(opened.root, "bob")  # what is left are ann's first update and carol's
    with serving.open_archive(opened.root) as again:
        assert serving.read_model(again).tolist() == [7.0, 1.0] and Server(again).round == 2
        assert list((opened.root / "models").iterdir()) == [erased.model] and erased.rounds == 2
        assert erased.distance == pytest.approx(np.hypot(4.0, 6.0)) and erased.certificate.exists()
    erasing.erase(opened.root, "ann")
    with serving.open_archive(opened.root) as again:
        assert serving.read_model(again).tolist() == [3.0, 1.0]


@pytest.mark.parametrize("scheme", [Scheme(), Scheme("none", reference="mean"), Scheme("E8", users=1, scale="max")])
def test_the_largest_that_counts_leaves_a_model_and_an_erasure_that_are_finite(tmp_path, scheme):
    pytest.importorskip("constriction", reason="no constriction on this machine: the extra `federated` has it")
    with serving.create(tmp_path / "archive", scheme, 0, jnp.zeros(2)) as opened:
        server = Server(opened)
        for sign in (1, -1, 1):
            replies = updates(ann=([sign, 0.1], rounds.FEWEST), bob=([0, 0.99e15 * sign], rounds.MOST), carol=([2, 2], 7.0))
            counted, refused = sorted_out(list(replies.values()), 2, set(), None)
            assert not refused
            server.take(counted)
        assert set(opened.rounds[0]) == {"ann", "bob", "carol"} and np.isfinite(server.model).all()
    erasing.erase(tmp_path / "archive", "bob")
    with serving.open_archive(tmp_path / "archive") as opened:
        assert np.isfinite(serving.read_model(opened)).all()


def test_a_kill_between_model_and_row_leaves_the_last_round(opened, monkeypatch):
    server = Server(opened)
    server.take(updates(ann=([1.0, 2.0], 1.0)))

    def killed(*_, **__):
        raise RuntimeError("killed")

    monkeypatch.setattr(rounds.archives, "add_round", killed)
    with pytest.raises(RuntimeError):
        server.take(updates(ann=([5.0, 5.0], 1.0)))
    assert len(list((opened.root / "models").iterdir())) == 2
    opened.close()
    with serving.open_archive(opened.root) as again:
        assert len(list((opened.root / "models").iterdir())) == 1 and Server(again).model.tolist() == [1.0, 2.0]


def test_what_cannot_be_erased_is_refused_and_changes_nothing(opened):
    opened.close()
    with pytest.raises(ArchiveError, match=r"ann is not in the archive .*: it has nobody"):
        erasing.erase(opened.root, "ann")
    with serving.open_archive(opened.root) as again:
        Server(again).take(updates(ann=([1.0, 2.0], 1.0)))
        with pytest.raises(ArchiveError, match="another process writes"):
            erasing.erase(opened.root, "ann")
    with pytest.raises(ValueError, match="ann is the only one in the archive"):
        erasing.erase(opened.root, "ann")
    with serving.open_archive(opened.root) as again:
        server = Server(again)
        for _ in range(3):
            server.take(updates(ann=([1.0, 2.0], 1.0), bob=([2.0, 1.0], 1.0)))
    with pytest.raises(ValueError, match="alpha"):
        erasing.erase(opened.root, "ann", alpha=-2.0)
    before = {path: path.read_bytes() for path in opened.root.rglob("*.*")}
    with pytest.raises(ValueError, match=r"alpha = 1e\+38 gives a model that is not finite, so nothing was erased"):
        erasing.erase(opened.root, "ann", alpha=1e38)
    assert {path: path.read_bytes() for path in opened.root.rglob("*.*")} == before
    erasing.erase(opened.root, "ann")
    with pytest.raises(ArchiveError, match=r"ann was erased already: its certificate is in .*certificates"):
        erasing.erase(opened.root, "ann")
    for odd in ("", "x\ny", "x" * 201):
        with pytest.raises(ArchiveError, match="give 1 to 200 printable characters"):
            erasing.erase(opened.root, odd)


def test_a_model_that_was_altered_or_an_archive_of_no_engine_is_refused(opened, tmp_path):
    Server(opened).take(updates(ann=([1.0, 2.0], 1.0)))
    (path,) = (opened.root / "models").iterdir()
    path.write_bytes(b"\0" * 8)
    with pytest.raises(ArchiveError, match="was altered"):
        serving.read_model(opened)
    with pytest.raises(ArchiveError, match="give reference=zero or reference=mean"):
        serving.create(tmp_path / "other", Scheme(reference="last"), 0, jnp.zeros(2))
    with archives.create(tmp_path / "other", EXACT, 0, jnp.zeros(2)) as other:
        codes = archives.compressor(other).encode((), jnp.ones((1, 2)), jnp.ones(1), jnp.zeros(1, int), jnp.asarray(0))[1]
        archives.add_round(other, 0, ["ann"], codes, [1.0])
        with pytest.raises(ArchiveError, match="no engine wrote it"):
            serving.read_model(other)
