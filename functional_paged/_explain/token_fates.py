"""Destinations of tokens as Python numbers, and the fates that they alone decide."""

from __future__ import annotations

from collections import defaultdict

import array_api_compat.numpy as xp

from .._sizes import CacheShape
from .._slots import destinations, slots_in
from .._spec import IndexSpec
from .fates import Fate
from .model import Beyond, Source, Token, count


class TokenFates:
    """The destinations of the tokens of one spec, as `_slots` has them, and what comes of them.

    Attributes:
      num_tokens: rows of `states`.
      num_blocks: of the cache.
      block_size: of the cache.
      named: whether the spec gives the token a destination, see `Destinations`.
      column: logical block of the table row.
      block: physical block, as the spec has it.
      offset: position in the block.
    """

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

    def token(
        self,
        token: int,
        negative: Fate,
        why: str,
        *,
        position: int | None = None,
        column: int | None = None,
    ) -> Token:
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
        return Token(token, fate, why, position, column, block, offset, stored)

    def beyond(self, first: int, end: int, padding: tuple[Fate, str] | None) -> tuple[Beyond, ...]:
        """Those of the tokens `first` to `end - 1` past `states`; `padding` makes them allowed."""
        first = max(first, self.num_tokens)
        if first >= end:
            return ()
        fate, why = padding or (Fate.MISSING, f"num_tokens = {self.num_tokens}")
        return (Beyond(first, end - 1, fate, why),)

    def rest(self, tokens: list[int], title: str, why: str) -> list[Source]:
        """A source for the tokens that the spec does not name (C10); none if there are none."""
        if not tokens:
            return []
        named = tuple(Token(token, Fate.NOT_NAMED, why) for token in tokens)
        return [Source(title, count(len(tokens), "token"), tokens=named)]


def _listed(tokens: list[int]) -> str:
    shown = [str(token) for token in tokens[:4]]
    if len(tokens) > 4:
        shown.append(f"{len(tokens) - 4} more")
    return f"{', '.join(shown[:-1])} and {shown[-1]}"
