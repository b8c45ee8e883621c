"""The server-like example: requests share, are preempted, and write what they write alone."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", reason="the demo extra is not installed")

from bridges.blocks import OutOfBlocks

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def example(monkeypatch) -> Any:
    """The example as a module, with its neighbours importable as when it runs as a script."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield importlib.import_module("serve_smollm2")
    for name in ("serve_smollm2", "smollm2"):
        sys.modules.pop(name, None)


class Letters:
    """A tokenizer with a token for each letter, and a system prompt before each question."""

    eos_token_id = 0

    def apply_chat_template(self, chat, **kwargs) -> dict[str, list[int]]:
        text = f"be kind. {chat[0]['content']}"
        return {"input_ids": [ord(letter) % 64 + 1 for letter in text.lower()]}

    def decode(self, tokens, skip_special_tokens) -> str:
        return " ".join(map(str, tokens))


def tiny_model(dtype: str = "float64") -> tuple[Any, Letters]:
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=65,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.5,
        eos_token_id=0,
        pad_token_id=0,
    )
    model = transformers.LlamaForCausalLM(config).to(getattr(torch, dtype)).eval()
    return model, Letters()


def test_requests_share_blocks_are_preempted_and_write_what_they_write_alone(example):
    happened, requests = example.run(*tiny_model(), num_blocks=36, block_size=4, max_new_tokens=12)
    assert len(requests) == happened["finished"] == 12
    assert happened["admitted"] == 12 + happened["preempted"]
    assert happened["preempted"] > 2
    assert happened["shared"] > 2 * 11
    assert happened["passes"] < sum(len(request.written) for request in requests)
    assert len({tuple(request.written) for request in requests}) > 6


def test_a_wrong_token_is_found(example, monkeypatch):
    model, tokenizer = tiny_model()
    serve = example.serve

    def serve_and_spoil(model, cache, requests, *limits):
        happened = serve(model, cache, requests, *limits)
        requests[7].written[-1] ^= 1
        return happened

    monkeypatch.setattr(example, "serve", serve_and_spoil)
    with pytest.raises(AssertionError, match="fog"):
        example.run(model, tokenizer, num_blocks=99, block_size=4, max_new_tokens=2)


def test_a_pool_too_small_for_one_request_is_an_error(example):
    with pytest.raises(OutOfBlocks):
        example.run(*tiny_model(), num_blocks=5, block_size=4, max_new_tokens=4)


def test_command_line(example, monkeypatch, capsys):
    monkeypatch.setattr(example, "load_model", lambda dtype: tiny_model())
    example.main()
    printed = capsys.readouterr().out
    assert "> bees" in printed
    assert "finished 12" in printed
