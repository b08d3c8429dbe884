"""Does resistance hold for attacks that nobody rehearsed?

    python -m experiments.benchmarks.readiness_attacks --target=9 --seed=3000 --workdir=runs/attacks [--model cnn]

Models of digits make their request to the level as the comparison carries it out (`readiness:digits_resist`; parameters
are checked to be the same), and then meet attacks on a set of which a tenth is forgotten data. `resist` rehearsed the
first of them, at four steps. Printed is mean accuracy over models on the forgotten that the attack does not see, its
mean over all steps with the half width of a 95% t-interval, and after how many steps half is back (median over models).
"""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks import smoke
from experiments.benchmarks.finished import SHOWN, Finished, back, finished, mean, steps_shown
from experiments.configs import readiness as configs
from experiments.core import checkpoints, workdirs
from experiments.scoring import evaluation
from experiments.scoring.requests import Setting
from experiments.scoring.scorer import Scorer
from experiments.scoring.serving import Requests, Teachers
from experiments.training import loop
from unlearn.base import Batch

RATE = 0.05  # of SGD in all attacks, as `resist` rehearsed it
LEVEL = "level"
CNN = {"widths": (16, 32), "hidden": 64}
WAYS = (
    ("oracle", "default"),
    ("vanilla", "default"),
    ("readiness", "default"),
    ("readiness", "paper"),
    ("readiness", "resist"),
)


class Attack(NamedTuple):
    """An attack; `tuned` steps on other labels for what stays come before it."""

    name: str
    optimizer: optax.GradientTransformation
    batch_size: int = 64
    tuned: int = 0


def main() -> None:
    """Train, carry out the requests, attack, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", type=int, default=9, help="the class that is forgotten")
    parser.add_argument("--seed", type=int, default=3000, help="the first")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=1500, help="of training")
    parser.add_argument("--attack_steps", type=int, default=SHOWN[-1])
    parser.add_argument("--model", choices=["mlp", "cnn"], default="mlp", help="the config's, or a small strided CNN")
    parser.add_argument("--workdir", default="runs/attacks")
    args = smoke.parse(parser, workdir=smoke.folder, seeds=2, steps=60, attack_steps=5)
    config = configs.get_config("digits_resist")
    config.forget.target, config.seed, config.seeds, config.train.steps = args.target, args.seed, args.seeds, args.steps
    config.trainings, config.request.unlearners = ("oracle", "vanilla", "readiness"), (LEVEL,)
    if args.model == "cnn":
        config.model.name, config.model.options = "cnn", CNN
    config.variants = {"paper": configs.PAPER_VARIANT, "resist": configs.RESIST}
    print(table(finished(config, args.workdir), args.attack_steps))


def table(compared: Finished, steps: int) -> str:
    """Every way under every attack."""
    params = {way: after_request(compared, *way) for way in WAYS}
    names = {way: way[0] if way[1] == "default" else f"{way[0]} {way[1]}" for way in WAYS}
    lines = [f"{'attack':<34}  {'way':<18}  {f'back after {steps_shown(steps)}':<30}  mean over steps  half back"]
    for attack in attacks(params[WAYS[0]]):
        for way in WAYS:
            curves = carried_out(compared, attack, params[way], steps)
            area = mean(100 * curves[:, 1:].mean(axis=1), ".0f")
            lines.append(f"{attack.name:<34}  {names[way]:<18}  {back(curves):<30}  {area:<15}  {half_back(curves)}")
    return "\n".join(lines)


def half_back(curves: np.ndarray) -> str:
    """After how many steps half is back, the median over models, of curves [models, steps + 1]."""
    most = curves.shape[1] - 1
    first = np.where((curves >= 0.5).any(axis=1), (curves >= 0.5).argmax(axis=1), most + 1)
    median = float(np.median(first))
    return f"{median:g}" if median <= most else f"> {most}"


def attacks(params: Any) -> list[Attack]:
    """All attacks, the rehearsed kind first.

    Args:
      params: of the model, by layers.
    """
    sgd = optax.sgd(RATE)
    last = of_last_layer(params)
    first = jax.tree.map(lambda is_last: not is_last, last)
    return [
        Attack("SGD .05 (the kind rehearsed)", sgd),
        Attack("SGD .05, batches of 256", sgd, batch_size=256),
        Attack("SGD .05, momentum .9", optax.sgd(RATE, momentum=0.9)),
        Attack("Adam .001", optax.adam(0.001)),
        Attack("Adam .01", optax.adam(0.01)),
        Attack("SGD .05, last layer alone", only(sgd, last)),
        Attack("SGD .05, all but the last layer", only(sgd, first)),
        Attack("SGD .05, after another task", sgd, tuned=50),
    ]


def of_last_layer(params: dict[str, Any]) -> dict[str, Any]:
    """Whether each leaf is of the last dense layer, of parameters by layers, whose names are in order."""
    last = max(layer for layer in params if layer.startswith("Dense"))
    return {layer: jax.tree.map(lambda _, layer=layer: layer == last, part) for layer, part in params.items()}


def only(optimizer: optax.GradientTransformation, trained: Any) -> optax.GradientTransformation:
    """The optimizer on the leaves that are trained, and none on the others."""
    frozen = jax.tree.map(lambda is_trained: not is_trained, trained)
    return optax.chain(optax.masked(optimizer, trained), optax.masked(optax.set_to_zero(), frozen))


def other_task(retain: Batch) -> Batch:
    """What stays with other labels: each class has the name of the next one that stays."""
    classes = np.unique(retain["y"])
    following = np.roll(classes, -1)
    return dict(retain, y=following[np.searchsorted(classes, retain["y"])])


def after_request(compared: Finished, training: str, variant: str) -> Any:
    """The models of a way after their request, as the comparison carried it out; oracles as they are."""
    params, config = compared.params(training, variant), compared.config
    if training == "oracle":
        return params
    folder = workdirs.Workdir(str(compared.run.path))
    scorer = Scorer(compared.model, compared.devices, compared.problem.sets)
    requests = Requests(scorer, compared.problem, config.request, compared.seeds, config.train.batch_size, folder)
    proxy = checkpoints.restore_raw(folder.path / "checkpoints" / "proxy")["states"]["params"]
    rows = {row.seed: row for row in compared.run.rows if (row.training, row.variant) == (training, variant)}
    told = dict(rows[config.seed].extra["setting"])
    fixed = {name: told.pop(name) for name in Setting._fields if name in told}
    setting = Setting(**fixed, options=tuple(sorted(told.items())))
    levels = config.variant(variant).readiness.levels if training == "readiness" else None
    served, _ = requests.carry_out(params, Teachers(None, proxy), LEVEL, setting, levels)
    wanted = [rows[seed].extra["params_sha256"]["after"] for seed in compared.seeds]
    if loop.digests(served.params) != wanted:
        raise RuntimeError(f"{training} {variant} came out of its request other than the comparison has it")
    return served.params


def carried_out(compared: Finished, attack: Attack, params: Any, steps: int) -> np.ndarray:
    """Accuracy on the forgotten that an attack does not see, [models, steps + 1]."""
    devices, raw = compared.devices, compared.attack_keys()
    sets = compared.attacked()
    if attack.tuned:
        size = compared.config.relearn.batch_size
        tune = evaluation.make_relearn(compared.model, RATE, attack.tuned, size, devices)
        task = jax.tree.map(jnp.asarray, other_task(compared.problem.sets.retain))
        params, _ = tune((params, raw), task, task)
    by = evaluation.make_attack(compared.model, attack.optimizer, steps, attack.batch_size, devices)
    return np.asarray(by((params, raw), *sets)[1])


if __name__ == "__main__":
    main()
