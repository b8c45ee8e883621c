"""Caches spread over Explicit and Auto meshes: the bits, the sharding, and no communication."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import functional_paged
from functional_paged import (
    PAD,
    BlockTable,
    SlotMapping,
    load_single,
    plan_chunks,
    reference,
    store_single,
    store_single_donated,
    to_slots,
)
from functional_paged.conformance.cases.steps import table
from functional_paged.conformance.run.compare import compare
from tests.helpers import collectives, difference, filled, specs_by_form

pytestmark = pytest.mark.skipif(
    len(jax.devices()) < 8, reason="needs 8 devices; tests/conftest.py asks for them on CPU"
)

SHAPE = (16, 8, 3, 6)
# Blocks of each eighth and each half of the cache, a hole, a padded row, a row past its table; 24
# tokens, which 8 devices share out evenly.
STEP = table([[15, PAD, 2, 0], [0, 1, 3, 5], [7, 8, 12, 4]], [1, -1, 2], [9, 2, 13])
FORMS = specs_by_form(STEP, SHAPE)
DECODE = BlockTable(
    np.int32([[15], [PAD], [2], [0], [1], [8], [9], [12]]), np.int32([0, 1, 2, 3, 0, 1, -1, 2])
)

AXES = {"Explicit": AxisType.Explicit, "Auto": AxisType.Auto}
# Shape of the mesh (blocks, heads): how many devices share out each axis.
MESHES = {"heads": (1, 8), "blocks": (8, 1), "both": (2, 4)}
CACHE_SPEC = P("blocks", "heads")
STATES_SPECS = {
    "replicated": P(),
    "uncommitted": None,
    "by head": P(None, "heads"),
    "by token": P(("blocks", "heads")),
}


def mesh_of(axes: str, spread: str) -> Any:
    return jax.make_mesh(MESHES[spread], ("blocks", "heads"), axis_types=(AXES[axes],) * 2)


def put(array: np.ndarray, mesh: Any, spec: Any) -> Any:
    # From a copy, since JAX may take over the memory, and a donated store writes to that.
    array = array.copy()
    return jnp.array(array) if spec is None else jax.device_put(array, NamedSharding(mesh, spec))


CALLS = {
    "store": store_single,
    "donated": store_single_donated,
    "jax.jit": jax.jit(store_single),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("states_spec", STATES_SPECS)
@pytest.mark.parametrize("spread", MESHES)
@pytest.mark.parametrize("axes", AXES)
def test_c16_a_spread_cache_keeps_every_bit_and_its_sharding(axes, spread, states_spec, call):
    mesh = mesh_of(axes, spread)
    # test_jax_sharding has both. JAX 0.6.2 splits replicated states without their bits.
    dtype = "bf16" if call == "store" and hasattr(jax, "make_user_context") else "f32"
    cache, states = filled(SHAPE, dtype, 1), filled((STEP.num_tokens, 8, 6), dtype, 2)
    given = put(cache, mesh, CACHE_SPEC)
    spec = FORMS["block_table"]
    got = CALLS[call](given, put(states, mesh, STATES_SPECS[states_spec]), spec)
    assert difference(got, cache, states, spec) is None
    assert got.sharding.is_equivalent_to(given.sharding, 4)
    assert jax.typeof(got) == jax.typeof(given)


@pytest.mark.parametrize("form", [*FORMS, "decode"])
@pytest.mark.parametrize("axes", AXES)
def test_c16_index_arrays_may_be_spread_too(axes, form):
    mesh = mesh_of(axes, "heads")
    spec = DECODE if form == "decode" else FORMS[form]
    num_tokens = 8 if form == "decode" else STEP.num_tokens
    cache, states = filled(SHAPE, "bf16", 1), filled((num_tokens, 8, 6), "bf16", 2)

    def by_row(array: np.ndarray) -> Any:
        return put(array, mesh, P("heads") if array.shape[0] % 8 == 0 else P())

    given = put(cache, mesh, CACHE_SPEC)
    got = store_single(given, by_row(states), spec.map(by_row))
    assert difference(got, cache, states, spec) is None
    assert got.sharding.is_equivalent_to(given.sharding, 4)


@pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["eager", "jax.jit"])
@pytest.mark.parametrize("spread", MESHES)
@pytest.mark.parametrize("axes", AXES)
def test_c16_a_load_from_a_spread_cache_keeps_every_bit(axes, spread, jit):
    mesh, cache, spec = mesh_of(axes, spread), filled(SHAPE, "bf16", 1), FORMS["block_table"]
    load = jit(lambda cache: load_single(cache, spec, STEP.num_tokens))
    got = load(put(cache, mesh, CACHE_SPEC))
    want = reference.load_single(cache, spec, STEP.num_tokens)
    assert compare("states", np.asarray(got), want, want) is None
    if axes == "Explicit":
        assert jax.typeof(got).sharding.spec == P(None, "heads", None)


@pytest.mark.parametrize("states_spec", ["replicated", "by head"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["f32", "bf16"])
@pytest.mark.parametrize("spread", MESHES)
@pytest.mark.parametrize("axes", AXES)
def test_a_donated_store_has_no_collective_and_no_copy(axes, spread, dtype, states_spec):
    mesh, part = mesh_of(axes, spread), 8 * 2**20  # bytes of the cache on one device
    shape = (8 * part // (8 * 16 * 64 * jnp.dtype(dtype).itemsize), 8, 16, 64)
    cache = jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, CACHE_SPEC))
    states = jax.ShapeDtypeStruct(
        (STEP.num_tokens, 8, 64), dtype, sharding=NamedSharding(mesh, STATES_SPECS[states_spec])
    )
    program = store_single_donated.lower(cache, states, FORMS["block_table"]).compile()
    assert collectives(program) == set()
    used = program.memory_analysis()  # of one device
    assert used.alias_size_in_bytes == part
    if hasattr(jax, "make_user_context"):  # see test_jax_donated
        assert used.temp_size_in_bytes < 2**20
    assert program.output_shardings.is_equivalent_to(cache.sharding, 4)


@pytest.mark.parametrize("axes", AXES)
def test_c22_the_derivative_on_a_mesh(axes):
    mesh, spec = mesh_of(axes, "both"), SlotMapping(np.int32([3, PAD, 47]))
    cache, states = filled(SHAPE, "f32", 1), filled((3, 8, 6), "f32", 2)
    cache, states = np.nan_to_num(cache, posinf=1, neginf=1), np.nan_to_num(states)
    given = put(cache, mesh, CACHE_SPEC), put(states, mesh, P(None, "heads"))
    out, pull = jax.vjp(lambda *args: store_single(*args, spec), *given)
    d_cache, d_states = pull(out)
    assert difference(d_cache, cache, np.zeros_like(states), spec) is None
    want = reference.load_single(np.asarray(out), spec, 3)
    assert compare("states", np.asarray(d_states), want, want) is None
    if axes == "Explicit":
        assert (jax.typeof(d_cache), jax.typeof(d_states)) == tuple(map(jax.typeof, given))


def test_c16_a_tree_of_differently_spread_caches():
    mesh, spec = mesh_of("Explicit", "both"), FORMS["slots"]
    caches = filled(SHAPE, "bf16", 1), filled((16, 1, 3, 6), "i8", 3)
    states = filled((STEP.num_tokens, 8, 6), "bf16", 2), filled((STEP.num_tokens, 1, 6), "i8", 4)
    specs = (CACHE_SPEC, P("blocks"))
    given = tuple(put(cache, mesh, spread) for cache, spread in zip(caches, specs, strict=True))
    got = store_single(given, states, spec)
    for leaf, before, cache, new in zip(got, given, caches, states, strict=True):
        assert difference(leaf, cache, new, spec) is None
        assert leaf.sharding.is_equivalent_to(before.sharding, 4)
    read = load_single(given, spec, STEP.num_tokens)
    assert [leaf.shape for leaf in read] == [new.shape for new in states]


@pytest.mark.parametrize("way", ["set_mesh", "vmap", "scan", "mixed axes"])
def test_c16_on_an_explicit_mesh_in_other_surroundings(way):
    mesh, spec = mesh_of("Explicit", "both"), FORMS["slots"]
    if way == "mixed axes":
        types = (AxisType.Explicit, AxisType.Auto)
        mesh = jax.make_mesh((2, 4), ("blocks", "heads"), axis_types=types)
    cache, states = filled(SHAPE, "bf16", 1), filled((STEP.num_tokens, 8, 6), "bf16", 2)
    given = put(cache, mesh, P("blocks") if way == "mixed axes" else CACHE_SPEC)
    if way == "vmap":
        got = jax.vmap(store_single, (0, 0, None))(given[None], states[None], spec)[0]
    elif way == "scan":
        step = lambda cache, _: (store_single(cache, states, spec), None)  # noqa: E731
        run = functional_paged.jit(lambda cache: jax.lax.scan(step, cache, length=2)[0])
        got = run(given)  # docs/jax.md: in a plain jit XLA splits the states without their bits
    elif way == "set_mesh":
        if not hasattr(jax, "set_mesh"):
            pytest.skip("this JAX has none")
        with jax.set_mesh(mesh):
            got = store_single(given, jnp.array(states), spec)
    else:
        got = store_single(given, states, spec)
    assert difference(got, cache, states, spec) is None
    assert got.sharding.is_equivalent_to(given.sharding, 4)


@pytest.mark.parametrize(("axes", "rows"), [("Auto", "heads"), ("Auto", None), ("Explicit", None)])
def test_lowerings_take_index_arrays_on_a_mesh(axes, rows):
    mesh, size = mesh_of(axes, "heads"), {"cache_shape": SHAPE, "num_tokens": 8}
    given = DECODE.map(lambda array: put(array, mesh, P(rows)))
    for lower in (to_slots, plan_chunks):
        for got, want in zip(
            lower(given, **size).arrays().values(),
            lower(DECODE, **size).arrays().values(),
            strict=True,
        ):
            np.testing.assert_array_equal(got, want)


@pytest.mark.skipif(not hasattr(jax, "make_user_context"), reason="an older shard_map")
@pytest.mark.parametrize("jit", [jax.jit, functional_paged.jit], ids=["jax", "functional_paged"])
@pytest.mark.parametrize("axes", AXES)
def test_c16_c22_each_device_stores_by_slots_of_its_own(axes, jit):
    mesh = mesh_of(axes, "blocks")
    cache, states = filled(SHAPE, "bf16", 1), filled((8, 8, 6), "bf16", 2)
    local = np.arange(8, dtype=np.int32) % 7 - 1
    spec = SlotMapping(np.where(local < 0, PAD, local + 6 * np.arange(8, dtype=np.int32)))

    def store(cache: Any, states: Any, slots: Any) -> Any:
        return store_single(cache, states, SlotMapping(slots))

    rows = P("blocks")
    mapped = jax.shard_map(store, mesh=mesh, in_specs=(rows,) * 3, out_specs=rows)
    given = [put(array, mesh, rows) for array in (cache, states, local)]
    assert difference(jit(mapped)(*given), cache, states, spec) is None

    @jit
    def pull(cache: Any, states: Any, slots: Any) -> Any:
        return jax.vjp(lambda *args: mapped(*args, slots), cache, states)[1](cache)

    d_cache, d_states = pull(*given)
    want = reference.load_single(cache, spec, 8)
    # A derivative keeps numbers, and of a NaN that it is one.
    np.testing.assert_array_equal(np.float32(d_states), np.float32(want))
    zeroed = reference.store_single(cache, np.zeros_like(states), spec)
    np.testing.assert_array_equal(np.float32(d_cache), np.float32(zeroed))
