"""Caches whose tokens lie outside of their heads (NHD): the same stores, with no copy."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp
from jax import export
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import functional_paged
from functional_paged import (
    SlotMapping,
    SpecError,
    load_single,
    reference,
    store_single,
    store_single_donated,
)
from functional_paged.conformance import all_cases, run_case
from functional_paged.conformance.adapters import jax as adapters
from functional_paged.conformance.bits import DTYPES
from functional_paged.conformance.run.compare import compare
from tests.helpers import FORMS, SHAPE, SPEC, STEP, collectives, difference, filled, i32, on_device

MIB = 2**20
NUM_TOKENS = STEP.num_tokens
store_nhd = partial(store_single, layout="NHD")
load_nhd = partial(load_single, layout="NHD")
STORES = {
    "eager": store_nhd,
    "jax.jit": jax.jit(store_single, static_argnames="layout"),
    "functional_paged.jit": functional_paged.jit(store_single, static_argnames="layout"),
    "donated": store_single_donated,
}
writes_in_place = pytest.mark.skipif(
    not hasattr(jax, "make_user_context"), reason="this JAX copies what it scatters to, on CPU"
)
needs_8_devices = pytest.mark.skipif(len(jax.devices()) < 8, reason="needs 8 devices")


def nhd(tree: Any) -> Any:
    """Caches in the other layout, back and forth, with memory of their own."""
    return jax.tree.map(lambda cache: np.ascontiguousarray(np.swapaxes(cache, 1, 2)), tree)


def inputs(dtype: str = "bf16") -> tuple[np.ndarray, np.ndarray]:
    """A cache in the definition's layout, and states for it."""
    return filled(SHAPE, dtype, 1), filled((NUM_TOKENS, SHAPE[1], SHAPE[3]), dtype, 2)


@pytest.mark.parametrize("way", STORES)
@pytest.mark.parametrize(
    ("dtype", "form"),
    [("f32", "block_table"), *(("bf16", form) for form in FORMS), ("f8e5m2", "slots")],
)
def test_c16_a_store_and_a_load_keep_every_bit(dtype, form, way):
    cache, states = inputs(dtype)
    given = on_device((nhd(cache), states, FORMS[form]))
    got = STORES[way](*given, layout="NHD")
    assert difference(nhd(np.asarray(got)), cache, states, FORMS[form]) is None
    want = reference.load_single(cache, FORMS[form], NUM_TOKENS)
    read = load_single(nhd(cache), FORMS[form], NUM_TOKENS, layout="NHD")
    assert compare("states", np.asarray(read), want, want) is None


def outline(dtype: str, sharding: Any = None) -> tuple[Any, Any]:
    """An NHD cache of 64 MiB and states, without memory."""
    shape = (64 * MIB // (16 * 8 * 64 * DTYPES[dtype].itemsize), 16, 8, 64)
    states = jax.ShapeDtypeStruct((NUM_TOKENS, 8, 64), DTYPES[dtype])
    return jax.ShapeDtypeStruct(shape, DTYPES[dtype], sharding=sharding), states


@writes_in_place
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("spread", ["whole", pytest.param("heads", marks=needs_8_devices)])
def test_a_store_takes_the_memory_of_its_cache_and_no_more(spread, dtype):
    mesh = jax.make_mesh((8,), ("heads",))
    sharding = NamedSharding(mesh, P(None, None, "heads")) if spread == "heads" else None
    cache, states = outline(dtype, sharding)
    in_place = functional_paged.jit(store_nhd, donate_argnums=0)
    for lowered in (
        store_single_donated.lower(cache, states, SPEC, layout="NHD"),
        in_place.lower(cache, states, SPEC),
    ):
        program = lowered.compile()
        used = program.memory_analysis()  # of one device
        assert used.alias_size_in_bytes == 64 * MIB // (8 if sharding else 1)
        assert used.temp_size_in_bytes < MIB
        assert collectives(program) == set()


@pytest.mark.parametrize("jit", [jax.jit, functional_paged.jit], ids=["jax", "functional_paged"])
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_a_load_costs_by_its_tokens(dtype, jit):
    load = jit(load_nhd, static_argnums=2)
    program = load.lower(outline(dtype)[0], SPEC, NUM_TOKENS).compile()
    assert program.memory_analysis().temp_size_in_bytes < MIB


@writes_in_place
def test_a_store_through_a_transposed_view_would_copy():
    # That the bounds above can be missed.
    def store(cache, states, spec):
        return store_single(cache.swapaxes(1, 2), states, spec).swapaxes(1, 2)

    lowered = functional_paged.jit(store, donate_argnums=0).lower(*outline("f32"), SPEC)
    assert lowered.compile().memory_analysis().temp_size_in_bytes >= 64 * MIB


def test_c16_a_donated_store_lies_in_the_buffer_of_its_cache():
    cache, states = inputs()
    given, rows = on_device((nhd(cache), states))
    pointer = given.unsafe_buffer_pointer()
    got = store_single_donated(given, rows, SPEC, layout="NHD")
    assert given.is_deleted()
    assert got.unsafe_buffer_pointer() == pointer


@needs_8_devices
@pytest.mark.parametrize("axes", ["Explicit", "Auto"])
def test_c16_a_cache_spread_over_heads_keeps_every_bit_and_its_sharding(axes):
    mesh = jax.make_mesh((8,), ("heads",), axis_types=(getattr(jax.sharding.AxisType, axes),))
    cache, states = filled((5, 8, 3, 7), "f32", 1), filled((NUM_TOKENS, 8, 7), "f32", 2)
    given = jax.device_put(nhd(cache), NamedSharding(mesh, P(None, None, "heads")))
    got = store_nhd(given, states, SPEC)
    assert difference(nhd(np.asarray(got)), cache, states, SPEC) is None
    assert jax.typeof(got) == jax.typeof(given)
    assert got.sharding.is_equivalent_to(given.sharding, 4)
    read = load_nhd(got, SPEC, NUM_TOKENS)
    want = reference.load_single(nhd(np.asarray(got)), SPEC, NUM_TOKENS)
    assert compare("states", np.asarray(read), want, want) is None
    if axes == "Explicit":
        assert jax.typeof(read).sharding.spec == P(None, "heads", None)


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_c22_derivatives_are_those_of_the_other_layout(dtype):
    numbers = np.random.default_rng(0).integers(1, 100, (2, *SHAPE)).astype(DTYPES[dtype])
    states = numbers.reshape(2, -1)[:, : NUM_TOKENS * 14].reshape(2, NUM_TOKENS, 2, 7)
    (cache, d_cache), (rows, d_rows) = numbers, states

    def derivatives(layout: str, swap: Any) -> Any:
        store = partial(store_single, index_spec=SPEC, layout=layout)
        load = partial(load_single, index_spec=SPEC, num_tokens=NUM_TOKENS, layout=layout)
        primals, tangents = (swap(cache), rows), (swap(d_cache), d_rows)
        _, forward = jax.jvp(store, primals, tangents)
        back = [
            jax.vjp(store, *primals)[1](swap(d_cache)),
            jax.linear_transpose(store, *primals)(swap(d_cache)),
        ]
        read = jax.vjp(load, swap(cache))[1](d_rows)
        return swap(forward), *((swap(c), r) for c, r in back), swap(read[0])

    got, want = derivatives("NHD", nhd), derivatives("HND", np.asarray)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert compare("derivative", np.asarray(one), np.asarray(other), np.asarray(other)) is None


def test_c16_vmap_over_caches_and_states():
    pairs = [(filled(SHAPE, "bf16", n), filled((NUM_TOKENS, 2, 7), "bf16", n + 5)) for n in (1, 2)]
    caches, states = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
    got = jax.vmap(store_nhd, (0, 0, None))(caches.swapaxes(2, 3), states, SPEC)
    for one, (cache, rows) in zip(np.asarray(got), pairs, strict=True):
        assert difference(nhd(one), cache, rows, SPEC) is None


def test_c16_an_exported_store_with_sizes_left_open():
    scope = export.SymbolicScope(["n <= 1000000"])
    cache, states = inputs()
    outlines = [
        jax.ShapeDtypeStruct(export.symbolic_shape(axes, like=like, scope=scope), DTYPES["bf16"])
        for axes, like in (("(n, _, h, d)", nhd(cache).shape), ("(t, h, d)", states.shape))
    ]
    exported = export.export(jax.jit(store_nhd))(*outlines, SPEC)
    got = np.asarray(exported.call(nhd(cache), states, SPEC))
    assert difference(nhd(got), cache, states, SPEC) is None


def test_c1_a_layout_that_does_not_exist():
    cache, states = on_device(inputs())
    text = (
        "C1: layout must be 'HND' (num_blocks, kv_heads, block_size, head_dim) or "
        "'NHD' (num_blocks, block_size, kv_heads, head_dim), got "
    )
    for layout in ("nhd", "", None, ["NHD"], 1):
        for call in (
            partial(store_single, cache, states, SPEC),
            partial(store_single_donated, cache, states, SPEC),
            partial(load_single, cache, SPEC, 2),
        ):
            with pytest.raises(SpecError) as error:
                call(layout=layout)
            assert str(error.value) == f"{text}{layout!r}"
    assert not cache.is_deleted()


@pytest.mark.parametrize(
    ("cache", "text"),
    [
        ((5, 3, 2), "cache must have 4 axes (num_blocks, block_size, kv_heads, head_dim), got 3"),
        ((5, 0, 2, 7), "block_size = cache.shape[1] must be in 1..2**30, got 0"),
        ((5, 2, 3, 7), "states.shape[1] = 2 must equal kv_heads = 3 of cache"),
        ((5, 3, 2, 6), "states.shape[2] = 7 must equal head_dim = 6 of cache"),
    ],
)
def test_c1_errors_name_the_axes_of_the_layout(cache, text):
    states, spec = np.zeros((1, 2, 7), np.int8), SlotMapping(i32(0))
    with pytest.raises(SpecError, match=r"^C1") as error:
        store_nhd(np.zeros(cache, np.int8), states, spec)
    assert error.value.message.startswith(text)
    assert store_nhd(np.zeros((5, 3, 2, 7), np.int8), states, spec).shape == (5, 3, 2, 7)


def test_c1_what_passed_in_one_layout_is_checked_in_the_other():
    cache, states = on_device((np.zeros((5, 2, 3, 7)), np.zeros((1, 2, 7))))
    spec = SlotMapping(jnp.zeros(1, jnp.int32))
    store_single(cache, states, spec)
    with pytest.raises(SpecError, match="must equal kv_heads = 3 of cache"):
        store_nhd(cache, states, spec)
    with pytest.raises(SpecError, match="must equal kv_heads = 3 of cache"):
        store_single_donated(cache, states, spec, layout="NHD")


def test_c1_leaves_of_a_tree_agree_in_block_size_and_not_in_kv_heads():
    shapes = ((5, 3, 2, 7), (5, 3, 1, 4))
    caches = [filled(shape, "i8", salt) for salt, shape in enumerate(shapes)]
    states = [filled((NUM_TOKENS, *shape[2:]), "i8", 5) for shape in shapes]
    for got, cache, rows in zip(store_nhd(caches, states, SPEC), caches, states, strict=True):
        assert difference(nhd(np.asarray(got)), nhd(cache), rows, SPEC) is None
    caches[1] = caches[1].reshape(5, 1, 3, 4)
    with pytest.raises(
        SpecError, match="leaf 1 of cache must have block_size = 3 of leaf 0, got 1"
    ):
        load_nhd(caches, SPEC, NUM_TOKENS)


QUICK = [
    case for case in all_cases() if case.quick and case.kind not in ("apart", "check", "accept")
]
CASES = [case for n, case in enumerate(QUICK) if n % 3 == 0 or case.kind in ("load", "vjp")]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_kit_passes_in_this_layout(case):
    assert run_case(adapters.nhd, case).status == "pass"
