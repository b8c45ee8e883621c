"""mojo_opset's index arguments as index specs."""

from __future__ import annotations

from typing import Any

import torch

from functional_paged import PAD, BlockTable, ChunkPlan, IndexSpec, SlotMapping, SpecError, internal

from .._fit import check_axes

_NAMES = ("block_table", "cu_q_lens", "context_kv_lens", "chunk_metadata", "slot_mapping")


def index_spec(*arguments: torch.Tensor | None) -> IndexSpec:
    """The one form that index arguments, in the order of `_NAMES`, say; C1 unless it is one."""
    given = {name: x for name, x in zip(_NAMES, arguments, strict=False) if x is not None}
    for name, form in (("chunk_metadata", ChunkPlan), ("slot_mapping", SlotMapping)):
        if name in given:
            array = given.pop(name)
            if given:
                raise SpecError("C1", f"{name} must come without {' and '.join(given)}, got both")
            return form(array)
    if not {"block_table", "context_kv_lens"} <= given.keys():
        rule = "either chunk_metadata or both block_table and context_kv_lens must be given"
        raise SpecError("C1", f"{rule}, got {' and '.join(given) or 'none of them'}")
    return BlockTable(**given)


def rows_of_contexts(block_tables: torch.Tensor, lengths: Any, offsets: Any) -> BlockTable:
    """Whole contexts as rows of a packed tensor, with padded rows (C6) for what lies between."""
    given = {"context_lengths": lengths}
    if offsets is not None:
        given["context_seq_offset"] = offsets
    check_axes(("batch", "max_blocks_per_seq"), True, block_tables=block_tables)
    check_axes(block_tables.shape[:1], True, **given)
    internal.check_devices({"block_tables": block_tables, **given})
    offsets = lengths.cumsum(0) - lengths if offsets is None else offsets
    ends = offsets + lengths
    order = torch.argsort(offsets + ends)  # the sum, so that a row without tokens is in its place
    bounds = torch.stack([offsets, ends], dim=1)[order].flatten()
    return BlockTable(
        block_table=block_tables[order].repeat_interleave(2, dim=0),
        context_kv_lens=torch.stack([torch.full_like(lengths, PAD), lengths * 0], dim=1).flatten(),
        cu_q_lens=torch.cat([bounds.new_zeros(1), bounds]).int(),
    )
