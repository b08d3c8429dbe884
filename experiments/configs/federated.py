"""Federated erasure: a client leaves, and every way to take it out of the model stands beside retraining without it.

    python -m experiments.main --config=experiments/configs/federated.py:digits --workdir=runs/federated_digits

`digits` needs no download and takes two to four minutes on two CPU cores: 30 clients train a small network, an honest
client leaves. `digits_backdoor` has a client that plants a backdoor, `digits_dirichlet` classes that are unevenly spread,
`digits_partial` ten of thirty clients in each round, and three that leave; of `digits_class` a class goes, of
`digits_examples` half of a client's examples. `fashion_mnist` and `fashion_mnist_backdoor`
take eight CPU-minutes, `cifar10` and `cifar10_backdoor` fifty; these four need `--config.data.data_dir=DIR` (or
TFDS_DATA_DIR) with the data set prepared. Expected: retraining and rollback are exact, the rule of Fast-FedUL and MEDU
costs accuracy that one to three rounds of the others repair, and compression costs next to nothing; see
docs/federated.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args

import ml_collections
from pydantic import AfterValidator, Field, model_validator

from experiments.core import sections, trackers, values
from experiments.core.config import Section, Wrong, as_config

MOST_CLIENTS = 10_000
# A method of the room `federated`; a test holds them equal.
Method = Literal[
    "retrain", "rollback", "running_sums", "fast_fedul", "medu", "federaser", "fedrecover", "crab", "ridge", "fused",
    "rr_du", "mpu",
]  # fmt: skip
# Of `federated.erase`; the same test.
Request = Literal["client", "class", "examples"]
Lattice = Literal["hexagonal", "scalar", "D2", "E8"]
Alpha = Annotated[float, Field(gt=-1, le=1)]
Rounds = Annotated[int, Field(ge=1, le=100_000)]


class Federation(Section):
    """Clients and how they train together."""

    clients: int = Field(30, ge=3, le=MOST_CLIENTS, description="Of the federation, those that leave among them.")
    rounds: int = Field(30, ge=2, le=100_000, description="Of federated averaging.")
    present: int = Field(0, ge=0, le=MOST_CLIENTS, description="Clients in a round, drawn anew for each; 0 is all.")
    epochs: int = Field(2, ge=1, le=1000, description="Of a client over its examples in a round.")
    batch_size: values.BatchSize = Field(16, description="Examples in a step of a client.")
    learning_rate: values.Rate = Field(0.1, description="Of a client's gradient descent.")
    weighting: Literal["examples", "equal"] = Field(
        "examples", description="A client's weight: by the examples it says it has, or alike for all."
    )
    dirichlet: float = Field(
        0.0,
        ge=0,
        le=10**4,
        description="Concentration by which a class is spread over clients; 0 deals examples out alike.",
    )

    @model_validator(mode="after")
    def _as_many_are_there(self) -> Federation:
        if self.present > self.clients:
            raise Wrong((("present",), f"is {self.present} of {self.clients} clients: set at most all, or 0"))
        return self


class Leaver(Section):
    """Who leaves, or what goes."""

    request: Request = Field(
        "client",
        description="What is to go: clients whole; a class, from all clients; or some examples of clients that stay.",
    )
    clients: int = Field(1, ge=1, le=MOST_CLIENTS, description="How many leave at once, or lose examples.")
    label: values.ClassNumber = Field(
        0, description="Of request `class`: which goes, by its number in the order of labels."
    )
    examples: int = Field(20, ge=1, le=10**9, description="Of request `examples`: how many go, of each such client.")
    backdoor: bool = Field(False, description="They stamp some examples and give these the label `target`.")
    target: values.ClassNumber = Field(0, description="The label that a stamped image is to get.")
    share: float = Field(0.5, gt=0, le=1, description="Of a leaver's examples that are stamped.")
    stamp: int = Field(3, ge=1, le=1000, description="Side of the square in a corner that the stamp makes bright, pixels.")
    claim: float = Field(
        5.0,
        ge=1,
        le=1000,
        description="Where examples weigh, a backdoor leaver says it has so many times its own, to get more weight.",
    )


class Archives(Section):
    """What the archives of updates are, after MEDU; each stands alone, on the same updates."""

    lattices: Annotated[tuple[Lattice, ...], AfterValidator(values.each_once)] = Field(
        ("hexagonal", "scalar", "E8"), min_length=1, description="Of the quantisers; the first is the main one."
    )
    rates: Annotated[tuple[Annotated[float, Field(gt=0, le=12)], ...], AfterValidator(values.each_once)] = Field(
        (1.0, 2.0, 4.0), min_length=1, description="2^rate cells an entry; what is spent is measured."
    )
    users: int = Field(
        10,
        ge=0,
        le=MOST_CLIENTS,
        description="Updates of a round that are stored on average, with user sampling; 0: no such.",
    )
    threshold: values.Weight = Field(
        0.5,
        description="Entries that changed by more than so many root mean squares since the last update; 0: no such.",
    )
    share: float = Field(
        0.25,
        ge=0,
        le=1,
        description="Of entries, the largest or random ones, stored at the middle rate; 0: no such.",
    )
    coded: Rounds = Field(3, description="Rounds of each seed, others in each, that are really coded for the rate.")


class Erasing(Section):
    """Settings of methods. Those with several values are chosen on clients of other federations; see `calibrations`."""

    methods: Annotated[tuple[Method, ...], AfterValidator(values.each_once)] = Field(
        get_args(Method), min_length=1, description="Which of the room `federated` are run."
    )
    calibrations: int = Field(
        3, ge=1, le=1000, description="Federations without what is to go, in which other such goes, to choose settings on."
    )
    alphas: Annotated[tuple[Alpha, ...], AfterValidator(values.each_once)] = Field(
        (-0.3, -0.2, -0.15, -0.1, -0.07, -0.05, -0.03, 0.0, 0.03, 0.07),
        min_length=1,
        description="Of Fast-FedUL and MEDU; one is chosen, -0.07, 0 and 0.07 have rows in any case.",
    )
    rates: Annotated[tuple[values.Rate, ...], AfterValidator(values.each_once)] = Field(
        (0.0001, 0.0003, 0.001, 0.003, 0.01),
        min_length=1,
        description="Step sizes of MPU's and RR-DU's ascent; one each is chosen.",
    )
    penalties: Annotated[tuple[values.Norm, ...], AfterValidator(values.each_once)] = Field(
        (0.1, 1.0, 10.0, 100.0), min_length=1, description="Of ridge heads; one is chosen on validation examples."
    )
    interval: Rounds = Field(2, description="Of FedEraser: rounds from one that is kept to the next.")
    retraining_epochs: int = Field(1, ge=1, le=1000, description="Of a client that FedEraser or Crab asks.")
    warmup: Rounds = Field(5, description="Of FedRecover: rounds in which all clients are asked first.")
    correct: Rounds = Field(5, description="Of FedRecover: every so many rounds all are asked again.")
    final: int = Field(2, ge=0, le=100_000, description="Of FedRecover: rounds at the end in which all are asked.")
    believed: values.Weight = Field(
        1.0, description="Of FedRecover: the largest estimate that is believed, in largest old updates; 0 believes all."
    )
    repairs: Annotated[tuple[Rounds, ...], AfterValidator(values.each_once)] = Field(
        (1, 3),
        description="Rounds without what went, after the server's rule and after nothing; each has rows of its own.",
    )
    adapter_rounds: Rounds = Field(30, description="Of FUSED, one gradient step in each.")
    steps: Rounds = Field(100, description="Of RR-DU's walk.")
    sigma: values.Weight = Field(0.001, description="Of RR-DU's noise, by entry; it certifies nothing.")


class Federated(Section):
    """One experiment of federated erasure."""

    retired: ClassVar[Mapping[str, Any]] = {}

    runner: Literal["federated"] = Field("federated", description="What runs this config.")
    name: str = Field("digits", description="Of the experiment.")
    seed: values.Seed = Field(0, description="The first seed, and who leaves.")
    seeds: int = Field(
        16, ge=1, le=100_000, description="Federations, each with parameters, clients and batches of its own."
    )
    tracker: trackers.Names = trackers.JSONL
    data: sections.Data = sections.Data()
    model: sections.Model = sections.Model(options={"widths": (32,)})
    federation: Federation = Federation()
    leaver: Leaver = Leaver()
    archive: Archives = Archives()
    erase: Erasing = Erasing()

    @model_validator(mode="after")
    def _somebody_stays(self) -> Federated:
        values.check_seeds(self.seed, self.seeds)
        clients, leavers = self.federation.clients, self.leaver.clients
        if self.leaver.request == "examples" and leavers >= clients:
            raise Wrong(
                (("leaver", "clients"), f"is {leavers} of {clients} clients: at least one has to lose none, set fewer")
            )
        if self.leaver.request == "client" and leavers > clients - 2:
            raise Wrong((("leaver", "clients"), f"is {leavers} of {clients} clients: at least two have to stay, set fewer"))
        present = self.federation.present or clients
        if self.archive.users > present:
            raise Wrong((
                ("archive", "users"),
                f"is {self.archive.users} of {present} clients in a round: set at most all, or 0",
            ))  # fmt: skip
        return self

    @model_validator(mode="after")
    def _request_is_one_that_runs(self) -> Federated:
        leaver = self.leaver
        if leaver.request != "client" and leaver.backdoor:
            raise Wrong((("leaver", "backdoor"), f"is of clients that leave, not of request {leaver.request}: unset one"))
        if leaver.request != "client" and self.federation.weighting == "equal":
            told = "is equal, and what a client has left changes its weight: set examples"
            raise Wrong((("federation", "weighting"), told))
        return self

    @model_validator(mode="after")
    def _rounds_are_left_to_methods(self) -> Federated:
        rounds, erase = self.federation.rounds, self.erase
        methods = erase.methods if self.leaver.request == "client" else ()  # both take out whole clients
        if "fedrecover" in methods and erase.warmup + erase.final >= rounds:
            told = f"is {erase.warmup}, and final {erase.final}, of {rounds} rounds: none is left to estimate, lower one"
            raise Wrong((("erase", "warmup"), told))
        if "fedrecover" in methods and erase.correct == 1:
            raise Wrong((("erase", "correct"), "is 1: all would be asked in every round, as by retraining, raise it"))
        if erase.repairs and max(erase.repairs) >= rounds:
            told = f"are up to {max(erase.repairs)} rounds of {rounds}: retraining takes no more, give fewer"
            raise Wrong((("erase", "repairs"), told))
        if "federaser" in methods and erase.interval >= rounds:
            raise Wrong(
                (("erase", "interval"), f"is {erase.interval} of {rounds} rounds: FedEraser would redo none, lower it")
            )
        return self


def get_config(arg: str = "digits") -> ml_collections.ConfigDict:
    """The config of one experiment, by name."""
    if arg not in EXPERIMENTS:
        raise ValueError(f"config federated.py:{arg} is unknown; choose one of {', '.join(EXPERIMENTS)}")
    config = as_config(Federated(name=arg))
    EXPERIMENTS[arg](config)
    return config


def digits(config: ml_collections.ConfigDict) -> None:
    """30 clients with 40 digits each, dealt out alike; an honest one leaves."""


def _one_lattice(config: ml_collections.ConfigDict) -> None:
    """Fewer archives: what lattices and sparse ones do, `digits` and `digits_backdoor` tell."""
    config.archive.lattices, config.archive.share = ("hexagonal",), 0.0


def digits_dirichlet(config: ml_collections.ConfigDict) -> None:
    """The same with classes unevenly spread over clients, by a Dirichlet distribution of concentration 0.5."""
    _one_lattice(config)
    config.federation.dirichlet = 0.5


def digits_dirichlet01(config: ml_collections.ConfigDict) -> None:
    """The same with concentration 0.1: most clients have two or three classes."""
    _one_lattice(config)
    config.federation.dirichlet = 0.1


def digits_backdoor(config: ml_collections.ConfigDict) -> None:
    """Dealt out alike; who leaves had planted a backdoor."""
    config.leaver.backdoor = True


def digits_backdoor_dirichlet(config: ml_collections.ConfigDict) -> None:
    """A backdoor, and classes by a Dirichlet distribution of concentration 0.5."""
    _one_lattice(config)
    config.leaver.backdoor, config.federation.dirichlet = True, 0.5


def digits_class(config: ml_collections.ConfigDict) -> None:
    """Classes by a Dirichlet distribution of concentration 0.5; a class goes, from all clients."""
    digits_dirichlet(config)
    config.leaver.request = "class"
    # A class that goes asks more of the rule than a client does.
    config.erase.alphas = (-0.1, -0.03, 0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3)


def digits_examples(config: ml_collections.ConfigDict) -> None:
    """Dealt out alike; half of a client's examples go, and the client stays."""
    _one_lattice(config)
    config.leaver.request = "examples"


def digits_partial(config: ml_collections.ConfigDict) -> None:
    """Ten of thirty clients in each round, drawn anew, and three that leave: running sums cannot."""
    _one_lattice(config)
    config.federation.present, config.federation.rounds, config.leaver.clients = 10, 60, 3
    config.archive.users = 5


def fashion_mnist(config: ml_collections.ConfigDict) -> None:
    """30 clients with 200 images of fashion_mnist each; an honest one leaves."""
    config.data.name, config.data.train_size = "fashion_mnist", 6000
    config.data.validation_fraction = 0.02
    config.federation.learning_rate, config.seeds = 0.05, 8
    _one_lattice(config)


def fashion_mnist_backdoor(config: ml_collections.ConfigDict) -> None:
    """The same with a backdoor."""
    fashion_mnist(config)
    config.leaver.backdoor = True


def cifar10(config: ml_collections.ConfigDict) -> None:
    """30 clients with 200 images of cifar10 each train a small convolutional net; an honest one leaves."""
    config.data.name, config.data.train_size = "cifar10", 6000
    config.data.validation_fraction = 0.02
    config.model.name = "cnn"
    config.model.options = ml_collections.ConfigDict({"widths": (8, 16), "hidden": 32})
    config.federation.learning_rate, config.federation.rounds, config.seeds = 0.1, 20, 8
    _one_lattice(config)
    config.archive.rates = (1.0, 2.0)


def cifar10_backdoor(config: ml_collections.ConfigDict) -> None:
    """The same with a backdoor."""
    cifar10(config)
    config.leaver.backdoor = True


EXPERIMENTS = {
    f.__name__: f
    for f in (
        digits, digits_dirichlet, digits_dirichlet01, digits_backdoor, digits_backdoor_dirichlet, digits_partial,
        digits_class, digits_examples,
        fashion_mnist, fashion_mnist_backdoor, cifar10, cifar10_backdoor,
    )
}  # fmt: skip
