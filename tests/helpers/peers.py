"""Processes of one run as threads of this one: what they exchange goes through a barrier, and no cluster is needed."""

import threading

import jax

from experiments.core.machines import preemption, processes

PATIENCE = 60.0  # seconds that one waits for the others, where a test would hang


def together(monkeypatch, count, program):
    """What `program(process)` gives in each of so many processes, or what it raised.

    One that ends by an error of its own is gone for the others, as a process is.
    """
    me, barrier, given, ends = threading.local(), threading.Barrier(count), [b""] * count, [None] * count

    def exchange(content):
        given[me.process] = content
        try:
            barrier.wait(PATIENCE)
            got = list(given)
            barrier.wait(PATIENCE)
        except threading.BrokenBarrierError:
            raise preemption.Lost("a peer is gone") from None
        return got

    def run(process):
        me.process = process
        try:
            ends[process] = program(process)
        except BaseException as error:
            ends[process] = error
            if not isinstance(error, preemption.Preempted | ValueError):
                barrier.abort()

    with monkeypatch.context() as patch:
        patch.setattr(jax, "process_count", lambda: count)
        patch.setattr(jax, "process_index", lambda: me.process)
        patch.setattr(processes, "exchange", exchange)
        threads = [threading.Thread(target=run, args=(process,)) for process in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return ends
