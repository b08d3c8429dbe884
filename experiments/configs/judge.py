"""The strict judge: fleets of oracles and shadows, attacks on single examples, one table.

    python -m experiments.main --config=experiments/configs/judge.py:digits --workdir=runs/judge

`digits` needs no download; how long it takes at full size has not been measured. What is trained and rehearsed, and how,
is as in `configs/readiness.py`; every key there but the request's own is a flag here, too.
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
    config.trainings = ("oracle", "heldout_oracle", "vanilla", "reweight", "readiness")
    config.reweight.others = ()
    config.equal_flops = False
    config.request.unlearners = ("ascent", "graddiff", "neggrad_plus", "ascent_kl", "npo", "finetune", "random_label")
    config.judge = D(
        {
            "lanes": 64,  # models in each fleet: oracles, repeats of one request, shadows
            "most_lanes": 256,  # of one program
            "batch_size": 64,  # of forget and of retain examples in an update
            "retain": 256,  # retain examples that KLoM looks at, chosen by id
            "bootstraps": 200,  # resamplings of models behind an interval
            # The same trials for every way and algorithm: each rate, looked at after each number of steps.
            "tuning": D({"lanes": 8, "learning_rates": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3), "steps": (5, 20, 80)}),
            "sets": D(
                {
                    "random": D({"setting": "random", "fraction": 0.1, "target": 0}),
                    "class": D({"setting": "class", "fraction": 0.1, "target": 3}),
                }
            ),
        }
    )
    return config


def digits(config: ml_collections.ConfigDict) -> None:
    """scikit-learn's digits: a random tenth and a class; every algorithm on vanilla, re-weighted and ready models."""


EXPERIMENTS = {one.__name__: one for one in (digits,)}
