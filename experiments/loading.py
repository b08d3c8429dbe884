"""What a run left behind, for a notebook: its rows as a table, and any trained model of it as `apply, params`.

from experiments import load

run = load("runs/digits")
run.table()                                      # a list of flat dicts; run.csv() as text, run.dataframe() with pandas
run.means("steps", "after.test_accuracy")        # the same over seeds, of the columns that are named
run.figure("kept")                               # a figure of its report
apply, params = run.model("readiness", seed=3)   # logits = apply(params, x, None)
run.dataset().train.x                            # the data that it was trained on
"""

from __future__ import annotations

import csv
import dataclasses
import difflib
import io
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pydantic

from experiments import models
from experiments.configs.comparison import Comparison
from experiments.core import checkpoints, files, results, workdirs
from experiments.core.results import Row
from experiments.core.workdirs import WorkdirError
from experiments.data import datasets, problem
from experiments.reporting.inline import Figure, Table
from experiments.training import fleets, neftune
from unlearn import tree

ALONE = ("readiness", "dpsgd", "neftune")  # trained in programs of their own; the others are lanes of one
LONGER = "equal_flops"  # the fact of those that were trained for longer, and their checkpoint


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run.

    path: the workdir.  config: config.json.  results: results.json.
    """

    path: Path
    config: dict[str, Any]
    results: results.Run

    @property
    def rows(self) -> Sequence[Row]:
        """The rows, with the estimates in them."""
        return self.results.rows

    def table(self) -> Table:
        """One flat dict per row, all with the same columns: `after.test_accuracy`, say; curves are left out."""
        flat = [dict(_flat(files.plain(dataclasses.asdict(row)))) for row in self.rows]
        columns = list(dict.fromkeys(name for row in flat for name in row))
        return Table({name: row.get(name) for name in columns} for row in flat)

    def means(self, *columns: str) -> Table:
        """Means over seeds of some numbers of the table, a row for each way; None where a seed has none.

        Raises:
          ValueError: a column that the table lacks, or that holds no numbers.
        """
        rows, ways = self.table(), ("training", "variant", "unlearner")
        for name in columns:
            if not any(isinstance(row.get(name), int | float) for row in rows):
                near = difflib.get_close_matches(name, rows[0], 3, 0.3)
                raise ValueError(f"{name!r} is no column of numbers of {self.path}: try {', '.join(near) or 'table()'}")
        groups = itertools.groupby(sorted(rows, key=_place_of(rows, ways)), lambda row: [row[name] for name in ways])
        return Table(
            dict(zip(ways, way, strict=True)) | {name: _mean([row[name] for row in members]) for name in columns}
            for way, members in ((way, list(members)) for way, members in groups)
        )

    def figure(self, name: str) -> Figure:
        """A figure of the report, which a notebook shows.

        Raises:
          WorkdirError: the report has no such figure.
        """
        file = self.path / "figures" / f"{name}.svg"
        if not file.is_file():
            known = sorted(file.stem for file in file.parent.glob("*.svg"))
            raise WorkdirError(f"{file.parent} has no {name!r}: it has {', '.join(known) or 'none'}")
        return Figure(file.read_text("utf-8"))

    def statistics(self, case: str, training: str, unlearner: str = "none") -> dict[str, np.ndarray]:
        """What a judgement kept of single examples: [models, examples] by names such as `pool.margin`.

        `pool`, `retain`, `validation` and `test` are of the repeats, `shadows` are of the shadows on the pool. Of each:
        loss, margin, correct, entropy, modified_entropy.

        Args:
          case: the name of the forget set.

        Raises:
          WorkdirError: no such statistics, or a file that cannot be read.
        """
        file = self.path / "statistics" / f"{case}-{training}-{unlearner}.npz"
        if not file.is_file():
            known = sorted(file.stem for file in file.parent.glob("*.npz"))
            raise WorkdirError(f"{self.path} has no statistics {file.stem!r}: it has {', '.join(known) or 'none'}")
        return dict(files.read_arrays(file, workdirs.AGAIN))

    def dataset(self) -> datasets.Dataset:
        """The data that the run's models were trained and judged on.

        Raises:
          DataError: they cannot be read.
        """
        config = self._typed()
        return datasets.load(config.data, models.classifies_text(config.model))

    def csv(self) -> str:
        """The table as comma-separated text."""
        rows, text = self.table(), io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def dataframe(self) -> Any:
        """The table as a pandas.DataFrame; pandas must be installed."""
        import pandas

        return pandas.DataFrame(self.table())

    def forgotten(self) -> np.ndarray:
        """Positions in the training split of what the requests were about; of text, all rows of its documents.

        Raises:
          DataError: the data cannot be read.
        """
        return problem.make(self.dataset(), self._typed().forget).forget

    def model(
        self, training: str = "readiness", variant: str = "default", seed: int | None = None
    ) -> tuple[Callable[..., jax.Array], Any]:
        """A model as it was trained, before the request: `(apply, params)`, logits = apply(params, x, None).

        Its parameters have the digest that the run's rows give. A model of a user's own has the tree that its `init` made.

        Args:
          seed: None is the run's first.

        Raises:
          WorkdirError: no such model, a checkpoint that is missing or other than it was, a run whose models are elsewhere.
          DataError: the data, which the model's shapes follow from, cannot be read.
        """
        config = self._typed()
        seed = config.seed if seed is None else seed
        digest = self._digest(training, variant, seed)
        fleet, lane = self._place(training, variant, seed - config.seed, config.seeds)
        folder = self.path / "checkpoints" / fleet
        params = _lane(checkpoints.restore_raw(folder), lane)
        if params is None or tree.digest(params) != digest:
            raise WorkdirError(
                f"{folder} holds other parameters than the run's rows tell of: remove it and results.json and run again"
            )
        self._check_frozen(config)
        dataset = self.dataset()
        fns = models.build(config.model, dataset.train.x[:1], dataset.classes, dataset.tokens)
        return fns.own_apply or fns.apply, fns.unpack(params)

    def _check_frozen(self, config: Comparison) -> None:
        """Refuse adapters whose frozen weights are others than they were."""
        inputs = self.path / "inputs.json"
        if not config.model.lora.rank or not inputs.exists():
            return
        kept = files.read_json(inputs, dict, workdirs.AGAIN).get("parameters")
        if kept != models.digest(config.model):
            raise WorkdirError(
                f"adapters of {self.path} belong to other weights than {config.model.name} has now: put them back"
            )

    def _typed(self) -> Comparison:
        """The config, with the keys that a later version added at what they are by default.

        Raises:
          WorkdirError: of a run whose models cannot be told apart by a digest, or of no run.
        """
        self._has_models()
        try:
            config = Comparison.model_validate(tuples(self.config))
        except pydantic.ValidationError as error:
            key = ".".join(map(str, error.errors()[0]["loc"]))
            raise WorkdirError(
                f"{self.path}/config.json has a config.{key} that this version cannot use: use the version that wrote it"
            ) from error
        if config.request.tune_steps:
            raise WorkdirError(f"models of {self.path} were fine-tuned before the request, and are not kept: none to load")
        return config

    def _has_models(self) -> None:
        """Refuse runs of other kinds."""
        runner = self.config.get("runner")
        elsewhere = {
            "s3t": "its store has them: open it by `s3t predict` or s3t.store.disk.open",
            "pretrain": "its model is vit.npz (read it by experiments.models.vits.load_npz), of text the folder decoder/ "
            "(by experiments.models.language.folders.load_folder)",
            "judge": "a judgement keeps statistics of examples, in statistics/, and no digest of its models",
            "judge_exact": "a judgement keeps scores and no models",
            "federated": "its federations are trained anew from the config, and no model is kept",
        }
        if runner in elsewhere:
            raise WorkdirError(f"{self.path} is a run of {runner}: {elsewhere[runner]}")
        if runner != "readiness":
            raise WorkdirError(f"{self.path}/config.json is of no run: put a copy of it back")

    def _digest(self, training: str, variant: str, seed: int) -> str:
        for row in self.rows:
            if (row.training, row.variant, row.seed) == (training, variant, seed):
                if digest := dict(row.extra.get("params_sha256") or {}).get("before"):
                    return str(digest)
                raise WorkdirError(f"the rows of {self.path} tell no digest of its models: run again with an empty workdir")
        known = sorted({f"{row.training} ({row.variant})" for row in self.rows})
        raise WorkdirError(f"{self.path} has no {training} ({variant}) of seed {seed}: it has {', '.join(known)}")

    def _place(self, training: str, variant: str, number: int, seeds: int) -> tuple[str, int]:
        """The name of the checkpoint and the lane in it."""
        if training in ALONE:
            if training == "readiness":
                return f"readiness-{variant}", number
            if training == neftune.NAME:
                return neftune.NAME, number
            poisson = any(row.training == training and row.facts.get("sampling") == "poisson" for row in self.rows)
            return (fleets.POISSON if poisson else fleets.SHUFFLED), number
        facts = {(row.training, row.variant): row.facts for row in self.rows if row.training not in ALONE}
        longer = bool(facts[training, variant].get(LONGER))
        together = [key for key, said in facts.items() if bool(said.get(LONGER)) == longer]
        return (LONGER if longer else "plain"), together.index((training, variant)) * seeds + number


def load(workdir: str | os.PathLike[str]) -> Run:
    """A finished run, by its workdir.

    Raises:
      WorkdirError: no finished run is there, or its files are damaged; one line that says what to do.
    """
    folder = Path(workdir)
    return Run(folder, *workdirs.read_run(folder))


def _place_of(rows: Sequence[Mapping[str, Any]], ways: Sequence[str]) -> Callable[[Mapping[str, Any]], int]:
    """Where the way of a row comes first: rows of a way may stand apart."""
    first = list(dict.fromkeys(tuple(row[name] for name in ways) for row in rows))
    return lambda row: first.index(tuple(row[name] for name in ways))


def _mean(values: Sequence[Any]) -> float | None:
    return float(np.mean(values)) if all(isinstance(value, int | float) for value in values) else None


def _lane(kept: Any, lane: int) -> Any:
    """The parameters of one lane of a checkpoint; None if it has no such lane, or no parameters."""
    try:
        return jax.tree.map(lambda leaf: np.asarray(leaf)[lane], kept["states"]["params"])
    except (LookupError, TypeError):
        return None


def _flat(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and single values."""
    for name, entry in value.items():
        if isinstance(entry, dict):
            yield from _flat(entry, f"{prefix}{name}.")
        elif not isinstance(entry, list):
            yield prefix + name, entry


def tuples(value: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    if isinstance(value, dict):
        return {name: tuples(entry) for name, entry in value.items()}
    return tuple(map(tuples, value)) if isinstance(value, list) else value
