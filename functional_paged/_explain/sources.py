"""The rows of each form of a spec, each with the fates of the tokens that it names."""

from __future__ import annotations

from collections import defaultdict
from itertools import groupby

import numpy as np

from .._errors import SpecError
from .._spec import BlockTable, ChunkPlan
from .._value_checks import check_spec
from .fates import Fate
from .model import Beyond, Source, Token, count
from .places import Places


def table_sources(spec: BlockTable, places: Places) -> list[Source]:
    """A source for each row of a table whose running total is sound, and one for the rest."""
    batch, width = spec.block_table.shape
    cu = range(batch + 1) if spec.cu_q_lens is None else spec.cu_q_lens.tolist()
    sources = []
    for row, context in enumerate(spec.context_kv_lens.tolist()):
        start, end = cu[row], cu[row + 1]
        entry = f"context_kv_lens[{row}] = {context}"
        tokens = []
        for token in range(start, min(end, places.num_tokens)):
            position = context + token - start  # C5
            if context < 0:
                tokens.append(Token(token, Fate.PADDED, entry))
            elif not places.named[token]:
                why = f"the table holds {count(width * places.block_size, 'position')}"
                tokens.append(Token(token, Fate.PAST_TABLE, why, position))
            else:
                column = places.column[token]
                why = f"block_table[{row}, {column}] = {places.block[token]}"
                tokens.append(places.token(token, Fate.HOLE, why, position=position, column=column))
        padding = (Fate.PADDED, entry) if context < 0 else None
        empty = "no query token (C7)" if start == end else ""
        sources.append(
            Source(
                f"row {row}",
                f"context {context}, table {_shortened(spec.block_table[row])}",
                note="padded row (C6)" if padding else empty,
                fate=Fate.PADDED if padding else None,
                tokens=tuple(tokens),
                beyond=places.beyond(start, end, padding),
            )
        )
    rest = list(range(cu[-1], places.num_tokens))
    why = f"the spec names {count(cu[-1], 'token')}"
    return sources + places.rest(rest, "no row", why)


def chunk_sources(chunks: np.ndarray, places: Places) -> list[Source]:
    """A source for each row of a plan, and one for the tokens that no chunk names."""
    problems = [_chunk_problem(chunks, row, places.block_size) for row in range(len(chunks))]
    named_by: dict[int, list[int]] = defaultdict(list)  # by the chunks that are whole
    reach = []
    for chunk, (start, _, _, length) in enumerate(chunks.tolist()):
        reach.append(range(max(start, 0), min(start + length, places.num_tokens)))
        if problems[chunk] is None:
            for token in reach[chunk]:
                named_by[token].append(chunk)
    sources = []
    for chunk, (start, block, offset, length) in enumerate(chunks.tolist()):
        broken = problems[chunk]
        padding = None if broken is None else (Fate.BROKEN_CHUNK, broken)
        tokens = []
        for token in reach[chunk]:
            if broken is not None:
                tokens.append(Token(token, Fate.BROKEN_CHUNK, broken))
            elif len(named_by[token]) > 1:
                why = f"named by chunks {', '.join(map(str, named_by[token]))}"
                tokens.append(Token(token, Fate.NAMED_TWICE, why))
            else:
                tokens.append(places.token(token, Fate.NO_BLOCK, f"chunks[{chunk}, 1] = {block}"))
        beyond = places.beyond(start, start + length, padding)
        note = "padding (C13)" if length == 0 else ""
        if broken is not None and not tokens and not beyond:
            note = f"C13: {broken}"
        sources.append(
            Source(
                f"chunk {chunk}",
                f"start {start}, block {block}, offset {offset}, length {length}",
                note=note,
                fate=None if broken is None else Fate.BROKEN_CHUNK,
                tokens=tuple(tokens),
                beyond=beyond,
            )
        )
    claimed = {token for tokens in reach for token in tokens}
    rest = [token for token in range(places.num_tokens) if token not in claimed]
    return sources + places.rest(rest, "no chunk", "no chunk names it")


def slot_sources(slots: np.ndarray, places: Places) -> list[Source]:
    """One source for a slot mapping, and one for the tokens past its end."""
    given = slots.tolist()
    tokens = []
    for token, slot in enumerate(given[: places.num_tokens]):
        if slot < 0:
            tokens.append(Token(token, Fate.NEGATIVE_SLOT, f"slot {slot}"))
        elif places.block[token] >= places.num_blocks:
            end = places.num_blocks * places.block_size
            why = f"slot {slot} must be < {places.num_blocks} * {places.block_size} = {end}"
            block, offset = places.block[token], places.offset[token]
            tokens.append(Token(token, Fate.PAST_CACHE, why, block=block, offset=offset))
        else:
            tokens.append(places.token(token, Fate.NEGATIVE_SLOT, ""))
    beyond: list[Beyond] = []
    past = enumerate(given[places.num_tokens :], places.num_tokens)
    for negative, run in groupby(past, key=lambda pair: pair[1] < 0):
        numbers = [token for token, _ in run]
        padding = (Fate.NEGATIVE_SLOT, "negative slots") if negative else None
        beyond += places.beyond(numbers[0], numbers[-1] + 1, padding)
    source = Source("slots", count(len(given), "slot"), tokens=tuple(tokens), beyond=tuple(beyond))
    rest = list(range(len(given), places.num_tokens))
    why = f"the spec names {count(len(given), 'token')}"
    return [source, *places.rest(rest, "no slot", why)]


def _chunk_problem(chunks: np.ndarray, row: int, block_size: int) -> str | None:
    """What breaks C13 in one chunk on its own, or `None`."""
    alone = np.zeros_like(chunks[: row + 1])  # rows of length 0, so that the message has the row
    alone[row] = chunks[row]
    try:
        # With no tokens at all, a whole chunk meets C11, and nothing is checked after it.
        check_spec(ChunkPlan(alone), cache_shape=(0, 1, block_size, 1), num_tokens=0)
    except SpecError as error:
        return error.message if error.clause == "C13" else None
    return None


def _shortened(entries: np.ndarray) -> str:
    shown = [str(entry) for entry in entries[:8].tolist()]
    return f"[{', '.join(shown)}{', ...' if entries.size > 8 else ''}]"
