"""Clauses C1-C4: what shapes, dtypes and devices alone decide. Every implementation calls these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import SupportsIndex

from ._arrays import Framework, dtype_name, framework, is_moved, placement, type_name
from ._errors import SpecError
from ._layout import HND, Layout
from ._sizes import CacheShape, as_cache_shape, as_size
from ._spec import FORMS, BlockTable, ChunkPlan, IndexSpec
from ._types import Array, Size


@dataclass(frozen=True)
class Taker:
    """An implementation by the name that error texts have, and the frameworks that it takes."""

    name: str
    frameworks: tuple[Framework, ...]


REFERENCE = Taker("functional_paged.reference", ("NumPy",))
JAX_STORE = Taker("the JAX store of functional_paged", ("JAX", "NumPy"))
TORCH_STORE = Taker("bridges.store_single_", ("torch",))
LOWERING = Taker("functional_paged.to_slots", ("JAX", "NumPy", "torch"))
"""What reads or lowers an index spec without storing: `to_slots`, `check_spec` and their like."""

INDEX_ARRAYS: dict[str, tuple[int, tuple[str, ...]]] = {
    "block_table": (2, ("int32",)),
    "context_kv_lens": (1, ("int32",)),
    "cu_q_lens": (1, ("int32",)),
    "chunks": (2, ("int32",)),
    "slots": (1, ("int32", "int64")),
}
"""The number of axes and the dtypes (C4) of each index array."""


def check_call(taken_by: Taker, cache: Array, states: Array, index_spec: IndexSpec) -> None:
    """Check one store for C1-C4, and C20 for tensors that are not strided."""
    check_index_spec(taken_by, index_spec)
    check_tensors(taken_by, cache, states)
    check_devices({"cache": cache, "states": states, **index_spec.arrays()})


def check_load(taken_by: Taker, cache: Array, index_spec: IndexSpec) -> None:
    """Check one load from `cache`, as `check_call` does a store."""
    check_index_spec(taken_by, index_spec)
    check_cache(taken_by, cache)
    check_devices({"cache": cache, **index_spec.arrays()})


def check_cache(taken_by: Taker, cache: Array, layout: Layout = HND) -> CacheShape:
    """Check the kind and the shape of a cache: C1, C2, C3, C20; return its sizes."""
    check_kind(taken_by, "cache", cache)
    return as_cache_shape(cache.shape, layout)


def check_tensors(
    taken_by: Taker, cache: Array, states: Array, layout: Layout = HND, *, name: str = "states"
) -> None:
    """Check what a store of one tensor needs beyond its index spec: C1, C2, the arrays' kinds.

    A load has the rows that it writes in place of states, by their name.
    """
    _, kv_heads, _, head_dim = check_cache(taken_by, cache, layout)
    check_kind(taken_by, name, states)
    shape = states.shape
    if len(shape) != 3:
        raise SpecError(
            "C1",
            f"{name} must have 3 axes (num_tokens, kv_heads, head_dim), got {tuple(shape)}",
        )
    _check_axis(name, states, 1, "kv_heads", kv_heads, " of cache")
    _check_axis(name, states, 2, "head_dim", head_dim, " of cache")
    if states.dtype != cache.dtype:
        raise SpecError(
            "C2",
            f"{name}.dtype must equal cache.dtype = {dtype_name(cache)}, got {dtype_name(states)}; "
            "a store never casts",
        )


def check_index_spec(taken_by: Taker, index_spec: IndexSpec) -> None:
    """Check the form of an index spec, and the kinds, ranks, shapes and dtypes of its arrays."""
    if type(index_spec) not in FORMS:
        raise SpecError(
            "C1",
            "index_spec must be a BlockTable, ChunkPlan or SlotMapping, "
            f"got {type_name(index_spec)}",
        )
    for name, array in vars(index_spec).items():
        if name == "cu_q_lens" and array is None:
            continue
        ndim, dtypes = INDEX_ARRAYS[name]
        check_kind(taken_by, name, array)
        if dtype_name(array) not in dtypes:
            raise SpecError("C4", f"{name} must be {' or '.join(dtypes)}, got {dtype_name(array)}")
        shape = array.shape
        if len(shape) != ndim:
            raise SpecError("C1", f"{name} must have {ndim} axes, got {len(shape)}: {tuple(shape)}")
    if isinstance(index_spec, BlockTable):
        batch = index_spec.block_table.shape[0]
        _check_axis("context_kv_lens", index_spec.context_kv_lens, 0, "batch", batch)
        if index_spec.cu_q_lens is not None:
            _check_axis("cu_q_lens", index_spec.cu_q_lens, 0, "batch + 1", batch + 1)
    elif isinstance(index_spec, ChunkPlan) and index_spec.chunks.shape[1] != 4:
        raise SpecError(
            "C1",
            "chunks must have 4 columns (src_token_start, dst_block_id, dst_block_offset, "
            f"chunk_len), got {index_spec.chunks.shape[1]}",
        )


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
        if first_place is None:
            first_name, first_place = name, place
        elif place is not None and place != first_place:
            raise SpecError(
                "C3",
                f"{name} must be on the device of {first_name} = {_place_name(first_place)}, "
                f"got {_place_name(place)}",
            )


def check_kind(taken_by: Taker, name: str, array: Array) -> None:
    """Check that an implementation takes arrays of this kind, in constant time.

    Neither shapes nor values are read. Views that torch conjugates or negates as they are read are
    taken. What is C1, C2 or C20 of a tensor is C4 of an index array.
    """
    is_index = name in INDEX_ARRAYS
    found = framework(array)
    if found is None:
        clause = "C1"
        text = f"must be an {'int32 ' if is_index else ''}array, got {type_name(array)}"
    elif found not in taken_by.frameworks:
        noun = "tensor" if taken_by.frameworks == ("torch",) else "array"
        taken = f"{' or '.join(taken_by.frameworks)} {noun}"
        text = f"{name} must be a {taken} for {taken_by.name}, got {type_name(array)}"
        raise SpecError("C3", text)
    elif found != "torch":
        if is_index or is_moved(array.dtype):  # C4 names the dtypes of index arrays
            return
        clause, text = "C2", f"must hold numbers in native byte order, got dtype {array.dtype}"
    elif array.is_quantized:
        clause, text = "C2", "must not be quantised, since a store would lose its scale"
    elif array.is_nested:
        clause, text = "C20", "must be strided, got a nested tensor"
    elif str(array.layout) != "torch.strided":
        clause, text = "C20", f"must be strided, got layout {array.layout}"
    else:
        return
    raise SpecError("C4" if is_index else clause, f"{name} {text}")


def _check_axis(
    name: str, array: Array, axis: int, meaning: str, expected: Size, of: str = ""
) -> None:
    if array.shape[axis] != expected:
        raise SpecError(
            "C1",
            f"{name}.shape[{axis}] = {array.shape[axis]} must equal {meaning} = {expected}{of}",
        )


def _place_name(place: object) -> str:
    return " and ".join(sorted(map(str, place))) if isinstance(place, set) else str(place)
