"""Exported programs whose sizes are left open, called with several of each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp
from jax import export

import functional_paged
from functional_paged import (
    BlockTable,
    ChunkPlan,
    IndexSpec,
    SlotMapping,
    SpecError,
    load_single,
    plan_chunks,
    reference,
    store_single,
    to_slots,
)
from functional_paged.conformance.run.compare import compare
from tests.helpers import difference, filled, i32

# Without a bound, num_blocks * block_size may need 64 bits.
SCOPE = export.SymbolicScope(["num_blocks <= 1000000"])
CACHE_AXES, STATES_AXES = "(num_blocks, kv_heads, 3, head_dim)", "(num_tokens, kv_heads, head_dim)"
OPEN = {
    "decode": ["(batch, width)", "(batch,)"],
    "prefill": ["(batch, width)", "(batch,)", "(batch + 1,)"],
    "chunks": ["(num_chunks, 4)"],
    "slots": ["(num_slots,)"],
}


def outline(array: np.ndarray, axes: str) -> Any:
    """The array without its memory and with some sizes left open: `(num_blocks, _, 3, 7)`."""
    shape = export.symbolic_shape(axes, like=array.shape, scope=SCOPE)
    return jax.ShapeDtypeStruct(shape, array.dtype)


def table(batch: int, width: int, *, decode: bool) -> IndexSpec:
    rows = np.arange(batch * width).reshape(batch, width)[:, ::-1] - 1
    cu = None if decode else np.cumsum([0, *(1 + np.arange(batch) % 3)])
    context = np.arange(batch) % 4 - 1
    return BlockTable(i32(*rows), i32(*context), None if cu is None else i32(*cu))


def problems(form: str) -> list[tuple[np.ndarray, np.ndarray, IndexSpec]]:
    """Problems of one form that differ in every size."""
    found = []
    for scale in (1, 2, 5):
        spec = {
            "decode": table(scale, 2 * scale, decode=True),
            "prefill": table(scale, 2 * scale, decode=False),
            "chunks": ChunkPlan(i32(*([2 * c, c, c % 2, 2] for c in reversed(range(scale))))),
            "slots": SlotMapping(i32(*range(-1, 3 * scale))),
        }[form]
        heads, dim, num_blocks, num_tokens = scale, scale + 1, 2 * scale**2, 3 * scale
        cache = filled((num_blocks, heads, 3, dim), "bf16", scale)
        found.append((cache, filled((num_tokens, heads, dim), "bf16", scale + 7), spec))
    return found


def open_spec(form: str, spec: IndexSpec) -> IndexSpec:
    arrays = spec.arrays().items()
    return type(spec)(
        **{name: outline(x, axes) for (name, x), axes in zip(arrays, OPEN[form], strict=True)}
    )


@pytest.mark.parametrize("jit", [jax.jit, functional_paged.jit], ids=["jax", "functional_paged"])
@pytest.mark.parametrize("form", OPEN)
def test_c16_a_store_with_every_size_open(form, jit):
    cache, states, spec = problems(form)[0]
    exported = export.export(jit(store_single))(
        outline(cache, CACHE_AXES), outline(states, STATES_AXES), open_spec(form, spec)
    )
    for cache, states, spec in problems(form):
        assert difference(exported.call(cache, states, spec), cache, states, spec) is None


@pytest.mark.parametrize("form", OPEN)
def test_c16_a_load_with_every_size_open(form):
    cache, states, spec = problems(form)[0]
    load = jax.jit(lambda cache, like, spec: load_single(cache, spec, like.shape[0]))
    exported = export.export(load)(
        outline(cache, CACHE_AXES), outline(states, STATES_AXES), open_spec(form, spec)
    )
    for cache, states, spec in problems(form):
        want = reference.load_single(cache, spec, len(states))
        got = exported.call(cache, states, spec)
        assert compare("states", np.asarray(got), want, want) is None


@pytest.mark.parametrize("lower", [to_slots, plan_chunks])
@pytest.mark.parametrize("form", OPEN)
def test_a_lowering_with_every_size_open(form, lower):
    cache, states, spec = problems(form)[0]
    lowered = jax.jit(
        lambda cache, like, spec: (
            lower(spec, cache_shape=cache.shape, num_tokens=like.shape[0]).arrays().popitem()[1]
        )
    )
    exported = export.export(lowered)(
        outline(cache, CACHE_AXES), outline(states, STATES_AXES), open_spec(form, spec)
    )
    for cache, states, spec in problems(form):
        got = exported.call(cache, states, spec)
        form_of = ChunkPlan if lower is plan_chunks else SlotMapping
        assert difference(store_single(cache, states, form_of(got)), cache, states, spec) is None


def test_c5_an_open_number_of_blocks_needs_a_bound():
    (num_blocks,) = export.symbolic_shape("num_blocks")
    cache = jax.ShapeDtypeStruct((num_blocks, 1, 2, 3), jnp.float32)
    states, slots = np.zeros((1, 1, 3), np.float32), SlotMapping(i32(0))
    with pytest.raises(SpecError) as error:
        export.export(jax.jit(store_single))(cache, states, slots)
    assert str(error.value) == (
        "C5: num_blocks * block_size must be < 2**31 where 64-bit integers are off "
        "(JAX: enable jax_enable_x64), got 2*num_blocks, "
        "which has no such bound"
    )
