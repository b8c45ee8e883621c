"""What trials store: the decode form that the safe route uses, and the edges of prefill."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from functional_paged import PAD, BlockTable

from .trial import Trial


def decode_rows(num_tokens: int, block_size: int) -> Trial:
    """One token a row, scattered; every third is not stored, in the words of the safe route."""
    num_blocks = num_tokens // block_size + 3
    slots = np.random.default_rng(1).permutation((num_blocks - 1) * block_size)[:num_tokens]
    slots[1::3] = PAD
    in_block = divmod(slots, block_size)
    table, contexts = (np.where(slots < 0, PAD, part).astype(np.int32) for part in in_block)
    return Trial(BlockTable(table[:, None], contexts), num_blocks, num_tokens)


DECODE: dict[str, Callable[[int], Trial]] = {
    # A block that is a hole while the row's context is not negative.
    "decode, hole in the table": lambda s: _decode([[1, 3], [0, PAD], [2, 4]], [0, s, 2 * s - 1]),
    # A padded row whose table is not all holes.
    "decode, negative context": lambda s: _decode([[1, 3], [2, 0], [5, 4]], [0, PAD, 2 * s - 1]),
}
"""Edges of decode that the safe route does without, by the name of the capability."""


def _decode(table: list[list[int]], contexts: list[int]) -> Trial:
    spec = BlockTable(np.array(table, np.int32), np.array(contexts, np.int32))
    return Trial(spec, num_blocks=7, num_tokens=len(table))


def _prefill(
    block_size: int,
    width: int = 6,
    contexts: tuple[int, ...] | None = None,
    lengths: tuple[int, ...] | None = None,
    holes: tuple[tuple[int, int], ...] = (),
    spare_states: int = 0,
) -> Trial:
    """Three rows: one over three blocks, one of a single token, one that starts later on."""
    contexts = contexts or (block_size - 1, 0, 2 * block_size)
    lengths = lengths or (block_size + 2, 1, 3)
    table = np.random.default_rng(2).permutation(3 * width).reshape(3, width).astype(np.int32)
    for hole in holes:
        table[hole] = PAD
    cu_q_lens = np.cumsum((0, *lengths), dtype=np.int32)
    spec = BlockTable(table, np.array(contexts, np.int32), cu_q_lens)
    return Trial(spec, 3 * width + 1, int(cu_q_lens[-1]) + spare_states)


PREFILL: dict[str, Callable[[int], Trial]] = {
    "prefill": _prefill,
    "prefill, hole in the table": lambda s: _prefill(s, holes=((0, 1), (2, 2))),
    "prefill, row past the table": lambda s: _prefill(s, width=2),
    "prefill, negative context": lambda s: _prefill(s, contexts=(s - 1, PAD, 2 * s)),
    "prefill, row of no tokens": lambda s: _prefill(s, lengths=(s + 2, 0, 3)),
    "prefill, more states than tokens": lambda s: _prefill(s, spare_states=5),
}
"""Each edge of prefill that a valid spec can have, by the name of the capability, by block size."""


def prefill_of_size(
    num_tokens: int, batch: int, width: int, block_size: int, spread: bool
) -> Trial:
    """All edges at once, at the size of what is to be stored.

    With `spread`, every row may have tokens; without, one row has them all.
    Entries that no token reaches hold the last block, as the stale ids of an engine would.
    """
    rng = np.random.default_rng(3)
    named = max(num_tokens - 3, 1)
    rows = rng.integers(0, batch, named) if spread else np.full(named, batch // 2)
    lengths = np.bincount(rows, minlength=batch)
    contexts = rng.integers(0, width * block_size + 1, batch)
    contexts[rng.random(batch) < 0.2] = PAD
    contexts[batch // 2] = rng.integers(0, block_size)
    first = np.maximum(contexts, 0) // block_size
    last = np.maximum(contexts + lengths - 1, 0) // block_size
    columns = np.arange(width)
    reached = (columns >= first[:, None]) & (columns <= last[:, None])
    reached &= (lengths > 0)[:, None] & (contexts >= 0)[:, None]
    num_blocks = int(np.count_nonzero(reached)) + 1
    table = np.full((batch, width), num_blocks - 1, np.int32)
    table[reached] = rng.permutation(num_blocks - 1)
    table[reached & (rng.random((batch, width)) < 0.1)] = PAD
    cu_q_lens = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return Trial(BlockTable(table, contexts.astype(np.int32), cu_q_lens), num_blocks, num_tokens)


def prefill_trials(
    block_size: int, num_tokens: int, batch: int, width: int
) -> dict[str, Callable[[], Trial]]:
    """All that the native route has to get right at a size, by a name that has the size."""
    trials = {name: partial(edge, block_size) for name, edge in PREFILL.items()}
    for spread in (False, True):
        name = f"prefill of {num_tokens} tokens, {batch} rows, {width} columns, {spread = }"
        trials[name] = partial(prefill_of_size, num_tokens, batch, width, block_size, spread)
    return trials
