"""Ready2Unlearn against its rivals: train, request, judge.

    python -m experiments.main --config=experiments/configs/readiness.py:digits --workdir=runs/digits

`digits` needs no download. The others need `--config.data.data_dir=DIR` (or TFDS_DATA_DIR) with the data set prepared.
"""

import ml_collections


def get_config(arg: str = "digits") -> ml_collections.ConfigDict:
    """The config of one experiment, by name."""
    if arg not in EXPERIMENTS:
        raise ValueError(f"config readiness.py:{arg} is unknown; choose one of {', '.join(EXPERIMENTS)}")
    config = defaults()
    EXPERIMENTS[arg](config)
    config.name = arg
    return config


def defaults() -> ml_collections.ConfigDict:
    """Every setting and what it means; the shipped schedule rehearses a quarter batch on every fourth step."""
    D = ml_collections.ConfigDict
    config = D()
    config.runner = "readiness"
    config.name = ""
    config.seed = 0  # the first seed
    config.seeds = 10  # how many, trained together
    config.parallel = "jit"  # or pmap
    config.checkpoint_seconds = 30.0
    config.trainings = ("oracle", "heldout_oracle", "vanilla", "reweight", "dpsgd", "readiness")
    config.equal_flops = True  # also train vanilla and re-weighting for as many FLOPs as readiness used
    config.data = D(
        {
            "name": "digits",
            "data_dir": "",  # empty: TFDS_DATA_DIR, or TFDS's default
            "cache_dir": "",  # keep decoded images here
            "train_size": 0,  # 0: all
            "validation_fraction": 0.2,
        }
    )
    config.model = D({"name": "mlp", "options": D({"widths": (128, 128)}, convert_dict=False)})
    config.train = D(
        {
            "steps": 1500,
            "batch_size": 64,
            "optimizer": "sgd",  # or adamw
            "learning_rate": 0.05,
            "momentum": 0.9,
            "weight_decay": 0.0,  # adamw's
            "clip": 1.0,  # global norm; 0: none
        }
    )
    config.forget = D(
        {
            "setting": "class",  # or random
            "target": 3,  # the class
            "fraction": 0.1,  # of the training set, for random
            "seed": 0,  # of the random choice
            "revocable": -1,  # the class that training was told about; -1: the target
        }
    )
    config.readiness = D(
        {
            "efficiency": 0.5,  # lambda 1
            "retention": 4.0,  # lambda 2
            "resistance": 0.0,  # lambda 3
            "relearning": 0.0,  # lambda 4: forget loss stays high after simulated relearning
            "cap": "log_classes",  # or a number, or "" for none
            "form": "gain",  # or raw
            "order": 2,
            "inner_steps": 1,
            "algorithm": "ascent",
            "algorithm_options": D(),
            "normalise": True,  # inner steps of a set length instead of a set rate
            "step_size": (0.5, 0.5),  # how far the inner steps go together, lowest and highest
            "start": 0,
            "every": 4,
            "fraction": 0.25,  # of the training batch
            "fresh": True,
            "requests": "known",  # or groups, classes, random
            "noise": 0.0,  # share of the revocable ids that are wrong
            "recovery": "nearest_classes",  # or nearest_examples, stable
            "relearn_steps": 3,
            "relearn_rate": 0.05,
            "relearn_order": 1,
        }
    )
    config.variants = D()  # name -> overrides of readiness, trained beside the default
    config.reweight = D({"weight": 0.2, "others": (0.1, 0.05, 0.02)})
    config.dpsgd = D({"clip": 1.0, "noise": 0.5})
    config.request = D(
        {
            "unlearners": ("ascent",),
            "options": D(),  # unlearner -> its options
            "learning_rates": (0.002, 0.005, 0.01, 0.02, 0.05, 0.1),  # the grid; chosen for vanilla on validation data
            "clip": 0.0,
            "max_steps": 100,
            "batch_size": 0,  # 0: the whole forget set at every step
            "observe": 1000,  # examples that stay, watched at every step
            "parts": 1,  # so many requests one after another; random forget sets are cut by id
            "overlap": 0.0,  # share of the part before that a part asks for again
            "tune_steps": 0,  # fine-tune on new (validation) data between training and request
            "tune_rate": 0.01,
        }
    )
    config.relearn = D({"learning_rate": 0.05, "steps": 40, "batch_size": 64, "size": 500, "share": 0.1})
    return config


def digits(config: ml_collections.ConfigDict) -> None:
    """scikit-learn's digits, one class forgotten, MLP, 10 seeds: the demo."""


EXPERIMENTS = {"digits": digits}
