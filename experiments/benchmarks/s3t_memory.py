"""What is left of dropped nodes in the memory of a server after a deletion. Linux alone.

    python -m experiments.benchmarks.s3t_memory [--model digits] [--rounds 5] [--dir DIR]

A process serves a store of 5 shards, 4 slices and 75 nodes of an untrained ViT. Thirty-two bytes from the middle of each
tensor of the nodes that a deletion drops are looked for in all of that process's memory, before the deletion and after the
server has followed it and answered once more. Printed are tensors that were found, and copies of them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from experiments.benchmarks import s3t_serve, smoke
from experiments.models import vits
from s3t.service import serving
from s3t.store import disk, publishing
from s3t.store.ledger import records
from s3t.training.backbone import Backbone

WINDOW = 32  # bytes; shorter tensors are not looked for


def main() -> None:
    """Print a line for each round."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=s3t_serve.IMAGES, default="digits")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", default=".")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = smoke.parse(parser, dir=smoke.folder, rounds=1)
    if args.serve:
        serve(Path(args.serve), args.model)
        return
    for number in range(args.rounds):
        with tempfile.TemporaryDirectory(dir=args.dir) as directory:
            before, after = measured(Path(directory) / "store", args.model, number)
        told = [f"{sum(map(bool, found))} of {len(found)} tensors in {sum(found)} copies" for found in (before, after)]
        print(f"before the deletion {told[0]}, after it {told[1]}", flush=True)


def untrained(name: str) -> tuple[Backbone, jax.Array, np.ndarray]:
    """A model and an example."""
    x = np.random.default_rng(0).normal(size=(1, *s3t_serve.IMAGES[name])).astype(np.float32)
    module = vits.vit(name, 10)
    return vits.as_backbone(module), vits.split_head(vits.init(module, jax.random.key(0), x))[0], x


def serve(root: Path, name: str) -> None:
    """Answer once, and once more after each line of standard input."""
    backbone, frozen, x = untrained(name)
    with serving.Server(disk.look(root), backbone, frozen, s3t_serve.LORA, batch_size=1, example=x) as server:
        while True:
            server.predict(x)
            print("answered", flush=True)
            if not sys.stdin.readline():
                return


def measured(root: Path, name: str, seed: int) -> tuple[list[int], list[int]]:
    """For each tensor of the dropped nodes, how often it is found before and after the deletion."""
    opened = s3t_serve.fill(s3t_serve.make(root), untrained(name)[0], np.random.default_rng(seed))
    tensors = {node.identity: publishing.load(opened, node)[1] for node in publishing.live(opened)}
    command = [sys.executable, "-m", "experiments.benchmarks.s3t_memory", "--model", name, "--serve", str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        process.stdout.readline()
        disk.delete(opened, [records.members(opened.ledger, 0, (0,))[1][0]])
        serving_now = set(publishing.identities(publishing.live(opened)))
        gone = [tensor for identity in tensors.keys() - serving_now for tensor in tensors[identity].values()]
        windows = [window(tensor) for tensor in gone if tensor.nbytes >= WINDOW and np.ptp(tensor) > 0]
        before = found(process.pid, windows)
        disk.purge(opened)
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        after = found(process.pid, windows)
        process.kill()
    disk.close(opened)
    return before, after


def window(tensor: np.ndarray) -> bytes:
    """Bytes from the middle of a tensor."""
    data = tensor.tobytes()
    start = (len(data) - WINDOW) // 2 // tensor.itemsize * tensor.itemsize
    return data[start : start + WINDOW]


def found(process: int, windows: list[bytes]) -> list[int]:
    """How often each stands in the memory of a process."""
    counts = [0] * len(windows)
    for block in memory(process):
        for number, pattern in enumerate(windows):
            counts[number] += block.count(pattern)
    return counts


def memory(process: int) -> Iterator[bytes]:
    """The readable memory of a process, without what is mapped from libraries."""
    with Path(f"/proc/{process}/mem").open("rb", 0) as whole:
        for line in Path(f"/proc/{process}/maps").read_text().splitlines():
            span, rights, _, _, _, *name = line.split(maxsplit=5)
            if not rights.startswith("r") or (name and (".so" in name[0] or name[0].startswith("[v"))):
                continue
            start, end = (int(text, 16) for text in span.split("-"))
            try:
                whole.seek(start)
                yield whole.read(end - start)
            except OSError:  # a guard page
                continue


if __name__ == "__main__":
    main()
