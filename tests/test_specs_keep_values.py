"""A spec taken apart, mapped or copied keeps its values and dtypes, whoever does it."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest

jax = pytest.importorskip("jax")

from functional_paged import BlockTable, ChunkPlan, SlotMapping, SpecError
from tests.helpers import i32

SPECS = {
    "block table": BlockTable(i32([4, 2]), i32(1), i32(0, 2)),
    "decode": BlockTable(i32([4, 2]), i32(1)),
    "chunks": ChunkPlan(i32([0, 4, 1, 2])),
    "int32 slots": SlotMapping(i32(9, -7)),
    "int64 slots": SlotMapping(np.int64([2**31 - 1, -(2**31), 9])),
    "masked slots": SlotMapping(np.ma.masked_array([9, 3], [False, True])),
}
WAYS = {
    "tree.map": lambda spec: jax.tree.map(lambda leaf: leaf, spec),
    "flatten": lambda spec: jax.tree.unflatten(jax.tree.structure(spec), jax.tree.leaves(spec)),
    "map with path": lambda spec: jax.tree_util.tree_map_with_path(lambda _, leaf: leaf, spec),
    "map": lambda spec: spec.map(lambda array: array),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda spec: pickle.loads(pickle.dumps(spec)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SPECS)
def test_a_spec_keeps_its_values_and_dtypes(name, way):
    spec, got = SPECS[name], WAYS[way](SPECS[name])
    assert got.form == spec.form
    assert list(got.arrays()) == list(spec.arrays())
    for field, array in got.arrays().items():
        assert type(array) is type(spec.arrays()[field])
        assert array.dtype == spec.arrays()[field].dtype
        assert array.tobytes() == spec.arrays()[field].tobytes()


@pytest.mark.parametrize("name", SPECS)
def test_a_spec_is_frozen_and_equal_to_itself_alone(name):
    spec = SPECS[name]
    for field in fields(spec):
        with pytest.raises(FrozenInstanceError):
            setattr(spec, field.name, None)
    assert spec in {spec}
    assert spec != copy.copy(spec)


def test_c5_a_slot_past_32_bits_is_refused_in_a_pytree_and_kept_by_map():
    for value in (2**31, -(2**31) - 1):
        spec = SlotMapping(np.int64([3, value]))
        for flatten in (jax.tree.leaves, jax.tree_util.tree_leaves_with_path):
            with pytest.raises(SpecError) as error:
                flatten(spec)
            assert str(error.value) == (
                f"C5: slots[1] = {value} must fit int32 in a JAX pytree where 64-bit integers are "
                "off (jax_enable_x64); an eager functional_paged call takes it, and so does `map` "
                "of the spec"
            )
        assert spec.map(np.copy).slots.tolist() == [3, value]


def test_the_leaves_of_a_spec_are_copies_of_numpy_arrays():
    for spec in SPECS.values():
        for array, leaf in zip(spec.arrays().values(), jax.tree.leaves(spec), strict=True):
            assert not np.shares_memory(array, leaf)


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_c17_slots_overwritten_after_the_call_change_nothing(jit):
    import jax.numpy as jnp

    from functional_paged import store_single

    # Large enough that JAX still runs when the call has returned.
    cache, states = jnp.zeros((1024, 4, 16, 32)), jnp.ones((4096, 4, 32))
    store = jax.jit(store_single) if jit else store_single
    want = store(cache, states, SlotMapping(jnp.arange(4096, dtype=jnp.int32)))
    slots = np.arange(4096, dtype=np.int32)
    got = store(cache, states, SlotMapping(slots))
    slots[:] = 12000
    np.testing.assert_array_equal(got, want)
