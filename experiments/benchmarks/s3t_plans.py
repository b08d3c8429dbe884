"""What plans cost and survive: the paper's table of deletions until a rebuild, and every planner side by side.

    python -m experiments.benchmarks.s3t_plans [--shards 5] [--slices 4] [--streams 10000]

Numbers are means over streams of deletions with half of their 95% t-interval. Seconds on two CPU cores; nothing is trained.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from experiments.benchmarks import smoke
from s3t.plans import simulate, structure
from s3t.plans.planners import PLANNERS, cyclic

PAPER = (66.4, 86.9, 100.8, 107.8, 110.1, 124.1)  # Table 3: m = 5, L = 6, B = 1..6, means of 100 streams


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=5)
    parser.add_argument("--slices", type=int, default=4)
    parser.add_argument("--streams", type=int, default=10_000)
    args = smoke.parse(parser, shards=2, slices=3, streams=20)
    print(paper_table(args.streams))
    print()
    print(planner_table(args.shards, args.slices, args.streams))


def paper_table(streams: int) -> str:
    """Requests until no shard, and until the first shard, has no model, beside the paper's and the closed form."""
    lines = ["m=5 L=6   paper  closed form  simulated     first dead shard  seconds"]
    for budget, paper in enumerate(PAPER, 1):
        began = time.perf_counter()
        found = simulate.summary(cyclic(6, budget), 5, streams, seed=0)
        seconds = time.perf_counter() - began
        rebuild, first = (shown(found[key]) for key in ("deletions_to_rebuild", "deletions_to_first_dead_shard"))
        lines.append(f"B={budget}      {paper:6.1f}  {found['closed_form']:11.2f}  {rebuild:12}  {first:16}  {seconds:.2f}")
    return "\n".join(lines)


def planner_table(shards: int, slices: int, streams: int) -> str:
    """Every planner with B = L, greedy at the FLOPs of 1, 2 and 3 sequences: cost, deletions survived, depth on the way."""
    sequence = structure.flops(cyclic(slices, 1))
    chosen = {name: PLANNERS[name](slices, None, None) for name in PLANNERS if name not in ("full", "greedy")}
    chosen |= {f"greedy {b}": PLANNERS["greedy"](slices, b * sequence, None) for b in (1, 2, 3)}
    requests = [round(shards * slices * share) for share in (0.5, 1, 2)]
    first = simulate.uniform(np.random.default_rng(0), streams, shards, slices)
    lines = [
        f"m={shards} L={slices}      stages  FLOPs   cached  until rebuild  first dead     "
        + "".join(f"depth after {r:<6}" for r in requests)
    ]
    for name, plan in chosen.items():
        lost = simulate.falls(plan, first)
        rebuild = half(simulate.estimate(simulate.deletions_to_rebuild(lost)))
        dead = half(simulate.estimate(simulate.deletions_to_first_dead_shard(lost)))
        mean, low, high = simulate.estimate(simulate.depths(lost, requests).mean(axis=1))
        depths = "".join(f"{m:.3f} ± {(h - lo) / 2:.3f}     " for m, lo, h in zip(mean, low, high, strict=True))
        cost = f"{structure.flops(plan):6.2f}  {structure.flops(plan, cached=True):6.2f}"
        lines.append(f"{name:12} {len(plan.nodes):6}  {cost}  {rebuild:13}  {dead:13}  {depths.rstrip()}")
    return "\n".join(lines)


def shown(estimate: dict) -> str:
    """A mean with half of its interval."""
    return half(simulate.Estimate(estimate["mean"], *estimate["ci95"]))


def half(estimate: simulate.Estimate) -> str:
    """A mean with half of its interval."""
    return f"{estimate.mean:.2f} ± {(estimate.high - estimate.low) / 2:.2f}"


if __name__ == "__main__":
    main()
