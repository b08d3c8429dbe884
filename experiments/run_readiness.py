"""Train ready and unready, send deletion requests, judge what is left: one run of the readiness comparison.

`run(config, workdir)` is what the command line and a notebook call. It goes in stages - train, choose the request's
learning rate for vanilla on validation data, carry out the requests, score - and each finished stage is kept, so that the
same call resumes after a kill and ends with the same bytes.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from tqdm import tqdm

from experiments import cost, data, evaluation, fleet, models, parallel, requesting, results, training
from experiments.evaluation import Sets
from readiness import Terms, make_readiness
from readiness.requests import Draw, make_pools, nearest_classes, nearest_examples
from unlearn import ALGORITHMS, STOPS
from unlearn.gradient import normalised
from unlearn.metrics import gaps
from unlearn.until import REACHED

Config = ml_collections.ConfigDict


class Bench(NamedTuple):
    """What all stages share: the config, the data, the model, the devices and the folder."""

    config: Config
    workdir: results.Workdir
    dataset: data.Dataset
    forget: np.ndarray  # positions in the training split
    revocable: np.ndarray  # positions that training is told may be forgotten
    sets: Sets
    train: dict[str, jax.Array]  # the training split on the device, as one Batch
    module: Any
    devices: parallel.Parallel
    loops: bool


class Fleet(NamedTuple):
    """One way's trained lanes, one per seed."""

    training: str
    variant: str
    trained: training.Trained
    lanes: int  # of the program that trained it
    cost: dict[str, float]
    extra: dict[str, Any]


def run(config: Config, workdir: str, command: str = "") -> dict[str, Any]:
    """Run or resume the comparison that `config` describes; a finished workdir is read back instead.

    Returns:
      The contents of results.json.

    Raises:
      ValueError (WorkdirError and DataError among them): a config that cannot be run; one line that says what to do.
    """
    check(config)
    folder = results.Workdir(workdir)
    bench_data = None if folder.results() else data.load(config.data)
    folder.claim(config.to_dict())
    if bench_data is None:
        return folder.results()
    bench = set_up(config, folder, bench_data)
    fleets = train_all(bench)
    settings = choose_settings(bench, fleets)
    rows = [row for one in fleets for row in judge(bench, one, fleets, settings)]
    return folder.finish(command, rows)


def check(config: Config) -> None:
    """Refuse what cannot be run before anything is computed or written.

    Raises:
      ValueError: one line that says what to do.
    """
    if config.seeds < 1:
        raise ValueError(f"seeds is {config.seeds}: train at least one, with --config.seeds=1 or more")
    for name in config.request.unlearners:
        if name not in ALGORITHMS:
            raise ValueError(f"unlearner {name!r} is unknown; choose from {', '.join(ALGORITHMS)}")
    for name in config.trainings:
        if name not in TRAININGS:
            raise ValueError(f"training {name!r} is unknown; choose from {', '.join(TRAININGS)}")
    for name in ("oracle", "vanilla"):
        if name not in config.trainings:
            raise ValueError(f"trainings lacks {name!r}: every comparison needs it; add it to --config.trainings")
    for name, least in (
        ("train.steps", 1),
        ("train.batch_size", 1),
        ("readiness.every", 1),
        ("request.max_steps", 1),
        ("request.parts", 1),
    ):
        section, field = name.split(".")
        if config[section][field] < least:
            raise ValueError(f"{name} is {config[section][field]}: set --config.{name} to {least} or more")
    if not config.request.learning_rates:
        raise ValueError("request.learning_rates is empty: give at least one rate to choose from")
    sizes = config.readiness.step_size
    if len(sizes) != 2 or not 0 < sizes[0] <= sizes[1]:
        raise ValueError(
            f"readiness.step_size is {sizes}: give (lowest, highest), as in --config.readiness.step_size='(0.3, 0.5)'"
        )
    if not 0 < config.readiness.fraction <= 1:
        raise ValueError(
            f"readiness.fraction is {config.readiness.fraction}: give a share of the batch above 0 and up to 1"
        )
    for name in config.variants:
        for key in config.variants[name]:
            if key not in config.readiness:
                raise ValueError(f"variant {name!r} overrides readiness.{key}, which does not exist")


def set_up(config: Config, folder: results.Workdir, dataset: data.Dataset) -> Bench:
    """Resolve who is forgotten, who is scored, the model and the devices."""
    forget = data.check_ids(dataset, _forget_ids(config, dataset, config.forget.target))
    told = dataset.train.id[forget]
    if config.forget.revocable >= 0:
        told = _forget_ids(config, dataset, config.forget.revocable)
    revocable = data.check_ids(dataset, data.revocable_ids(dataset, told, config.readiness.noise, config.seed))
    module = models.build(config.model.name, dict(config.model.options), dataset.classes)
    module.init(jax.random.key(0), jnp.asarray(dataset.train.x[:1]))
    train = jax.tree.map(jnp.asarray, data.batch(dataset.train))
    return Bench(
        config,
        folder,
        dataset,
        forget,
        revocable,
        _sets(config, dataset, forget),
        train,
        module,
        parallel.make(config.parallel),
        fleet.in_loops(config.model.name),
    )


def _forget_ids(config: Config, dataset: data.Dataset, target: int) -> np.ndarray:
    return data.forget_ids(dataset, config.forget.setting, target, config.forget.fraction, config.forget.seed)


def _sets(config: Config, dataset: data.Dataset, forget: np.ndarray) -> Sets:
    kept = np.setdiff1d(np.arange(len(dataset.train.id)), forget)
    by_class = config.forget.setting == "class"
    staying = lambda split: np.flatnonzero(split.y != config.forget.target) if by_class else None  # noqa: E731
    leaving = np.flatnonzero(dataset.test.y == config.forget.target) if by_class else None
    return Sets(
        data.batch(dataset.train, forget),
        data.batch(dataset.train, kept),
        data.batch(dataset.test),
        data.batch(dataset.test, staying(dataset.test)),
        data.batch(dataset.validation),
        data.batch(dataset.validation, staying(dataset.validation)),
        data.batch(dataset.test, leaving),
    )


# --- Training ---------------------------------------------------------------------------------------------------------


def train_all(bench: Bench) -> list[Fleet]:
    """Every way of the config: ordinary ones as lanes of one program, readiness variants and DP-SGD on their own."""
    config = bench.config
    ready = []
    if "readiness" in config.trainings:
        for name, overrides in {"default": {}, **config.variants.to_dict()}.items():
            changed = config.copy_and_resolve_references()
            changed.readiness.update(overrides)
            ready.append(train_readiness(bench._replace(config=changed), name))
    plain = train_plain(bench, "plain", config.train.steps, _plain_ways(bench))
    longer = []
    if config.equal_flops and ready:
        ratio = ready[0].cost["train_flops"] / plain[0].cost["train_flops"]
        ways = {
            key: lanes
            for key, lanes in _plain_ways(bench).items()
            if key in (("vanilla", "default"), ("reweight", "default"))
        }
        ways = {(name, "equal_flops"): lanes for (name, _), lanes in ways.items()}
        longer = train_plain(bench, "equal_flops", round(config.train.steps * ratio), ways)
    private = [train_private(bench)] if "dpsgd" in config.trainings else []
    if ready:
        plain = _mark_matched(bench, plain, ready[0])
    return plain + longer + private + ready


def _plain_ways(bench: Bench) -> dict[tuple[str, str], training.Lane]:
    """(training, variant) -> lanes, oracles first."""
    config = bench.config
    seeds = np.arange(config.seed, config.seed + config.seeds)
    count = len(bench.train["id"])
    everyone, ones = np.ones(count, bool), np.ones(count)
    kept = everyone.copy()
    kept[bench.forget] = False
    lanes = functools.partial(training.make_lanes, seeds)

    def weighted(weight: float) -> training.Lane:
        weights = ones.copy()
        weights[bench.revocable] = weight
        return lanes(everyone, weights)

    ways = {("oracle", "default"): lanes(kept, ones)}
    if "heldout_oracle" in config.trainings:
        ways["heldout_oracle", "default"] = lanes(kept, ones, stream=1)
    ways["vanilla", "default"] = lanes(everyone, ones)
    if "reweight" in config.trainings:
        ways["reweight", "default"] = weighted(config.reweight.weight)
        for weight in config.reweight.others:
            ways["reweight", f"weight={weight:g}"] = weighted(weight)
    return ways


def train_plain(bench: Bench, name: str, steps: int, ways: dict[tuple[str, str], training.Lane]) -> list[Fleet]:
    """Train all lanes of all ways as one fleet, and give each way its own back."""
    way = _way(bench, steps)
    trained = _train(bench, way, fleet.concatenate(list(ways.values())), name)
    spent = cost.of_training(way, bench.devices, bench.train, None)
    seeds, total = bench.config.seeds, len(ways) * bench.config.seeds
    fleets = []
    for i, (key, _) in enumerate(ways.items()):
        part = slice(i * seeds, (i + 1) * seeds)
        lanes = training.Trained(fleet.lane(trained.params, part), trained.seconds, trained.losses[:, part])
        fleets.append(Fleet(*key, lanes, total, spent, {}))
    return fleets


def train_private(bench: Bench) -> Fleet:
    """DP-SGD by optax, at the same steps."""
    config = bench.config
    way = _way(bench, config.train.steps)._replace(private=(config.dpsgd.clip, config.dpsgd.noise))
    trained = _train(bench, way, _plain_ways(bench)["vanilla", "default"], "dpsgd")
    return Fleet("dpsgd", "default", trained, config.seeds, cost.of_training(way, bench.devices, bench.train, None), {})


def train_readiness(bench: Bench, variant: str) -> Fleet:
    """Readiness as the config has it."""
    config = bench.config
    pools = jax.tree.map(jnp.asarray, _pools(bench))
    lanes = _plain_ways(bench)["vanilla", "default"]
    way = _way(bench, config.train.steps)._replace(rehearsing=_rehearsing(bench, unroll=bench.loops))
    trained = _train(bench, way, lanes, f"readiness-{variant}", pools)
    spent = cost.of_training(way._replace(rehearsing=_rehearsing(bench, unroll=True)), bench.devices, bench.train, pools)
    return Fleet("readiness", variant, trained, config.seeds, spent, {})


def _way(bench: Bench, steps: int) -> training.Way:
    config = bench.config.train
    per_epoch = max(1, len(bench.train["id"]) // config.batch_size)
    return training.Way(bench.module, training.optimizer(config, steps), steps, per_epoch, config.batch_size)


def _train(bench: Bench, way: training.Way, lanes: training.Lane, name: str, pools: Any = None) -> training.Trained:
    count = fleet.lane_count(lanes)
    with tqdm(total=way.steps, desc=f"train {name} x{count}", unit="step", mininterval=1.0) as bar:

        def report(entry: dict[str, Any]) -> None:
            bar.update(entry["step"] - bar.n)
            bench.workdir.log("train", training=name, lanes=count, **entry)

        folder = bench.workdir.path / "checkpoints" / name
        save_every = bench.config.checkpoint_seconds
        return training.train(way, lanes, bench.train, pools, bench.devices, bench.loops, folder, report, save_every)


def _rehearsing(bench: Bench, unroll: bool) -> training.Rehearsing:
    config = bench.config.readiness
    model = models.as_model(bench.module)
    order = bench.devices.inner_grad(config.order)
    cap = math.log(bench.dataset.classes) if config.cap == "log_classes" else float(config.cap) if config.cap else None
    terms = Terms(config.efficiency, config.retention, config.resistance, config.relearning, cap, config.form)

    def rehearsed(step_size: jax.Array) -> Any:
        optimizer = optax.sgd(step_size)
        if config.normalise:
            optimizer = optax.chain(normalised(), optimizer)
        return ALGORITHMS[config.algorithm](
            model, optimizer, mean=bench.devices.mean, grad=order, **config.algorithm_options.to_dict()
        )

    relearner = None
    if config.relearning:
        first = bench.devices.inner_grad(config.relearn_order)
        rate = optax.sgd(config.relearn_rate)
        relearner = ALGORITHMS["finetune"](model, rate, mean=bench.devices.mean, grad=first)
    readiness = make_readiness(model, rehearsed, terms, relearner=relearner, mean=bench.devices.mean, unroll=unroll)
    count = len(bench.forget)
    draw = Draw(
        size=max(1, round(config.fraction * bench.config.train.batch_size)),
        inner_steps=config.inner_steps,
        fresh=config.fresh,
        retain=config.algorithm != "ascent",
        recovery=bool(config.resistance),
        relearn_steps=config.relearn_steps if config.relearning else 0,
        anew=min(count, 256) if config.requests == "random" else 0,
    )
    low, high = (size / max(config.inner_steps, 1) for size in config.step_size)
    return training.Rehearsing(readiness, draw, config.every, config.start, (low, high))


def _pools(bench: Bench) -> Any:
    """The groups of ids that rehearsals draw from, by what is known in advance."""
    config, split = bench.config.readiness, bench.dataset.train
    known = np.zeros(len(split.id), bool)
    known[bench.revocable] = True
    if config.requests in ("known", "random"):
        groups = known[None]
    elif config.requests == "classes":
        groups = np.arange(bench.dataset.classes)[:, None] == split.y
    elif config.requests == "groups":
        groups = np.stack([known & (data.hash_uniform(split.id, f"group{i}", bench.config.seed) < 0.5) for i in range(4)])
    else:
        raise ValueError(f"readiness.requests {config.requests!r} is unknown; choose known, groups, classes or random")
    choose = {
        "stable": lambda mask: ~mask,
        "nearest_classes": lambda mask: nearest_classes(split.x, split.y, mask, 3),
        "nearest_examples": lambda mask: nearest_examples(split.x, mask, int(mask.sum())),
    }
    if config.recovery not in choose:
        raise ValueError(f"readiness.recovery {config.recovery!r} is unknown; choose {', '.join(choose)}")
    return make_pools(groups, np.stack([choose[config.recovery](mask) for mask in groups]))


def _mark_matched(bench: Bench, plain: list[Fleet], ready: Fleet) -> list[Fleet]:
    """Mark the re-weighting whose forget loss before the request is nearest to readiness's, on a log scale."""
    predict = evaluation.make_predict(models.as_model(bench.module), bench.loops)

    def distance(one: Fleet) -> float:
        losses = [
            np.mean([s["forget_loss"] for s in evaluation.score(predict, f.trained.params, bench.sets)])
            for f in (one, ready)
        ]
        return abs(math.log(losses[0] / losses[1])) if min(losses) > 0 else math.inf

    candidates = [one for one in plain if one.training == "reweight"]
    if not candidates:
        return plain
    nearest = min(candidates, key=distance)
    return [one._replace(extra={"matched": True}) if one is nearest else one for one in plain]


# --- Requests ---------------------------------------------------------------------------------------------------------


def choose_settings(bench: Bench, fleets: list[Fleet]) -> dict[str, requesting.Setting]:
    """For each unlearner, the learning rate that serves vanilla best on validation data, by a sweep that is kept.

    Best is the highest mean accuracy on the validation examples that stay, among the rates that fulfil the request in
    every lane; failing that, among those that fulfil it in the most lanes.
    """
    config = bench.config.request
    vanilla = _find(fleets, "vanilla")
    predict = evaluation.make_predict(models.as_model(bench.module), bench.loops)
    settings = {}
    for name in config.unlearners:

        def sweep(name: str = name) -> list[dict[str, Any]]:
            trials = []
            for rate in tqdm(config.learning_rates, desc=f"sweep {name}", unit="rate"):
                outcome, _ = _request(bench, _at_request(bench, vanilla), fleets, name, _setting(config, rate))
                scores = evaluation.score(predict, outcome.params, bench.sets)
                kept = [s["validation_retain_accuracy"] for s in scores]
                trials.append(
                    {
                        "learning_rate": rate,
                        "reached": int((outcome.stop == REACHED).sum()),
                        "steps": outcome.steps,
                        "validation_retain_accuracy": np.nan_to_num(kept).mean(),
                    }
                )
            return trials

        trials = bench.workdir.stage(f"sweep-{name}", sweep)
        best = max(trials, key=lambda t: (t["reached"], t["validation_retain_accuracy"]))
        settings[name] = _setting(config, best["learning_rate"])
        bench.workdir.log("sweep", unlearner=name, trials=trials, chosen=best["learning_rate"], selected_for="vanilla")
    return settings


def judge(bench: Bench, one: Fleet, fleets: list[Fleet], settings: dict[str, requesting.Setting]) -> list[dict[str, Any]]:
    """The rows of one way: an oracle's own, or one per unlearner and seed."""
    rows = []
    for name in ("none",) if one.training.endswith("oracle") else bench.config.request.unlearners:
        stage = f"rows-{one.training}-{one.variant}-{name}"
        rows += bench.workdir.stage(stage, lambda name=name: _rows(bench, one, fleets, name, settings.get(name)))
    return rows


def _rows(bench: Bench, one: Fleet, fleets: list[Fleet], name: str, setting: requesting.Setting | None) -> list[dict]:
    config = bench.config
    model = models.as_model(bench.module)
    predict = evaluation.make_predict(model, bench.loops)
    seeds = config.seeds
    at_request = params = _at_request(bench, one)
    before = after = evaluation.score(predict, params, bench.sets)
    outcome, seconds, flops = None, 0.0, 0.0
    if setting:
        outcome, seconds = _request(bench, at_request, fleets, name, setting)
        params = outcome.params
        after = evaluation.score(predict, params, bench.sets)
        flops = cost.of_update(model, name, fleet.lane(at_request, 0), _request_data(bench)[0], setting, config)
    oracle = evaluation.score(predict, _find(fleets, "oracle").trained.params, bench.sets)
    curves = _relearn(bench, params)
    forget, stable = (requesting.subsample(getattr(bench.sets, which), 1000) for which in ("forget", "retain"))
    diagnosis = evaluation.make_diagnose(model, bench.loops)(at_request, forget, stable)
    sha_before, sha_after = training.digests(at_request), training.digests(params)
    rows = []
    for i in range(seeds):
        steps = int(outcome.steps[i]) if outcome else 0
        extra = {
            "lanes": one.lanes,
            "average_gap": gaps.average_gap(after[i], oracle[i]),
            "tow": gaps.tow(after[i], oracle[i]),
            "oracle_mia_auc": oracle[i]["mia_auc"],
            "relearning": {which: curve[i] for which, curve in curves.items()},
            "curve": {k: v[i][np.isfinite(v[i])] for k, v in outcome.curve.items()} if outcome else {},
            "diagnostics": {k: float(v[i]) for k, v in diagnosis.items()},
            "setting": setting._asdict() if setting else None,
            "step_flops": one.cost["step_flops"],
            "meta_step_flops": one.cost["meta_step_flops"],
            "params_sha256": {"before": sha_before[i], "after": sha_after[i]},
            **one.extra,
        }
        rows.append(
            {
                "training": one.training,
                "variant": one.variant,
                "unlearner": name,
                "setting": config.forget.setting,
                "dataset": config.data.name,
                "seed": config.seed + i,
                "before": before[i],
                "after": after[i],
                "steps": steps,
                "stop": STOPS[int(outcome.stop[i])] if outcome else "reached",
                "train_seconds": one.trained.seconds,
                "unlearn_seconds": seconds / seeds,
                "train_flops": one.cost["train_flops"],
                "unlearn_flops": flops * steps,
                "peak_bytes": one.cost["peak_bytes"],
                "extra": extra,
            }
        )
    return rows


def _setting(config: Config, learning_rate: float) -> requesting.Setting:
    return requesting.Setting(learning_rate, config.clip, config.max_steps, config.batch_size)


class Served(NamedTuple):
    """How the lanes came out of a request, or of several in a row: a stop is the worst of them, steps are their sum."""

    params: Any
    steps: np.ndarray
    stop: np.ndarray
    curve: dict[str, np.ndarray]


def _at_request(bench: Bench, one: Fleet) -> Any:
    """The parameters that meet the request: as trained, or after fine-tuning on new data in between."""
    config = bench.config.request
    if not config.tune_steps:
        return one.trained.params
    tune = evaluation.make_relearn(
        models.as_model(bench.module), config.tune_rate, config.tune_steps, bench.config.train.batch_size, bench.loops
    )
    fresh = jax.tree.map(jnp.asarray, bench.sets.validation)
    return tune((one.trained.params, _keys(bench)), fresh, fresh)[0]


def _request(
    bench: Bench, params: Any, fleets: list[Fleet], name: str, setting: requesting.Setting
) -> tuple[Served, float]:
    """Carry out the request, part after part, on all lanes: the outcome, and the program's seconds without compiling."""
    config = bench.config
    options = config.request.options.get(name, ml_collections.ConfigDict()).to_dict()
    run = requesting.make_request(models.as_model(bench.module), name, setting, options, bench.loops)
    keys, targets = _keys(bench), _targets(bench, fleets)
    steps, stop, curves, seconds = np.zeros(config.seeds, int), np.zeros(config.seeds, int), [], 0.0
    for part in _request_data(bench):
        with results.stopwatch() as stopwatch:
            outcome = jax.block_until_ready(run((params, keys, targets), part))
        params, seconds = outcome.state.params, seconds + stopwatch()
        steps, stop = steps + np.asarray(outcome.steps), np.maximum(stop, np.asarray(outcome.stop))
        curves.append(outcome.curve)
    joined = {which: np.concatenate([np.asarray(curve[which]) for curve in curves], axis=1) for which in curves[0]}
    return Served(params, steps, stop, joined), seconds


def _request_data(bench: Bench) -> list[requesting.RequestData]:
    """What is asked for, in order: all at once, or in parts that share `overlap` of the part before."""
    config, sets = bench.config.request, bench.sets
    place = data.hash_uniform(sets.forget["id"], "part", bench.config.seed) * config.parts
    retain, watch = (requesting.subsample(batch, config.observe) for batch in (sets.retain, sets.test_retain))
    parts = []
    for i in range(config.parts):
        asked = (place >= i - config.overlap) & (place < i + 1)
        forget = {name: leaf[asked] for name, leaf in sets.forget.items()}
        parts.append(requesting.RequestData(*jax.tree.map(jnp.asarray, (forget, retain, watch))))
    return parts


def _targets(bench: Bench, fleets: list[Fleet]) -> jax.Array:
    """Forget accuracy at which a request is fulfilled, for each lane: 0 for a class, the oracle's for random data."""
    if bench.config.forget.setting == "class":
        return jnp.zeros(bench.config.seeds)
    predict = evaluation.make_predict(models.as_model(bench.module), bench.loops)
    oracle = predict(_find(fleets, "oracle").trained.params, bench.sets.forget["x"])
    return jnp.asarray((oracle.argmax(axis=-1) == bench.sets.forget["y"]).mean(axis=1), jnp.float32)


def _relearn(bench: Bench, params: Any) -> dict[str, np.ndarray]:
    """Relearning curves [lanes, steps + 1] on four attack sets, watched on forget examples that are not attacked with."""
    config, sets = bench.config.relearn, bench.sets
    curves = {}
    relearn = evaluation.make_relearn(
        models.as_model(bench.module), config.learning_rate, config.steps, config.batch_size, bench.loops
    )
    forget = requesting.subsample(sets.forget, 0)
    few = max(1, round(config.share * config.size))
    few = min(few, len(forget["id"]) // 2)
    mask = np.isin(bench.dataset.train.id, forget["id"])
    if bench.config.forget.setting == "class":
        similar = nearest_classes(bench.dataset.train.x, bench.dataset.train.y, mask, 3)
    else:
        similar = nearest_examples(bench.dataset.train.x, mask, 2 * config.size)
    rows = lambda batch, part: {name: leaf[part] for name, leaf in batch.items()}  # noqa: E731
    join = lambda a, b: {name: np.concatenate([a[name], b[name]]) for name in a}  # noqa: E731
    stable = requesting.subsample(sets.retain, config.size)
    attacks = {
        "stable": (stable, forget),
        "similar": (requesting.subsample(data.batch(bench.dataset.train, similar), config.size), forget),
        "part": (join(rows(forget, slice(few)), rows(stable, slice(config.size - few))), rows(forget, slice(few, None))),
        "all": (forget, sets.others if bench.config.forget.setting == "class" else forget),
    }
    for name, (attack, watch) in attacks.items():
        watch = requesting.subsample(watch, 500)
        curves[name] = np.asarray(relearn((params, _keys(bench)), *jax.tree.map(jnp.asarray, (attack, watch)))[1])
    return curves


def _keys(bench: Bench) -> jax.Array:
    """Raw keys of the lanes' requests and attacks, one per seed and the same for all ways."""
    seeds = range(bench.config.seed, bench.config.seed + bench.config.seeds)
    return jnp.stack([jax.random.key_data(jax.random.fold_in(jax.random.key(s), 2)) for s in seeds])


def _find(fleets: list[Fleet], name: str) -> Fleet:
    return next(one for one in fleets if (one.training, one.variant) == (name, "default"))


TRAININGS = ("oracle", "heldout_oracle", "vanilla", "reweight", "dpsgd", "readiness")
