"""The shipped vectors are what the reference says today, and a stranger's reader agrees."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest

from functional_paged.conformance.cases.vectors import vectors

ROOT = Path(__file__).parents[1]
FILE = ROOT / "functional_paged" / "conformance" / "data" / "vectors-v1.jsonl"


def test_shipped_vectors_are_current() -> None:
    assert FILE.read_text("utf-8") == vectors(), (
        "run python -m functional_paged.conformance.cases.vectors"
    )


def test_vectors_are_small_and_cover_every_clause_of_values() -> None:
    assert FILE.stat().st_size < 2**19
    covered = {
        c for line in FILE.read_text("utf-8").splitlines()[1:] for c in json.loads(line)["clauses"]
    }
    assert covered >= {
        "C5",
        "C6",
        "C7",
        "C8",
        "C9",
        "C10",
        "C11",
        "C12",
        "C13",
        "C14",
        "C18",
        "C21",
    }


def reader_in_the_docs() -> str:
    text = (ROOT / "docs" / "conformance.md").read_text()
    (source,) = re.findall(r"```python\n(import json\n.*?)```", text, re.DOTALL)
    return source


def test_the_reader_in_the_docs_is_short_and_stands_alone() -> None:
    source = reader_in_the_docs()
    assert len([line for line in source.splitlines() if line.strip()]) <= 30
    assert "functional_paged" not in source


@pytest.mark.parametrize("broken", [False, True])
def test_the_reader_in_the_docs_tells_right_from_wrong(broken: bool) -> None:
    """By a store of its own, written for this test from the clauses."""

    def store(cache: np.ndarray, states: np.ndarray, spec: dict[str, np.ndarray]) -> np.ndarray:
        num_blocks, _, size, _ = cache.shape
        for token, slot in enumerate(slots_of(spec, size, len(states))):
            if 0 <= slot < num_blocks * size:
                cache[slot // size, :, slot % size] = states[token]
        if broken:
            cache[0, 0, 0, 0] ^= 1
        return cache

    names: dict = {}
    exec(compile(reader_in_the_docs(), "docs/conformance.md", "exec"), names)
    wrong = names["check"](FILE, store)
    count = json.loads(FILE.read_text("utf-8").splitlines()[0])["count"]
    assert len(wrong) == (count if broken else 0)


def slots_of(spec: dict[str, np.ndarray], size: int, num_tokens: int) -> list[int]:
    slots = [-1] * num_tokens
    if "slots" in spec:
        found = spec["slots"].tolist()[:num_tokens]
        return found + slots[len(found) :]
    if "chunks" in spec:
        counts = [0] * num_tokens
        for src, block, offset, length in spec["chunks"].tolist():
            if src < 0 or offset < 0 or offset + length > size:
                continue
            for i in range(min(length, max(0, num_tokens - src))):
                counts[src + i] += 1
                slots[src + i] = block * size + offset + i
        return [slot if count == 1 else -1 for slot, count in zip(slots, counts, strict=True)]
    table, contexts = spec["block_table"].tolist(), spec["context_kv_lens"].tolist()
    cu = spec["cu_q_lens"].tolist() if "cu_q_lens" in spec else list(range(len(contexts) + 1))
    if cu[0] != 0 or any(a > b for a, b in itertools.pairwise(cu)):
        return slots
    for row, context in enumerate(contexts):
        for token in range(cu[row], min(cu[row + 1], num_tokens)):
            page, offset = divmod(context + token - cu[row], size)
            if context >= 0 and page < len(table[row]):
                slots[token] = table[row][page] * size + offset
    return slots
