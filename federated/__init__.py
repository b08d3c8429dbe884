"""Federated erasure: a server keeps a history of its clients' updates and takes a client out without retraining.

After MEDU (2505.03388) and its neighbours. The texts of MEDU were not available: what is reconstructed is a switch.
"""

from federated.history import History, models, took_part, without
from federated.rounds import (
    Clients,
    Compressor,
    FederatedAlgorithm,
    FederatedState,
    client_key,
    client_update,
    decoded,
    fedavg,
    fedsgd,
    participation,
    server_update,
    stack_clients,
    train,
)

__all__ = [
    "Clients", "Compressor", "FederatedAlgorithm", "FederatedState", "History", "client_key", "client_update", "decoded",
    "fedavg", "fedsgd", "models", "participation", "server_update", "stack_clients", "took_part", "train", "without",
]  # fmt: skip
