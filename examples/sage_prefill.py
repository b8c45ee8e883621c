"""A quantised prefill in one plan: K, its scales and V of a real layer, int8 as in SAGE attention.

SmolLM2 reads a text. Each layer's keys become int8 with a scale a token and head, and those scales
have a cache of their own; its values become int8 with a static scale a channel, measured on another
text. The three are one store by one plan, in torch and in JAX, whose caches must be equal bit for
bit. Attention that reads them back may differ from attention over what was stored by `BOUND`.

    python examples/sage_prefill.py
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
from smollm2 import load_model
from transformers import AttentionInterface

import bridges
import functional_paged
from functional_paged import BlockTable
from functional_paged.codecs import INT8_PER_CHANNEL, INT8_PER_TOKEN_HEAD

TEXT = """A cache keeps what was computed before, so that it need not be computed again. A model
that writes a text word by word keeps the keys and values of all words before, in blocks of a fixed
size, and a table says which block holds which part of which text."""
CALIBRATION = """The quick brown fox jumps over the lazy dog. In 1969 two people walked on the moon.
To bake bread you need flour, water, salt and time; to read a map, only patience and some light.
def add(a, b): return a + b  # 2 + 3 = 5, and 10 / 4 = 2.5
"Where were you?", she asked. He did not answer; the rain had stopped, and the street was empty.
- Paris is the capital of France.
- Water boils at 100 degrees, and iron melts at 1,538.
We thank the committee for its letter of 12 March (see page 7), and will reply within two weeks."""
MARGIN = 1.5
"""How much larger than any value of the other text a value may be before it is clipped."""
BOUND = 0.08
"""Norm of the error of a layer's attention output, relative to that of the output."""

Layer = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Queries, keys and values of a layer, each (num_tokens, heads, head_dim), after the rotation."""


def layers_of(model: Any, tokenizer: Any, text: str) -> list[Layer]:
    """What attention gets in each layer as the model reads a text."""
    seen: list[Layer] = []

    def attend(module, query, key, value, attention_mask, **options):
        seen.append(tuple(x[0].transpose(0, 1).clone() for x in (query, key, value)))
        dense = AttentionInterface()["sdpa"]
        return dense(module, query, key, value, attention_mask, **options)

    AttentionInterface.register("recorded", attend)
    model.set_attn_implementation("recorded")
    with torch.no_grad():
        model(**tokenizer(text, return_tensors="pt"), use_cache=False)
    return seen


def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Causal attention with grouped heads, (num_tokens, heads, head_dim)."""
    query, key, value = (x.transpose(0, 1) for x in (query, key, value))
    attend = torch.nn.functional.scaled_dot_product_attention
    return attend(query, key, value, is_causal=True, enable_gqa=True).transpose(0, 1)


def run(model: Any, tokenizer: Any, block_size: int = 16) -> tuple[list[float], float]:
    """Store each layer quantised, in both frameworks, and attend to what is read back.

    Returns the error of each layer's attention output, and the caches' share of bfloat16 bytes.
    """
    calibration = layers_of(model, tokenizer, CALIBRATION)
    layers = layers_of(model, tokenizer, TEXT)
    num_tokens, kv_heads, head_dim = layers[0][1].shape
    blocks = -(-num_tokens // block_size)
    shuffled = torch.randperm(blocks + 2, generator=torch.Generator().manual_seed(0))[:blocks]
    spec = BlockTable(
        shuffled[None].int(), torch.zeros(1).int(), torch.tensor([0, num_tokens]).int()
    )
    jax_spec = spec.map(lambda tensor: jnp.asarray(tensor.numpy()))

    def caches() -> tuple[torch.Tensor, ...]:
        rows = {head_dim: torch.int8, 1: torch.float32}
        shape = (blocks + 2, kv_heads, block_size)
        return tuple(torch.full((*shape, n), 77, dtype=rows[n]) for n in (head_dim, 1, head_dim))

    plan = bridges.plan(spec, cache=caches()[0], num_tokens=num_tokens, check=True)
    jax_store = functional_paged.jit(functional_paged.store_single, donate_argnums=0)
    errors = []
    for (query, key, value), (_, _, sample) in zip(layers, calibration, strict=True):
        value_scale = replace(INT8_PER_CHANNEL, scale="absmax").encode(sample * MARGIN)[1]
        keys, key_scales = INT8_PER_TOKEN_HEAD.encode(key)
        values, _ = INT8_PER_CHANNEL.encode(value, value_scale)
        stored = bridges.store_single_(caches(), (keys, key_scales, values), plan)

        rows = [jnp.asarray(x.float().numpy()) for x in (key, value)]
        payload, scales = INT8_PER_TOKEN_HEAD.encode(rows[0])
        other, _ = INT8_PER_CHANNEL.encode(rows[1], jnp.asarray(value_scale.numpy()))
        before = tuple(jnp.array(cache.numpy(), copy=True) for cache in caches())
        by_jax = jax_store(before, (payload, scales, other), jax_spec)
        for ours, theirs in zip(stored, by_jax, strict=True):
            if ours.numpy().tobytes() != np.asarray(theirs).tobytes():
                raise AssertionError("the caches of torch and JAX must be equal bit for bit")

        keys, key_scales, values = bridges.load_single(stored, plan)
        read_key = INT8_PER_TOKEN_HEAD.decode(keys, key_scales, torch.float32)
        read_value = INT8_PER_CHANNEL.decode(values, value_scale, torch.float32)
        exact, read = attention(query, key, value), attention(query, read_key, read_value)
        errors.append(float((read - exact).norm() / exact.norm()))
    size = sum(cache.nbytes for cache in caches())
    return errors, size / (2 * 2 * caches()[0].numel())


def main() -> None:
    """Run the example, and say what it found."""
    errors, share = run(*load_model("float32"))
    worst = max(errors)
    print(f"{len(errors)} layers: caches of torch and JAX equal bit for bit")
    print(f"error of attention: {min(errors):.4f} to {worst:.4f}, at most {BOUND}")
    print(f"memory: {share:.0%} of bfloat16 caches")
    if worst > BOUND:
        raise SystemExit(f"the error must be at most {BOUND}")


if __name__ == "__main__":
    main()
