"""Adapters, the backbone they sit in, and how the nodes of a plan are trained."""
