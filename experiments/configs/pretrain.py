"""Pre-train the small ViTs that s3t fine-tunes.

    python -m experiments.main --config=experiments/configs/pretrain.py:digits --workdir=runs/pretrain_digits

`digits` needs no download. The others need `--config.data.data_dir=DIR` (or TFDS_DATA_DIR) with the data set prepared.
"""

import ml_collections


def get_config(arg: str = "digits") -> ml_collections.ConfigDict:
    """The config of one experiment, by name."""
    if arg not in EXPERIMENTS:
        raise ValueError(f"config pretrain.py:{arg} is unknown; choose one of {', '.join(EXPERIMENTS)}")
    D = ml_collections.ConfigDict
    config = D()
    config.runner = "pretrain"
    config.name = arg
    config.seed = 0
    config.checkpoint_seconds = 30.0
    config.classes = (0, 1, 2, 3, 4)  # labels to train on, all if empty; s3t must not be given these examples
    config.model = "digits"  # one of experiments.models.backbone.VITS
    config.data = D(
        {
            "name": "digits",
            "data_dir": "",  # empty: TFDS_DATA_DIR, or TFDS's default
            "cache_dir": "",  # keep decoded images here
            "stream": False,
            "train_size": 0,  # 0: all
            "validation_fraction": 0.1,
            "scale": D(),  # constants to standardise by: range of a pixel, mean and std by channel; empty: moments
        }
    )
    config.train = D(
        {
            "steps": 600,
            "batch_size": 64,
            "optimizer": "adamw",
            "learning_rate": 2e-3,
            "momentum": 0.0,  # sgd's
            "weight_decay": 0.01,
            "clip": 1.0,  # global norm; 0: none
        }
    )
    EXPERIMENTS[arg](config)
    return config


def digits(config: ml_collections.ConfigDict) -> None:
    """Digits 0 to 4 (about 600 training images); s3t fine-tunes on 5 to 9."""


def fashion_mnist(config: ml_collections.ConfigDict) -> None:
    """All of fashion_mnist, for s3t on another set of 28x28 grey images."""
    config.model, config.classes = "small", ()
    config.data.name = "fashion_mnist"
    config.train.steps, config.train.batch_size, config.train.learning_rate = 3000, 128, 1e-3


def cifar10(config: ml_collections.ConfigDict) -> None:
    """Half of cifar10's classes; s3t fine-tunes on the other half."""
    config.model = "small"
    config.data.name = "cifar10"
    config.train.steps, config.train.batch_size, config.train.learning_rate = 4000, 128, 1e-3


EXPERIMENTS = {f.__name__: f for f in (digits, fashion_mnist, cifar10)}
