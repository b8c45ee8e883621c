"""SmolLM2 generates text through a paged KV cache, and every bit of that cache is checked.

Three prompts of different length run in one padded batch. Each new key and value is stored by
`bridges.store_single_` into paged caches with shuffled blocks, read back from there for attention,
and stored a second time by JAX. At the end the tokens, keys and values must be those of
transformers' own cache, and the caches of torch and JAX must be equal bit for bit as a whole.

    python examples/smollm2_paged.py
"""

from __future__ import annotations

import math
import random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from smollm2 import load_model

import bridges
import functional_paged
from bridges.transformers import PagedCache
from functional_paged import SlotMapping
from functional_paged.conformance.adapters.torch_memory import tensor_over
from functional_paged.conformance.bits import pattern

PROMPTS = (
    "What is the capital of France? One word.",
    "Explain what a cache is.",
    "Write a short fable about a robot that learns to paint, with a moral at the end.",
)
SPARE_BLOCKS = 5  # no row ever gets that many blocks: they must keep their bits


class MirroredCache(PagedCache):
    """A `PagedCache` in poisoned memory, each of whose stores is repeated in JAX."""

    def __init__(self, model: Any, *, num_blocks: int, block_size: int) -> None:
        super().__init__(model.config, num_blocks=num_blocks, block_size=block_size)
        random.Random(0).shuffle(self.allocator.free)
        heads, head_dim = model.config.num_key_value_heads, model.config.head_dim
        self.early_initialization(1, heads, head_dim, model.dtype, model.device)
        self.caches, self.stores = {}, 0  # layer00/k and so on
        for index, layer in enumerate(self.layers):
            self.caches |= {f"layer{index:02}/k": layer.keys, f"layer{index:02}/v": layer.values}
        dtype = np.dtype(str(model.dtype).removeprefix("torch."))
        for salt, cache in enumerate(self.caches.values()):
            poison = pattern(math.prod(cache.shape), dtype, salt, payloads=True)
            cache.copy_(tensor_over(poison.reshape(cache.shape)))
        self.in_jax = {name: to_jax(cache) for name, cache in self.caches.items()}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args, **kwargs
    ) -> Any:
        """Store in torch and in JAX: same states, same slots."""
        read = super().update(key_states, value_states, layer_idx, *args, **kwargs)
        for kind, padded in (("k", key_states), ("v", value_states)):
            name, states = f"layer{layer_idx:02}/{kind}", padded.transpose(1, 2).flatten(0, 1)
            self.in_jax[name] = functional_paged.store_single_donated(
                self.in_jax[name], to_jax(states), SlotMapping(self.new_slots.ravel())
            )
            self.stores += 1
        return read


def to_jax(tensor: torch.Tensor) -> jax.Array:
    """Return a copy, as torch goes on writing to its own memory."""
    return jnp.from_dlpack(tensor.clone())  # `copy=True` shares memory nevertheless on the CPU


def assert_same_bits(actual: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    """Compare as integers, since a NaN equals nothing."""
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[actual.itemsize]
    torch.testing.assert_close(
        actual.view(bits), expected.view(bits), rtol=0, atol=0, msg=lambda text: f"{what}: {text}"
    )


def run(
    model: Any, tokenizer: Any, *, max_new_tokens: int, block_size: int, **generate_options: Any
) -> tuple[torch.Tensor, MirroredCache]:
    """Generate for `PROMPTS` through paged caches and compare all there is to compare.

    Raises:
      AssertionError: tokens, keys, values or caches differ; says which and where.
    """
    messages = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    inputs = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )
    batch, columns = inputs["input_ids"].shape
    max_blocks_per_seq = -(-(columns + max_new_tokens) // block_size)
    num_blocks = batch * max_blocks_per_seq + SPARE_BLOCKS
    paged = MirroredCache(model, num_blocks=num_blocks, block_size=block_size)
    paged.begin(inputs["attention_mask"])

    inputs |= {"do_sample": False, "return_dict_in_generate": True, **generate_options}
    own = model.generate(**inputs, max_new_tokens=max_new_tokens)
    actual = model.generate(**inputs, max_new_tokens=max_new_tokens, past_key_values=paged)
    tokens = actual.sequences[:, columns:]
    for row, prompt in enumerate(PROMPTS):
        assert_same_bits(tokens[row], own.sequences[row, columns:], f"tokens after {prompt!r}")
    slots, own_layers = torch.from_numpy(paged.all_slots), own.past_key_values.layers
    own_tensors = [padded for layer in own_layers for padded in (layer.keys, layer.values)]
    for (name, cache), padded in zip(paged.caches.items(), own_tensors, strict=True):
        expected = padded.transpose(1, 2)[slots >= 0]
        stored = bridges.load_single(cache, SlotMapping(slots[slots >= 0]))
        assert_same_bits(stored, expected, f"{name} and transformers' own")
    for name, cache in paged.caches.items():
        in_jax = torch.from_dlpack(paged.in_jax[name])
        assert_same_bits(cache, in_jax, f"{name} in torch and JAX")
    return tokens, paged


def main() -> None:
    """Run the example."""
    model, tokenizer = load_model("float32")
    tokens, paged = run(model, tokenizer, max_new_tokens=24, block_size=16)
    texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    for prompt, text in zip(PROMPTS, texts, strict=True):
        print(f"> {prompt}\n{text.strip()}\n")
    blocks, caches = paged.allocator, paged.caches.values()
    print(
        f"{paged.stores} stores of {(paged.all_slots >= 0).sum()} tokens in all "
        f"into {blocks.num_blocks - len(blocks.free)} of {blocks.num_blocks} shuffled blocks.\n"
        "Tokens, keys and values equal those of transformers' own cache.\n"
        f"torch and JAX agree bit for bit: {len(caches)} caches, "
        f"{sum(cache.nbytes for cache in caches):,} bytes."
    )


if __name__ == "__main__":
    main()
