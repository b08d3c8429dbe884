"""Seeds as lanes of one program against runs one after another, and what `experiments.core.machines.fleet` chooses by.

    python -m experiments.benchmarks.lanes [--models mlp vit cnn] [--lanes 10]

Prints seconds of an epoch for all lanes, the least of some repeats, compilation aside: as one `vmap` inside a scan, as
loops around one compiled step (a thread for each core, which is what `fleet.each` does), as one program whose
convolutions are matrix products, and as single runs one after another, each in the fastest of these forms. On an
accelerator the last two forms are left out: `--loops` asks for them.
"""

from __future__ import annotations

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import models
from experiments.benchmarks import smoke
from experiments.core import sections
from experiments.core.machines import environment, execution, fleet
from experiments.models import products
from experiments.training import epochs, loop

SIZES: dict[
    str, tuple[dict[str, Any], tuple[int, ...], int, int, int]
] = {  # model -> options, image, examples, batch size, steps
    "mlp": ({"widths": (128, 128)}, (8, 8, 1), 1024, 64, 100),
    "vit": ({"width": 32, "depth": 2}, (16, 16, 1), 512, 64, 4),
    "cnn": ({"widths": (32, 64)}, (28, 28, 1), 128, 64, 2),
    "resnet18": ({"width": 8}, (8, 8, 3), 32, 16, 2),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--lanes", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--loops", action="store_true", default=jax.default_backend() == "cpu")
    args = smoke.parse(parser, models=["mlp"], lanes=2, repeats=1)
    print(f"{args.lanes} lanes; seconds, and single runs one after another in units of each")
    for name in args.models:
        forms = ["one program", *(["loops"] if args.loops else [])]
        forms += ["products"] if args.loops and name in models.CONVOLUTIONAL else []
        alone = args.lanes * min(epoch_seconds(name, 1, form, args.repeats) for form in forms)
        found = {form: epoch_seconds(name, args.lanes, form, args.repeats) for form in forms}
        chosen = "loops" if fleet.in_loops(name in models.CONVOLUTIONAL) else "one program"
        shown = [f"{how} {seconds:.3f} ({alone / seconds:.2f})" for how, seconds in found.items()]
        print(f"{name:9} single runs {alone:.3f}  {'  '.join(shown)}  fleet chooses {chosen}", flush=True)


def epoch_seconds(name: str, lanes: int, form: str, repeats: int) -> float:
    """The least wall time of one epoch of all lanes, in one of the three forms."""
    options, image, examples, batch_size, steps = SIZES[name]
    rng = np.random.default_rng(0)
    data = {
        "x": jnp.asarray(rng.normal(size=(examples, *image)), jnp.float32),
        "y": jnp.asarray(rng.integers(0, 10, examples)),
        "weight": jnp.ones(examples),
        "id": jnp.arange(examples),
    }
    rule = loop.optimizer(sections.Train(), steps)
    fns = models.of_module(models.make_module(name, options, 10), image)
    way = loop.Way(products.as_products(fns) if form == "products" else fns, rule, steps, steps, batch_size)
    everyone = np.ones(examples, bool)
    members = loop.make_lanes(np.arange(lanes), everyone, everyone)
    epoch = (epochs.looped if form == "loops" else epochs.rolled)(way, execution.make("jit"))
    seconds = []
    for _ in range(repeats):
        states = loop.init_lanes(way, members)  # an epoch may take its states' buffers
        with environment.stopwatch() as stopwatch:
            jax.block_until_ready(epoch(states, members, data, None, 0, steps))
        seconds.append(stopwatch())
    return min(seconds)


if __name__ == "__main__":
    main()
