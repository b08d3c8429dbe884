"""What makes a rehearsed model resist: how deep the forgotten lie, how far parameters moved, or the rehearsal itself?

    python -m experiments.benchmarks.readiness_control --target=6 --seed=3000 --workdir=runs/control

Vanilla and rehearsed digits models are brought to the same level, each as serves it best, and each in the other's way: by
small steps or by the rehearsed one. Vanilla then goes on at the level, which moves it further and repairs what stays, until
it has come as far as the rehearsed model, or keeps as much. All of them meet the strong attack: rate 0.05, 100 steps, a
tenth of the attack set forgotten. Printed are means over models, with the half width of 95% t-intervals.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks import smoke
from experiments.benchmarks.finished import SHOWN, Finished, back, finished, mean, steps_shown
from experiments.configs import readiness as configs
from experiments.core import keys
from experiments.core.keys import Purpose
from experiments.scoring import aims, evaluation
from unlearn import Model, Request, level, levels, tree, unlearn_until
from unlearn.base import Batch
from unlearn.gradient import GradOperator, second_order
from unlearn.losses import correct, weighted_mean
from unlearn.until import never

RETAINED = 64  # examples that a step sees of what stays
ATTACK_RATE = 0.05


class Way(NamedTuple):
    """One way to carry out a request: whose models, at which share of what stays and rate, and where it ends.

    after: updates, whatever has settled; 0: as soon as it has settled.
    grad: how the gradient is taken, of the objective alone or with a penalty beside it.
    """

    name: str
    training: str
    beta: float
    rate: float
    after: int = 0
    grad: GradOperator = second_order


class Setting(NamedTuple):
    """What all ways have in common; batches are on the device."""

    model: Model
    forget: Batch
    retain: Batch
    retained: Batch
    test: Batch


def main() -> None:
    """Train, carry out every way, attack, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", type=int, default=6, help="the class that is forgotten")
    parser.add_argument("--seed", type=int, default=3000, help="the first")
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--steps", type=int, default=1500, help="of training")
    parser.add_argument("--attack_steps", type=int, default=SHOWN[-1])
    parser.add_argument(
        "--more", type=int, nargs="+", default=[20, 50, 100, 200, 400], help="updates that vanilla goes on to"
    )
    parser.add_argument("--workdir", default="runs/control")
    args = smoke.parse(parser, workdir=smoke.folder, seeds=2, steps=60, attack_steps=5, more=[2, 4])
    config = configs.get_config("digits")
    config.forget.target, config.seed, config.seeds, config.train.steps = args.target, args.seed, args.seeds, args.steps
    config.trainings, config.equal_flops, config.variants = ("oracle", "vanilla", "readiness"), False, {}
    config.request.unlearners = ("level",)
    print(table(args, finished(config, args.workdir)))


def table(args: argparse.Namespace, compared: Finished) -> str:
    """Every way's updates, depth, distance and retention, and what the attack brings back."""
    setting = setting_of(compared)
    params = {name: compared.params(name) for name in ("oracle", "vanilla", "readiness")}
    attack = _attack(compared, args.attack_steps)
    shown_steps = steps_shown(args.attack_steps)
    lines = [f"{'way':<38}  updates  margin        distance     test-retain    back after {shown_steps}"]
    lines.append(_line("oracle", np.zeros(args.seeds), params["oracle"], params["oracle"], setting, attack))
    for way in ways(args.more):
        after, updates = carried_out(setting, way, params[way.training], args.seed)
        lines.append(_line(way.name, updates, params[way.training], after, setting, attack))
    return "\n".join(lines)


def setting_of(compared: Finished) -> Setting:
    """The setting of a comparison's request."""
    asked, section = compared.problem, compared.config.request.to_level
    shown = aims.watched(asked.sets.retain, section.retained)
    batches = asked.asked, asked.sets.retain, shown, asked.sets.test_retain
    return Setting(compared.model, *(jax.tree.map(jnp.asarray, batch) for batch in batches))


def ways(more: Sequence[int]) -> list[Way]:
    """Everything that is compared."""
    return [
        Way("vanilla, settled (.95, .3)", "vanilla", 0.95, 0.3),
        Way("vanilla, settled, as rehearsed", "vanilla", 0.5, 0.1),
        *(Way(f"vanilla, {count} updates (.5, .1)", "vanilla", 0.5, 0.1, count) for count in more),
        *(Way(f"vanilla, {count} updates (.95, .3)", "vanilla", 0.95, 0.3, count) for count in more),
        Way("rehearsed, settled, as rehearsed", "readiness", 0.5, 0.1),
        Way("rehearsed, settled, small steps", "readiness", 0.5, 0.01),
        Way("rehearsed, settled (.95, .3)", "readiness", 0.95, 0.3),
        *(Way(f"rehearsed, {count} updates (.5, .1)", "readiness", 0.5, 0.1, count) for count in more[:2]),
    ]


def carried_out(setting: Setting, way: Way, params: Any, seed: int) -> tuple[Any, np.ndarray]:
    """The models after a way's request, and how many updates each was given."""
    model = setting.model

    def of_lane(start: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        goals = levels.look_alikes(model, start, setting.forget["y"], setting.retained)
        right = correct(model.apply(start, setting.retained["x"], None), setting.retained["y"])
        aim = levels.aim_at(jnp.mean(goals), known=0.0, retained=jnp.mean(right))
        whole = Request(dict(setting.forget, level=goals), setting.retain)

        def draw(data: Any, key: jax.Array, step: jax.Array) -> Request:
            rows = jax.random.randint(jax.random.fold_in(key, step), (RETAINED,), 0, len(setting.retain["id"]))
            return whole._replace(retain=jax.tree.map(lambda leaf: leaf[rows], setting.retain))

        until = unlearn_until(
            level(model, optax.sgd(way.rate), beta=way.beta, grad=way.grad),
            whole=lambda data: whole,
            draw=draw,
            observe=lambda params, data: _seen(setting, params),
            criterion=never if way.after else lambda seen, data: levels.settled(seen, aim),
            max_steps=way.after or 200,
            undo=lambda after, before, data: levels.overshoots(after, before, aim),
        )
        outcome = until(start, (), key)
        return outcome.state.params, outcome.steps

    drawn = jax.vmap(lambda i: keys.key(seed, Purpose.REQUEST, i))(jnp.arange(len(jax.tree.leaves(params)[0])))
    after, steps = jax.jit(jax.vmap(of_lane))(params, drawn)
    return after, np.asarray(steps)


def _seen(setting: Setting, params: Any) -> dict[str, jax.Array]:
    logits = setting.model.apply(params, setting.forget["x"], None)
    right = correct(setting.model.apply(params, setting.retained["x"], None), setting.retained["y"])
    return {
        "forget_margin": weighted_mean(setting.model.margin(logits, setting.forget), setting.forget["weight"]),
        "forget_accuracy": weighted_mean(correct(logits, setting.forget["y"]), setting.forget["weight"]),
        "retained_accuracy": jnp.mean(right),
    }


def _attack(compared: Finished, steps: int) -> Callable[[Any], np.ndarray]:
    """params of all models -> accuracy on the forgotten that the attack does not see, [models, steps + 1]."""
    sets, raw = compared.attacked(), compared.attack_keys()
    size = compared.config.relearn.batch_size
    by = evaluation.make_relearn(compared.model, ATTACK_RATE, steps, size, compared.devices)
    return lambda params: np.asarray(by((params, raw), *sets)[1])


def _line(
    name: str, updates: np.ndarray, before: Any, after: Any, setting: Setting, attack: Callable[[Any], np.ndarray]
) -> str:
    return f"{name:<38}  {standing(updates, before, after, setting)}  {back(attack(after))}"


def standing(updates: np.ndarray, before: Any, after: Any, setting: Setting) -> str:
    """Where a way led: updates, and over models the forgotten's margin, distance moved and accuracy on what stays."""
    margin = jax.jit(jax.vmap(lambda params: _seen(setting, params)["forget_margin"]))(after)
    moved = jax.vmap(lambda a, b: tree.norm(jax.tree.map(jnp.subtract, a, b)))(after, before)
    kept = jax.jit(
        jax.vmap(lambda params: jnp.mean(correct(setting.model.apply(params, setting.test["x"], None), setting.test["y"])))
    )(after)
    cells = [mean(margin, ".1f"), mean(moved, ".2f"), mean(100 * kept, ".2f")]
    return f"{np.median(updates):7g}  " + "  ".join(f"{cell:<13}" for cell in cells)


if __name__ == "__main__":
    main()
