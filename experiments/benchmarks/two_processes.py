"""A fleet of models in two processes of a core each, against one process on both cores, and on one.

    python -m experiments.benchmarks.two_processes [--oracles 64] [--epochs 40] [--rounds 3]

Models are those of `oracles`: the digits MLP, each trained without a tenth of the data. Processes find each other on the
loopback interface, and as in a run they give each other losses after each epoch and all states at the end. The three ways
take turns, in processes of their own. Seconds are of training without compilation, of the slower of two; seconds of work
are those of all cores, which others on the machine do not lengthen by taking turns. A ratio is of one round, and what is
reported is the median over rounds. Linux only: processes are bound to cores.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import oracles, smoke
from experiments.comparison import checks
from experiments.configs import readiness as configs
from experiments.core import workdirs
from experiments.core.machines import distributed, execution, processes
from experiments.data import datasets
from experiments.models import build
from experiments.training import epochs, fleets, loop

WAYS = ("two processes, a core each", "one process, both cores", "one process, one core")
CORES = "FORETHOUGHT_BENCHMARK_CORES"  # of a child, as 0,1


def main() -> None:
    """Start processes by turns, and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--oracles", type=int, default=64, help="models of the fleet")
    parser.add_argument("--epochs", type=int, default=40, help="of each model")
    parser.add_argument("--rounds", type=int, default=3)
    args = smoke.parse(parser, oracles=2, epochs=2, rounds=1)
    if CORES in os.environ:
        print(json.dumps(child(args.oracles, args.epochs)))
        return
    cores = sorted(os.sched_getaffinity(0))[:2] if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        parser.error("two cores are needed, and Linux")
    if min(args.oracles - 1, args.epochs, args.rounds) < 1:
        parser.error("--oracles is 2 or more, --epochs and --rounds 1 or more")
    bound = ([[cores[0]], [cores[1]]], [cores], [cores[:1]])  # of each way, the cores of each process
    rounds = []
    for i in range(args.rounds):
        busy = os.getloadavg()[0]
        rounds.append([run([f"--oracles={args.oracles}", f"--epochs={args.epochs}"], each) for each in bound])
        told = "; ".join(f"{way} {wall:.2f} s ({work:.2f})" for way, (wall, work) in zip(WAYS, rounds[-1], strict=True))
        print(f"round {i + 1}, load {busy:.1f}, seconds (of work): {told}", flush=True)
    faster, alone = (statistics.median(one[other][0] / one[0][0] for one in rounds) for other in (1, 2))
    work = statistics.median(one[2][1] / one[0][1] for one in rounds)
    print(
        f"{args.oracles} models, {args.epochs} epochs: two processes are {faster:.2f} times as fast as one on both cores,"
        f" {alone:.2f} times as fast as one on one core (efficiency {alone / 2:.2f}; by seconds of work {work:.2f})"
    )


def run(words: list[str], cores: list[list[int]]) -> tuple[float, float]:
    """Seconds, of the slowest of as many processes as there are lists of cores, and seconds of work, of all of them."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    started = []
    for process, mine in enumerate(cores):
        says = (coordinator, str(len(cores)), str(process))
        told = dict(zip(distributed.VARIABLES.values(), says, strict=True)) if len(cores) > 1 else {}
        env = {**os.environ, **told, CORES: ",".join(map(str, mine))}
        line = [sys.executable, "-m", "experiments.benchmarks.two_processes", *words]
        started.append(subprocess.Popen(line, env=env, stdout=subprocess.PIPE, text=True))
    outputs = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        sys.exit("a process failed; its message is above")
    took = [json.loads(output.splitlines()[-1]) for output in outputs]
    return max(wall for wall, _ in took), sum(work for _, work in took)


def child(count: int, rounds: int) -> tuple[float, float]:
    """Seconds of training a fleet and seconds of work, in a process that is bound to its cores before JAX counts them."""
    os.sched_setaffinity(0, {int(core) for core in os.environ[CORES].split(",")})
    distributed.begin(os.environ, "readiness")
    made = checks.resolved(configs.get_config("digits"))
    dataset = datasets.load(made.data, False)
    model = build(made.model, dataset.train.x[:1], dataset.classes, dataset.tokens)
    trainer = fleets.make(model, execution.one_device(), dataset.train, made.train, workdirs.Workdir("."))
    way, lanes = trainer.way(), oracles.oracles(dataset.train.id, count)
    epoch, (states, lanes) = epochs.make(way, trainer.devices), processes.part((loop.init_lanes(way, lanes), lanes))
    jax.block_until_ready(epoch(jax.tree.map(jnp.copy, states), lanes, trainer.data, None, 0, way.per_epoch))  # compile
    wall, work = time.perf_counter(), time.process_time()
    for number in range(rounds):
        states, infos = jax.block_until_ready(epoch(states, lanes, trainer.data, None, number, way.per_epoch))
        processes.everyone(np.mean(np.asarray(infos.loss), axis=1))
    processes.whole(states, count)
    return time.perf_counter() - wall, time.process_time() - work


if __name__ == "__main__":
    main()
