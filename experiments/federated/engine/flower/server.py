"""Flower's ServerApp: the rounds of a training that a server's command has asked for."""

from __future__ import annotations

from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from experiments.core.errors import UserError
from experiments.federated.engine import processes, serving
from experiments.federated.engine.credentials import public_keys
from experiments.federated.engine.flower.strategy import ArchivingStrategy, train
from experiments.federated.engine.rounds import Server

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train until the archive has its rounds; `events` gets a line for each, `done` what a user is to know at the end."""
    config = context.run_config
    processes.end_with(int(config["command"]))  # else it would hold the archive until it misses its SuperLink
    events, done = Path(str(config["events"])), Path(str(config["done"]))
    mistake = ""
    try:
        with serving.open_archive(Path(str(config["archive"]))) as opened, events.open("a", buffering=1) as lines:
            server = Server(opened, str(config["weighting"]))
            strategy = ArchivingStrategy(
                server,
                clients=int(config["clients"]),
                per_round=int(config["per-round"]) or None,
                users=public_keys(Path(str(config["keys"]))) if config["keys"] else None,
                tell=lambda line: print(line, file=lines),
            )
            left = int(config["rounds"]) - server.round
            train(strategy, grid, left, float(config["timeout"]))
            if server.round < int(config["rounds"]):
                mistake = f"rounds without an update: the archive has {server.round}; the same command goes on"
    except UserError as error:
        mistake = str(error)
    partial = done.with_suffix(".part")
    partial.write_text(mistake)
    partial.rename(done)
