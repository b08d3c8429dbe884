"""Kills: of processes that make a store, delete, purge and train made-up nodes, at any moment and at any system call.

What was acknowledged before the kill is in the ledger, no serving node was trained on it, the record is whole before
anything is mended, and the same work ends with the same bytes.
"""

import functools
import shutil
import time
from collections.abc import Callable
from typing import NamedTuple

from s3t.service import verify
from s3t.store import certificates, deletions, disk, publishing, state
from s3t.store.ledger import records
from tests.faults import children
from tests.helpers import stores

EXAMPLES = 60
PLACES = stores.places(range(EXAMPLES))
PLACE = {one: (int(PLACES.shard[one]), int(PLACES.slice[one])) for one in range(EXAMPLES)}


class Job(NamedTuple):
    """Work to be killed.

    name: of it.
    begin: where it begins, a store.
    work: what is done with a root, saying what was acknowledged.
    requests: that it makes, in their order.
    before: ids that were deleted before.
    """

    name: str
    begin: Callable
    work: Callable
    requests: list
    before: frozenset = frozenset()


def attack(room, rng, limit, tally):
    """Kill in turn at a random system call and at a random moment."""
    jobs = prepared(room, rng)
    peace = {job.name: in_peace(room, job) for job in jobs}
    calls = [(job, call) for job in jobs for call in range(1, 1 + peace[job.name].calls)]
    rng.shuffle(calls)
    for number in limit:
        if number % 2 == 0 and calls:
            job, call = calls[number // 2 % len(calls)]
            killed_once(room, job, peace[job.name], tally, f"{job.name}, system call {call}", at_call=call)
        else:
            job = rng.choice(jobs)
            after = rng.uniform(0, 1.1 * peace[job.name].seconds)
            killed_once(room, job, peace[job.name], tally, f"{job.name}, after {after:.6f} s", after=after)


# --- Jobs -------------------------------------------------------------------------------------------------------------


def prepared(room, rng):
    """The jobs, each with the store that it begins with."""
    whole, deleted, purged = (room.folder / name for name in ("whole", "deleted", "purged"))
    disk.close(stores.fill(stores.make(whole, EXAMPLES)))
    ids = rng.sample(range(EXAMPLES), 8)
    two, more = [["r", ids[:2]], ["s", ids[2:4]]], [["t", ids[4:6]], ["u", ids[6:8]]]
    shutil.copytree(whole, deleted)
    opened = disk.look(deleted)
    for request, some in two:
        disk.delete(opened, some, request)
    disk.close(opened)
    shutil.copytree(deleted, purged)
    disk.close(disk.open(purged))
    copied = lambda template: functools.partial(shutil.copytree, template)  # noqa: E731
    gone = frozenset(ids[:4])
    return [
        Job("create", lambda root: None, create, []),
        Job("delete", copied(whole), functools.partial(delete, two), two),
        Job("purge", copied(deleted), purge, [], gone),
        Job("heal", copied(purged), heal, [], gone),
        Job("all", copied(purged), functools.partial(carry_out, more), more, gone),
    ]


def create(root, say):
    opened = disk.open(root) if disk.exists(root) else disk.create(root, stores.manifest())
    if not records.counts(opened.ledger)["examples"]:
        disk.register(opened, range(EXAMPLES), *PLACES)
    disk.close(opened)


def delete(requests, root, say):
    opened = disk.look(root)
    for request, ids in requests:
        disk.delete(opened, ids, request)
        say(request)
    disk.close(opened)


def purge(root, say):
    disk.close(disk.open(root))


def heal(root, say):
    opened = disk.open(root)
    stores.fill(opened)
    state.mark_healed(opened)
    disk.close(opened)


def carry_out(requests, root, say):
    opened = disk.open(root)
    stores.carry_out(opened, requests, say)
    disk.close(opened)


# --- One kill ---------------------------------------------------------------------------------------------------------


class Peace(NamedTuple):
    """A job that nobody disturbs: what it ends with, its system calls, its seconds."""

    content: tuple
    calls: int
    seconds: float


def in_peace(room, job):
    began_with(room, job)
    ended = children.run(functools.partial(job.work, room.store), count=True)
    assert not ended.error, ended.error
    content = content_of(room.store)
    began_with(room, job)
    before = time.monotonic()
    children.run(functools.partial(job.work, room.store))
    return Peace(content, ended.calls, time.monotonic() - before)


def began_with(room, job):
    shutil.rmtree(room.store, ignore_errors=True)
    job.begin(room.store)


def content_of(root):
    """Files and bytes, nodes that serve, who was deleted and whose requests stand where; leftovers are removed first."""
    opened = disk.open(root)
    found = (*stores.content(opened), opened.ledger.execute("SELECT request, state FROM requests ORDER BY 1").fetchall())
    disk.close(opened)
    return found


def killed_once(room, job, peace, tally, what, **when):
    """Kill a job, look at what it left, and do it again to its end."""
    began_with(room, job)
    ended = children.run(functools.partial(job.work, room.store), **when)
    if not ended.killed and not ended.error:
        return  # it was done before
    with tally.trial(what):
        if ended.error:
            tally.bad("tracebacks", f"{what}: {ended.error}")
        if disk.exists(room.store):
            check_left(room.store, job, ended.said, tally, what)
        job.work(room.store, lambda line: None)
        if content_of(room.store) != peace.content:
            tally.bad("wrong", f"{what}: the same work ends with other bytes")
        check_whole(room.store, tally, f"{what}, done again")


def check_left(root, job, said, tally, what):
    """A store as the kill left it, before anything is mended."""
    check_whole(root, tally, what)
    opened = disk.look(root)
    state.status(opened)
    acknowledged = [request for request in job.requests if request[0] in said]
    perhaps = job.requests[: len(acknowledged) + 1]
    for request, ids in acknowledged:
        answer = deletions.answer(opened.ledger, request)
        if answer is None or set(answer.ids) != set(ids):
            tally.bad("lost", f"{what}: request {request}")
    check_serving(opened, gone_by(job, acknowledged), gone_by(job, perhaps), tally, what)
    disk.close(opened)


def gone_by(job, requests):
    return job.before | {one for _, ids in requests for one in ids}


def check_whole(root, tally, what):
    result = verify.verify(root)
    if not result["ok"]:
        tally.bad("wrong", f"{what}: {result['problems']}")


def check_serving(opened, gone, perhaps, tally, what):
    """By its certificate each serving node saw the examples of its place without those that are gone, counted here."""
    for node in publishing.live(opened):
        recorded, _ = publishing.load(opened, node)
        roots = [root_without(node.shard, node.slices, frozenset(some)) for some in (gone, perhaps)]
        if recorded.ids_root not in roots:
            tally.bad("served", f"{what}: node {node.identity}")


@functools.cache
def root_without(shard, slices, gone):
    return certificates.merkle_root(
        one for one, (of_shard, slice_) in PLACE.items() if of_shard == shard and slice_ in slices and one not in gone
    )
