"""Exact unlearning beside its peers: build a store, delete a stream of examples, heal, and study every planner.

    python -m experiments.main --config=experiments/configs/s3t.py:digits --workdir=runs/s3t_digits

`digits` needs no download and takes about ten minutes on two CPU cores. `fashion_mnist` (100 CPU-minutes) and `cifar10_gpu`
(for an accelerator, not yet run) need `--config.data.data_dir=DIR` (or TFDS_DATA_DIR) with the data set prepared.
Expected: accuracy falls more slowly with deletions for plans that keep more subsets of slices, a deletion takes
milliseconds, and the deepest node is near full LoRA; see docs/s3t.md.
"""

import ml_collections

from experiments.configs import pretrain

TARGETS = ("query", "key", "value", "out", "Dense_0", "Dense_1")


def get_config(arg: str = "digits") -> ml_collections.ConfigDict:
    """The config of one experiment, by name."""
    if arg not in EXPERIMENTS:
        raise ValueError(f"config s3t.py:{arg} is unknown; choose one of {', '.join(EXPERIMENTS)}")
    D = ml_collections.ConfigDict
    config = D()
    config.runner = "s3t"
    config.name = arg
    config.seed = 0
    config.seeds = 2  # each with a partition, nodes and streams of its own
    config.checkpoint = ""  # a backbone (.npz); if empty, one is pre-trained as `pretrain` says
    config.pretrain = pretrain.get_config("digits")
    config.model = "digits"  # one of experiments.models.backbone.VITS
    config.classes = (5, 6, 7, 8, 9)  # labels to fine-tune on, all if empty
    config.data = D(
        {
            "name": "digits",
            "data_dir": "",  # empty: TFDS_DATA_DIR, or TFDS's default
            "cache_dir": "",  # keep decoded images here
            "train_size": 0,  # 0: all
            "validation_fraction": 0.1,
        }
    )
    # Constants to standardise by, in pre-training too: moments of the data would carry what is deleted.
    config.scale = D({"range": 16.0, "mean": (0.305,), "std": (0.376,)})  # of a pixel; of pixel / range, by channel
    config.shards = 3
    config.slices = 4
    config.planner = "lattice"  # of the store; one of s3t.planners.PLANNERS
    config.budget = 0.0  # the planner's; 0: its default
    config.lora = D({"rank": 8, "alpha": 8.0, "targets": TARGETS, "rank_stabilised": True})
    config.train = D(
        {
            "epochs": 15,  # of each node over its own examples
            "batch_size": 32,
            "learning_rate": 1e-2,
            "weight_decay": 0.01,
            "clip": 1.0,  # global norm
        }
    )
    config.full_lora = D({"epochs": 15, "learning_rate": 5e-3})  # of one adapter on all blocks; SISA's, too
    config.lanes = 16  # nodes that an accelerator trains at once, at most; a CPU takes two
    config.lane_bytes = 0  # device memory for their training beside the data and the backbone; 0 is no limit
    config.cache_bytes = 1 << 31  # for frozen activations; see s3t_build
    config.deletions = 30  # from the store, one after another
    config.study = D(
        {
            "planners": ("sisa", "stumps", "cyclic", "bms", "conditional", "random", "greedy", "chains", "lattice"),
            "flops": 0.0,  # that planners with a budget come near to; 0: the lattice's
            "streams": 200,
            "deletions": 100,  # the longest look ahead
        }
    )
    config.retrain_after = (0, 10, 30)  # deletions after which full LoRA and SISA are retrained and scored
    EXPERIMENTS[arg](config)
    return config


def digits(config: ml_collections.ConfigDict) -> None:
    """Pre-trained on digits 0 to 4, fine-tuned on 5 to 9 (about 600 training images)."""


def fashion_mnist(config: ml_collections.ConfigDict) -> None:
    """Pre-trained on five classes of fashion_mnist, fine-tuned on 4,000 images of the other five."""
    config.model, config.seeds = "small", 1
    config.pretrain = pretrain.get_config("fashion_mnist")
    config.pretrain.classes = (0, 1, 2, 3, 4)
    config.pretrain.data.train_size = 20_000
    config.pretrain.train.steps = 1500
    config.data.name, config.data.train_size = "fashion_mnist", 8000
    config.scale.update({"range": 255.0, "mean": (0.286,), "std": (0.353,)})
    config.shards = 2
    config.study.planners = ("sisa", "stumps", "cyclic", "greedy", "lattice")
    config.train.epochs = config.full_lora.epochs = 5
    config.train.batch_size = 64


def cifar10_gpu(config: ml_collections.ConfigDict) -> None:
    """Pre-trained on half of cifar10's classes, fine-tuned on the other half (about 22,500 training images)."""
    config.model, config.shards, config.seeds = "small", 5, 3
    config.pretrain = pretrain.get_config("cifar10")
    config.data.name = "cifar10"
    config.scale.update({"range": 255.0, "mean": (0.491, 0.482, 0.447), "std": (0.247, 0.243, 0.262)})
    config.train.batch_size, config.cache_bytes = 128, 40 << 30
    config.lanes, config.lane_bytes = 75, 40 << 30
    config.deletions = 100
    config.study.streams, config.study.deletions = 1000, 200
    config.retrain_after = (0, 20, 100)


EXPERIMENTS = {f.__name__: f for f in (digits, fashion_mnist, cifar10_gpu)}
