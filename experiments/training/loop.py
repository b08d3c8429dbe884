"""Ways of training, as lanes of a fleet: who is a member, how much each example weighs, and what a step does.

Vanilla training, re-weighting and both oracles differ in two arrays alone (membership and weight), so they are lanes of
one program. Readiness and DP-SGD have programs of their own. A lane draws its batches by keys folded from (purpose, seed,
epoch, example id), so a resumed run draws what an uninterrupted one would, and lanes do not see each other.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import models
from experiments.core import checkpoints, keys, sections
from experiments.core.keys import Purpose
from experiments.core.machines import environment, fleet, preemption, processes
from experiments.core.machines.execution import Execution
from experiments.training import dpsgd, neftune, privacy, whitening
from experiments.training.schedule import Schedule
from readiness.objective import MetaBatch, Readiness
from readiness.requests import Draw, Pools, draw_meta_batch, take
from readiness.step import StepInfo, TrainState, init_state, make_step
from unlearn import tree
from unlearn.base import Array, Batch, Model


class Lane(NamedTuple):
    """What sets one model of a fleet apart.

    key: the seed's key.  member: [examples] bool, who is trained on.  weight: [examples] float, loss weights.
    level: [examples] float, where unseen examples lie, of those that are rehearsed; None: as the model itself says.
    """

    key: Array
    member: Array
    weight: Array
    level: Array | None = None


class Rehearsing(NamedTuple):
    """When and how a training step rehearses a request.

    every, start: on steps start, start + every, ...
    draw: the shape of its meta-batch.  step_size: (lowest, highest), drawn log-uniformly.
    """

    readiness: Readiness
    draw: Draw
    every: int
    start: int
    step_size: tuple[float, float]


class Way(NamedTuple):
    """One way of training a fleet: the optimiser, what its steps do, and for how long.

    steps: in all.  per_epoch: steps between two shuffles of the data.
    rehearsing: None for ordinary steps.  private: (clip, noise) of DP-SGD, or None.
    capacity: room for a batch that is drawn by Poisson sampling, of `batch_size` on average; 0: batches are shuffled.
    noise: NEFTune's alpha; 0: none.
    microbatches: parts that a batch is evaluated in.
    """

    model: models.ModelFns
    optimizer: optax.GradientTransformation
    steps: int
    per_epoch: int
    batch_size: int
    rehearsing: Rehearsing | None = None
    private: tuple[float, float] | None = None
    capacity: int = 0
    noise: float = 0.0
    microbatches: int = 1

    @property
    def schedule(self) -> Schedule:
        """Which steps rehearse."""
        return Schedule(self.rehearsing.every, self.rehearsing.start) if self.rehearsing else Schedule()


class Trained(NamedTuple):
    """A trained fleet: stacked parameters, seconds per lane without compiling, mean losses by epoch [epochs, lanes]."""

    params: Any
    seconds: float
    losses: np.ndarray


ALTERNATIVE = "alternative"  # what is to be said instead, where that is rehearsed; ordinary batches go without it
Numbers = Array | np.ndarray
Report = Callable[[dict[str, Any]], None]
# (states, lanes, data, pools, epoch, steps) -> (states, infos [lanes, steps]): the steps of an epoch, of all lanes
Epoch = Callable[[TrainState, Lane, Batch, Pools | None, int, int], tuple[TrainState, StepInfo]]


def optimizer(section: sections.Train, steps: int) -> optax.GradientTransformation:
    """SGD with momentum or AdamW on a cosine schedule to 0 over `steps`, or Nesterov's SGD on a triangular one; all of them
    after clipping by the global norm.
    """
    schedule = optax.cosine_decay_schedule(section.learning_rate, steps)
    if section.optimizer == "nesterov":
        tx = whitening.optimizer(section.learning_rate, section.momentum, steps)
    elif section.optimizer == "sgd":
        tx = optax.sgd(schedule, momentum=section.momentum or None)
    elif section.optimizer == "adamw":
        tx = optax.adamw(schedule, weight_decay=section.weight_decay)
    else:
        raise ValueError(f"train.optimizer {section.optimizer!r} is unknown; choose sgd, nesterov or adamw")
    return optax.chain(optax.clip_by_global_norm(section.clip), tx) if section.clip else tx


def make_lanes(
    seeds: Sequence[int] | Numbers, member: Numbers, weight: Numbers, *, purpose: Purpose = Purpose.TRAINING
) -> Lane:
    """One lane per seed with the same members and weights; another purpose has keys of its own."""
    spread = lambda a: jnp.broadcast_to(jnp.asarray(a), (len(seeds), *a.shape))  # noqa: E731
    return Lane(keys.raw(seeds, purpose), spread(member), spread(weight.astype(np.float32)))


def epoch_rows(lane: Lane, ids: Array, epoch: Array, steps: int, batch_size: int) -> Array:
    """Positions of an epoch's batches, [steps, batch_size]: a shuffle of the lane's members, repeated if it runs out."""
    key = keys.fold(jax.random.wrap_key_data(lane.key), Purpose.ORDER, epoch)
    drawn = jax.vmap(lambda i: jax.random.bits(jax.random.fold_in(key, i)))(ids)
    order = jnp.lexsort((drawn, ~lane.member))
    return order[jnp.arange(steps * batch_size) % jnp.sum(lane.member)].reshape(steps, batch_size)


def rows_of(way: Way, lane: Lane, ids: Array, epoch: Array) -> Array:
    """Positions of an epoch's batches, [steps, rows]; of those by Poisson sampling some are -1, for nobody."""
    if not way.capacity:
        return epoch_rows(lane, ids, epoch, way.per_epoch, way.batch_size)
    root = jax.random.wrap_key_data(lane.key)
    one = lambda step: privacy.rows(root, lane.member, ids, step, way.batch_size, way.capacity)  # noqa: E731
    drawn: Array = jax.lax.map(one, epoch * way.per_epoch + jnp.arange(way.per_epoch))
    return drawn


class Drawn(NamedTuple):
    """What a lane's step works on, already gathered from the data set: arrays alone, so that it can leave the device.

    key: raw.  meta, step_size: None on a step that does not rehearse.
    """

    batch: Batch
    key: Array
    meta: MetaBatch | None
    step_size: Array | None


def ordinary(data: Batch) -> Batch:
    """The data without what is to be said instead."""
    return {name: leaf for name, leaf in data.items() if name != ALTERNATIVE}


def draw(way: Way, lane: Lane, data: Batch, pools: Pools | None, row: Array, index: Array, rehearse: bool) -> Drawn:
    """The batches of one step of one lane; `rehearse` is static."""
    root = jax.random.wrap_key_data(lane.key)
    weight = jnp.where(row >= 0, lane.weight[row], 0.0) if way.capacity else lane.weight[row]
    batch = dict(take(ordinary(data), row), weight=weight)
    key = jax.random.key_data(keys.fold(root, Purpose.STEP, index))
    due = way.rehearsing
    if not rehearse or due is None:
        return Drawn(batch, key, None, None)
    draw_key, size_key = jax.random.split(keys.fold(root, Purpose.META, index))
    members = dict(data, weight=data["weight"] * lane.member)  # nobody rehearses forgetting what was never trained on
    if lane.level is not None:
        members["level"] = lane.level
    meta = draw_meta_batch(draw_key, members, cast(Pools, pools), due.draw)
    low, high = jnp.log(jnp.asarray(due.step_size))
    return Drawn(batch, key, meta, jnp.exp(jax.random.uniform(size_key, (), minval=low, maxval=high)))


def make_apply(
    way: Way, devices: Execution, *, unroll: bool | None = None
) -> Callable[[TrainState, Drawn], tuple[TrainState, StepInfo]]:
    """The step itself, on what was drawn.

    Args:
      unroll: of `Execution.microbatched`.
    """
    model = models.as_model(way.model)
    if way.private:
        return _private_step(way, devices.microbatched(model, way.microbatches, unroll=unroll), way.private)
    if way.noise:
        model = neftune.noisy(way.model, way.noise)
    model = devices.microbatched(model, way.microbatches, unroll=unroll)
    readiness = way.rehearsing and way.rehearsing.readiness
    step = make_step(model, way.optimizer, readiness=readiness, mean=devices.mean, grad=devices.outer_grad)

    def apply(state: TrainState, drawn: Drawn) -> tuple[TrainState, StepInfo]:
        meta = drawn.meta and devices.split_meta(drawn.meta)
        batch = devices.split(drawn.batch, 0)
        batch = neftune.counted(batch) if way.noise else batch
        return step(state, batch, jax.random.wrap_key_data(drawn.key), meta, drawn.step_size)

    return apply


def make_step_fn(way: Way, devices: Execution, *, unroll: bool | None = None) -> Callable[..., tuple[TrainState, StepInfo]]:
    """One step of one lane, `(state, lane, data, pools, row, index, rehearse) -> (state, info)`; `rehearse` is static."""
    apply = make_apply(way, devices, unroll=unroll)
    return lambda state, *rest: apply(state, draw(way, *rest))


def _private_step(
    way: Way, model: Model, private: tuple[float, float]
) -> Callable[[TrainState, Drawn], tuple[TrainState, StepInfo]]:
    """DP-SGD. Its clipping and noise know nothing of devices: each makes the whole step."""
    clip, noise = private

    def run(state: TrainState, drawn: Drawn) -> tuple[TrainState, StepInfo]:
        key = jax.random.wrap_key_data(drawn.key)

        def clipped(batch: Batch, weight: Array, _: Array, params: Any) -> tuple[Any, Array]:
            weighted = dict(batch, weight=weight)  # every example is on its own, so all parts have the key of the step
            return dpsgd.clipped_sum(way.model, model.loss, params, weighted, key, clip)[:2]

        given = drawn.batch, drawn.batch["weight"], key, state.params
        total, losses = model.parts.summed(clipped, *given) if model.parts else clipped(*given)
        gradient = dpsgd.noisy_mean(total, keys.fold(key, Purpose.NOISE), clip * noise, way.batch_size)
        updates, opt_state = way.optimizer.update(gradient, state.opt_state, state.params)
        loss = jnp.sum(losses) / jnp.maximum(jnp.sum(drawn.batch["weight"] > 0), 1) if way.capacity else jnp.mean(losses)
        info = StepInfo(loss, jnp.zeros(()))
        return TrainState(optax.apply_updates(state.params, updates), opt_state, state.step + 1), info

    return run


def init_lanes(way: Way, lanes: Lane) -> TrainState:
    """Freshly initialised lanes; a seed's parameters depend on the seed alone."""
    params = _initialiser(way.model)(lanes.key)
    return jax.vmap(lambda lane: init_state(lane, way.optimizer))(params)


@functools.lru_cache
def _initialiser(model: models.ModelFns) -> Callable[[Array], Any]:
    def init(raw: Array) -> Any:
        return model.init(keys.fold(jax.random.wrap_key_data(raw), Purpose.INIT))

    return jax.jit(jax.vmap(init))


def train(
    way: Way,
    lanes: Lane,
    data: Batch,
    pools: Pools | None,
    epoch_fn: Epoch,
    folder: Path,
    report: Report,
    save_every: float,
    place: Callable[[TrainState], TrainState] = lambda states: states,
) -> Trained:
    """Train all lanes to the end, from the latest checkpoint in `folder` if there is one.

    Of several processes each trains its part of the lanes. After an epoch they tell each other losses, and all states only
    where these are saved and at the end.

    Args:
      way, lanes, data, pools: what is trained, on what; `data` is the whole training set as one Batch.
      epoch_fn: from `epochs.make`.
      folder: of the checkpoints; a finished training is restored from it.
      report: called after each epoch with step, steps, epoch, mean loss and seconds.
      save_every: seconds between checkpoints; 0 saves after every epoch.
      place: `Execution.place`, where states begin on several devices.

    Raises:
      Preempted: a signal came, and the epoch that it came in is saved.
    """
    states = init_lanes(way, lanes)
    if not way.private:  # what is taken from members would be taken without noise
        states = states._replace(params=whitening.prepared(way.model.module, states.params, lanes.member, data["x"]))
    epochs, count, leaves = -(-way.steps // way.per_epoch), fleet.lane_count(lanes), False
    # The folder is closed after an interrupt too, when saves under way have finished.
    with checkpoints.open_folder(folder) as manager, preemption.postponed() as asked_to_leave:
        done, states, progress = _restore(manager, place(states), count)
        states, lanes = processes.part((states, lanes))
        saved = time.monotonic()
        for epoch, steps in list(_epochs(way))[done:]:
            with environment.stopwatch() as stopwatch:
                states, infos = jax.block_until_ready(epoch_fn(states, lanes, data, pools, epoch, steps))
            seconds = stopwatch()
            told = _Told(np.mean(np.asarray(infos.loss), axis=1), time.monotonic() - saved >= save_every)
            each = processes.everyone(told)
            losses = np.concatenate([one.losses for one in each])[:count]
            progress = _Progress(progress.seconds + seconds, np.vstack([progress.losses, losses[None]]))
            report(
                {
                    "step": epoch * way.per_epoch + steps,
                    "steps": way.steps,
                    "loss": float(np.mean(losses)),
                    "seconds": seconds,
                }
            )
            leaves = processes.anyone(asked_to_leave())
            if epoch + 1 == epochs or leaves or any(one.overdue for one in each):
                beside = {"seconds": progress.seconds, "losses": progress.losses}
                checkpoints.save(manager, epoch + 1, {"states": processes.whole(states, count), **beside})
                saved = time.monotonic()
            if leaves:
                checkpoints.wait(manager)
                break
    if leaves:  # for another process was asked to
        raise preemption.Preempted
    return Trained(processes.whole(states.params, count), float(progress.seconds) / count, progress.losses)


class _Told(NamedTuple):
    """What a process tells the others after an epoch: mean losses of its part of the lanes; whether a checkpoint is due."""

    losses: np.ndarray
    overdue: bool


class _Progress(NamedTuple):
    seconds: np.ndarray
    losses: np.ndarray


def _restore(manager: Any, states: TrainState, count: int) -> tuple[int, TrainState, _Progress]:
    step = checkpoints.latest(manager)
    blank = {"states": states, "seconds": np.zeros(()), "losses": np.zeros((step, count))}
    done, restored = checkpoints.restore_or(manager, blank)
    return done, restored["states"], _Progress(restored["seconds"], restored["losses"])


def _epochs(way: Way) -> Iterator[tuple[int, int]]:
    for epoch in range(-(-way.steps // way.per_epoch)):
        yield epoch, min(way.per_epoch, way.steps - epoch * way.per_epoch)


def digests(params: Any) -> list[str]:
    """SHA-256 of each lane's parameters."""
    return [tree.digest(fleet.lane(params, i)) for i in range(fleet.lane_count(params))]
