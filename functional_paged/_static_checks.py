"""Clauses C1-C4: what shapes, dtypes and devices alone decide. Every implementation calls these."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, SupportsIndex

from ._array_kinds import LOWERING, Taker, check_arrays, type_name
from ._arrays import dtype_name, placement
from ._errors import SpecError
from ._sizes import CacheShape, as_cache_shape, as_size
from ._spec import BlockTable, ChunkPlan, IndexSpec, SlotMapping
from ._types import Array, Size


def check_call(taken_by: Taker, cache: Array, states: Array, index_spec: IndexSpec) -> None:
    """Check one store of `states` into `cache` for C1-C4.

    Raises:
      SpecError: C1 (ranks and shapes), C2 (the store would cast), C3 (devices), C4 (index dtypes);
        C1-C4 and C20 for arrays of a kind that `taken_by` does not take.
    """
    check_index_spec(taken_by, index_spec)
    check_tensors(taken_by, cache, states)
    check_devices({"cache": cache, "states": states, **index_spec.arrays()})


def check_load(taken_by: Taker, cache: Array, index_spec: IndexSpec) -> None:
    """Check one load from `cache`, as `check_call` does a store."""
    check_index_spec(taken_by, index_spec)
    check_arrays(taken_by, cache=cache)
    as_cache_shape(cache.shape)
    check_devices({"cache": cache, **index_spec.arrays()})


def check_tensors(taken_by: Taker, cache: Array, states: Array) -> None:
    """Check what a store of one tensor needs beyond its index spec: C1, C2, the arrays' kinds."""
    check_arrays(taken_by, cache=cache, states=states)
    as_cache_shape(cache.shape)
    if states.ndim != 3:
        raise SpecError(
            "C1",
            f"states must have 3 axes (num_tokens, kv_heads, head_dim), got {_shape(states)}",
        )
    _, kv_heads, _, head_dim = cache.shape
    if states.shape[1] != kv_heads:
        raise SpecError(
            "C1", f"states.shape[1] = {states.shape[1]} must equal kv_heads = {kv_heads} of cache"
        )
    if states.shape[2] != head_dim:
        raise SpecError(
            "C1", f"states.shape[2] = {states.shape[2]} must equal head_dim = {head_dim} of cache"
        )
    if states.dtype != cache.dtype:
        raise SpecError(
            "C2",
            f"states.dtype must equal cache.dtype = {dtype_name(cache)}, got {dtype_name(states)}; "
            "a store never casts",
        )


def check_index_spec(taken_by: Taker, index_spec: IndexSpec) -> None:
    """Check the form of an index spec, and the kinds, ranks, shapes and dtypes of its arrays."""
    check = _CHECKS.get(type(index_spec))
    if check is None:
        raise SpecError(
            "C1",
            "index_spec must be a BlockTable, ChunkPlan or SlotMapping, "
            f"got {type_name(index_spec)}",
        )
    check(taken_by, index_spec)


def check_lowering(
    index_spec: IndexSpec, cache_shape: CacheShape, num_tokens: SupportsIndex
) -> tuple[CacheShape, Size]:
    """Check an index spec and the sizes that it is lowered for; return the sizes as integers."""
    check_index_spec(LOWERING, index_spec)
    return as_cache_shape(cache_shape), as_size("num_tokens", num_tokens)


def check_devices(arrays: dict[str, Array]) -> None:
    """Check that the named arrays live on one device: C3."""
    first_name, first_place = "", None
    for name, array in arrays.items():
        place = placement(array)
        if place is None:
            continue
        if first_place is None:
            first_name, first_place = name, place
        elif place != first_place:
            raise SpecError(
                "C3",
                f"{name} must be on the device of {first_name} = {_place_name(first_place)}, "
                f"got {_place_name(place)}",
            )


def _check_block_table(taken_by: Taker, spec: BlockTable) -> None:
    _check_index_array(taken_by, "block_table", spec.block_table, 2)
    _check_index_array(taken_by, "context_kv_lens", spec.context_kv_lens, 1)
    batch = spec.block_table.shape[0]
    _check_length("context_kv_lens", spec.context_kv_lens, batch, "batch")
    if spec.cu_q_lens is not None:
        _check_index_array(taken_by, "cu_q_lens", spec.cu_q_lens, 1)
        _check_length("cu_q_lens", spec.cu_q_lens, batch + 1, "batch + 1")


def _check_chunk_plan(taken_by: Taker, spec: ChunkPlan) -> None:
    _check_index_array(taken_by, "chunks", spec.chunks, 2)
    if spec.chunks.shape[1] != 4:
        raise SpecError(
            "C1",
            "chunks must have 4 columns (src_token_start, dst_block_id, dst_block_offset, "
            f"chunk_len), got {spec.chunks.shape[1]}",
        )


def _check_slot_mapping(taken_by: Taker, spec: SlotMapping) -> None:
    _check_index_array(taken_by, "slots", spec.slots, 1, ("int32", "int64"))


_CHECKS: dict[type, Callable[[Taker, Any], None]] = {
    BlockTable: _check_block_table,
    ChunkPlan: _check_chunk_plan,
    SlotMapping: _check_slot_mapping,
}


def _check_index_array(
    taken_by: Taker, name: str, array: Array, ndim: int, dtypes: tuple[str, ...] = ("int32",)
) -> None:
    check_arrays(taken_by, **{name: array})
    if dtype_name(array) not in dtypes:
        raise SpecError("C4", f"{name} must be {' or '.join(dtypes)}, got {dtype_name(array)}")
    if array.ndim != ndim:
        raise SpecError("C1", f"{name} must have {ndim} axes, got {array.ndim}: {_shape(array)}")


def _check_length(name: str, array: Array, expected: int, meaning: str) -> None:
    if array.shape[0] != expected:
        raise SpecError(
            "C1", f"{name}.shape[0] = {array.shape[0]} must equal {meaning} = {expected}"
        )


def _place_name(place: object) -> str:
    return " and ".join(sorted(map(str, place))) if isinstance(place, frozenset) else str(place)


def _shape(array: Array) -> str:
    return str(tuple(array.shape))
