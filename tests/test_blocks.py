"""Blocks and rows: who has what, over random lives of many rows, and one case for each rule."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridges.blocks import BlockAllocator, OutOfBlocks, Row
from functional_paged import SpecError
from tests.helpers import check_blocks

STEPS = 200


def state(blocks: BlockAllocator) -> object:
    """All that a call might change."""
    rows = [(row.tokens, list(row.blocks), row.length) for row in blocks.rows]
    return rows, list(blocks.free), list(blocks.references)


def full_blocks_shared(blocks: BlockAllocator) -> int:
    return sum(references > 1 for references in blocks.references)


class Life:
    """Rows that come, grow, fork and go, with a memory in which each position has its token."""

    def __init__(self, seed: int, num_blocks: int, block_size: int) -> None:
        self.random = random.Random(seed)
        self.blocks = BlockAllocator(num_blocks, block_size)
        self.memory = np.full((num_blocks, block_size), -9)
        self.texts: dict[Row, list[int]] = {}  # what each row stored, and then what it will
        self.seen = {"shared": 0, "copies": 0, "refused": 0, "given up": 0}

    def tokens(self, count: int) -> list[int]:
        return [self.random.randrange(2) for _ in range(count)]  # so few that many begin alike

    def act(self) -> None:
        self.random.choice([self.add, self.fork, self.release, self.step, self.step])()

    def add(self) -> None:
        text = self.tokens(self.random.randrange(1, 8))
        row = self.blocks.add(text)
        assert row.length < len(text)
        self.seen["shared"] += row.length
        self.texts[row] = text

    def fork(self) -> None:
        if self.texts:
            source = self.random.choice(list(self.texts))
            self.texts[self.blocks.fork(source)] = self.texts[source][: source.length]

    def release(self) -> None:
        if self.texts:
            row = self.random.choice(list(self.texts))
            del self.texts[row]
            self.blocks.release(row)

    def step(self) -> None:
        """Some rows store their next tokens: their prompt's, or new ones."""
        chosen = self.random.sample(list(self.texts), self.random.randint(0, len(self.texts)))
        counts = {row: self.random.randrange(4) for row in chosen}
        before, can, refusal, copies = state(self.blocks), copy.deepcopy(self.blocks), None, []
        try:
            copies = self.blocks.reserve(counts)
        except OutOfBlocks as error:
            refusal = error
        if refusal is not None:
            assert state(self.blocks) == before
            assert refusal.free == len(self.blocks.free) < refusal.needed
            self.seen["refused"] += 1
            missing = refusal.needed - refusal.free
            can.free += range(can.num_blocks, can.num_blocks + missing)
            can.references += [0] * missing
            twins = dict(zip(self.blocks.rows, can.rows, strict=True))
            can.reserve({twins[row]: count for row, count in counts.items()})
            assert can.free == []  # as many as it said, and no more
            for _ in range(len(self.texts) // 2):
                self.release()
            return
        for old, new in copies:
            self.memory[new] = self.memory[old]
        self.seen["copies"] += len(copies)
        assert self.blocks.reserve(counts) == []  # again is harmless
        if self.random.random() < 0.1:
            self.seen["given up"] += 1
            return
        for row, count in counts.items():
            text = self.texts[row]
            text += self.tokens(row.length + count - len(text))
            for position in range(row.length, row.length + count):
                block, offset = divmod(position, self.blocks.block_size)
                assert self.blocks.references[row.blocks[block]] == 1
                self.memory[row.blocks[block], offset] = text[position]
        self.blocks.append(counts)

    def check(self) -> None:
        check_blocks(self.blocks)
        assert list(self.blocks.rows) == list(self.texts)
        for row, text in self.texts.items():
            stored = self.memory[row.blocks].ravel()[: row.length]
            assert stored.tolist() == text[: row.length]


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.integers(0, 24), st.integers(1, 3))
def test_every_row_reads_what_it_stored_over_200_random_steps(seed, num_blocks, block_size):
    life = Life(seed, num_blocks, block_size)
    for _ in range(STEPS):
        life.act()
        life.check()
    for row in list(life.texts):
        life.blocks.release(row)
    assert sorted(life.blocks.free) == list(range(num_blocks))


def test_a_random_life_has_all_that_it_is_to_test():
    life = Life(0, 24, 3)
    for _ in range(STEPS):
        life.act()
    assert min(life.seen.values()) > 3, life.seen


def stored(blocks: BlockAllocator, tokens: list[int]) -> Row:
    """A row with these tokens stored."""
    row = blocks.add(tokens)
    counts = {row: len(tokens) - row.length}
    assert blocks.reserve(counts) == []
    blocks.append(counts)
    return row


def test_full_blocks_are_shared_but_never_the_last_token():
    blocks = BlockAllocator(9, 2)
    first = stored(blocks, [1, 2, 3, 4, 5])
    assert [blocks.add(first.tokens[:n]).length for n in range(1, 6)] == [0, 0, 2, 2, 4]
    assert blocks.add([1, 2, 3, 4, 5, 6, 7]).length == 4  # 5 is in a block that is not full
    assert blocks.add([1, 2, 4, 4, 5]).length == 2
    assert blocks.add([3, 4, 5]).length == 0  # the same tokens elsewhere are not the same
    assert blocks.references[:4] == [6, 3, 1, 0]


def test_only_what_is_stored_is_shared():
    blocks = BlockAllocator(9, 2)
    row = blocks.add([1, 2, 3, 4, 5])
    blocks.reserve({row: 3})
    assert blocks.add([1, 2, 3]).length == 0
    blocks.append({row: 3})
    assert blocks.add([1, 2, 3, 4, 5]).length == 2


def test_what_is_released_is_not_shared_any_more():
    blocks = BlockAllocator(2, 1)
    blocks.release(stored(blocks, [1, 2]))
    assert blocks.add([1, 2]).length == 0
    assert stored(blocks, [3, 4]).length == 2


def test_of_several_rows_the_one_with_most_in_common_is_shared_with():
    blocks = BlockAllocator(9, 1)
    for tokens in ([1, 2, 9], [1, 2, 3, 9], [1, 9]):
        stored(blocks, tokens)
    assert blocks.add([1, 2, 3, 4, 5]).blocks == blocks.add([1, 2, 3, 8]).blocks
    assert blocks.add([1, 2, 3, 4, 5]).length == 3


def test_a_fork_that_goes_on_otherwise_is_not_taken_for_its_source():
    blocks = BlockAllocator(9, 1)
    source = blocks.add([1, 2, 3])
    blocks.reserve({source: 1})
    blocks.append({source: 1})
    fork = blocks.fork(source)
    blocks.release(source)
    blocks.reserve({fork: 2})
    blocks.append({fork: 2})  # of tokens that nobody knows
    assert blocks.add([1, 2, 3, 4]).length == 1


def test_a_fork_copies_only_when_it_goes_on_in_a_block_that_is_shared():
    blocks = BlockAllocator(6, 2)
    row = stored(blocks, [1, 2, 3])
    forks = [blocks.fork(row), blocks.fork(row)]
    assert blocks.references[:2] == [3, 3]
    assert blocks.reserve({row: 1, forks[0]: 1, forks[1]: 1}) == [(1, 2), (1, 3)]
    assert blocks.table([row, *forks]).tolist() == [[0, 2], [0, 3], [0, 1]]
    blocks.append({row: 1, forks[0]: 1, forks[1]: 1})
    full = blocks.fork(row)
    assert blocks.reserve({full: 1, row: 1}) == []  # both of them begin a block
    assert full_blocks_shared(blocks) == 2


def test_a_fork_of_reserved_blocks_does_not_have_them():
    blocks = BlockAllocator(4, 2)
    row = stored(blocks, [1, 2])
    blocks.reserve({row: 1})
    assert blocks.fork(row).blocks == [0]


def test_out_of_blocks_says_how_many_are_needed_and_changes_nothing():
    blocks = BlockAllocator(4, 2)
    row = stored(blocks, [1, 2, 3])
    fork, before = blocks.fork(row), state(blocks)
    with pytest.raises(OutOfBlocks, match="at least 3 blocks must be free, got 2") as raised:
        blocks.reserve({row: 1, fork: 4})
    assert (raised.value.needed, raised.value.free) == (3, 2)
    assert state(blocks) == before
    assert blocks.reserve({row: 1, fork: 2}) == [(1, 2)]


def test_a_released_row_and_one_of_another_allocator_are_refused():
    blocks, other = BlockAllocator(4, 2), BlockAllocator(4, 2)
    row, stranger = stored(blocks, [1, 2, 3]), other.add([1])
    blocks.release(row)
    before = state(blocks)
    by_count = [lambda row, call=call: call({row: 0}) for call in (blocks.reserve, blocks.append)]
    for wrong in (row, stranger):
        for call in (blocks.release, blocks.fork, *by_count):
            with pytest.raises(ValueError, match="got one that is not or was released"):
                call(wrong)
    assert state(blocks) == before


def test_more_than_was_reserved_is_refused():
    blocks = BlockAllocator(4, 2)
    rows = [blocks.add([1]), blocks.add([2])]
    blocks.reserve(dict.fromkeys(rows, 1))
    before = state(blocks)
    with pytest.raises(ValueError, match="must have reserved 3 tokens, got room for 2"):
        blocks.append({rows[0]: 1, rows[1]: 3})
    for count in (-1, 1.5, True):
        for call in (blocks.reserve, blocks.append):
            with pytest.raises(SpecError, match="C1: count must be"):
                call({rows[0]: 1, rows[1]: count})
    assert state(blocks) == before


@pytest.mark.parametrize(
    ("num_blocks", "block_size", "message"),
    [(-1, 2, "num_blocks.* must be >= 0, got -1"), (2, 0, "block_size.* in 1..2"), (2.5, 1, "num")],
)
def test_c1_sizes(num_blocks, block_size, message):
    with pytest.raises(SpecError, match=f"C1: {message}"):
        BlockAllocator(num_blocks, block_size)


@pytest.mark.parametrize("token", [1.0, -1, True])
def test_c1_token_ids(token):
    blocks = BlockAllocator(4, 2)
    with pytest.raises(SpecError, match="C1: token must be"):
        blocks.add([1, token])
    assert not blocks.rows


def test_a_table_of_no_row_is_empty():
    blocks = BlockAllocator(4, 2)
    assert blocks.table([]).shape == (0, 0)
    assert blocks.table([blocks.add()]).shape == (1, 0)
