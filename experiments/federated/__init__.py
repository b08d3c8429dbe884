"""Federated runs outside the pure room: updates as bytes, archives on a disk, what a server erases from them.

* coding: an update's symbols to bytes and back, by a range coder.
* log, layout: the rows of an archive on a disk, and where its files lie.
* store: an archive on a disk: append-only, keyed by user and round, with digests, retention, deletion and certificates.
* archives: histories of `federated` into a store and out of it.
* engine: real clients by Flower, whose server keeps an archive; `forethought federated`.
"""
