"""The JAX store: every bit as the reference has it, under every transformation and every jit."""

from __future__ import annotations

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp

import functional_paged
from functional_paged import (
    PAD,
    SlotMapping,
    SpecError,
    load_single,
    reference,
    store_single,
)
from functional_paged._jax.scatter import places_of
from functional_paged.conformance.bits import DTYPES, as_bits
from functional_paged.conformance.cases.steps import table
from functional_paged.conformance.run.compare import compare
from tests.helpers import (
    FORMS,
    SHAPE,
    SPEC,
    difference,
    filled,
    inputs,
    jax_stores,
    on_cpu,
    on_device,
)

WAYS = jax_stores()
JITS = {"jax.jit": jax.jit, "functional_paged.jit": functional_paged.jit}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_c16_every_dtype_keeps_every_bit(dtype, way):
    cache, states = inputs(dtype)
    got = WAYS[way](*on_device((cache, states, SPEC)))
    assert difference(got, cache, states, SPEC) is None


@pytest.mark.parametrize("way", ["eager", "donated"])
@pytest.mark.parametrize("form", ["chunks", "slots"])
def test_c16_the_other_forms_keep_every_bit(form, way):
    cache, states = inputs("bf16")
    got = WAYS[way](*on_device((cache, states, FORMS[form])))
    assert difference(got, cache, states, FORMS[form]) is None


@on_cpu
@pytest.mark.parametrize("dtype", ["bf16", "f8e5m2"])
def test_c16_a_plain_scatter_changes_cells_that_nobody_stored_to(dtype):
    # What the tests above would say of the obvious implementation.
    slots = FORMS["slots"].slots
    past_end = np.where(slots < 0, SHAPE[0], slots // SHAPE[2])

    @jax.jit
    def plain(cache, states):
        return cache.at[past_end, :, slots % SHAPE[2]].set(states, mode="drop")

    cache, states = inputs(dtype)
    wrong = difference(plain(cache, states), cache, states, SPEC)
    if wrong is None and jax.__version_info__ > (0, 10, 2):
        pytest.skip(f"the XLA of JAX {jax.__version__} keeps the bits of {dtype} by itself")
    assert wrong is not None
    assert not wrong.written
    # The same scatter is right about where and what: in a dtype that is not widened it passes.
    twin, twin_states = inputs("f16")
    assert difference(plain(twin, twin_states), twin, twin_states, SPEC) is None


@pytest.mark.parametrize(
    ("order", "num_tokens"),
    [
        (("functional_paged.jit", "alone", "jax.jit"), 13),
        (("jax.jit", "alone", "functional_paged.jit"), 14),
    ],
    ids=["options first", "options last"],
)
def test_c16_an_inner_jit_is_traced_anew_in_each_context(order, num_tokens):
    # JAX caches the inner trace; the scatter that is right in one context loses bits in another.
    # The shapes are those of no other test, whose traces would be found in the cache instead.
    inner = jax.jit(lambda cache, states, spec: store_single(cache, states, spec))
    outer = {name: jit(lambda *args: inner(*args)) for name, jit in JITS.items()}
    outer["alone"] = inner
    cache, states = inputs("bf16", num_tokens)
    wrong = {
        name: difference(outer[name](cache, states, SPEC), cache, states, SPEC) for name in order
    }
    assert wrong == dict.fromkeys(order)


def test_c16_a_trace_that_fails_leaves_nothing_behind():
    cache, states = inputs("bf16", num_tokens=11)  # a shape that no other test traces
    with pytest.raises(SpecError):
        functional_paged.jit(store_single)(cache, states[:, :1], SPEC)
    assert difference(jax.jit(store_single)(cache, states, SPEC), cache, states, SPEC) is None


def test_c16_jit_without_options_is_a_plain_jit(monkeypatch):
    # Elsewhere than on CPU there is no pass to turn off, and nothing may claim that one is.
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert functional_paged.jit.compiler_options() == {}
    cache, states = inputs("bf16")
    got = functional_paged.jit(store_single)(cache, states, SPEC)
    assert difference(got, cache, states, SPEC) is None


def test_jit_takes_the_options_of_jax_jit():
    cache, _ = inputs("bf16")
    load = functional_paged.jit(load_single, static_argnames="num_tokens")
    got = load(cache, index_spec=SPEC, num_tokens=12)
    want = reference.load_single(cache, SPEC, 12)
    assert compare("states", np.asarray(got), want, want) is None
    assert load.__name__ == "load_single"


@pytest.mark.parametrize("jit", [None, *JITS], ids=str)
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_c16_scan_over_steps(dtype, jit):
    # Later steps overwrite slots of earlier ones: the order of the steps shows.
    slots = np.int32([[0, PAD, 7], [7, 14, PAD], [PAD, 8, 0], [15, 2, 14]])
    cache, states = inputs(dtype, num_tokens=slots.size)
    states = states.reshape(*slots.shape, *states.shape[1:])

    keeps_all = jit == "functional_paged.jit"

    def run(cache, rows, slots):
        def step(cache, new):
            new_rows, new_slots = new
            if not keeps_all:
                new_rows = jax.lax.bitcast_convert_type(new_rows, cache.dtype)
            return store_single(cache, new_rows, SlotMapping(new_slots)), None

        return jax.lax.scan(step, cache, (rows, slots))[0]

    # A plain jit on CPU changes NaN payloads where the scan itself takes a step's slice out of a
    # bfloat16 array, before the store sees it.
    rows = states if keeps_all else as_bits(states)
    got = (run if jit is None else JITS[jit](run))(*on_device((cache, rows, slots)))
    want = cache
    for new, new_slots in zip(states, slots, strict=True):
        want = reference.store_single(want, new, SlotMapping(new_slots))
    assert compare("cache", np.asarray(got), want, cache) is None


@pytest.mark.parametrize(
    ("axes", "jit"),
    [
        *((axes, None) for axes in [(0, 0, 0), (0, 0, None), (0, None, None)]),
        *((axes, None) for axes in [(None, 0, None), (None, None, 0)]),
        ((0, 0, 0), "functional_paged.jit"),
    ],
    ids=str,
)
def test_c16_vmap_over_each_argument(axes, jit):
    size = 3
    specs = [
        table([[4, PAD], [0, 1]], [1, -1], [5, 1]).index_spec,
        table([[2, 3], [1, 0]], [0, 5], [4, 2]).index_spec,
        table([[PAD, 0], [4, 2]], [2, 0], [2, 4]).index_spec,
    ]
    caches = filled((size, *SHAPE), "bf16", salt=1)
    states = filled((size, 6, SHAPE[1], SHAPE[3]), "bf16", salt=2)
    stacked = jax.tree.map(lambda *arrays: np.stack(arrays), *specs)
    mapped = (caches, states, stacked)
    single = (caches[0], states[0], specs[0])
    args = [m if axis == 0 else s for m, s, axis in zip(mapped, single, axes, strict=True)]

    store = jax.vmap(store_single, in_axes=axes)
    got = np.asarray((store if jit is None else JITS[jit](store))(*args))
    assert got.shape == caches.shape
    for i in range(size):
        cache, new, spec = (
            each[i] if axis == 0 else one
            for each, one, axis in zip((caches, states, specs), single, axes, strict=True)
        )
        assert difference(got[i], cache, new, spec) is None


def test_c16_vmap_of_a_jit_keeps_its_options():
    # The inner trace relies on them.
    cache, states = inputs("bf16")
    store = jax.vmap(functional_paged.jit(store_single), in_axes=(0, None, None))
    got = np.asarray(store(cache[None], states, SPEC))
    assert difference(got[0], cache, states, SPEC) is None


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("way", ["eager", "jax.jit", "functional_paged.jit"])
def test_c17_inputs_are_left_alone(way, dtype):
    before = (*inputs(dtype), SPEC)
    given = on_device(before)
    WAYS[way](*given)
    for array, old in zip(jax.tree.leaves(given), jax.tree.leaves(before), strict=True):
        assert not array.is_deleted()
        assert compare("input", np.asarray(array), old, old) is None


@pytest.mark.parametrize("way", WAYS)
def test_c17_numpy_inputs_are_left_alone(way):
    # JAX may work in a NumPy array's memory; large and aligned arrays are those it does not copy.
    cache, states = filled((512, 2, 16, 64), "bf16", salt=1), filled((64, 2, 64), "bf16", salt=2)
    given = (cache.copy(), states.copy(), SlotMapping(np.arange(64, dtype=np.int32)))
    WAYS[way](*given)
    assert compare("cache", given[0], cache, cache) is None
    assert compare("states", given[1], states, states) is None


@pytest.mark.parametrize("num_blocks", [5, 2**31 - 1])
def test_places_are_as_unique_as_the_scatter_claims(num_blocks):
    # XLA may do as it likes with equal indices, and JAX has a transpose for unique ones only; no
    # result on CPU shows the difference.
    slots = jnp.array([4, PAD, -7, 0, PAD, 5], jnp.int32)
    places = np.asarray(places_of(slots, num_blocks, 3))
    assert len({tuple(place) for place in places.tolist()}) == 6
    assert places[[0, 3, 5]].tolist() == [[1, 1], [0, 0], [1, 2]]
    dropped = places[[1, 2, 4], 0]
    assert ((dropped < 0) | (dropped >= num_blocks)).all()


@on_cpu
def test_c16_functional_paged_jit_under_disable_jit_keeps_every_bit():
    # Nothing is compiled then, so no compiler option keeps the bits.
    cache, states = inputs("bf16")
    with jax.disable_jit():
        got = functional_paged.jit(store_single)(*on_device((cache, states, SPEC)))
    assert difference(got, cache, states, SPEC) is None
