"""What is not known of ixformer's store kernels, as one dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch


@dataclass(frozen=True)
class KernelSemantics:
    """One plausible ixformer. The defaults are one whose every edge is as `docs/spec.md` has it.

    Attributes:
      block_table_kernel: whether `paged_store_kv_cache_with_block_table` exists.
      store_mode: the sides that `store_mode=1` writes; "missing" if the keyword does not exist.
      aliased: when both sides are written and are one tensor: "stale", the second write brings
        back what was there before; "torn", in half of each row.
      hole: a negative block id: "stop" the row; "before", the memory ahead of block 0; "last", the
        last block.
      short_table: a column past the table: "next", the entry that follows in memory.
      negative_decode, negative_prefill: a negative context without or with `cu_q_lens`: "zero", as
        if it were 0; "before", the slot ahead of the row's first block.
      empty_row: a row without a token: "one", it stores one all the same.
      spare_states: rows of states that no row names: "append" to the last row.
      strided_states, strided_cache: "ignored", read as contiguous.
      unaligned: addresses that are no multiple of 16: "rounded" down.
      dtypes, head_dims, block_sizes: what the kernels are built for; `None` for all.
      other_dtypes: "rounded", the lowest bit is lost.
      other_head_dims: "cut" to a multiple of 8.
      other_block_sizes: "shifted", taken for the next lower power of two.
      max_rows: the most rows, or tokens of a row, that one call handles; `None` for any number.
      more_rows: "raises" or "dropped".
      nan: "quieted" as by a trip through a float register.
      write_order: "backward", the last token first.
      int64_indices: "misread" as int32.
      returns: what a call returns.
    """

    block_table_kernel: Literal[True, False] = True
    store_mode: Literal["key", "value", "both", "neither", "missing"] = "key"
    aliased: Literal["safe", "stale", "torn", "raises"] = "safe"
    hole: Literal["skip", "stop", "before", "last"] = "skip"
    short_table: Literal["skip", "next"] = "skip"
    negative_decode: Literal["skip", "zero", "before"] = "skip"
    negative_prefill: Literal["skip", "zero", "before"] = "skip"
    empty_row: Literal["skip", "one"] = "skip"
    spare_states: Literal["skip", "append", "raises"] = "skip"
    strided_states: Literal["honoured", "ignored", "raises"] = "honoured"
    strided_cache: Literal["honoured", "ignored", "raises"] = "honoured"
    unaligned: Literal["accepted", "rounded", "raises"] = "accepted"
    dtypes: frozenset[torch.dtype] | None = None
    other_dtypes: Literal["raises", "rounded"] = "raises"
    head_dims: frozenset[int] | None = None
    other_head_dims: Literal["raises", "cut"] = "raises"
    block_sizes: frozenset[int] | None = None
    other_block_sizes: Literal["raises", "shifted"] = "raises"
    max_rows: int | None = None
    more_rows: Literal["raises", "dropped"] = "raises"
    nan: Literal["kept", "quieted"] = "kept"
    write_order: Literal["forward", "backward"] = "forward"
    int64_indices: Literal["raises", "accepted", "misread"] = "raises"
    returns: Literal["none", "caches"] = "none"

    def served(self, name: str, value: Any) -> bool:
        """Whether the kernels are built for a value of `dtypes`, `head_dims` or `block_sizes`."""
        built_for = getattr(self, name)
        if built_for is None or value in built_for:
            return True
        if getattr(self, f"other_{name}") == "raises":
            raise RuntimeError(f"{value} is not supported")
        return False

    def rows_done(self, rows: int) -> int:
        """How many of so many rows, or tokens of a row, a call handles."""
        if self.max_rows is None or rows <= self.max_rows:
            return rows
        if self.more_rows == "raises":
            raise RuntimeError("invalid launch configuration")
        return self.max_rows
