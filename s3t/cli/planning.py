"""The commands about plans: plan and simulate. No store and no jax."""

from __future__ import annotations

import argparse

from s3t.cli.texts import Result
from s3t.plans import structure
from s3t.plans.planners import PLANNERS


def make_plan(args: argparse.Namespace) -> structure.Plan:
    """The plan that the arguments describe."""
    return PLANNERS[args.planner](args.slices, args.budget, args.prior)


def plan(args: argparse.Namespace) -> Result:
    """The plan that the arguments describe, as numbers."""
    return structure.summary(make_plan(args), args.prior)


def simulate(args: argparse.Namespace) -> Result:
    """Streams of deletions against the plan that the arguments describe."""
    from s3t.plans.simulate import summary  # brings scipy, which other commands can do without

    more = {"stream": args.stream, "burst": args.burst, "after": args.after, "curve": args.quality}
    return summary(make_plan(args), args.shards, args.streams, args.seed, args.prior, **more)
