"""Rows of each form of a spec, each with the fates of the tokens that it names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any

import array_api_compat.numpy as xp
import numpy as np

from .._errors import SpecError
from .._sizes import CacheShape
from .._slots import destinations, slots_in
from .._spec import BlockTable, ChunkPlan, Form, IndexSpec, SlotMapping
from .._value_checks import chunk_rules
from .model import Fate, Run, Source, Token, count

LEAST_TOLD = 10_000
"""Namings of tokens that are told of any plan."""


class TokenFates:
    """The destinations of the tokens of one spec, as `_slots` has them, and what comes of them."""

    def __init__(self, spec: IndexSpec, cache_shape: CacheShape, num_tokens: int):
        self.num_tokens = num_tokens
        self.num_blocks, _, self.block_size, _ = cache_shape
        to = destinations(xp, spec, self.block_size, num_tokens)
        self.named: list[bool] = to.named.tolist()
        self.column: list[int] = to.column.tolist()
        self.block: list[int] = to.block.tolist()
        self.offset: list[int] = to.offset.tolist()
        self._slot: list[int] = slots_in(xp, spec, cache_shape, num_tokens).tolist()
        self._sharing: dict[int, list[int]] = defaultdict(list)
        for token, slot in enumerate(self._slot):
            self._sharing[slot].append(token)

    def token(self, token: int, negative: Fate, why: str, **place: int) -> Token:
        """A token that the spec gives a destination; `negative` is the fate of a block < 0."""
        block, offset, slot = self.block[token], self.offset[token], self._slot[token]
        if block < 0:
            fate = negative
        elif block >= self.num_blocks:
            fate = Fate.PAST_CACHE
            why = f"{why} must be < num_blocks = {self.num_blocks}"
        elif len(self._sharing[slot]) > 1:
            fate = Fate.CONTESTED
            why = f"tokens {_listed(self._sharing[slot])} share slot {slot}"
        else:
            fate = Fate.STORED
        stored = None if slot < 0 else slot
        return Token(token, fate, why, block=block, offset=offset, slot=stored, **place)

    def beyond(self, first: int, end: int, padding: tuple[Fate, str] | None) -> tuple[Run, ...]:
        """Those of the tokens `first` to `end - 1` past `states`; `padding` makes them allowed."""
        first = max(first, self.num_tokens)
        fate, why = padding or (Fate.MISSING, f"num_tokens = {self.num_tokens}")
        return (Run(Token(first, fate, why), end - first),) if first < end else ()

    def rest(self, tokens: Iterable[int], title: str, why: str) -> list[Source]:
        """A source for the tokens that the spec does not name (C10); none if there are none."""
        named = tuple(Token(token, Fate.NOT_NAMED, why) for token in tokens)
        return [Source(title, count(len(named), "token"), tokens=named)] if named else []


def _table_sources(spec: BlockTable, fates: TokenFates) -> list[Source]:
    """A source for each row of a table whose running total is sound, and one for the rest."""
    batch, width = spec.block_table.shape
    cu = range(batch + 1) if spec.cu_q_lens is None else spec.cu_q_lens.tolist()
    sources = []
    for row, context in enumerate(spec.context_kv_lens.tolist()):
        start, end = cu[row], cu[row + 1]
        entry = f"context_kv_lens[{row}] = {context}"
        tokens = []
        for token in range(start, min(end, fates.num_tokens)):
            position = context + token - start  # C5
            if context < 0:
                tokens.append(Token(token, Fate.PADDED, entry))
            elif not fates.named[token]:
                why = f"the table holds {count(width * fates.block_size, 'position')}"
                tokens.append(Token(token, Fate.PAST_TABLE, why, position))
            else:
                column = fates.column[token]
                why = f"block_table[{row}, {column}] = {fates.block[token]}"
                tokens.append(fates.token(token, Fate.HOLE, why, position=position, column=column))
        padding = (Fate.PADDED, entry) if context < 0 else None
        empty = "no query token (C7)" if start == end else ""
        sources.append(
            Source(
                f"row {row}",
                f"context {context}, table {_shortened(spec.block_table[row])}",
                note="padded row (C6)" if padding else empty,
                fate=Fate.PADDED if padding else None,
                tokens=tuple(tokens),
                beyond=fates.beyond(start, end, padding),
            )
        )
    why = f"the spec names {count(cu[-1], 'token')}"
    return sources + fates.rest(range(cu[-1], fates.num_tokens), "no row", why)


def broken_total_sources(error: SpecError, fates: TokenFates) -> list[Source]:
    """One source for all tokens where the running total (C21) gives none a row to be trusted."""
    fate, tokens = Fate.BROKEN_TOTAL, range(fates.num_tokens)
    named = tuple(Token(token, fate, error.message) for token in tokens)
    return [Source("any row", "", "" if named else str(error), fate, named)]


def _chunk_sources(spec: ChunkPlan, fates: TokenFates) -> list[Source]:
    """A source for each row of a plan, and one for the tokens that no chunk names.

    Chunks may each name every token (C13), so what is told of them is limited to a multiple of
    their number and the tokens'; a note counts the rest.
    """
    rows, num_tokens = spec.chunks.tolist(), fates.num_tokens
    problems = _chunk_problems(spec.chunks, fates.block_size)
    named = [range(max(row[0], 0), min(row[0] + row[3], num_tokens)) for row in rows]
    room = max(LEAST_TOLD, 2 * (num_tokens + len(rows)))
    told = []
    for tokens in named:
        told.append(tokens[:room])
        room -= len(told[-1])
    whole = [tokens for chunk, tokens in enumerate(named) if chunk not in problems]
    number = _cover(whole, num_tokens).tolist()
    sources = []
    for chunk, (start, block, offset, length) in enumerate(rows):
        broken = problems.get(chunk)
        padding = None if broken is None else (Fate.BROKEN_CHUNK, broken)
        tokens = []
        for token in told[chunk]:
            if broken is not None:
                tokens.append(Token(token, Fate.BROKEN_CHUNK, broken))
            elif number[token] > 1:
                why = f"{number[token]} chunks name it"
                tokens.append(Token(token, Fate.NAMED_TWICE, why))
            else:
                tokens.append(fates.token(token, Fate.NO_BLOCK, f"chunks[{chunk}, 1] = {block}"))
        beyond = fates.beyond(start, start + length, padding)
        notes = ["padding (C13)"] if length == 0 else []
        if broken is not None and not tokens and not beyond:
            notes.append(f"C13: {broken}")
        left_out = len(named[chunk]) - len(told[chunk])
        notes += [f"{count(left_out, 'token')} not told"] if left_out else []
        sources.append(
            Source(
                f"chunk {chunk}",
                f"start {start}, block {block}, offset {offset}, length {length}",
                note=", ".join(notes),
                fate=None if broken is None else Fate.BROKEN_CHUNK,
                tokens=tuple(tokens),
                beyond=beyond,
            )
        )
    rest = np.flatnonzero(_cover(named, num_tokens) == 0).tolist()
    return sources + fates.rest(rest, "no chunk", "no chunk names it")


def _slot_sources(spec: SlotMapping, fates: TokenFates) -> list[Source]:
    """One source for a slot mapping, and one for the tokens past its end."""
    given = spec.slots.tolist()
    tokens = []
    for token, slot in enumerate(given[: fates.num_tokens]):
        if slot < 0:
            tokens.append(Token(token, Fate.NEGATIVE_SLOT, f"slot {slot}"))
        else:
            block = fates.block[token]
            why = "" if block < fates.num_blocks else f"slot {slot}: block {block}"
            tokens.append(fates.token(token, Fate.NEGATIVE_SLOT, why))
    beyond: list[Run] = []
    past = enumerate(given[fates.num_tokens :], fates.num_tokens)
    for negative, run in groupby(past, key=lambda pair: pair[1] < 0):
        numbers = [token for token, _ in run]
        padding = (Fate.NEGATIVE_SLOT, "negative slots") if negative else None
        beyond += fates.beyond(numbers[0], numbers[-1] + 1, padding)
    source = Source("slots", count(len(given), "slot"), tokens=tuple(tokens), beyond=tuple(beyond))
    why = f"the spec names {count(len(given), 'token')}"
    return [source, *fates.rest(range(len(given), fates.num_tokens), "no slot", why)]


SOURCES: dict[Form, Callable[[Any, TokenFates], list[Source]]] = {
    BlockTable.form: _table_sources,
    ChunkPlan.form: _chunk_sources,
    SlotMapping.form: _slot_sources,
}


def _chunk_problems(chunks: np.ndarray, block_size: int) -> dict[int, str]:
    """What breaks C13 in a chunk on its own, by the chunks for which something does."""
    problems: dict[int, str] = {}
    for wrong, text, values in chunk_rules(chunks, block_size):
        for chunk in np.flatnonzero(wrong).tolist():
            problems.setdefault(chunk, text.format(chunk, values[chunk]))
    return problems


def _cover(ranges: Sequence[range], num_tokens: int) -> np.ndarray:
    """How many of the ranges each token is in."""
    change = np.zeros(num_tokens + 1, np.int64)
    for tokens in filter(None, ranges):
        change[tokens.start] += 1
        change[tokens.stop] -= 1
    return change.cumsum()[:num_tokens]


def _listed(tokens: list[int]) -> str:
    shown = [str(token) for token in tokens[:4]]
    if len(tokens) > 4:
        shown.append(f"{len(tokens) - 4} more")
    return f"{', '.join(shown[:-1])} and {shown[-1]}"


def _shortened(entries: np.ndarray) -> str:
    shown = [str(entry) for entry in entries[:8].tolist()]
    return f"[{', '.join(shown)}{', ...' if entries.size > 8 else ''}]"
