"""Writes `paged_store_contract.json`: the cases of the contract test, by the reference.

python tests/mojo_contract/make_data.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from functional_paged import BlockTable, ChunkPlan, IndexSpec, plan_chunks, reference

PATH = Path(__file__).with_name("paged_store_contract.json")
SIZES = {"num_blocks": 8, "block_size": 16}
SHAPE = (SIZES["num_blocks"], 1, SIZES["block_size"], 1)
PAST = SIZES["num_blocks"]
"""The first block id past the cache."""
ALL = ["bfloat16", "float16", "float32", "int8"]


def stored(spec: IndexSpec, num_tokens: int) -> list[list[int]]:
    """Token, block and offset of each stored row; of a shared slot, every token that may win."""
    states = np.arange(1, num_tokens + 1, dtype=np.int64).reshape(-1, 1, 1)
    cache = reference.store_single(np.zeros(SHAPE, np.int64), states, spec)[:, 0, :, 0]
    return [[int(cache[at]) - 1, *map(int, at)] for at in map(tuple, np.argwhere(cache))]


def case(clause, name, spec: IndexSpec, num_tokens: int, *, promised=True, **more) -> dict:
    """One case in each form that can say it."""
    said = {"clause": clause, "name": name, "promised": promised, "num_tokens": num_tokens}
    if isinstance(spec, BlockTable):
        cu = None if spec.cu_q_lens is None else spec.cu_q_lens.tolist()
        said["table"] = [spec.block_table.tolist(), cu, spec.context_kv_lens.tolist()]
        if promised:  # the chunks of an invalid table are no one's
            chunks = plan_chunks(spec, cache_shape=SHAPE, num_tokens=num_tokens).chunks
            said["chunks"] = [chunks[chunks[:, 3] > 0].tolist()]
    else:
        said["chunks"] = [spec.chunks.tolist()]
    return {**said, **more, "stored": more.get("stored", stored(spec, num_tokens))}


def table(blocks, contexts, lengths=None) -> BlockTable:
    cu = None if lengths is None else np.cumsum([0, *lengths]).astype(np.int32)
    width = max(map(len, blocks), default=0)
    rows = [[*row, *[-1] * (width - len(row))] for row in blocks]
    rows = np.array(rows, np.int32).reshape(len(blocks), width)
    return BlockTable(rows, np.array(contexts, np.int32), cu)


def pairs(clause, name, blocks, offsets, *, promised=True, **more) -> dict:
    """One block and one offset a token, as `MojoStoreLowrank` has it."""
    inside = [
        [token, block, offset]
        for token, (block, offset) in enumerate(zip(blocks, offsets, strict=True))
        if 0 <= block < PAST and 0 <= offset < SIZES["block_size"]
    ]
    said = {"clause": clause, "name": name, "promised": promised, "num_tokens": len(blocks)}
    return {**said, **more, "pairs": [blocks, offsets], "stored": inside}


def chunks(*rows) -> ChunkPlan:
    return ChunkPlan(np.array(rows, np.int32).reshape(-1, 4))


MIXED = table([[4, 2], [5, 0], [7, 1]], [15, 3, 0], [3, 1, 20])
DECODE = table([[4, 2], [5, 0], [7, 1]], [15, 16, 3])


def cases() -> list[dict]:
    shared = table([[4], [4]], [3, 3])
    broken = {"promised": False}
    return [
        case("C5", "prefill over the ends of blocks", MIXED, 24),
        case("C5", "decode at the ends of blocks", DECODE, 3),
        pairs("C5", "a block and an offset a token", [7, 0, 3], [15, 0, 9]),
        case("C6", "padded row, decode", table([[4], [5], [7]], [3, -1, 4]), 3),
        case("C6", "padded row without tokens", table([[4], [5], [7]], [3, -1, 4], [2, 0, 3]), 5),
        case("C6", "padded row with tokens", table([[4], [5], [7]], [3, -1, 4], [2, 4, 3]), 9),
        case("C6", "every row padded", table([[4], [5]], [-1, -7]), 2),
        case("C7", "rows without tokens", table([[4], [5], [7]], [3, 9, 4], [0, 2, 0]), 2),
        case("C8", "hole between two blocks", table([[4, -1, 2]], [12], [30]), 30),
        case("C8", "hole in the first column", table([[-1, 6], [5, 3]], [10, 2], [12, 20]), 32),
        case("C8", "hole before the context", table([[-1, 6], [5, 3]], [20, 2], [4, 20]), 24),
        case("C8", "hole, decode", table([[-1, 6], [5, -1], [-1, 2]], [3, 16, 16]), 3),
        case("C9", "past the table, prefill", table([[4], [5]], [12, 0], [10, 3]), 13),
        case("C9", "past the table, decode", table([[4, 1], [5, 3]], [32, 2]), 2),
        pairs("C9", "past the block", [4, 2], [3, 16], **broken),
        case("C10", "more states than the rows name", table([[4], [5]], [3, 0], [2, 2]), 9),
        case("C11", "rows name more tokens than there are", table([[4]], [3], [6]), 4, **broken),
        case("C11", "rows name tokens where there is one", table([[4]], [3], [6]), 1, **broken),
        case("C12", "block past the cache, prefill", table([[4, PAST]], [12], [8]), 8, **broken),
        case("C12", "block past the cache, decode", table([[PAST], [5]], [2, 3]), 2, **broken),
        pairs("C12", "block past the cache", [4, PAST], [3, 2], **broken),
        case("C13", "chunks without tokens", chunks([0, 4, 3, 2], [0, 0, 0, 0], [2, 5, 9, 3]), 5),
        case("C13", "negative block", chunks([0, -1, 3, 2], [2, 5, 9, 3]), 5, **broken),
        case("C13", "past the end of its block", chunks([0, 4, 14, 4], [4, 5, 0, 1]), 5, **broken),
        case("C13", "negative offset", chunks([0, 4, -1, 3], [3, 5, 0, 1]), 4, **broken),
        case("C13", "negative source", chunks([-1, 4, 0, 3], [2, 5, 0, 1]), 4, **broken),
        case("C13", "token in two chunks", chunks([0, 4, 0, 2], [1, 5, 0, 2]), 3, **broken),
        pairs("C14", "negative block or offset", [-1, 4, 3], [3, -1, 9], **broken),
        case("C15", "two tokens in one slot", shared, 2, stored=[[0, 4, 3], [1, 4, 3]], **broken),
        case("C16", "any bits", MIXED, 24, dtypes=ALL),
        pairs("C16", "any bits", [7, 0, 3], [15, 0, 9], dtypes=ALL),
        case("C18", "no token", table([[4]], [3], [0]), 0),
        case("C18", "no row", table([], [], []), 0),
        case("C20", "caches and states packed with others", MIXED, 24, packed=True, **broken),
        case("C21", "running total that decreases", falling(), 4, **broken),
        case("C21", "running total that starts late", late(), 4, **broken),
    ]


def falling() -> BlockTable:
    return BlockTable(*map(np.int32, ([[4], [5]], [3, 0], [0, 3, 1])))


def late() -> BlockTable:
    return BlockTable(*map(np.int32, ([[4], [5]], [3, 0], [1, 2, 4])))


def text() -> str:
    """The data, one case a line."""
    lines = ",\n".join(json.dumps(one) for one in cases())
    return f'{{"sizes": {json.dumps(SIZES)},\n"cases": [\n{lines}\n]}}\n'


if __name__ == "__main__":
    PATH.write_text(text())
