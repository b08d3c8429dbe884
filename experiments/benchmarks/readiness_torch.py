"""The readiness meta-step once more, in PyTorch by torch.func: the rival of `readiness_cost --peers`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

try:
    import torch
    import torch.nn.functional as F
except ImportError as error:
    raise SystemExit("--peers needs torch: pip install 'forethought[peers]'") from error


def version(cores: int) -> str:
    """PyTorch's version; it will use so many cores."""
    torch.set_num_threads(cores)
    return torch.__version__


def mlp(p: dict, x: torch.Tensor) -> torch.Tensor:
    x = x.flatten(1)
    for i in range(2):
        x = F.relu(x @ p[f"Dense_{i}/kernel"] + p[f"Dense_{i}/bias"])
    return x @ p["Dense_2/kernel"] + p["Dense_2/bias"]


def cnn(p: dict, x: torch.Tensor) -> torch.Tensor:
    for i in range(2):
        x = F.pad(x, (0, 1, 0, 1))  # "SAME" for stride 2 and even sides
        x = F.conv2d(x, p[f"Conv_{i}/kernel"], p[f"Conv_{i}/bias"], stride=2)
        x = F.relu(F.group_norm(x, 8, p[f"GroupNorm_{i}/scale"], p[f"GroupNorm_{i}/bias"], eps=1e-6))
    x = x.permute(0, 2, 3, 1).flatten(1)  # the order that the weights of the first dense layer have
    x = F.relu(x @ p["Dense_0/kernel"] + p["Dense_0/bias"])
    return x @ p["Dense_1/kernel"] + p["Dense_1/bias"]


MODELS = {"mlp": mlp, "cnn": cnn}


def step(name: str, kind: str, rate: float, step_size: float, cap: float, terms: Any, args: tuple) -> Callable:
    """A function without arguments that makes one "plain" or "meta" step of SGD from jax's arguments of the same step."""
    state, batch = args[:2]
    params = {path: _in(name, path, leaf) for path, leaf in _flat(state.params).items()}
    tensors = lambda part: (_in(name, "x", part["x"]), torch.from_numpy(np.array(part["y"])).long())  # noqa: E731
    batch = tensors(batch)

    def losses(p: dict, data: tuple) -> torch.Tensor:
        return F.cross_entropy(MODELS[name](p, data[0]), data[1], reduction="none")

    def loss(p: dict, data: tuple) -> torch.Tensor:
        return losses(p, data).mean()

    total = lambda p: loss(p, batch)  # noqa: E731
    if kind == "meta":
        meta = args[3]
        asked = tensors({field: leaf[0] for field, leaf in meta.requests.forget.items()})
        forget, stable = tensors(meta.forget), tensors(meta.stable)

        def total(p: dict) -> torch.Tensor:
            ascent = torch.func.grad(lambda q: -loss(q, asked))(p)
            after = {path: leaf - step_size * ascent[path] for path, leaf in p.items()}
            gain = losses(after, forget).clamp(max=cap).mean() - loss(
                p, forget
            )  # each example's loss is capped, as shipped
            return loss(p, batch) - terms.efficiency * gain + terms.retention * loss(after, stable)

    gradient = torch.func.grad(total)

    def run() -> dict:
        slopes = gradient(params)
        return {path: leaf - rate * slopes[path] for path, leaf in params.items()}

    return run


def difference(name: str, theirs: dict, ours: Any, start: Any) -> float:
    """||their step - our step|| / ||our step||."""
    before = {path: np.asarray(leaf, np.float64) for path, leaf in _flat(start).items()}
    steps = [
        np.concatenate([(np.asarray(moved[path], np.float64) - before[path]).ravel() for path in before])
        for moved in ({path: _out(name, path, leaf) for path, leaf in theirs.items()}, _flat(ours))
    ]
    return float(np.linalg.norm(steps[0] - steps[1]) / np.linalg.norm(steps[1]))


def _flat(params: Any) -> dict[str, Any]:
    return {f"{layer}/{leaf}": array for layer, leaves in params.items() for leaf, array in leaves.items()}


def _in(name: str, path: str, leaf: Any) -> torch.Tensor:
    tensor = torch.from_numpy(np.array(leaf))
    if name == "cnn" and path == "x":
        return tensor.permute(0, 3, 1, 2).contiguous()
    return tensor.permute(3, 2, 0, 1).contiguous() if tensor.ndim == 4 and name == "cnn" else tensor


def _out(name: str, path: str, leaf: torch.Tensor) -> np.ndarray:
    return (leaf.permute(2, 3, 1, 0) if leaf.ndim == 4 else leaf).numpy()
