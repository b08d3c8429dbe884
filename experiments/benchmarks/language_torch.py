"""The steps of `language_cost` by torch.func on a plain GPT-2, and generation by transformers.

    PYTHON experiments/benchmarks/language_torch.py '{"device": "cuda", "jobs": [...]}'

Run by `language_cost --peers PYTHON`, whose jobs name folders (model.safetensors, data.npz); PYTHON has torch and
transformers. It imports nothing of this project. Attention is written out, because that of the library has no second
derivative. One JSON object is printed for each job.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

try:
    import torch
    import torch.nn.functional as F
    from safetensors.torch import load_file, save_file
except ImportError as error:
    raise SystemExit(f"language_torch needs {error.name}: pip install 'forethought[peers]'") from error

Params = dict[str, torch.Tensor]
Documents = tuple[torch.Tensor, torch.Tensor]  # tokens, and those to tell


def main(text: str) -> None:
    """Do every job and print what was seen."""
    asked = json.loads(text)
    if asked["device"] == "cuda" and not torch.cuda.is_available():
        raise SystemExit("language_torch needs a torch with CUDA: install one, or set JAX_PLATFORMS=cpu")
    torch.backends.cuda.matmul.allow_tf32 = False
    for job in asked["jobs"]:
        done = {"step": step, "generate": generate}[job["kind"]](job, torch.device(asked["device"]))
        print(json.dumps({"name": job["name"], "torch": torch.__version__, **done}), flush=True)


def gpt2(p: Params, tokens: torch.Tensor, job: dict[str, Any]) -> torch.Tensor:
    """Logits [n, L, vocabulary]; p by the names of published checkpoints."""
    n, length = tokens.shape
    ahead = torch.ones(length, length, dtype=torch.bool, device=tokens.device).triu(1)

    def norm(name: str, h: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(h, h.shape[-1:], p[f"{name}.weight"], p[f"{name}.bias"], job["epsilon"])

    def dense(name: str, h: torch.Tensor) -> torch.Tensor:
        return h @ p[f"{name}.weight"] + p[f"{name}.bias"]

    h = p["transformer.wte.weight"][tokens] + p["transformer.wpe.weight"][:length]
    for i in range(job["depth"]):
        block = f"transformer.h.{i}"
        mixed = dense(f"{block}.attn.c_attn", norm(f"{block}.ln_1", h))
        query, key, value = mixed.view(n, length, 3, job["heads"], -1).permute(2, 0, 3, 1, 4)
        scores = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])).masked_fill(ahead, -math.inf)
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(n, length, -1)
        h = h + dense(f"{block}.attn.c_proj", mixed)
        up = F.gelu(dense(f"{block}.mlp.c_fc", norm(f"{block}.ln_2", h)), approximate="tanh")
        h = h + dense(f"{block}.mlp.c_proj", up)
    return norm("transformer.ln_f", h) @ p["transformer.wte.weight"].T


def make_total(job: dict[str, Any], data: dict[str, torch.Tensor]) -> Callable[[Params], torch.Tensor]:
    """The loss of a step: of the batch, and of the rehearsal if there is one."""
    part = lambda name: (data[f"{name}_x"], data[f"{name}_y"])  # noqa: E731

    def losses(p: Params, documents: Documents) -> torch.Tensor:
        logits = gpt2(p, documents[0], job)
        return F.cross_entropy(logits.transpose(1, 2), documents[1], reduction="none").mean(1)

    def pull(p: Params, documents: Documents) -> torch.Tensor:
        """huber(mean margin - level)."""
        loss = losses(p, documents)
        away = (-loss - torch.log(-torch.expm1(-loss))).mean() - job["level"]
        far, width = away.abs(), job["width"]
        return torch.where(far < width, away**2 / (2 * width), far - width / 2)

    def objective(p: Params, forget: Documents, retain: Documents) -> torch.Tensor:
        return 0.5 * losses(p, retain).mean() + 0.5 * pull(p, forget)

    def total(p: Params) -> torch.Tensor:
        loss = losses(p, part("batch")).mean()
        if not job["order"]:
            return loss
        after = p
        (asked_x, asked_y), (kept_x, kept_y) = part("asked"), part("kept")
        for forget_x, forget_y, retain_x, retain_y in zip(asked_x, asked_y, kept_x, kept_y, strict=True):
            start = after if job["order"] == 2 else {name: leaf.detach() for name, leaf in after.items()}
            slopes = torch.func.grad(objective)(start, (forget_x, forget_y), (retain_x, retain_y))
            if job["order"] == 1:
                slopes = {name: slope.detach() for name, slope in slopes.items()}
            after = {name: leaf - job["step_size"] * slopes[name] for name, leaf in after.items()}
        stable = losses(after, part("stable")).mean()
        return loss + job["efficiency"] * pull(after, part("forget")) + job["retention"] * stable

    return total


def step(job: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Milliseconds of a step with AdamW and the most memory it takes; with no `repeats` the gradient, in a folder."""
    folder = Path(job["folder"])
    params = {name: leaf.to(device) for name, leaf in load_file(folder / "model.safetensors").items()}
    total = make_total(job, arrays(folder, device))
    if not job["repeats"]:
        slopes = {name: slope.contiguous() for name, slope in torch.func.grad(total)(params).items()}
        (folder / "gradient").mkdir()
        (folder / "gradient" / "config.json").write_bytes((folder / "config.json").read_bytes())
        save_file(slopes, folder / "gradient" / "model.safetensors")
        return {"gradient": str(folder / "gradient")}
    optimizer = torch.optim.AdamW(params.values(), lr=job["rate"], weight_decay=1e-4)

    def run() -> None:
        for name, slope in torch.func.grad(total)(params).items():
            params[name].grad = slope
        optimizer.step()
        optimizer.zero_grad()

    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    milliseconds = median(run, job["repeats"], device)
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    return {"milliseconds": milliseconds, "peak": peak}


def generate(job: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Milliseconds of greedy generation with a cache, and its tokens."""
    try:
        import transformers
    except ImportError as error:
        raise SystemExit("language_torch needs transformers: pip install 'forethought[peers]'") from error
    model = transformers.GPT2LMHeadModel.from_pretrained(job["folder"]).to(device).eval()
    model.generation_config.eos_token_id = None  # random weights may say it
    prompts = arrays(Path(job["folder"]), device)["prompts"]
    options = {"max_new_tokens": job["new"], "do_sample": False, "use_cache": True, "pad_token_id": 0}
    run = lambda: model.generate(prompts, attention_mask=torch.ones_like(prompts), **options)  # noqa: E731
    tokens = run()[:, prompts.shape[1] :].tolist()
    milliseconds = median(run, job["repeats"], device)
    return {"milliseconds": milliseconds, "tokens": tokens, "transformers": transformers.__version__}


def arrays(folder: Path, device: torch.device) -> dict[str, torch.Tensor]:
    """The documents of a job."""
    with np.load(folder / "data.npz") as file:
        return {name: torch.from_numpy(file[name]).long().to(device) for name in file.files}


def median(run: Callable, repeats: int, device: torch.device) -> float:
    """Milliseconds, after two calls to warm up."""
    seen = []
    for _ in range(repeats + 2):
        began = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seen.append(1e3 * (time.perf_counter() - began))
    return statistics.median(seen[2:])


if __name__ == "__main__":
    main(sys.argv[1])
