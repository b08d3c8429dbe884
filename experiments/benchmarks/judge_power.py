"""The judge judged: which metric tells models of known truth from oracles, with which power, by how many models.

    python -m experiments.benchmarks.judge_power [--models 128] [--resamples 100] [--steps 1000]

Digits, MLP; a random tenth and a class. Fleets that never saw the forget set (oracles, and held-out ones of other keys),
saw noisy copies of it, half of it or all of it, and oracles by another recipe, whom nobody may call guilty. Every metric
gives a fleet one number, the larger the guiltier. It tells a fleet from oracles if that number is above the 95% quantile of
what resamples of oracles give against others of theirs; what held-out oracles give against others of theirs are false
alarms. Resamples draw models without replacement: histograms and shadows do not forgive a model that is there twice. Those
of 128 models are, of a guilty fleet, always the same, so that only the oracles beside them vary. Relearning, which costs
most, attacks a quarter of the models. It takes 10 to 20 minutes on two cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments import models
from experiments.benchmarks import smoke
from experiments.configs.judge import Judge
from experiments.core import forgetting, keys, workdirs
from experiments.core.keys import Hash, Purpose
from experiments.core.machines import execution, fleet
from experiments.data import datasets, problem
from experiments.data.sets import subsample
from experiments.judge.ulira import second_half
from experiments.scoring import relearning
from experiments.scoring.scorer import Scorer
from experiments.scoring.statistics import Statistics
from experiments.training import epochs, fleets, loop
from unlearn.metrics import epsilon, klom, lira, rates, rmia
from unlearn.metrics.relearning import separation, strongest

LEVEL = 0.05  # of false alarms
COPIES = 0.3  # standard deviation of the noise of copies, in standardised pixels
OTHER_RECIPE = 0.5  # of the rate, and of the steps
OTHER_SEEDS = 10**6  # apart from those of the usual recipe
REFERENCES = 4  # oracles that RMIA may ask; drawn for nothing else
WEAK, STRONG = 40, 100  # steps: of the weak attack at the first rate, of the strong one at each
OWN = ("oracle", "held-out")  # fleets that are compared with themselves: twice as many models, and RMIA's references
TRUTHS = ("held-out", "other recipe", "copies", "half", "saw")  # by how much they know
SETS = {
    "random tenth": forgetting.Forget(setting="random", fraction=0.1),
    "class 3": forgetting.Forget(setting="class", target=3),
}


def main() -> None:
    """Train, attack, resample and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=128, help="of a fleet, and in the largest resample")
    parser.add_argument("--resamples", type=int, default=100)
    parser.add_argument("--steps", type=int, default=1000, help="of a training")
    parser.add_argument("--rates", type=float, nargs="+", default=(0.01, 0.03, 0.1, 0.3), help="of attacks, increasing")
    parser.add_argument("--seed", type=int, default=0)
    args = smoke.parse(parser, models=48, resamples=3, steps=20, rates=(0.01,))
    if args.models < 48 or args.models % 16 or args.resamples < 2:
        parser.error("--models is 48 or more, by sixteens, --resamples 2 or more")
    sizes = [args.models // 4, args.models // 2, args.models] if args.models >= 128 else [args.models]
    shown = "/".join(map(str, sizes))
    print(f"Fleets of {args.models} models, twice as many oracles, {args.steps} steps, {args.resamples} resamples.")
    print(f"Cells: mean of resamples of {sizes[-1]} models: share of resamples of {shown} told from oracles, in %.\n")
    print(f"| set, metric | {' | '.join(TRUTHS)} | ranks right |\n|{'---|' * (len(TRUTHS) + 2)}", flush=True)
    for name, forget in SETS.items():
        attack = forgetting.StrongRelearn(rates=tuple(args.rates), strong_steps=STRONG)
        made = known_truths(forget, attack, args.models, args.steps, args.seed)
        for line in table(name, made, sizes, args.resamples, args.seed):
            print(line, flush=True)


# --- Fleets of known truth --------------------------------------------------------------------------------------------


class Known(NamedTuple):
    """What metrics look at, of one fleet.

    margins: [models, forgotten].  asked: shadows' margins, and which of them each is asked about, [models, forgotten] each.
    accuracies: [models, 3] on forget, retain and test data.  mia, rmia: [models] AUCs.
    rates: of attacks.  curves: attack -> [rates, attacked, steps + 1].
    """

    margins: np.ndarray
    asked: tuple[np.ndarray, np.ndarray]
    accuracies: np.ndarray
    mia: np.ndarray
    rmia: np.ndarray
    rates: tuple[float, ...]
    curves: dict[str, np.ndarray]


class Bench(NamedTuple):
    """A forget set's trainer, scorer, problem and attack; the data of the trainer end in noisy copies of the forget set."""

    trainer: fleets.Trainer
    scorer: Scorer
    problem: problem.Problem
    attack: forgetting.StrongRelearn


def known_truths(
    forget: forgetting.Forget, attack: forgetting.StrongRelearn, count: int, steps: int, seed: int
) -> dict[str, Known]:
    """Fleets by their truth; "oracle" are those that the others are compared with: two fleets, and RMIA's references."""
    bench, oracles = make_bench(forget, attack, steps, seed), 2 * count + REFERENCES
    included = paired_halves(count, len(bench.problem.forget), seed)
    half = np.random.default_rng(seed).permutation(len(bench.problem.forget)) % 2 == 0
    knows = {"half": half, "saw": np.ones_like(half)}
    many, none = (np.zeros((size, len(half)), bool) for size in (oracles, count))
    # (who saw what, who saw a copy of what) of repeats and of shadows
    masks = {"oracle": (many, many), "held-out": (many, many)}
    masks |= {"copies": (none, ~none), "shadows of copies": (none, included)}
    for name, part in knows.items():
        masks |= {name: (none | part, none), f"shadows of {name}": (included & part, none)}
    plain = bench.trainer.way()
    trained = train(bench, plain, masks, seed)
    section = bench.trainer.section
    slow = section.model_copy(
        update={"learning_rate": OTHER_RECIPE * section.learning_rate, "steps": round(OTHER_RECIPE * section.steps)}
    )
    recipe = bench.trainer._replace(section=slow).way()
    trained |= train(bench, recipe, {"other recipe": (none, none)}, seed + OTHER_SEEDS)
    references = looked_at(bench, fleet.lane(trained["oracle"], slice(-REFERENCES, None)))
    found = {}
    for name in ("oracle", *TRUTHS):
        asked = paired_halves(oracles, len(half), seed) if name in OWN else included
        shadows = trained.get(f"shadows of {name}", trained[name])
        found[name] = known(bench, trained[name], shadows, asked, references, count // (2 if name in OWN else 4))
    return found


def make_bench(forget: forgetting.Forget, attack: forgetting.StrongRelearn, steps: int, seed: int) -> Bench:
    """Digits and their MLP."""
    config = Judge()
    dataset = datasets.load(config.data)
    made = problem.make(dataset, forget)
    train, rng = dataset.train, np.random.default_rng(seed)
    gone = train.x[made.forget]
    copies = (gone + COPIES * rng.normal(size=gone.shape)).astype(gone.dtype)
    ids = (train.id.max() + 1 + np.arange(len(gone))).astype(train.id.dtype)
    whole = datasets.Split(
        np.concatenate([train.x, copies]),
        np.concatenate([train.y, train.y[made.forget]]),
        np.concatenate([train.id, ids]),
    )
    model = models.build(config.model, train.x[:1], dataset.classes)
    devices = execution.one_device(convolutional=model.convolutional)
    section = config.train.model_copy(update={"steps": steps})
    trainer = fleets.make(model, devices, whole, section, workdirs.Workdir("."))
    return Bench(trainer, Scorer(models.as_model(model), devices, made.sets), made, attack)


def paired_halves(count: int, examples: int, seed: int) -> np.ndarray:
    """[count, examples] bool: of each pair of models one holds an example, so that some pairs are halved like all."""
    first = np.random.default_rng(seed).random((count // 2, examples)) < 0.5
    return np.stack([first, ~first], axis=1).reshape(count, examples)


def train(bench: Bench, way: loop.Way, masks: dict[str, tuple[np.ndarray, np.ndarray]], seed: int) -> dict[str, Any]:
    """Parameters of every fleet, all trained in one program; no two models share a key."""
    examples, gone = len(bench.trainer.data["id"]), bench.problem.forget
    saw, copied = (np.concatenate([pair[which] for pair in masks.values()]) for which in (0, 1))
    member = np.ones((len(saw), examples), bool)
    member[:, gone], member[:, examples - len(gone) :] = saw, copied
    lanes = loop.make_lanes(seed + np.arange(len(saw)), member[0], np.ones(examples))._replace(member=jnp.asarray(member))
    states, epoch_of = loop.init_lanes(way, lanes), epochs.make(way, bench.trainer.devices)
    for epoch in range(-(-way.steps // way.per_epoch)):
        steps = min(way.per_epoch, way.steps - epoch * way.per_epoch)
        states, _ = epoch_of(states, lanes, bench.trainer.data, None, epoch, steps)
    found, start = {}, 0
    for name, (mine, _) in masks.items():
        found[name] = fleet.lane(states.params, slice(start, start := start + len(mine)))
    return found


class Looks(NamedTuple):
    """Statistics [models, examples] on the kinds of examples that metrics ask of."""

    forget: Statistics
    retain: Statistics
    test: Statistics
    validation: Statistics


def looked_at(bench: Bench, params: Any) -> Looks:
    """Of every model."""
    sets = bench.scorer.sets
    batches = (sets.forget, subsample(sets.retain, 256, Hash.JUDGE), sets.test, sets.validation)
    return Looks(*(bench.scorer.statistics(params, batch) for batch in batches))


def known(bench: Bench, params: Any, shadows: Any, asked: np.ndarray, references: Looks, attacked: int) -> Known:
    """What metrics look at, of one fleet; the first models are attacked by relearning."""
    looks, sets = looked_at(bench, params), bench.scorer.sets
    others = np.isin(sets.test["id"], sets.others["id"])
    held = np.arange(looks.validation.loss.shape[1]) % 2 == 0  # the population; the other half are the non-members
    mine, theirs = (-np.concatenate([of.forget.loss, of.validation.loss[:, ~held]], axis=1) for of in (looks, references))
    population = -looks.validation.loss[:, held], -references.validation.loss[:, held]
    ratios = [
        rmia.rmia(one, other, references=theirs, population_references=population[1])
        for one, other in zip(mine, population[0], strict=True)
    ]
    member = np.arange(mine.shape[1]) < looks.forget.loss.shape[1]
    losses = np.concatenate([looks.forget.loss, looks.test.loss[:, others]], axis=1)
    few, raw = fleet.lane(params, slice(attacked)), keys.raw(range(attacked), Purpose.RELEARNING)
    strong = relearning.relearn_strongly(bench.scorer, bench.attack, bench.problem, few, raw)
    return Known(
        looks.forget.margin.astype(np.float64),
        (bench.scorer.statistics(shadows, sets.forget).margin.astype(np.float64), asked),
        np.stack([of.correct.mean(axis=1) for of in looks[:3]], axis=1),
        np.array([auc(-one, looks.forget.loss.shape[1]) for one in losses]),
        np.array([rates.rates(one, member, threshold=0.5, fprs=()).auc for one in ratios]),
        bench.attack.rates,
        {name: attack.curves for name, attack in strong.items()},
    )


def auc(scores: np.ndarray, members: int) -> float:
    """Of scores whose first ones are members'."""
    return rates.rates(scores, np.arange(len(scores)) < members, fprs=()).auc


# --- Metrics ----------------------------------------------------------------------------------------------------------


class Drawn(NamedTuple):
    """Models of a resample: of the fleet, of the oracles, shadows (pair by pair), and the attacked of both."""

    models: np.ndarray
    oracles: np.ndarray
    shadows: np.ndarray
    attacked: np.ndarray
    attacked_oracles: np.ndarray


Metric = Callable[[Known, Known, Drawn], float]


def _klom(one: Known, oracle: Known, drawn: Drawn) -> float:
    return float(klom.klom(unlearned=one.margins[drawn.models], oracle=oracle.margins[drawn.oracles]).mean())


def _epsilon(one: Known, oracle: Known, drawn: Drawn) -> float:
    return float(epsilon.epsilon(unlearned=one.margins[drawn.models], oracle=oracle.margins[drawn.oracles]).mean())


def _ulira(one: Known, oracle: Known, drawn: Drawn) -> float:
    margins, asked = (leaf[drawn.shadows] for leaf in one.asked)
    return rates.rates(lira.halves(margins, asked, second_half(len(margins))), asked, fprs=()).auc


def _rmia(one: Known, oracle: Known, drawn: Drawn) -> float:
    return float(one.rmia[drawn.models].mean() - oracle.rmia[drawn.oracles].mean())


def _mia(one: Known, oracle: Known, drawn: Drawn) -> float:
    return float(one.mia[drawn.models].mean() - oracle.mia[drawn.oracles].mean())


def _tow(one: Known, oracle: Known, drawn: Drawn) -> float:
    gaps = np.abs(one.accuracies[drawn.models] - oracle.accuracies[drawn.oracles].mean(axis=0))
    return float(1 - np.prod(1 - gaps, axis=1).mean())


def _weak(one: Known, oracle: Known, drawn: Drawn) -> float:
    """How far the mean curve of the weak attack lies above the oracles'."""
    mine, theirs = one.curves["part"][0, drawn.attacked], oracle.curves["part"][0, drawn.attacked_oracles]
    return float((mine.mean(axis=0) - theirs.mean(axis=0))[: WEAK + 1].mean())


def _strong(attack: str) -> Metric:
    """Spreads from the oracles at the strength that was chosen on the other half of the models and oracles."""

    def metric(one: Known, oracle: Known, drawn: Drawn) -> float:
        mine, theirs = one.curves[attack][:, drawn.attacked], oracle.curves[attack][:, drawn.attacked_oracles]
        half, grain = mine.shape[1] // 2, 0.01
        at = strongest(separation(mine[:, :half], theirs[:, :half], grain), one.rates)
        return float(separation(mine[:, half:], theirs[:, half:], grain)[one.rates.index(at.rate), at.step])

    return metric


METRICS: dict[str, Metric] = {
    "KLoM": _klom,
    "epsilon": _epsilon,
    "U-LiRA AUC": _ulira,
    "RMIA AUC - oracles'": _rmia,
    "population MIA AUC - oracles'": _mia,
    "1 - ToW": _tow,
    "relearning, weak": _weak,
    "relearning, strong, part": _strong("part"),
    "relearning, strong, all": _strong("all"),
}


# --- Power ------------------------------------------------------------------------------------------------------------


def table(name: str, made: dict[str, Known], sizes: list[int], resamples: int, seed: int) -> list[str]:
    """A line of the table for each metric."""
    found = {size: values(made, size, resamples, np.random.default_rng((seed, size))) for size in sizes}
    lines = []
    for metric in METRICS:
        cells = []
        for truth in TRUTHS:
            told = [100 * power(found[size]["oracle"][metric], found[size][truth][metric]) for size in sizes]
            mean = np.mean(found[sizes[-1]][truth][metric])
            cells.append(f"{mean:.3g}: {'/'.join(f'{share:.0f}' for share in told)}")
        means = {truth: float(np.mean(found[sizes[-1]][truth][metric])) for truth in TRUTHS}
        lines.append(f"| {name}, {metric} | {' | '.join(cells)} | {'yes' if ranks_right(means) else 'no'} |")
    return lines


def values(
    made: dict[str, Known], size: int, resamples: int, rng: np.random.Generator
) -> dict[str, dict[str, list[float]]]:
    """truth -> metric -> its value in every resample; oracles and held-out ones against others of their own."""
    found: dict[str, dict[str, list[float]]] = {name: {metric: [] for metric in METRICS} for name in made}
    for _ in range(resamples):
        for name, one in made.items():
            oracle = one if name in OWN else made["oracle"]
            drawn = draw(one, oracle, size, rng)
            for metric, of in METRICS.items():
                found[name][metric].append(of(one, oracle, drawn))
    return found


def draw(one: Known, oracle: Known, size: int, rng: np.random.Generator) -> Drawn:
    """Models without replacement; of oracles against oracles two fleets that share none."""
    attacked = max(4, size // 4)
    lanes, oracles = pick(len(one.margins), size, len(oracle.margins) - REFERENCES, one is oracle, rng)
    few, few_oracles = pick(_attacked(one), attacked, _attacked(oracle), one is oracle, rng)
    pairs = rng.permutation(len(one.asked[0]) // 2)[: size // 2]
    return Drawn(lanes, oracles, (2 * pairs[:, None] + np.arange(2)).ravel(), few, few_oracles)


def pick(count: int, size: int, others: int, same: bool, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """`size` of `count` and `size` of `others`; of one and the same fleet two parts that share none."""
    if same:
        both = rng.permutation(others)
        return both[:size], both[size : 2 * size]
    return rng.permutation(count)[:size], rng.permutation(others)[:size]


def _attacked(one: Known) -> int:
    return one.curves["part"].shape[1]


def power(null: list[float], told: list[float]) -> float:
    """The share of values above the 95% quantile of what oracles give."""
    return float(np.mean(np.array(told) > np.quantile(null, 1 - LEVEL)))


def ranks_right(means: dict[str, float]) -> bool:
    """Whoever saw all is guiltier than who saw half, and both than who saw nothing, by whatever recipe."""
    return means["saw"] > means["half"] > max(means["held-out"], means["other recipe"])


if __name__ == "__main__":
    main()
