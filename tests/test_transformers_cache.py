"""The transformers cache beside transformers' own: the same tokens, whatever rows come and go."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", reason="the demo extra is not installed")

from bridges.blocks import OutOfBlocks
from bridges.transformers import PagedCache
from functional_paged import SpecError
from tests.helpers import check_blocks, loaded_by, run, without

VOCABULARY = 16
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "initializer_range": 0.5,
    "eos_token_id": None,
    "bos_token_id": None,
    "pad_token_id": 0,
}


def tiny(kind: str = "Llama", **options: Any) -> Any:
    """A random model of two layers. In float64 no sum is so wrong that it changes a token."""
    torch.manual_seed(1)
    config = getattr(transformers, f"{kind}Config")(**SMALL, **options)
    return getattr(transformers, f"{kind}ForCausalLM")(config).double().eval()


def cache_for(model: Any, num_blocks: int = 40, block_size: int = 3) -> PagedCache:
    """A cache full of NaN, none of which may reach attention."""
    cache = PagedCache(model.config, num_blocks=num_blocks, block_size=block_size)
    cache.early_initialization(1, 2, 6, torch.float64, torch.device("cpu"))
    for tensor in tensors_of(cache):
        tensor.fill_(float("nan"))
    return cache


def tensors_of(cache: PagedCache) -> list[torch.Tensor]:
    return [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]


def bits(cache: PagedCache) -> list[torch.Tensor]:
    return [tensor.clone().view(torch.int64) for tensor in tensors_of(cache)]


def same_bits(before: list[torch.Tensor], cache: PagedCache) -> bool:
    return all(map(torch.equal, before, bits(cache)))


@torch.no_grad()
def next_tokens(model: Any, cache: PagedCache, tokens: dict[Any, list[int]]) -> list[int]:
    inputs = cache.step(tokens)
    return model(**inputs, past_key_values=cache).logits[:, -1].argmax(dim=-1).tolist()


@torch.no_grad()
def assert_greedy(model: Any, text: list[int], written: int) -> None:
    """Each of the last tokens is the one that the model writes after those before it."""
    own = transformers.DynamicCache(config=model.config)
    logits = model(torch.tensor([text[:-1]]), past_key_values=own).logits[0]
    assert logits.argmax(dim=-1).tolist()[-written:] == text[-written:]


@pytest.mark.parametrize(("kind", "options"), [("Llama", {}), ("Mistral", {"sliding_window": 4})])
def test_rows_that_come_and_go_over_200_random_steps_get_the_tokens_of_the_stock_cache(
    kind, options
):
    chance, model = random.Random(3), tiny(kind, **options)
    cache = cache_for(model)
    blocks, texts, prompts, ended = cache.allocator, {}, {}, []
    beginnings = [[chance.randrange(VOCABULARY) for _ in range(12)] for _ in range(2)]
    sizes, seen = set(), {"shared": 0, "forks": 0, "in parts": 0, "refused": 0}

    def end(row: Any) -> None:
        ended.append((texts.pop(row), prompts.pop(row)))
        blocks.release(row)

    for _ in range(200):
        if chance.random() < 0.4 or not texts:
            start = chance.choice(beginnings)[: chance.randrange(13)]
            text = [*start, *(chance.randrange(VOCABULARY) for _ in range(chance.randrange(1, 4)))]
            row = blocks.add(text)
            texts[row], prompts[row] = text, len(text)
            seen["shared"] += row.length
        if chance.random() < 0.1:
            source = chance.choice(list(texts))
            if source.length == len(texts[source]) - 1 >= prompts[source]:
                fork = blocks.fork(source)
                texts[fork], prompts[fork] = [*texts[source]], prompts[source]
                seen["forks"] += 1
        if chance.random() < 0.2 and len(texts) > 1:
            end(chance.choice(list(texts)))
        # Some rows rest, and some prompts come in parts.
        batch = {row: text[row.length :] for row, text in texts.items() if chance.random() < 0.9}
        for row, new in batch.items():
            if chance.random() < 0.3:
                batch[row] = new[: chance.randrange(1, 5)]
                seen["in parts"] += len(batch[row]) < len(new)
        if not batch:
            continue
        before = bits(cache)
        try:
            tokens = next_tokens(model, cache, batch)
        except OutOfBlocks:
            assert same_bits(before, cache)
            seen["refused"] += 1
            end(chance.choice(list(texts)))
            continue
        sizes.add(len(batch))
        check_blocks(blocks)
        for row, token in zip(batch, tokens, strict=True):
            if row.length == len(texts[row]):
                texts[row].append(token)
    for row in list(texts):
        end(row)

    assert len(blocks.free) == blocks.num_blocks
    assert min(seen.values()) > 3, seen
    assert len(sizes) > 4
    for text, prompt in ended:
        if len(text) > prompt:
            assert_greedy(model, text, len(text) - prompt)
    assert sum(len(text) - prompt for text, prompt in ended) > 200


MIXED = ["sliding_attention", "full_attention"]
PROMPTS = torch.tensor([[0, 0, 3, 5, 1, 2, 7], [4, 4, 8, 9, 1, 2, 7], [0, 0, 0, 0, 0, 6, 2]])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("Llama", {}),
        ("Mistral", {"sliding_window": 4}),  # every layer has a window
        ("Qwen2", {"use_sliding_window": True, "sliding_window": 4, "layer_types": MIXED}),
    ],
)
@pytest.mark.parametrize("generate", [{}, {"num_beams": 3}])
def test_generate_writes_the_tokens_of_the_stock_cache(kind, options, generate):
    model = tiny(kind, **options)
    mask = (PROMPTS > 0).long()
    arguments = {
        "attention_mask": mask,
        "max_new_tokens": 9,
        "do_sample": False,
        **generate,
    }
    own = model.generate(PROMPTS, **arguments)
    cache = cache_for(model)
    cache.begin(mask.repeat_interleave(generate.get("num_beams", 1), dim=0))
    paged = model.generate(PROMPTS, **arguments, past_key_values=cache)

    assert paged.tolist() == own.tolist()
    check_blocks(cache.allocator)
    lengths = sorted({row.length for row in cache.allocator.rows})
    assert lengths == [2 + 8, 5 + 8, 7 + 8]  # no padding is stored, nor the last token
    if generate:
        assert max(cache.allocator.references) > 1  # beams share
    cache.reset()
    assert len(cache.allocator.free) == 40


def test_generate_without_a_mask_begins_a_batch_of_tokens():
    model = tiny()
    cache = cache_for(model)
    own = model.generate(PROMPTS[1:2], max_new_tokens=5, do_sample=False)
    paged = model.generate(PROMPTS[1:2], max_new_tokens=5, do_sample=False, past_key_values=cache)
    assert paged.tolist() == own.tolist()
    assert cache.rows[0].length == 7 + 4


def test_a_forward_pass_after_a_step_goes_on_with_its_rows():
    model, text = tiny(), [3, 5, 1, 2]
    cache = cache_for(model)
    rows = [cache.allocator.add(text), cache.allocator.add([5])]
    tokens = next_tokens(model, cache, {rows[0]: text, rows[1]: [5]})
    with torch.no_grad():
        mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 0, 1, 1]])
        positions = torch.tensor([[4], [1]])
        logits = model(
            torch.tensor(tokens)[:, None],
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
        ).logits
    assert [row.length for row in rows] == [5, 2]
    then = logits[:, -1].argmax(dim=-1).tolist()
    assert_greedy(model, [*text, tokens[0], then[0]], 2)
    assert_greedy(model, [5, tokens[1], then[1]], 2)


@torch.no_grad()
def test_rows_of_other_lengths_can_take_the_places_of_a_batch():
    model, mask = tiny(), (PROMPTS > 0).long()
    cache = cache_for(model)
    cache.begin(mask)
    model(PROMPTS, attention_mask=mask, past_key_values=cache)
    chosen = torch.tensor([2, 0, 0, 1])
    cache.reorder_cache(chosen)
    assert [row.length for row in cache.rows] == [2, 5, 5, 7]
    assert len(cache.allocator.rows) == 4
    tokens = torch.tensor([3, 1, 2, 9])
    logits = model(
        tokens[:, None],
        attention_mask=torch.cat([mask[chosen], torch.ones(4, 1)], dim=1),
        past_key_values=cache,
    ).logits[:, -1]
    check_blocks(cache.allocator)
    for row, token, written in zip(chosen, tokens, logits.argmax(dim=-1), strict=True):
        text = PROMPTS[row][mask[row] > 0].tolist()
        assert_greedy(model, [*text, int(token), int(written)], 1)


def test_a_pass_that_failed_can_be_made_again():
    model, text = tiny(), [3, 5, 1, 2, 9]
    cache = cache_for(model)
    row = cache.allocator.add(text)
    handle = model.model.layers[1].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next_tokens(model, cache, {row: text})
    assert row.length == 0
    assert cache.allocator.add(text).length == 0  # what was half stored is not shared
    handle.remove()
    (token,) = next_tokens(model, cache, {row: text})
    assert_greedy(model, [*text, token], 1)
    check_blocks(cache.allocator)


@pytest.fixture
def begun() -> tuple[Any, PagedCache, Any]:
    """A model, its cache, and a row with three tokens of five stored."""
    model = tiny()
    cache = cache_for(model, num_blocks=3)
    row = cache.allocator.add([1, 2, 3, 4, 5])
    next_tokens(model, cache, {row: [1, 2, 3]})
    return model, cache, row


def test_out_of_blocks_is_told_before_anything_is_stored(begun):
    model, cache, row = begun
    before, other = bits(cache), cache.allocator.add()
    with pytest.raises(OutOfBlocks, match="at least 3 blocks must be free, got 2; release some"):
        cache.step({row: [4], other: [1] * 4})
    assert same_bits(before, cache)
    assert (row.length, len(row.blocks), other.blocks) == (3, 1, [])
    cache.begin(torch.ones(1, 10))
    with pytest.raises(OutOfBlocks, match="at least 4"), torch.no_grad():
        model(torch.ones(1, 10, dtype=torch.int64), past_key_values=cache)
    assert same_bits(before, cache)
    assert len(cache.allocator.free) == 3


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([], "must be at least one, got"),
        ([4, 6], r"must be those it was added with, \[4, 5\], got \[4, 6\]"),
        ([5], r"must be those it was added with, \[4\], got \[5\]"),
        ([4, 5, 1.5], "must be integers"),
    ],
)
def test_tokens_that_a_row_cannot_store_are_refused(begun, tokens, message):
    _, cache, row = begun
    with pytest.raises(ValueError, match=message):
        cache.step({row: tokens})
    assert cache.step({row: [4, 5, 6]})["input_ids"].tolist() == [[4, 5, 6]]


def test_ids_of_two_axes_and_a_mask_of_one_are_refused_and_nothing_changes(begun):
    _, cache, row = begun
    other = cache.allocator.add()
    with pytest.raises(ValueError, match="must be integers, got int64 of 2 axes"):
        cache.step({other: [[1, 2]]})
    for mask in (torch.ones(3), np.ones((1, 3))):
        with pytest.raises(SpecError, match="attention_mask must be"):
            cache.begin(mask)
    assert (other.blocks, list(cache.allocator.rows)) == ([], [row, other])


def test_a_step_of_no_row_or_of_a_released_one_is_refused(begun):
    _, cache, row = begun
    with pytest.raises(ValueError, match="of at least one row, got none"):
        cache.step({})
    cache.allocator.release(row)
    with pytest.raises(ValueError, match="or was released"):
        cache.step({row: [1]})


def test_states_of_another_batch_are_refused(begun):
    model, cache, row = begun
    cache.step({row: [4]})
    before = bits(cache)
    for shape in ((2, 1), (1, 2)):
        with pytest.raises(ValueError, match=r"\(batch, columns\) \(1, 1\), got"), torch.no_grad():
            model(torch.ones(shape, dtype=torch.int64), past_key_values=cache)
    assert same_bits(before, cache)
    assert row.length == 3


def test_c1_c2_c22_states_that_do_not_fit_are_refused_and_nothing_is_written(begun):
    _, cache, row = begun
    cache.step({row: [4]})
    before, right = bits(cache), torch.ones(1, 2, 1, 6, dtype=torch.float64)
    for clause, wrong in (
        ("C1", torch.ones(1, 3, 1, 6, dtype=torch.float64)),
        ("C2", right.float()),
        ("C22", right.clone().requires_grad_()),
    ):
        for pair in ((wrong, right), (right, wrong)):
            with pytest.raises(SpecError, match=f"{clause}: "):
                cache.update(*pair, 0)
    assert same_bits(before, cache)
    cache.update(right, right, 0)
    assert not same_bits(before, cache)


def test_layers_that_keep_something_else_are_refused():
    config = transformers.LlamaConfig(**SMALL)
    config.layer_types = ["full_attention", "linear_attention"]
    with pytest.raises(ValueError, match="needs a LinearAttentionLayer"):
        PagedCache(config, num_blocks=4, block_size=2)


def test_c1_sizes_of_the_cache():
    with pytest.raises(SpecError, match=r"C1: block_size .* got 0"):
        PagedCache(transformers.LlamaConfig(**SMALL), num_blocks=4, block_size=0)


def test_a_beam_that_is_not_there_forks_no_row(begun):
    _, cache, _ = begun
    rows, blocks = list(cache.allocator.rows), list(cache.allocator.references)
    with pytest.raises(IndexError):
        cache.reorder_cache(torch.tensor([0, 99]))
    assert (list(cache.allocator.rows), list(cache.allocator.references)) == (rows, blocks)


@pytest.mark.parametrize("call", ["crop", "batch_repeat_interleave", "batch_select_indices"])
def test_what_would_change_stored_rows_is_refused(begun, call):
    _, cache, _ = begun
    with pytest.raises(NotImplementedError, match="what is stored must stay"):
        getattr(cache, call)(1)


def test_without_transformers_the_import_says_what_to_install():
    done = run(
        f"{without('transformers')}\nimport bridges, bridges.blocks\nimport bridges.transformers"
    )
    assert done.stderr.splitlines()[-1] == (
        "ImportError: bridges.transformers needs transformers: "
        "pip install 'functional-paged[torch,demo]'"
    )


def test_bridges_and_the_allocator_load_no_transformers():
    assert loaded_by("import bridges, bridges.blocks", ("transformers",)) == set()
