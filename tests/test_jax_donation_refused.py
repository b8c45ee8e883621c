"""Nothing is donated until nothing can be refused any more."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp

from functional_paged import BlockTable, SlotMapping, SpecError, store_single_donated
from tests.helpers import difference, filled

CACHE, STATES = filled((5, 2, 3, 7), "f32", 1), filled((3, 2, 7), "f32", 2)
SPEC = SlotMapping(np.int32([14, -1, 3]))


def alive(array: np.ndarray = CACHE) -> Any:
    return jnp.array(array, copy=True)


def deleted(array: np.ndarray) -> Any:
    gone = alive(array)
    gone.delete()
    return gone


def elsewhere(array: np.ndarray) -> Any:
    return jax.device_put(array, jax.devices()[-1])


# Arguments beside one good cache, by what is wrong with them.
BAD = {
    "C1 heads": (STATES[:, :1], SPEC),
    "C1 head_dim": (STATES[..., :3], SPEC),
    "C1 axes": (STATES[0], SPEC),
    "C1 no array": ([[1.0]], SPEC),
    "C1 tree": ((STATES,), SPEC),
    "C1 no spec": (STATES, SPEC.slots),
    "C1 batch": (STATES, BlockTable(np.zeros((2, 1), np.int32), np.zeros(3, np.int32))),
    "C2 dtype": (np.zeros((3, 2, 7), np.float16), SPEC),
    "C2 byte order": (STATES.astype(">f4"), SPEC),
    "C4 dtype": (STATES, SlotMapping(np.int16([14, -1, 3]))),
    "C4 masked": (STATES, SlotMapping(np.ma.masked_array(np.int32([14, -1, 3]), [0, 0, 1]))),
    "C17 states": (deleted(STATES), SPEC),
    "C17 index_spec": (STATES, SlotMapping(deleted(np.int32([14, -1, 3])))),
}


def assert_refused(cache: Any, states: Any, spec: Any, clause: str) -> str:
    with pytest.raises(SpecError) as error:
        store_single_donated(cache, states, spec)
    assert error.value.clause == clause
    return error.value.message


@pytest.mark.parametrize("bad", BAD)
def test_c17_what_is_refused_donates_nothing(bad):
    cache = alive()
    assert_refused(cache, *BAD[bad], bad.split()[0])
    assert not cache.is_deleted()
    assert difference(store_single_donated(cache, STATES, SPEC), CACHE, STATES, SPEC) is None
    assert cache.is_deleted()


def test_c17_a_bad_leaf_donates_none_of_the_others():
    caches = (alive(), alive())
    message = assert_refused(caches, (STATES, STATES[:2]), SPEC, "C1")
    assert message == "leaf 1 of states must have num_tokens = 3 of leaf 0, got 2"
    assert not any(cache.is_deleted() for cache in caches)
    store_single_donated(caches, (STATES, STATES), SPEC)
    assert all(cache.is_deleted() for cache in caches)


@pytest.mark.skipif(len(jax.devices()) < 2, reason="needs two devices")
def test_c3_arrays_on_two_devices_donate_nothing():
    cache = jax.device_put(alive(), jax.devices()[0])
    assert_refused(cache, elsewhere(STATES), SPEC, "C3")
    assert not cache.is_deleted()


@pytest.mark.parametrize("same", ["object", "buffer", "shards"])
def test_c17_one_buffer_in_two_leaves(same):
    cache = alive()
    if same == "shards":
        mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("blocks",))
        spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("blocks"))
        cache = jax.device_put(cache, spread)
    again = cache if same == "object" else jax.device_put(cache)
    twin = {"k": cache, "scale": alive(CACHE[..., :1]), "v": again}
    states = {"k": STATES, "scale": STATES[..., :1], "v": STATES}
    assert assert_refused(twin, states, SPEC, "C17") == (
        "leaf 2 of cache must have memory of its own, got that of leaf 0; a donated cache is given "
        "away once"
    )
    assert not cache.is_deleted()
    got = store_single_donated({**twin, "v": alive()}, states, SPEC)
    assert cache.is_deleted()
    assert difference(got["v"], CACHE, STATES, SPEC) is None


def test_c17_numpy_arrays_may_be_the_same_and_empty_ones_are_no_less_distinct():
    nothing = (jnp.zeros((5, 2, 3, 0)), jnp.zeros((5, 2, 3, 0)))
    empty = (STATES[..., :0], STATES[..., :0])
    assert_refused((nothing[0], nothing[0]), empty, SPEC, "C17")
    store_single_donated(nothing, empty, SPEC)
    got = store_single_donated((CACHE, CACHE), (STATES, STATES), SPEC)
    assert all(difference(leaf, CACHE, STATES, SPEC) is None for leaf in got)


def test_c17_a_cache_that_is_gone():
    gone = deleted(CACHE)
    assert assert_refused((alive(), gone), (STATES, STATES), SPEC, "C17") == (
        "leaf 1 of cache must be alive, got a deleted one"
    )
