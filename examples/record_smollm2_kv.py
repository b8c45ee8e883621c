"""Record real keys and values for the conformance cases, into one small npz file.

    python examples/record_smollm2_kv.py

SmolLM2-135M-Instruct reads one text (the prefill) and continues it greedily (the decode steps),
once computing in bfloat16 and once in float32; transformers' own cache is then cut into states.

The file holds:

    <dtype>/layer<NN>/<k or v>   the states of one cache, [num_tokens, kv_heads, head_dim]: first
                                 the prefill, then one token a decode step. bfloat16 is stored as
                                 its bits, uint16, since npz files know no bfloat16.
    prefill_tokens               how many of num_tokens the prefill has. int64
    text                         what the prefill read. str

One machine writes the same file each time; another machine's arithmetic may round differently.
`functional_paged.conformance.cases.recorded` reads it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from smollm2 import load_model

TEXT = (
    "A paged cache keeps the keys and values of a sequence in blocks of fixed size, which may lie "
    "anywhere in memory; a table says which block comes next."
)
LAYERS = (0, 15)  # the first, and one from the middle of 30
DECODE_STEPS = 4
FILE = Path(__file__).parents[1] / "functional_paged/conformance/data/smollm2_kv.npz"


def record(dtype_name: str) -> tuple[dict[str, Any], int]:
    """Return the states of `LAYERS`, named as in the file, and the number of prefill tokens."""
    model, tokenizer = load_model(dtype_name)
    inputs = tokenizer(TEXT, return_tensors="pt")
    # The last token of a generation is never fed back, so it has no key.
    new_tokens = DECODE_STEPS + 1
    output = model.generate(
        **inputs,
        do_sample=False,
        min_new_tokens=new_tokens,
        max_new_tokens=new_tokens,
        return_dict_in_generate=True,
    )
    arrays = {}
    for index in LAYERS:
        layer = output.past_key_values.layers[index]
        for kind, padded in (("k", layer.keys), ("v", layer.values)):
            states = padded[0].transpose(0, 1).contiguous()
            stored = states.view(torch.uint16) if dtype_name == "bfloat16" else states
            arrays[f"{dtype_name}/layer{index:02}/{kind}"] = stored.numpy()
    return arrays, inputs["input_ids"].shape[1]


def main() -> None:
    """Write the file."""
    torch.set_num_threads(1)  # the order of a sum must not depend on how many cores there are
    bfloat16, prefill_tokens = record("bfloat16")
    float32, _ = record("float32")
    arrays: dict[str, Any] = {"prefill_tokens": prefill_tokens, "text": TEXT}
    np.savez_compressed(FILE, **arrays, **bfloat16, **float32)
    print(f"{FILE}: {FILE.stat().st_size:,} bytes, {prefill_tokens} + {DECODE_STEPS} tokens")


if __name__ == "__main__":
    main()
