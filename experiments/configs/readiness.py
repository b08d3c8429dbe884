"""Ready2Unlearn against its rivals: train, request, judge.

    python -m experiments.main --config=experiments/configs/readiness.py:digits --workdir=runs/digits

The `digits` ones need no download and take two to nine minutes on two CPU cores. The others need
`--config.data.data_dir=DIR` (or TFDS_DATA_DIR) with the data set prepared, and about half an hour to an hour. What is
expected of each is what docs/results.md has.

Any key is a flag, `--config.train.steps=500`. Tuples are Python literals, `--config.request.clips='(0.0, 1.0)'`, and so
are dicts, given as a whole: `--config.model.options='{"widths": (64,)}'`, `--config.variants='{"raw": {"form": "raw"}}'`,
`--config.request.options='{"npo": {"beta": 0.2}}'`, `--config.readiness.algorithm_options='{"cap": 2.0}'`.
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
    D, unset = ml_collections.ConfigDict, ml_collections.config_dict.placeholder
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
            "name": "digits",  # or as TFDS names it; or a user's own, folder:PATH, npz:PATH or csv:PATH
            "factory": "",  # or module:function, which makes the data set instead: see experiments.data.own
            "label": "",  # the column of labels in a csv; empty: "label"
            "id_column": "",  # the column of ids in a csv; empty: none, and rows are called by a hash of what they hold
            "data_dir": "",  # empty: TFDS_DATA_DIR, or TFDS's default
            "cache_dir": "",  # keep decoded images here
            "stream": False,  # leave the training images on disk and decode them as steps ask for them
            "score_examples": 10_000,  # score on so many forget and so many retain examples at most; 0: all
            "train_size": 0,  # 0: all
            "validation_fraction": 0.2,
        }
    )
    config.model = D(
        {
            "name": "mlp",
            "options": {"widths": (128, 128)},
            "factory": "",  # or module:function, which makes a model of a user's own instead: see experiments.models.own
            "factory_options": D(),  # its keyword arguments
            "params": "",  # an .npz or .safetensors of the parameters to begin with; empty: drawn by the seed
            "dtype": "",  # of activations: float32 (empty) or bfloat16; parameters are float32
            "dropout": 0.0,  # share of hidden units that a training step leaves out
        }
    )
    config.train = D(
        {
            "steps": 1500,
            "batch_size": 64,
            "optimizer": "sgd",  # or nesterov, on a triangular schedule, or adamw
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
            "seed": 0,  # of every random choice of ids: the forget set, a wrong split, groups, parts
            "revocable": -1,  # the class that training was told about; -1: the target
        }
    )
    config.readiness = D(
        {
            "efficiency": 0.5,  # lambda 1
            "retention": unset(float),  # lambda 2; unset: as in `suited`
            "resistance": 0.0,  # lambda 3
            "relearning": 0.0,  # lambda 4: forget loss stays high after simulated relearning
            "cap": "log_classes",  # or a number, or "" for none
            "capped": "each",  # example's loss, or their mean
            "form": "gain",  # or raw
            "order": 2,
            "inner_steps": 1,
            "algorithm": "ascent",
            "algorithm_options": D(),
            "normalise": True,  # inner steps of a set length instead of a set rate
            "step_size": unset(tuple),  # how far the inner steps go together, lowest and highest; unset: as in `suited`
            "start": 0,
            "every": 4,
            "fraction": 0.25,  # of the training batch
            "fresh": True,
            "requests": "known",  # or groups, classes, random
            "noise": 0.0,  # share of the revocable ids that are wrong
            "recovery": "nearest_classes",  # by pixels; or nearest_examples, stable
            "relearn_steps": 3,
            "relearn_rate": 0.05,
            "relearn_order": 1,
        }
    )
    # What readiness leaves unset, by forget.setting. A class lies apart from what stays; a random forget set does not, and
    # a model that must keep what stays so firmly, so far from here, can no longer be made to forget it.
    config.suited = D(
        {
            "class": {"retention": 8.0, "step_size": (0.4, 0.4)},
            "random": {"retention": 1.0, "step_size": (0.1, 0.1)},
        }
    )
    config.variants = D()  # name -> overrides of readiness, trained beside the default
    config.reweight = D({"weight": 0.2, "others": (0.1, 0.02)})
    config.dpsgd = D({"clip": 1.0, "noise": 0.5})
    config.request = D(
        {
            "unlearners": ("ascent",),  # of unlearn.ALGORITHMS, or module:function: see experiments.scoring.algorithms
            "options": D(),  # unlearner -> its options
            "learning_rates": (0.002, 0.005, 0.01, 0.02, 0.05, 0.1),  # of the grid; chosen for vanilla on validation data
            "clips": (0.0,),  # and so is the clipping by the global norm; 0: none, plain gradient ascent
            "max_steps": 200,
            "batch_size": 0,  # 0: the whole forget set at every step
            "observe": 1000,  # test examples that stay, watched at every step
            "parts": 1,  # so many requests one after another; random forget sets are cut by id
            "overlap": 0.0,  # share of the part before that a part asks for again
            "tune_steps": 0,  # fine-tune between training and request, on half of the validation data; the rest selects
            "tune_rate": 0.01,
        }
    )
    # At rate 0.05 the attack is over in five steps, and 20 and 40 steps tell nothing apart.
    config.relearn = D({"learning_rate": 0.01, "steps": 40, "batch_size": 64, "size": 500, "share": 0.1})
    return config


def digits(config: ml_collections.ConfigDict) -> None:
    """scikit-learn's digits, one class forgotten, MLP, 10 seeds: the demo."""


def digits_clipped(config: ml_collections.ConfigDict) -> None:
    """Digits against the stronger baseline: a request may clip its gradients, if that serves vanilla better."""
    config.request.clips = (0.0, 1.0)


def digits_random(config: ml_collections.ConfigDict) -> None:
    """A random tenth of the digits forgotten; fulfilled at the oracle's accuracy on it. Sizes: --config.forget.fraction."""
    config.forget.setting = "random"


def digits_unlearners(config: ml_collections.ConfigDict) -> None:
    """Requests served by another algorithm than the rehearsed one: all of the shelf, each with a rate of its own."""
    config.request.unlearners = ("ascent", "graddiff", "neggrad_plus", "ascent_kl", "npo", "finetune", "random_label")
    config.trainings = ("oracle", "heldout_oracle", "vanilla", "reweight", "readiness")
    config.equal_flops = False


def digits_ablation(config: ml_collections.ConfigDict) -> None:
    """Terms x order x K, then one change at a time: cap and form, what else is rewarded, and how steps are rehearsed."""
    _few_rivals(config)
    terms = {"": {}, "efficiency only, ": {"retention": 0.0}, "retention only, ": {"efficiency": 0.0}}
    crossed = {
        f"{name}order {order}, K={steps}": {**weights, "order": order, "inner_steps": steps}
        for name, weights in terms.items()
        for order in (2, 1)
        for steps in (1, 2, 4)
        if (name, order, steps) != ("", 2, 1)  # the default
    }
    config.variants = _named(
        crossed
        | {
            "resistance": {"resistance": 1.0},
            "relearning": {"relearning": 0.5},
            "cap on the mean": {"capped": "mean"},
            "no cap": {"cap": ""},
            "raw": {"form": "raw"},
            "raw, no cap": {"form": "raw", "cap": ""},
            "not normalised": {"normalise": False},
            "quarter step": {"step_size": (0.1, 0.1)},
            "step x 2": {"step_size": (0.8, 0.8)},
            "step x 4": {"step_size": (1.6, 1.6)},
            "step range": {"step_size": (0.1, 1.6)},
            "same batch": {"fresh": False},
            "late start": {"start": 1000},
        }
    )


def digits_weights(config: ml_collections.ConfigDict) -> None:
    """Sensitivity to the terms' weights."""
    _few_rivals(config)
    grid = [(e, r) for e in (0.1, 0.5, 2.5) for r in (1.6, 8.0, 40.0)]
    config.variants = _named({f"efficiency {e:g}, retention {r:g}": {"efficiency": e, "retention": r} for e, r in grid})


def digits_split(config: ml_collections.ConfigDict) -> None:
    """The split is wrong or unknown: noise, groups, every class, random pseudo-requests."""
    _few_rivals(config)
    config.variants = _named(
        {
            "noise 10%": {"noise": 0.1},
            "noise 25%": {"noise": 0.25},
            "noise 50%": {"noise": 0.5},
            "overlapping groups": {"requests": "groups"},
            "any class": {"requests": "classes"},
            "random requests": {"requests": "random"},
        }
    )


def digits_outside(config: ml_collections.ConfigDict) -> None:
    """The request lies wholly outside the revocable set: class 3 is forgotten, class 5 was rehearsed."""
    _few_rivals(config)
    config.forget.revocable = 5


def digits_sequence(config: ml_collections.ConfigDict) -> None:
    """A random tenth forgotten in four requests, one after another, each repeating a fifth of the one before."""
    digits_random(config)
    _few_rivals(config)
    config.request.parts = 4
    config.request.overlap = 0.2


def digits_tuned(config: ml_collections.ConfigDict) -> None:
    """Fine-tuning on new data comes between training and request."""
    _few_rivals(config)
    config.request.tune_steps = 100


def fashion_mnist(config: ml_collections.ConfigDict) -> None:
    """fashion_mnist, 20,000 training images, class 3 (dresses) forgotten, MLP."""
    config.data.name = "fashion_mnist"
    config.data.train_size = 20_000
    config.model.options.widths = (256, 256)
    config.train.steps = 1560
    config.train.batch_size = 128
    config.suited["class"].step_size = (0.2, 1.0)
    config.reweight.others = (0.8, 0.5)
    config.trainings = ("oracle", "heldout_oracle", "vanilla", "reweight", "readiness")


def fashion_mnist_random(config: ml_collections.ConfigDict) -> None:
    """A random tenth of fashion_mnist forgotten, MLP."""
    fashion_mnist(config)
    config.forget.setting = "random"


def fashion_mnist_cnn(config: ml_collections.ConfigDict) -> None:
    """fashion_mnist, class 3 forgotten, strided CNN, five epochs."""
    fashion_mnist(config)
    config.train.steps = 780
    config.model.name = "cnn"
    config.model.options = ml_collections.ConfigDict({"widths": (32, 64)})
    config.reweight.others = (0.6,)
    config.equal_flops = False
    config.request.batch_size = 512


def cifar10(config: ml_collections.ConfigDict) -> None:
    """cifar10, 20,000 training images, class 3 (cats) forgotten, strided CNN, five epochs."""
    fashion_mnist_cnn(config)
    config.data.name = "cifar10"
    config.request.learning_rates = (0.0005, 0.001, 0.002, 0.005)  # a class of a badly fitted set is soon forgotten


def cifar10_quick(config: ml_collections.ConfigDict) -> None:
    """As cifar10 by a quicker recipe: patches whitened by a model's own members, Nesterov's SGD, a triangular schedule."""
    cifar10(config)
    config.model.name = "whitened"
    config.model.options = ml_collections.ConfigDict({"widths": (32, 64, 128)})
    config.train.optimizer = "nesterov"
    config.train.learning_rate = 0.2


def cifar10_random(config: ml_collections.ConfigDict) -> None:
    """A random tenth of cifar10 forgotten, 10,000 training images, strided CNN, ten epochs."""
    cifar10(config)
    config.forget.setting = "random"
    config.data.train_size = 10_000
    config.train.steps = 620
    config.request.update({"learning_rates": (0.005, 0.01, 0.02), "batch_size": 256, "observe": 500, "max_steps": 100})


def cifar10_gpu(config: ml_collections.ConfigDict) -> None:
    """All of cifar10, class 3 forgotten, ResNet-18: for an accelerator."""
    cifar10(config)
    config.data.train_size = 0
    config.model.name = "resnet18"
    config.model.options = ml_collections.ConfigDict({"width": 64})
    config.train.steps = 9360
    config.equal_flops = True


def cifar10_vit(config: ml_collections.ConfigDict) -> None:
    """cifar10, class 3 forgotten, a small ViT trained by AdamW: for an accelerator, on two cores it takes hours."""
    cifar10(config)
    config.model.name = "vit"
    config.model.options = ml_collections.ConfigDict({"width": 64, "depth": 4})
    config.train.optimizer = "adamw"
    config.train.learning_rate = 0.001


def _few_rivals(config: ml_collections.ConfigDict) -> None:
    config.trainings = ("oracle", "heldout_oracle", "vanilla", "readiness")
    config.equal_flops = False


def _named(variants: dict[str, dict]) -> ml_collections.ConfigDict:
    """Variants as a ConfigDict; their names may hold dots, which its constructor would not take apart."""
    config = ml_collections.ConfigDict()
    for name, overrides in variants.items():
        config[name.replace(".", "_")] = ml_collections.ConfigDict(overrides)
    return config


EXPERIMENTS = {
    one.__name__: one
    for one in (
        digits,
        digits_clipped,
        digits_random,
        digits_unlearners,
        digits_ablation,
        digits_weights,
        digits_split,
        digits_outside,
        digits_sequence,
        digits_tuned,
        fashion_mnist,
        fashion_mnist_random,
        fashion_mnist_cnn,
        cifar10,
        cifar10_quick,
        cifar10_random,
        cifar10_gpu,
        cifar10_vit,
    )
}
