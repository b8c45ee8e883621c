"""Stores that misread a block table, each wrong in one way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from functional_paged import PAD, BlockTable

from .loop import Loop, planted


@planted("C5")
class OffByOnePosition(Loop):
    def read(self, index_spec, shape):
        if not isinstance(index_spec, BlockTable):
            return index_spec
        contexts = index_spec.context_kv_lens
        one_more = np.minimum(contexts, 2**31 - 2) + 1
        return replace(
            index_spec, context_kv_lens=np.where(contexts < 0, contexts, one_more).astype(np.int32)
        )


@planted("C5")
class CrossesIntoTheNextBlockOneTokenLate(Loop):
    def places(self, index_spec, shape, num_tokens):
        places = super().places(index_spec, shape, num_tokens)
        if not isinstance(index_spec, BlockTable):
            return places
        contexts = index_spec.context_kv_lens
        before = replace(index_spec, context_kv_lens=contexts - (contexts > 0))
        blocks = {token: block for token, block, _ in super().places(before, shape, num_tokens)}
        return [(token, blocks.get(token, block), offset) for token, block, offset in places]


@planted("C5")
class StoresThe64FirstRowsOnly(Loop):
    def read(self, index_spec, shape):
        if not isinstance(index_spec, BlockTable):
            return index_spec
        contexts = index_spec.context_kv_lens.copy()
        contexts[64:] = PAD
        return replace(index_spec, context_kv_lens=contexts)


@planted("C5")
class PositionWrapsIn32Bits(Loop):
    """And a negative position passes as one inside the table."""

    def places(self, index_spec, shape, num_tokens):
        places = super().places(index_spec, shape, num_tokens)
        if not isinstance(index_spec, BlockTable) or index_spec.cu_q_lens is None:
            return places
        cu_q_lens, width = index_spec.cu_q_lens.tolist(), index_spec.block_table.shape[1]
        for row, context in enumerate(index_spec.context_kv_lens.tolist()):
            for token in range(cu_q_lens[row], min(cu_q_lens[row + 1], num_tokens)):
                position = context + token - cu_q_lens[row]
                if position >= 2**31 and width:
                    column, offset = divmod(position - 2**32, shape[2])
                    block = int(index_spec.block_table[row, column % width])
                    places.append((token, block, offset))
        return places


@planted("C6")
class PaddedRowIsStoredInBlock0(Loop):
    def read(self, index_spec, shape):
        if not isinstance(index_spec, BlockTable):
            return index_spec
        padded = index_spec.context_kv_lens < 0
        return replace(
            index_spec,
            block_table=np.where(padded[:, None], np.int32(0), index_spec.block_table),
            context_kv_lens=np.maximum(index_spec.context_kv_lens, 0),
        )


@planted("C6")
class OnlyMinusOneMarksAPaddedRow(Loop):
    def read(self, index_spec, shape):
        if not isinstance(index_spec, BlockTable):
            return index_spec
        contexts = index_spec.context_kv_lens
        seen = np.where(contexts < PAD, 0, contexts).astype(np.int32)
        return replace(index_spec, context_kv_lens=seen)


@planted("C7")
class EmptyRowTakesAToken(Loop):
    def places(self, index_spec, shape, num_tokens):
        places = super().places(index_spec, shape, num_tokens)
        if not isinstance(index_spec, BlockTable) or index_spec.cu_q_lens is None:
            return places
        cu_q_lens, contexts = index_spec.cu_q_lens, index_spec.context_kv_lens
        empty = (np.diff(cu_q_lens) == 0) & (contexts >= 0) & (cu_q_lens[:-1] < num_tokens)
        decode = BlockTable(index_spec.block_table, np.where(empty, contexts, PAD))
        first = super().places(decode, shape, len(empty))
        return places + [(int(cu_q_lens[row]), block, offset) for row, block, offset in first]


@planted("C8")
class StopsAtAHole(Loop):
    def read(self, index_spec, shape):
        if not isinstance(index_spec, BlockTable):
            return index_spec
        behind = np.logical_or.accumulate(index_spec.block_table < 0, axis=1)
        return replace(
            index_spec, block_table=np.where(behind, np.int32(PAD), index_spec.block_table)
        )


@planted("C8")
class HoleCountsFromTheEnd(Loop):
    def read(self, index_spec, shape):
        if not isinstance(index_spec, BlockTable):
            return index_spec
        table = index_spec.block_table
        return replace(index_spec, block_table=np.where(table < 0, table + shape[0], table))


@planted("C8")
class OnlyMinusOneIsAHole(Loop):
    def read(self, index_spec, shape):
        if not isinstance(index_spec, BlockTable):
            return index_spec
        table = index_spec.block_table
        return replace(index_spec, block_table=np.where(table < PAD, np.int32(0), table))


@planted("C8")
class ChecksOnlyTheFirstBlockOfARow(Loop):
    def read(self, index_spec, shape):
        if not isinstance(index_spec, BlockTable):
            return index_spec
        table = index_spec.block_table.copy()
        table[:, 1:] = np.maximum(table[:, 1:], 0)
        return replace(index_spec, block_table=table)


@planted("C9")
class ReadsTheNextRowOfAShortTable(Loop):
    def read(self, index_spec, shape):
        if not isinstance(index_spec, BlockTable):
            return index_spec
        below = np.full_like(index_spec.block_table, PAD)
        below[:-1] = index_spec.block_table[1:]
        return replace(index_spec, block_table=np.hstack([index_spec.block_table, below]))


@planted("C9")
class PastTheTableIsTheLastColumn(Loop):
    def read(self, index_spec, shape):
        if not isinstance(index_spec, BlockTable) or not index_spec.block_table.size:
            return index_spec
        wide = np.pad(index_spec.block_table, ((0, 0), (0, 9)), mode="edge")
        return replace(index_spec, block_table=wide)


@planted("C10")
class StoresWhatIsBeyondTheLastRow(Loop):
    def read(self, index_spec, shape):
        if not isinstance(index_spec, BlockTable) or index_spec.cu_q_lens is None:
            return index_spec
        cu_q_lens = index_spec.cu_q_lens.copy()
        cu_q_lens[-1:] += 1
        return replace(index_spec, cu_q_lens=cu_q_lens)


@planted("C18")
class NoTableIsBlock0(Loop):
    def read(self, index_spec, shape):
        if not isinstance(index_spec, BlockTable) or index_spec.block_table.shape[1]:
            return index_spec
        batch = index_spec.block_table.shape[0]
        return replace(index_spec, block_table=np.zeros((batch, 1), np.int32))


@planted("C18")
class NoRowsMeansOneSequence(Loop):
    def places(self, index_spec, shape, num_tokens):
        if isinstance(index_spec, BlockTable) and len(index_spec.block_table) == 0:
            return [(token, 0, token) for token in range(min(num_tokens, shape[2]))]
        return super().places(index_spec, shape, num_tokens)


@planted("C21")
class RunningTotalMayStartAnywhere(Loop):
    def places(self, index_spec, shape, num_tokens):
        if not isinstance(index_spec, BlockTable) or index_spec.cu_q_lens is None:
            return super().places(index_spec, shape, num_tokens)
        start = int(index_spec.cu_q_lens[0])
        from_0 = replace(index_spec, cu_q_lens=index_spec.cu_q_lens - np.int32(start))
        places = super().places(from_0, shape, num_tokens - start)
        return [(token + start, block, offset) for token, block, offset in places]


@planted("C21")
class RunningTotalMayDecrease(Loop):
    def read(self, index_spec, shape):
        if not isinstance(index_spec, BlockTable) or index_spec.cu_q_lens is None:
            return index_spec
        return replace(index_spec, cu_q_lens=np.maximum.accumulate(index_spec.cu_q_lens))
