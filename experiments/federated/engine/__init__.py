"""Federated training with real clients, by Flower: the functions of `federated` on both sides, the archive on the server.

* task: what an operator gives, a file with model, data and optimiser; and a client's work as one compiled function.
* serving: an archive that is being written, and the model that it belongs to.
* rounds: what a server does with the replies of a round: whose they are, which are refused, the archive's next row.
* erasing: take a user out of the model by the archive alone; needs no Flower.
* flower: the Strategy, the ClientApp and the Grid; the only files that know Flower (extra `federated`).
* credentials: certificates and keys.
* processes, deployment: SuperLink and SuperNode as child processes.

Secure aggregation hides single updates from the server, so it rules every archive of updates out: none is offered here.
"""
