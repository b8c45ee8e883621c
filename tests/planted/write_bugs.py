"""Stores that write the wrong bits, or write elsewhere in memory."""

from __future__ import annotations

import math

import numpy as np

from .loop import Loop, memory_of, planted


@planted("C5")
class SwapsHeadsAndHeadDim(Loop):
    def write(self, cache, states, places):
        swapped = states.swapaxes(1, 2).reshape(states.shape)
        return super().write(cache, swapped, places)


@planted("C5")
class SwapsTokensAndHeads(Loop):
    def write(self, cache, states, places):
        num_tokens, kv_heads, head_dim = states.shape
        swapped = states.reshape(kv_heads, num_tokens, head_dim).swapaxes(0, 1)
        return super().write(cache, swapped, places)


@planted("C5")
class SwapsHeadsAndPositionsOfABlock(Loop):
    def write(self, cache, states, places):
        num_blocks, kv_heads, block_size, head_dim = cache.shape
        blocks = cache.reshape(num_blocks, block_size, kv_heads, head_dim).copy()
        for token, block, offset in places:
            blocks[block, offset] = states[token]
        cache[...] = blocks.reshape(cache.shape)
        return cache


@planted("C15")
class TearsARowThatTwoTokensWant(Loop):
    def write(self, cache, states, places):
        written = set()
        for token, block, offset in places:
            half = cache.shape[3] // 2 if (block, offset) in written else 0
            cache[block, :, offset, half:] = states[token, :, half:]
            written.add((block, offset))
        return cache


@planted("C15")
class AddsUpTwoTokensOfASlot(Loop):
    def write(self, cache, states, places):
        sums = {}
        for token, block, offset in places:
            before = sums.get((block, offset))
            sums[block, offset] = states[token] if before is None else before + states[token]
        for (block, offset), row in sums.items():
            cache[block, :, offset] = row
        return cache


@planted("C16")
class WritesEverything(Loop):
    def write(self, cache, states, places):
        for token, _, _ in places[:1]:
            cache[...] = states[token][:, None]
        return super().write(cache, states, places)


@planted("C16")
class WritesANeighbourToo(Loop):
    def write(self, cache, states, places):
        for token, block, offset in places:
            cache[block, :, (offset + 1) % cache.shape[2]] = states[token]
        return super().write(cache, states, places)


@planted("C16")
class ClearsTheRestOfABlock(Loop):
    def write(self, cache, states, places):
        for _, block, offset in places:
            cache[block, :, offset:] = 0
        return super().write(cache, states, places)


@planted("C16")
class DropsTheLastColumn(Loop):
    def write(self, cache, states, places):
        super().write(cache[..., :-1], states[..., :-1], places)
        return cache


@planted("C16")
class DropsOneHeadOf8(Loop):
    def write(self, cache, states, places):
        heads = 7 if cache.shape[1] == 8 else cache.shape[1]
        super().write(cache[:, :heads], states[:, :heads], places)
        return cache


@planted("C16")
class MovesWholeVectorsOnly(Loop):
    def write(self, cache, states, places):
        whole = cache.shape[3] // 8 * 8
        super().write(cache[..., :whole], states[..., :whole], places)
        return cache


@planted("C16")
class MovesAVectorTooMany(Loop):
    """Rounded up: the first column of the next position."""

    def write(self, cache, states, places):
        super().write(cache, states, places)
        for _, block, offset in places:
            if cache.shape[3] % 8 and offset + 1 < cache.shape[2]:
                cache[block, :, offset + 1, 0] = 1
        return cache


@planted("C16")
class RowsPassThroughFloats(Loop):
    def write(self, cache, states, places):
        return super().write(cache, states.astype(np.float32).astype(states.dtype), places)


@planted("C16")
class TheWholeCachePassesThroughFloats(Loop):
    def write(self, cache, states, places):
        cache[...] = cache.astype(np.float32).astype(cache.dtype)
        return super().write(cache, states, places)


@planted("C16")
class NegativeZeroBecomesZero(Loop):
    def write(self, cache, states, places):
        return super().write(cache, np.where(states == 0, np.zeros_like(states), states), places)


@planted("C16")
class SubnormalsAreFlushed(Loop):
    def write(self, cache, states, places):
        if states.dtype == np.float32:
            tiny = np.abs(states) < np.finfo(np.float32).tiny
            states = np.where(tiny, np.float32(0), states)
        return super().write(cache, states, places)


@planted("C20")
class WritesToAContiguousCopy(Loop):
    def write(self, cache, states, places):
        super().write(np.ascontiguousarray(cache), states, places)
        return cache


@planted("C20")
class TakesStatesForContiguous(Loop):
    def write(self, cache, states, places):
        memory, start = memory_of(states)
        rows = memory[start : start + states.size]
        rows = np.resize(rows, states.size).reshape(states.shape)  # no read past the end
        return super().write(cache, rows, places)


@planted("C20")
class TakesTheCacheForContiguous(Loop):
    def write(self, cache, states, places):
        memory, start = memory_of(cache)
        dense = memory[start : start + cache.size]
        if dense.size == cache.size:
            super().write(dense.reshape(cache.shape), states, places)
        return cache


class OtherOfThePair(Loop):
    """Of two caches that alternate by block, one in the place of the other."""

    def other(self, cache):
        block = math.prod(cache.shape[1:])
        if cache.strides[0] != 2 * block * cache.itemsize or not cache[0].flags.c_contiguous:
            return None
        memory, start = memory_of(cache)
        first = memory[start - block :][: 2 * cache.size]
        return first.reshape(-1, 2, *cache.shape[1:])[:, 0]


@planted("C20")
class WritesTheKeyToTheValueCache(OtherOfThePair):
    def write(self, cache, states, places):
        other = self.other(cache)
        super().write(cache if other is None else other, states, places)
        return cache


@planted("C20")
class WritesTheKeyToBothCaches(OtherOfThePair):
    def write(self, cache, states, places):
        other = self.other(cache)
        if other is not None:
            super().write(other, states, places)
        return super().write(cache, states, places)


@planted("C20")
class WritesBothHalvesOfAPackedCache(Loop):
    def write(self, cache, states, places):
        if cache.strides[2] == 2 * cache.shape[3] * cache.itemsize:
            memory, start = memory_of(cache)
            inner = memory[start:][: 2 * cache.size].reshape(*cache.shape[:3], -1)
            super().write(inner[..., cache.shape[3] :], states, places)
        return super().write(cache, states, places)


@planted("C12")
class WritesAfterTheCache(Loop):
    """A slot or a block just past the cache, unchecked."""

    def places(self, index_spec, shape, num_tokens):
        return super().places(index_spec, (shape[0] + 1, *shape[1:]), num_tokens)

    def write(self, cache, states, places):
        inside = [place for place in places if place[1] < len(cache)]
        memory, start = memory_of(cache)
        for token, _, _ in [place for place in places if place not in inside]:
            memory[start + cache.size] = states[token].flat[0]
        return super().write(cache, states, inside)


@planted("C14")
class WritesBeforeTheCache(Loop):
    """A slot of -1, unchecked."""

    def store(self, cache, states, index_spec):
        super().store(cache, states, index_spec)
        memory, start = memory_of(cache)
        slots = getattr(index_spec, "slots", np.zeros(0))[: len(states)]
        for token in np.flatnonzero(slots == -1):
            memory[start - 1] = states[token].flat[0]
        return cache


@planted("C19")
class ElementOffsetsIn32Bits(Loop):
    def write(self, cache, states, places):
        strides = [stride // cache.itemsize for stride in cache.strides]
        for token, block, offset in places:
            for head in range(cache.shape[1]):
                first = block * strides[0] + head * strides[1] + offset * strides[2]
                if first < 2**31:  # else a negative offset, which no test can afford to follow
                    cache[block, head, offset] = states[token, head]
        return cache
