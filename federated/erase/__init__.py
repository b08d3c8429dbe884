"""Erasure: pure functions that take clients out of a federated model."""
