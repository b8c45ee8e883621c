"""What is not known of ixformer's store kernels, as one dataclass, and what is plausible of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class KernelSemantics:
    """One plausible ixformer. The defaults are one whose every edge is as `docs/spec.md` has it.

    Attributes:
      block_table_kernel: whether `paged_store_kv_cache_with_block_table` exists.
      chunk_kernel: whether `paged_store_kv_cache_with_chunk_metadata` exists.
      store_mode: what `store_mode=1` writes: "key", "value", "both" or "neither" side; "missing"
        where the keyword does not exist.
      aliased: when both sides are written and are one tensor: "safe"; "stale", the second write
        brings back what was there before; "torn", in half of each row; "raises".
      hole: a negative block id: "skip"; "stop" the row; "before", the memory ahead of block 0;
        "last", the last block.
      short_table: a column past the table: "skip", or "next", the entry that follows in memory.
      negative_decode: a negative context in decode: "skip"; "zero", as if it were 0; "before",
        the slot ahead of the row's first block.
      negative_prefill: the same, with `cu_q_lens`.
      empty_row: a row without a token: "skip", or "one", it stores one all the same.
      spare_states: rows of states that no row names: "skip"; "append" to the last row; "raises".
      strided_states: "honoured", "ignored" (read as contiguous) or "raises".
      strided_cache: the same for the caches.
      unaligned: addresses that are no multiple of 16: "accepted", "rounded" down, or "raises".
      dtypes: those that the kernels are built for; `None` for all.
      other_dtypes: what the rest gives: "raises" or "rounded" (the lowest bit is lost).
      head_dims: sizes that the kernels are built for; `None` for all.
      other_head_dims: "raises" or "cut" to a multiple of 8.
      block_sizes: sizes that the kernels are built for; `None` for all.
      other_block_sizes: "raises", or "shifted": taken for the next lower power of two.
      max_rows: the most rows, or tokens of a row, that one call handles; `None` for any number.
      more_rows: "raises" or "dropped".
      nan: "kept" bit for bit, or "quieted" as by a trip through a float register.
      write_order: "forward", or "backward": the last token first.
      int64_indices: "accepted", "misread" as int32, or "raises".
      returns: "none" or "caches".
    """

    block_table_kernel: bool = True
    chunk_kernel: bool = True
    store_mode: str = "key"
    aliased: str = "safe"
    hole: str = "skip"
    short_table: str = "skip"
    negative_decode: str = "skip"
    negative_prefill: str = "skip"
    empty_row: str = "skip"
    spare_states: str = "skip"
    strided_states: str = "honoured"
    strided_cache: str = "honoured"
    unaligned: str = "accepted"
    dtypes: frozenset[torch.dtype] | None = None
    other_dtypes: str = "raises"
    head_dims: frozenset[int] | None = None
    other_head_dims: str = "raises"
    block_sizes: frozenset[int] | None = None
    other_block_sizes: str = "raises"
    max_rows: int | None = None
    more_rows: str = "raises"
    nan: str = "kept"
    write_order: str = "forward"
    int64_indices: str = "raises"
    returns: str = "none"


_HALVES = frozenset({torch.bfloat16, torch.float16})
_POWERS = frozenset({16, 32, 64, 128})

PLAUSIBLE: dict[str, tuple[dict[str, Any], ...]] = {
    "block_table_kernel": ({"block_table_kernel": False},),
    "chunk_kernel": ({"chunk_kernel": False},),
    "store_mode": tuple({"store_mode": v} for v in ("missing", "value", "both", "neither")),
    "aliased": tuple({"aliased": v} for v in ("stale", "torn", "raises")),
    "hole": tuple({"hole": v} for v in ("stop", "before", "last")),
    "short_table": ({"short_table": "next"},),
    "negative_decode": tuple({"negative_decode": v} for v in ("zero", "before")),
    "negative_prefill": tuple({"negative_prefill": v} for v in ("zero", "before")),
    "empty_row": ({"empty_row": "one"},),
    "spare_states": tuple({"spare_states": v} for v in ("append", "raises")),
    "strided_states": tuple({"strided_states": v} for v in ("ignored", "raises")),
    "strided_cache": tuple({"strided_cache": v} for v in ("ignored", "raises")),
    "unaligned": tuple({"unaligned": v} for v in ("rounded", "raises")),
    "dtypes": tuple({"dtypes": _HALVES, "other_dtypes": v} for v in ("raises", "rounded")),
    "head_dims": tuple({"head_dims": _POWERS, "other_head_dims": v} for v in ("raises", "cut")),
    "block_sizes": tuple(
        {"block_sizes": _POWERS, "other_block_sizes": v} for v in ("raises", "shifted")
    ),
    "max_rows": tuple({"max_rows": 4, "more_rows": v} for v in ("raises", "dropped")),
    "nan": ({"nan": "quieted"},),
    "write_order": ({"write_order": "backward"},),
    "int64_indices": tuple({"int64_indices": v} for v in ("accepted", "misread")),
    "returns": ({"returns": "caches"},),
}
"""Each unknown's plausible values other than the default, as arguments of `KernelSemantics`."""
