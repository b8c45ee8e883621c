"""Stores that misread a chunk plan or slots, or send any token to the wrong place."""

from __future__ import annotations

import numpy as np

from functional_paged import PAD, ChunkPlan, SlotMapping

from .loop import Loop, planted


@planted("C5")
class OffByOneBlock(Loop):
    def places(self, index_spec, shape, num_tokens):
        places = super().places(index_spec, shape, num_tokens)
        return [(token, (block + 1) % shape[0], offset) for token, block, offset in places]


@planted("C5")
class WritesNothing(Loop):
    def places(self, index_spec, shape, num_tokens):
        return []


@planted("C5")
class DropsTheLastToken(Loop):
    def places(self, index_spec, shape, num_tokens):
        return super().places(index_spec, shape, num_tokens)[:-1]


@planted("C5")
class SlotsIn16Bits(Loop):
    def places(self, index_spec, shape, num_tokens):
        places = super().places(index_spec, shape, num_tokens)
        slots = [(token, (block * shape[2] + offset) % 2**16) for token, block, offset in places]
        return [(token, *divmod(slot, shape[2])) for token, slot in slots]


@planted("C5")
class BlocksIn16Bits(Loop):
    def places(self, index_spec, shape, num_tokens):
        places = super().places(index_spec, shape, num_tokens)
        return [(token, block % 2**16, offset) for token, block, offset in places]


@planted("C10")
class StoresEveryState(Loop):
    """With slots that end early, the last slot goes on for the states that have none."""

    def places(self, index_spec, shape, num_tokens):
        if isinstance(index_spec, SlotMapping) and 0 < len(index_spec.slots) < num_tokens:
            rest = num_tokens - len(index_spec.slots)
            index_spec = SlotMapping(np.pad(index_spec.slots, (0, rest), mode="edge"))
        return super().places(index_spec, shape, num_tokens)


@planted("C11")
class TokenPastTheStatesIsTheLastState(Loop):
    def places(self, index_spec, shape, num_tokens):
        places = super().places(index_spec, shape, 2**20)  # further than any case names one
        return [(min(token, num_tokens - 1), block, offset) for token, block, offset in places]


@planted("C12")
class BlockPastTheCacheIsTheLast(Loop):
    def places(self, index_spec, shape, num_tokens):
        endless = (2**40, *shape[1:])
        places = super().places(index_spec, endless, num_tokens)
        return [(token, min(block, shape[0] - 1), offset) for token, block, offset in places]


@planted("C12")
class BlockPastTheCacheWraps(Loop):
    def places(self, index_spec, shape, num_tokens):
        places = super().places(index_spec, (2**40, *shape[1:]), num_tokens)
        return [(token, block % shape[0], offset) for token, block, offset in places]


@planted("C12")
class LongSlotsAreTruncated(Loop):
    def read(self, index_spec, shape):
        if not isinstance(index_spec, SlotMapping):
            return index_spec
        return SlotMapping(index_spec.slots.astype(np.int32))


@planted("C13")
class ChunkOverrunsItsBlock(Loop):
    def places(self, index_spec, shape, num_tokens):
        places = super().places(index_spec, shape, num_tokens)
        if not isinstance(index_spec, ChunkPlan):
            return places
        for start, block, offset, length in index_spec.chunks.tolist():
            if offset + length > shape[2] and min(start, block, offset) >= 0:
                for i in range(min(length, num_tokens - start)):
                    over, at = divmod(offset + i, shape[2])
                    if block + over < shape[0]:
                        places.append((start + i, block + over, at))
        return places


@planted("C13")
class BadChunkIsStoredInThePartThatFits(Loop):
    def read(self, index_spec, shape):
        if not isinstance(index_spec, ChunkPlan):
            return index_spec
        chunks = index_spec.chunks.copy()
        chunks[:, 3] = np.minimum(chunks[:, 3], shape[2] - np.maximum(chunks[:, 2], 0))
        return ChunkPlan(chunks)


@planted("C13")
class TokenOfTwoChunksIsStored(Loop):
    def places(self, index_spec, shape, num_tokens):
        if not isinstance(index_spec, ChunkPlan):
            return super().places(index_spec, shape, num_tokens)
        plans = [ChunkPlan(index_spec.chunks[i : i + 1]) for i in range(len(index_spec.chunks))]
        return [
            place
            for plan in plans
            for place in super(type(self), self).places(plan, shape, num_tokens)
        ]


@planted("C13")
class PaddingChunkIsStored(Loop):
    def read(self, index_spec, shape):
        if not isinstance(index_spec, ChunkPlan):
            return index_spec
        chunks = index_spec.chunks.copy()
        chunks[:, 3] = np.where(chunks[:, 3] == 0, 1, chunks[:, 3])
        return ChunkPlan(chunks)


@planted("C13")
class ChunkWithoutABlockGoesToBlock0(Loop):
    def read(self, index_spec, shape):
        if not isinstance(index_spec, ChunkPlan):
            return index_spec
        chunks = index_spec.chunks.copy()
        chunks[:, 1] = np.maximum(chunks[:, 1], 0)
        return ChunkPlan(chunks)


@planted("C14")
class NegativeSlotCountsFromTheEnd(Loop):
    def read(self, index_spec, shape):
        if not isinstance(index_spec, SlotMapping):
            return index_spec
        slots, num_slots = index_spec.slots, shape[0] * shape[2]
        return SlotMapping(np.where(slots < 0, slots + num_slots, slots).astype(slots.dtype))


@planted("C14")
class OnlyMinusOneIsNotStored(Loop):
    def read(self, index_spec, shape):
        if not isinstance(index_spec, SlotMapping):
            return index_spec
        slots = index_spec.slots
        return SlotMapping(np.where(slots < PAD, 0, slots).astype(slots.dtype))


@planted("C14")
class NegativeSlotRoundsTowardsZero(Loop):
    """As division does in C: the block of slot -1 is block 0."""

    def places(self, index_spec, shape, num_tokens):
        places = super().places(index_spec, shape, num_tokens)
        if isinstance(index_spec, SlotMapping):
            for token, slot in enumerate(index_spec.slots.tolist()[:num_tokens]):
                if -shape[2] < slot < 0:
                    places.append((token, 0, -slot))
        return places


@planted("C14")
class StopsAtSlotMinusTwo(Loop):
    """Only -1 is documented as a slot to skip."""

    def read(self, index_spec, shape):
        if not isinstance(index_spec, SlotMapping):
            return index_spec
        stopped = np.logical_or.accumulate(index_spec.slots < PAD)
        return SlotMapping(np.where(stopped, PAD, index_spec.slots).astype(index_spec.slots.dtype))


@planted("C5")
class WrongForBlocksOf64(Loop):
    def places(self, index_spec, shape, num_tokens):
        places = super().places(index_spec, shape, num_tokens)
        if shape[2] != 64:
            return places
        return [(token, block, offset % 32) for token, block, offset in places]
