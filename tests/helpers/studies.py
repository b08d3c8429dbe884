"""A config of an s3t run at toy size."""

from experiments.configs import s3t
from s3t.plans import planners
from tests.helpers import stacks

TINY = {"patch": 4, "width": 8, "depth": 2, "heads": 2, "mlp_dim": 8}  # the model "tiny", for `vits.VITS`


def config():
    made = s3t.get_config("digits")
    made.update({"model": "tiny", "seeds": 1, "shards": 2, "slices": 2, "deletions": 3, "retrain_after": (3,)})
    made.lora.targets = ("query",)
    made.data.update({"train_size": 300, "validation_fraction": 0.2})
    made.pretrain.model = "tiny"
    made.lora.rank = 2
    made.train.epochs = made.full_lora.epochs = 1
    made.study.update({"planners": ("sisa", "lattice"), "streams": 20, "deletions": 12})
    return made


SISA = planners.sisa(stacks.SLICES)
