"""Keys and values recorded from a real model, for cases that no generator would think of."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import resources

import ml_dtypes
import numpy as np


@dataclass(frozen=True, eq=False)
class RecordedStates:
    """Rows that SmolLM2-135M-Instruct stored into one cache: a prefill, then single decode steps.

    Attributes:
      name: `<dtype>/layer<NN>/<k or v>`, unique.
      states: the prefill's tokens, then one token a decode step; read-only. bfloat16 or
        float32[num_tokens, kv_heads, head_dim]
      prefill_tokens: how many of num_tokens the prefill has; at least 1 more follows.
    """

    name: str
    states: np.ndarray
    prefill_tokens: int


@functools.cache
def recorded_kv() -> tuple[RecordedStates, ...]:
    """Return all recordings: bfloat16 and float32, two layers, keys and values.

    Example:
      >>> first = recorded_kv()[0]
      >>> first.name, first.states.dtype.name, first.states.shape, first.prefill_tokens
      ('bfloat16/layer00/k', 'bfloat16', (37, 3, 64), 33)
    """
    path = resources.files("functional_paged.conformance") / "data" / "smollm2_kv.npz"
    recorded = []
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        prefill_tokens = int(file["prefill_tokens"])
        for name in sorted(key for key in file.files if "/" in key):
            states = file[name]
            if name.startswith("bfloat16/"):
                states = states.view(ml_dtypes.bfloat16)
            states.setflags(write=False)
            recorded.append(RecordedStates(name, states, prefill_tokens))
    return tuple(recorded)
