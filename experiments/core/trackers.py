"""Trackers: where the numbers of a run's steps go beside metrics.jsonl, as `config.tracker` names them.

A tracker is two functions, (step, values by name) -> None and () -> None. Its package is imported only where it is asked
for. None of them is needed to go on, or to write a report: both read the workdir's own files.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import quote

from pydantic import AfterValidator, Field

from experiments.core.config import Says
from experiments.core.errors import UserError, line

PROJECT = "forethought"  # at Weights & Biases and MLflow
PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}  # tracker, and extra -> what it imports
FOREIGN = r"[^\w\-. :/]"  # what MLflow takes in no name
APART = ("step", "steps", "lanes", "seconds")  # numbers of an entry that are no metrics


class Tracker(NamedTuple):
    """Where numbers go.

    log: (step, values by name), in any order of steps.
    close: called once, when the run ends, however it ends.
    """

    log: Callable[[int, Mapping[str, float]], None]
    close: Callable[[], None]


def _with_jsonl(names: tuple[str, ...]) -> tuple[str, ...]:
    if "jsonl" not in names or len(set(names)) < len(names):
        raise ValueError
    return names


# Not part of config.json: a run may go on, or be read back, with other trackers than it began with.
Names = Annotated[
    tuple[Literal["jsonl", "tensorboard", "wandb", "mlflow"], ...],
    AfterValidator(_with_jsonl),
    Says("jsonl, which reports are made of, and any of tensorboard, wandb, mlflow, as in ('jsonl', 'wandb')"),
    Field(exclude=True, description="Where the numbers of steps go."),
]
JSONL: Names = ("jsonl",)


def check(names: Sequence[str]) -> None:
    """Refuse trackers whose package is missing.

    Raises:
      UserError: one line that names the extra.
    """
    for name in names:
        if name in PACKAGES and importlib.util.find_spec(PACKAGES[name]) is None:
            needs = f"config.tracker has {name}, which needs {PACKAGES[name]}"
            raise UserError(f"{needs}: pip install 'forethought[{name}]', or leave it out")


@contextmanager
def opened(
    names: Sequence[str], folder: Path, owner: Mapping[str, Any]
) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
    """A function that hands numbers to all trackers of a run; metrics.jsonl, which is the workdir's own, is not among them.

    Args:
      folder: the workdir.
      owner: the values of the config, to be shown beside the numbers.

    Raises:
      UserError: a package is missing, or a tracker cannot begin or, later, go on or end.
    """
    check(names)
    with ExitStack() as stack:
        made: dict[str, Tracker] = {}
        for name in names:
            if name in MAKERS:
                with _blaming(name, "begin"):
                    made[name] = MAKERS[name](folder, owner)
                stack.push(_closing(name, made[name]))

        def log(step: int, values: Mapping[str, float]) -> None:
            for name, tracker in made.items():
                with _blaming(name, "go on"):
                    tracker.log(step, values)

        yield log


def _closing(name: str, tracker: Tracker) -> Callable[..., None]:
    """The end of a tracker: that it fails is told where the run has not failed, or been asked to leave, before."""

    def leave(_kind: object, error: BaseException | None, _trace: object) -> None:
        try:
            with _blaming(name, "end"):
                tracker.close()
        except UserError:
            if error is None:
                raise

    return leave


@contextmanager
def _blaming(name: str, what: str) -> Iterator[None]:
    """Where a tracker is at work, whose errors are of kinds of its own, or of a network."""
    try:
        yield
    except Exception as error:
        raise UserError(f"{name} of config.tracker cannot {what} ({line(error)}): {MEND[name]}, or leave it out") from error


def numbers(event: str, fields: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of an entry of metrics.jsonl, by name.

    Example:
      >>> numbers("train", {"training": "plain", "step": 15, "lanes": 6, "loss": 1.5})
      {'train/plain/loss': 1.5}
    """
    place = "/".join((event, *(value for value in fields.values() if isinstance(value, str))))
    kept = {name: value for name, value in fields.items() if name not in APART}
    return {f"{place}/{name}": float(value) for name, value in kept.items() if isinstance(value, int | float)}


# --- One function for each --------------------------------------------------------------------------------------------


def tensorboard(folder: Path, owner: Mapping[str, Any]) -> Tracker:
    """Event files in WORKDIR/tensorboard, one for each process, without TensorFlow.

    A SummaryWriter has a thread of its own, which writes every two minutes: a kill would lose what it holds, and a full
    disk end the thread alone.
    """
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    (folder / "tensorboard").mkdir(exist_ok=True)
    writer = EventsWriter(str(folder / "tensorboard" / "events"), f".{uuid.uuid4().hex}")  # else named by the second

    def log(step: int, values: Mapping[str, float]) -> None:
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        writer.write_event(Event(wall_time=time.time(), step=step, summary=Summary(value=scalars)))
        writer.flush()

    return Tracker(log, writer.close)


def wandb(folder: Path, owner: Mapping[str, Any]) -> Tracker:
    """A run of Weights & Biases, its files in WORKDIR/wandb; WANDB_MODE=offline keeps it there, for `wandb sync`."""
    import wandb as library

    run = library.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        name=folder.name,
        id=identity(folder, owner),
        resume="allow",
        dir=str(folder),
        config=dict(owner),
        settings=library.Settings(silent=True, console="off"),
    )
    run.define_metric("*", step_metric="step")  # its own steps must not go back; ours do, at the start of a training

    def log(step: int, values: Mapping[str, float]) -> None:
        run.log({"step": step, **values})

    return Tracker(log, run.finish)


def mlflow(folder: Path, owner: Mapping[str, Any]) -> Tracker:
    """A run of MLflow at MLFLOW_TRACKING_URI; without one in WORKDIR/mlflow.db."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    place = re.sub(
        "[%?#]", lambda sign: quote(sign[0]), str(folder.absolute())
    )  # no more: MLflow makes a folder of this name
    client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{place}/mlflow.db")
    tag, experiment = identity(folder, owner), _experiment(client)
    begun = client.search_runs([experiment], f"tags.forethought = '{tag}'")
    run = begun[0] if begun else client.create_run(experiment, run_name=folder.name, tags={"forethought": tag})
    client.update_run(run.info.run_id, status="RUNNING")

    def log(step: int, values: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        metrics = [Metric(re.sub(FOREIGN, "_", name), value, now, step) for name, value in values.items()]
        client.log_batch(run.info.run_id, metrics)

    return Tracker(log, lambda: client.set_terminated(run.info.run_id))


def _experiment(client: Any) -> str:
    """The id of MLflow's experiment, made if there is none; another run of a sweep may make it at the same time."""
    known = client.get_experiment_by_name(PROJECT)
    try:
        return str(known.experiment_id if known else client.create_experiment(PROJECT))
    except Exception:
        known = client.get_experiment_by_name(PROJECT)
        if not known:
            raise
        return str(known.experiment_id)


def identity(folder: Path, owner: Mapping[str, Any]) -> str:
    """The name of a run at a tracker: the same when it goes on, another for another config or another folder."""
    return hashlib.sha256(f"{folder.absolute()}\n{sorted(owner.items())}".encode()).hexdigest()[:16]


MAKERS = {"tensorboard": tensorboard, "wandb": wandb, "mlflow": mlflow}
MEND = {
    "tensorboard": "make room, or choose a folder you may write",
    "wandb": "log in by `wandb login`, or set WANDB_MODE=offline",
    "mlflow": "set MLFLOW_TRACKING_URI to a server that answers, or unset it",
}
