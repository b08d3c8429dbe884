"""Federated erasure: a server keeps a history of its clients' updates and takes a client out without retraining.

After MEDU (2505.03388) and its neighbours. The texts of MEDU were not available: what is reconstructed is a switch.
"""

from federated.history import History, models, took_part, without

__all__ = ["History", "models", "took_part", "without"]
