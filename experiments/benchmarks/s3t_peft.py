"""The same nodes by PyTorch, transformers and peft: what a user would write without this project.

    PYTHON experiments/benchmarks/s3t_peft.py FOLDER

Run by `s3t_build --peers PYTHON`, which writes FOLDER (examples.npz, vit.npz, work.json); PYTHON has torch, transformers
and peft. It imports nothing of this project. Every node is trained on one model that holds an adapter per slot: its own and
the head are trained, its ancestors' are active and frozen, the others switched off; a child starts from a copy of its
parent's adapters and head. The last line printed is a JSON object with the seconds of each repetition.
"""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

TARGETS = ("q_proj", "v_proj")


def main(folder: str) -> None:
    """Train every node, `repeats` times after one to warm up, and print the seconds."""
    try:
        import peft  # noqa: F401
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        raise SystemExit(f"s3t_peft needs {error.name}: pip install 'forethought[peers]'") from error
    torch.manual_seed(0)
    work = json.loads((Path(folder) / "work.json").read_text())
    with np.load(Path(folder) / "examples.npz") as file:
        x, y = torch.tensor(file["x"]).permute(0, 3, 1, 2).contiguous(), torch.tensor(file["y"]).long()
        group = file["group"]
    model = make_model(work, Path(folder) / "vit.npz", x.shape)
    train_all(model, work | {"nodes": work["nodes"][:1], "shards": 1}, group, x, y)  # warms up
    seconds = []
    for _ in range(work["repeats"]):
        began = time.perf_counter()
        train_all(model, work, group, x, y)
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"seconds": seconds, "threads": torch.get_num_threads(), "torch": torch.__version__}))


def make_model(work: dict[str, Any], checkpoint: Path, shape: tuple[int, ...]) -> Any:
    """The ViT with the checkpoint's weights, frozen, and one adapter per slot."""
    from peft import LoraConfig, inject_adapter_in_model
    from transformers import ViTConfig, ViTForImageClassification

    vit = work["vit"]
    config = ViTConfig(
        hidden_size=vit["width"],
        num_hidden_layers=vit["depth"],
        num_attention_heads=vit["heads"],
        intermediate_size=vit["mlp_dim"],
        image_size=shape[2],
        patch_size=vit["patch"],
        num_channels=shape[1],
        num_labels=work["classes"],
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = ViTForImageClassification(config)
    load(model, checkpoint)
    own = vit["depth"] // work["slices"]
    for slot in range(work["slices"]):
        top = vit["depth"] - slot * own
        blocks = list(range(top - own, top))
        lora = LoraConfig(
            r=work["rank"],
            lora_alpha=work["alpha"],
            use_rslora=True,
            target_modules=[f"vit.layers.{i}.attention.{name}" for i in blocks for name in TARGETS],
        )
        model = inject_adapter_in_model(lora, model, adapter_name=f"slot{slot}")
    return model


def load(model: Any, checkpoint: Path) -> None:
    """Google's names to those of transformers."""
    import torch

    state = model.state_dict()
    with np.load(checkpoint) as file:
        arrays = {name: file[name] for name in file.files}
    width = arrays["cls"].shape[-1]
    put = {
        "vit.embeddings.cls_token": arrays["cls"],
        "vit.embeddings.position_embeddings": arrays["Transformer/posembed_input/pos_embedding"],
        "vit.embeddings.patch_embeddings.projection.weight": arrays["embedding/kernel"].transpose(3, 2, 0, 1),
        "vit.embeddings.patch_embeddings.projection.bias": arrays["embedding/bias"],
        "vit.layernorm.weight": arrays["Transformer/encoder_norm/scale"],
        "vit.layernorm.bias": arrays["Transformer/encoder_norm/bias"],
    }
    for i in range(model.config.num_hidden_layers):
        old, new = f"Transformer/encoderblock_{i}", f"vit.layers.{i}"
        for before, after in (("LayerNorm_0", "layernorm_before"), ("LayerNorm_2", "layernorm_after")):
            put[f"{new}.{after}.weight"] = arrays[f"{old}/{before}/scale"]
            put[f"{new}.{after}.bias"] = arrays[f"{old}/{before}/bias"]
        for before, after in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("out", "o_proj")):
            kernel = arrays[f"{old}/MultiHeadDotProductAttention_1/{before}/kernel"].reshape(width, width)
            put[f"{new}.attention.{after}.weight"] = kernel.T
            put[f"{new}.attention.{after}.bias"] = arrays[f"{old}/MultiHeadDotProductAttention_1/{before}/bias"].reshape(-1)
        for before, after in (("Dense_0", "fc1"), ("Dense_1", "fc2")):
            put[f"{new}.mlp.{after}.weight"] = arrays[f"{old}/MlpBlock_3/{before}/kernel"].T
            put[f"{new}.mlp.{after}.bias"] = arrays[f"{old}/MlpBlock_3/{before}/bias"]
    if lacking := [name for name in state if name not in put and not name.startswith("classifier.")]:
        raise SystemExit(f"the checkpoint has nothing for {lacking[0]}")
    model.load_state_dict({name: torch.tensor(np.ascontiguousarray(array)) for name, array in put.items()}, strict=False)


def train_all(model: Any, work: dict[str, Any], group: np.ndarray, x: Any, y: Any) -> None:
    """Every node of every shard, parents first; slice s of shard i is group i L + s."""
    for shard in range(work["shards"]):
        done: dict[tuple[int, ...], dict[str, Any]] = {}
        fresh = parts(model)
        for node in map(tuple, work["nodes"]):
            restore(model, fresh | done.get(node[:-1], {}))
            rows = np.flatnonzero(np.isin(group, [shard * work["slices"] + s for s in node]))
            train_node(model, work, len(node) - 1, x[rows], y[rows])
            done[node] = parts(model)
        restore(model, fresh)


def parts(model: Any) -> dict[str, Any]:
    """Copies of all adapters and of the head."""
    return {n: p.detach().clone() for n, p in model.named_parameters() if "lora_" in n or n.startswith("classifier.")}


def restore(model: Any, held: dict[str, Any]) -> None:
    model.load_state_dict(held, strict=False)


def train_node(model: Any, work: dict[str, Any], slot: int, x: Any, y: Any) -> None:
    """One slot and the head, below the active and frozen adapters of the slots above; the others are switched off."""
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.set_adapter([name for name in module.lora_A if int(name[4:]) <= slot])
            module.enable_adapters(any(int(name[4:]) <= slot for name in module.lora_A))
    trained = []
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(f".slot{slot}." in name or name.startswith("classifier."))
        trained += [parameter] if parameter.requires_grad else []
    size, steps = work["batch_size"], math.ceil(len(x) / work["batch_size"])
    optimizer = torch.optim.AdamW(trained, lr=work["learning_rate"], weight_decay=work["weight_decay"])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps * work["epochs"])
    for _ in range(work["epochs"]):
        order = torch.randperm(len(x))
        for first in range(0, len(x), size):
            rows = order[first : first + size]
            loss = torch.nn.functional.cross_entropy(model(pixel_values=x[rows]).logits, y[rows])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, work["clip"])
            optimizer.step()
            schedule.step()


if __name__ == "__main__":
    if len(sys.argv) == 2 and not sys.argv[1].startswith("-"):
        main(sys.argv[1])
    else:
        print("a part of another benchmark: python -m experiments.benchmarks.s3t_build --peers PYTHON")
