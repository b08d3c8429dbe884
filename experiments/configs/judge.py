"""The strict judge: fleets of oracles and shadows, attacks on single examples, one table.

    python -m experiments.main --config=experiments/configs/judge.py:digits --workdir=runs/judge

`digits` needs no download and takes less than 20 minutes on two CPU cores. `digits_full` is the same over twelve forget
sets, two hours and a half on two busy cores; docs/judge.md has what both showed. `cifar10`, a small convolutional net, is
for an accelerator, and its time has not been measured. A run that was stopped goes on with the same command.
What is trained and rehearsed, and how, is as in `configs/readiness.py`; every key there but the request's own is a flag
here, too. Forget sets are given as a whole, each with a name of its own:
`--config.judge.sets='{"most": {"setting": "memorised", "tier": "high", "fraction": 0.05}}'`. A set's `setting` is

    random           fraction        a random share of the training examples
    class            target          every training example of a class
    memorised        tier, fraction  a share out of those memorised least (low), in between (medium) or most (high)
    near_duplicates  fraction        one member of each of the closest pairs of images; its twin stays
    cluster          fraction        a synthetic group: a cluster of k-means on pixels of about that share
"""

import ml_collections

from experiments.configs import readiness


def get_config(arg: str = "digits") -> ml_collections.ConfigDict:
    """The config of one judgement, by name."""
    if arg not in EXPERIMENTS:
        raise ValueError(f"config judge.py:{arg} is unknown; choose one of {', '.join(EXPERIMENTS)}")
    config = defaults()
    EXPERIMENTS[arg](config)
    config.name = arg
    return config


def defaults() -> ml_collections.ConfigDict:
    """Every setting and what it means."""
    D = ml_collections.ConfigDict
    config = readiness.defaults()
    config.runner = "judge"
    config.seeds = 10  # of each fleet, so many lanes are also attacked as a population and by relearning
    config.trainings = ("oracle", "heldout_oracle", "vanilla", "reweight", "readiness", "dpsgd")
    config.reweight.others = ()
    config.equal_flops = False
    config.request.unlearners = ("ascent", "graddiff", "neggrad_plus", "ascent_kl", "npo", "finetune", "random_label")
    config.judge = D(
        {
            "lanes": 64,  # models in each fleet: oracles, repeats of one request, shadows
            "private_lanes": 16,  # the same of DP-SGD, whose models cost many times as much
            "memorisation_lanes": 64,  # models, each trained on a half, that tell how far each example is memorised
            "memory_bytes": 2**31,  # of a device that the lanes of one program may take together; one lane always runs
            "batch_size": 64,  # of forget and of retain examples in an update
            "retain": 256,  # retain examples that KLoM looks at, chosen by id
            # The same trials for every way and algorithm: each rate, looked at after each number of steps.
            "tuning": D({"lanes": 8, "learning_rates": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3), "steps": (5, 20, 80)}),
            "sets": D({"random": D({"setting": "random", "fraction": 0.1}), "class": D({"setting": "class", "target": 3})}),
        }
    )
    return config


def digits(config: ml_collections.ConfigDict) -> None:
    """scikit-learn's digits: a random tenth and a class; every algorithm on vanilla, re-weighted, ready, private models."""


def digits_full(config: ml_collections.ConfigDict) -> None:
    """Digits by every kind of forget set and several sizes."""
    sets = {f"random_{percent}": {"setting": "random", "fraction": percent / 100} for percent in (1, 5, 10, 20)}
    sets |= {f"class_{target}": {"setting": "class", "target": target} for target in (3, 5, 8)}
    for tier in ("low", "medium", "high"):
        sets[f"memorised_{tier}"] = {"setting": "memorised", "tier": tier, "fraction": 0.05}
    sets["near_duplicates"] = {"setting": "near_duplicates", "fraction": 0.05}
    sets["cluster"] = {"setting": "cluster", "fraction": 0.05}
    config.judge.sets = ml_collections.ConfigDict(sets)


def cifar10(config: ml_collections.ConfigDict) -> None:
    """cifar10, 20,000 training images, by the quick recipe; a random tenth and a class. For an accelerator."""
    quick = readiness.get_config("cifar10_quick")
    for part in ("data", "model", "train", "suited"):
        config[part].update(quick[part])


EXPERIMENTS = {one.__name__: one for one in (digits, digits_full, cifar10)}
