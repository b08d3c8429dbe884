"""Exact unlearning by adapters that can be switched off (S3T, 2406.16257), with plans of our own.

`partition` puts each example into a shard and a slice by a keyed hash, `plan` says what is trained for a shard and what
of it survives a deletion, `planners` choose it, and `simulate` counts the deletions it survives. `adapters` are what a node
owns, `backbone` is what is needed of a model, `train` makes all nodes of a depth in one program, and `build` those of a
whole plan. `store` and `ledger` keep them, `heal` makes and remakes them, `verify` and `replay` prove what they are made
from; `serve` answers with what survives, and `serving` is a process that does. Nothing is
imported here: a process that only deletes must start at once.
"""
