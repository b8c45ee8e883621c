"""A cache spread over devices: each writes its part, and nothing travels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

from jax.sharding import Mesh, NamedSharding, PartitionSpec

from functional_paged import (
    PAD,
    SpecError,
    load_single,
    reference,
    store_single,
    store_single_donated,
)
from functional_paged.conformance.bits import DTYPES
from functional_paged.conformance.cases.steps import table
from functional_paged.conformance.run.compare import compare
from tests.helpers import collectives, filled, specs_by_form

pytestmark = pytest.mark.skipif(
    len(jax.devices()) < 8, reason="needs 8 devices; tests/conftest.py asks for them on CPU"
)

SHAPE = (16, 8, 3, 6)
# Blocks of each eighth and each half of the cache, a hole, a padded row, a row past its table.
STEP = table([[15, PAD, 2, 0], [0, 1, 3, 5], [7, 8, 12, 4]], [1, -1, 2], [9, 2, 12])
FORMS = specs_by_form(STEP, SHAPE)

# Shape of the mesh (blocks, heads): how many devices share out each axis.
MESHES = {"kv_heads": (1, 8), "blocks": (8, 1), "both": (2, 4)}


def shardings(name: str, states_by_head: bool = True) -> tuple[Any, Any]:
    """How cache and states lie on the devices."""
    mesh = Mesh(np.array(jax.devices()[:8]).reshape(MESHES[name]), ("blocks", "heads"))
    heads = "heads" if states_by_head else None
    return (
        NamedSharding(mesh, PartitionSpec("blocks", "heads")),
        NamedSharding(mesh, PartitionSpec(None, heads)),
    )


def outline(dtype: str, shape: tuple[int, ...], layout: tuple[Any, Any]) -> tuple[Any, Any]:
    """Cache and states without memory."""
    cache_sharding, states_sharding = layout
    states_shape = (STEP.num_tokens, shape[1], shape[3])
    return (
        jax.ShapeDtypeStruct(shape, DTYPES[dtype], sharding=cache_sharding),
        jax.ShapeDtypeStruct(states_shape, DTYPES[dtype], sharding=states_sharding),
    )


@pytest.mark.parametrize("states_by_head", [True, False], ids=["states by head", "states whole"])
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("mesh", MESHES)
def test_a_donated_store_has_no_collective_and_no_copy(mesh, dtype, states_by_head):
    part = 8 * 2**20  # bytes of the cache on one device
    num_blocks = 8 * part // (8 * 16 * 64 * DTYPES[dtype].itemsize)
    args = outline(dtype, (num_blocks, 8, 16, 64), shardings(mesh, states_by_head))
    program = store_single_donated.lower(*args, FORMS["block_table"]).compile()
    assert collectives(program) == set()
    used = program.memory_analysis()  # of one device
    assert used.alias_size_in_bytes == part
    if hasattr(jax, "make_user_context"):  # see test_jax_donated
        assert used.temp_size_in_bytes < 2**20
    assert program.output_shardings.is_equivalent_to(args[0].sharding, 4)


@pytest.mark.parametrize(
    ("spread", "found"),
    [
        ((), "all-gather"),
        (("heads", "blocks"), "all-to-all"),
        ((None, None, None, "heads"), "all-"),
    ],
    ids=["whole", "swapped", "head_dim"],
)
def test_collectives_are_found_where_the_result_lies_otherwise(spread, found):
    # That the assertion above can fail.
    layout = shardings("both")
    elsewhere = NamedSharding(layout[0].mesh, PartitionSpec(*spread))
    store = jax.jit(store_single, out_shardings=elsewhere)
    program = store.lower(*outline("f32", (16, 8, 3, 8), layout), FORMS["block_table"]).compile()
    assert found in " ".join(collectives(program))


@pytest.mark.parametrize(
    ("dtype", "form", "store"),
    [
        ("f32", "block_table", store_single_donated),
        ("bf16", "block_table", store_single_donated),
        ("bf16", "chunks", store_single_donated),
        ("bf16", "slots", store_single_donated),
        # Here the bits travel as unsigned integers, which must spread as the cache does.
        ("bf16", "block_table", jax.jit(store_single)),
    ],
    ids=["f32", "bf16", "chunks", "slots", "pure"],
)
@pytest.mark.parametrize("mesh", MESHES)
def test_c16_a_spread_cache_keeps_every_bit(mesh, dtype, form, store):
    layout = shardings(mesh)
    cache = filled(SHAPE, dtype, salt=1)
    states = filled((STEP.num_tokens, SHAPE[1], SHAPE[3]), dtype, salt=2)
    # From NumPy, since older versions lose bits where they split an array of JAX on CPU. From a
    # copy, since JAX may take over its memory, and a donated store writes to that.
    given = jax.device_put(cache.copy(), layout[0])
    got = store(given, jax.device_put(states, layout[1]), FORMS[form])
    want = reference.store_single(cache, states, FORMS[form])
    assert compare("cache", np.asarray(got), want, cache) is None
    assert got.sharding.is_equivalent_to(layout[0], 4)
    assert len({shard.device for shard in got.addressable_shards}) == 8
    program = store.lower(*outline(dtype, SHAPE, layout), FORMS[form]).compile()
    assert collectives(program) == set()


def test_c3_states_on_one_of_the_devices():
    cache_sharding, states_sharding = shardings("kv_heads")
    cache = jax.device_put(np.zeros(SHAPE, np.float32), cache_sharding)
    states = np.ones((STEP.num_tokens, SHAPE[1], SHAPE[3]), np.float32)
    spec = FORMS["slots"]
    with pytest.raises(SpecError) as error:
        store_single(cache, jax.device_put(states, jax.devices()[0]), spec)
    everywhere = " and ".join(map(str, jax.devices()[:8]))
    assert error.value.clause == "C3"
    assert str(error.value) == (
        f"C3: states must be on the device of cache = {everywhere}, got {jax.devices()[0]}"
    )
    assert store_single(cache, jax.device_put(states, states_sharding), spec).any()
    assert store_single(cache, states, spec).any()  # not bound to a device


@pytest.mark.parametrize("mesh", MESHES)
def test_c16_a_load_from_a_spread_cache_keeps_every_bit(mesh):
    cache = filled(SHAPE, "bf16", salt=1)
    given = jax.device_put(cache, shardings(mesh)[0])
    got = load_single(given, FORMS["block_table"], STEP.num_tokens)
    want = reference.load_single(cache, FORMS["block_table"], STEP.num_tokens)
    assert compare("states", np.asarray(got), want, want) is None
