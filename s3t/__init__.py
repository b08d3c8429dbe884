"""Exact unlearning by adapters that can be switched off (S3T, 2406.16257), with plans of our own.

A keyed hash puts each example into a shard and a slice (`s3t.partition`), a planner chooses the sequences of slices to train on
(`PLANNERS`), and `s3t.simulate` says how many deletions such a plan survives.
"""

from s3t.partition import Bands, Places, assign, shares
from s3t.plan import Node, Plan, make_plan
from s3t.planners import PLANNERS

__all__ = ["PLANNERS", "Bands", "Node", "Places", "Plan", "assign", "make_plan", "shares"]
