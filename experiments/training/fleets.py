"""Who trains: a model, its devices and its data, and how fleets of it are trained, kept and paid for."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.core import progress, sections, workdirs
from experiments.core.machines import fleet, processes
from experiments.core.machines.execution import Execution
from experiments.core.notices import LOG
from experiments.data import datasets
from experiments.models import ModelFns
from experiments.training import cost, epochs, loop, privacy
from readiness.requests import Pools
from unlearn.base import Batch

# Expected time, in steps of one model: seen with the digits MLP on two CPU cores.
PER_STEP = 40  # what a step of a fleet takes beside its models
READY, PRIVATE = 1.5, 4.0  # a step of readiness (a quarter batch rehearsed on every fourth) and of DP-SGD, in plain ones
PROXY = 4  # a proxy of the oracle trains for one step in so many
SHUFFLED, POISSON = "dpsgd", "dpsgd-poisson"


def proxy_steps(steps: int) -> int:
    """Of a proxy of the oracle, where others train for so many."""
    return max(1, steps // PROXY)


class Trainer(NamedTuple):
    """Who trains.

    data: the training split as one Batch, on the device; if it is streamed, on the host with Images.
    on_disk: whether it is streamed.
    section: of ordinary training.
    save_every: seconds between checkpoints.
    """

    model: ModelFns
    devices: Execution
    data: Batch
    on_disk: bool
    section: sections.Train
    workdir: workdirs.Workdir
    save_every: float

    def way(self, steps: int | None = None) -> loop.Way:
        """Ordinary training, for other than the section's steps if asked."""
        count, size = self.section.steps if steps is None else steps, self.section.batch_size
        per_epoch = max(1, len(self.data["id"]) // size)
        rule, parts = loop.optimizer(self.section, count), self.section.microbatches
        return loop.Way(self.model, rule, count, per_epoch, size, microbatches=parts)

    def private_way(self, dpsgd: sections.DPSGD) -> loop.Way:
        """DP-SGD, at the same steps."""
        way = self.way()._replace(private=(dpsgd.clip, dpsgd.noise))
        if self.private_name(dpsgd) == SHUFFLED:
            return way
        return way._replace(capacity=privacy.capacity(way.batch_size, way.steps, len(self.data["id"])))

    def private_name(self, dpsgd: sections.DPSGD) -> str:
        """What checkpoints of DP-SGD are called. Those that 0.1 began go on as it began them, with shuffled batches."""
        folder = self.workdir.path / "checkpoints"
        begun = processes.first(lambda: [path.name for path in folder.glob(f"*{SHUFFLED}*")])
        old = any(re.fullmatch(rf"(.*-)?{SHUFFLED}(-\d+)?", name) for name in begun)
        return SHUFFLED if dpsgd.shuffled or old else POISSON

    def noisy_way(self, alpha: float) -> loop.Way:
        """NEFTune, at the same steps; of alpha 0 ordinary training."""
        return self.way()._replace(noise=alpha)

    def guarantee(self, dpsgd: sections.DPSGD, examples: int) -> dict[str, Any]:
        """Facts of the rows of DP-SGD; `examples` is the fewest that a model was trained on."""
        if self.private_name(dpsgd) == SHUFFLED:
            return privacy.SHUFFLED
        size, steps = self.section.batch_size, self.section.steps
        return privacy.guarantee(dpsgd.noise, dpsgd.delta, batch_size=size, steps=steps, examples=examples)

    def fleet(self, way: loop.Way, lanes: loop.Lane, name: str, pools: Pools | None = None) -> loop.Trained:
        """Train all lanes of one way, with a line in metrics.jsonl for each epoch; `name` is the checkpoints'."""
        count = fleet.lane_count(lanes)
        step = (count + PER_STEP) * (READY if way.rehearsing else PRIVATE if way.private else 1.0)
        progress.stage(f"train {name}, {count} models", way.steps * step)

        def report(entry: dict[str, Any]) -> None:
            progress.reach(entry["step"] * step, way.per_epoch * step)
            self.workdir.log("train", training=name, lanes=count, **entry)

        epoch_fn = epochs.make(way, self.devices, on_disk=self.on_disk)
        folder = self.workdir.path / "checkpoints" / name
        trained = loop.train(way, lanes, self.data, pools, epoch_fn, folder, report, self.save_every, self.devices.place)
        progress.skip()  # what was not reported had been done before
        return trained

    def cost(self, way: loop.Way, name: str) -> dict[str, float]:
        """`cost.of_training`, counted once; `name` is the stage's."""
        return self.workdir.stage(f"cost-{name}", lambda: cost.of_training(way, self.data))

    def rehearsing_cost(
        self, way: loop.Way, pools: Pools, step_flops: float, name: str, levels_given: bool = False
    ) -> dict[str, float]:
        """`cost.of_rehearsing`, counted once; `name` is the stage's."""
        count = lambda: cost.of_rehearsing(way, self.data, pools, step_flops, levels_given)  # noqa: E731
        return self.workdir.stage(f"cost-{name}", count)


def make(
    model: ModelFns,
    devices: Execution,
    split: datasets.Split,
    section: sections.Train,
    workdir: workdirs.Workdir,
    *,
    alternatives: Batch | None = None,
    on_disk: bool = False,
    save_every: float = 30.0,
) -> Trainer:
    """Who trains on a split, all of which comes to the device unless it stays on disk.

    Args:
      alternatives: what each row is to be answered with instead, where that is rehearsed.

    Raises:
      UserError: more parts of a batch than each device has examples.
    """
    devices.check_parts(section.microbatches, section.batch_size)
    if section.weight_decay and section.optimizer != "adamw":
        LOG.warning("train.weight_decay is of adamw alone: %s trains without it", section.optimizer)
    data: Batch = datasets.batch(split)
    if alternatives is not None:
        data = {**data, loop.ALTERNATIVE: alternatives}
    if not on_disk:
        data = jax.tree.map(jnp.asarray, data)
    return Trainer(model, devices, data, on_disk, section, workdir, save_every)
