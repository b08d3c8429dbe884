"""S3T and SISA before the strict judge: attacks on what they serve after a deletion, each beside the held-out oracle's.

    python -m experiments.main --config=experiments/configs/judge_exact.py:digits --workdir=runs/judge_exact

`digits` needs no download; it took 12 CPU-minutes on two busy cores. Every model is a shard of its own with its own keys,
of partition and of training; the backbone is pre-trained on other classes. Expected: nothing is found where the claim of
docs/s3t.md says so, and it is said where something is found; see docs/judge_exact.md. One run of 64 models is too few to
show that nothing is there: `python -m experiments.judge_exact.pooled DIR DIR` takes runs of different seeds together.
"""

import ml_collections

from experiments.configs import pretrain
from experiments.configs.s3t import TARGETS


def get_config(arg: str = "digits") -> ml_collections.ConfigDict:
    """The config of one judgement, by name."""
    if arg != "digits":
        raise ValueError(f"config judge_exact.py:{arg} is unknown; choose digits")
    D = ml_collections.ConfigDict
    config = D()
    config.runner = "judge_exact"
    config.name = arg
    config.seed = 0
    config.kinds = ("s3t", "sisa")  # who is judged
    config.checkpoint = ""  # a backbone (.npz); if empty, one is pre-trained as `pretrain` says
    config.pretrain = pretrain.get_config("digits")
    config.pretrain.model = "mini"
    config.model = "mini"  # one of experiments.models.backbone.VITS
    config.classes = (5, 6, 7, 8, 9)  # labels to fine-tune on, all if empty
    config.data = D(
        {
            "name": "digits",
            "data_dir": "",  # empty: TFDS_DATA_DIR, or TFDS's default
            "cache_dir": "",  # keep decoded images here
            "train_size": 600,  # of all classes; 0: all
            "validation_fraction": 0.1,
        }
    )
    # Constants to standardise by, in pre-training too: moments of the data would carry what is deleted.
    config.scale = D({"range": 16.0, "mean": (0.305,), "std": (0.376,)})  # of a pixel; of pixel / range, by channel
    config.slices = 3
    config.planner = "lattice"  # S3T's; one of s3t.planners.PLANNERS
    config.lora = D({"rank": 4, "alpha": 4.0, "targets": TARGETS, "rank_stabilised": True})
    config.train = D(
        {
            "epochs": 10,  # of each node over its own examples
            "batch_size": 32,
            "learning_rate": 1e-2,
            "weight_decay": 0.01,
            "clip": 1.0,  # global norm
        }
    )
    config.full_lora = D({"epochs": 10, "learning_rate": 5e-3})  # SISA's
    config.lanes = 32  # nodes that are trained at once
    config.lane_bytes = 0  # device memory for their training beside the data and the backbone; 0 is no limit
    config.cache_bytes = 1 << 30  # for frozen activations
    config.exact = D(
        {
            "models": 64,  # of each fleet
            "asked": 64,  # training examples of one person, which lie in one slice; a fleet is asked to delete them
            "same": 24,  # examples that lie in that slice and stay
            "apart": 24,  # examples that lie in another one
            "requests": 6,  # of an adaptive stream, one after the other
            "resamples": 400,  # of models, behind an interval
            "audited": 4,  # healed models that are trained from scratch as well and compared bit by bit
        }
    )
    return config
