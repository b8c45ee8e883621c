"""The load: the read that undoes the store."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

jax = pytest.importorskip("jax")

import jax.numpy as jnp

import functional_paged
from functional_paged import (
    PAD,
    BlockTable,
    ChunkPlan,
    IndexSpec,
    SlotMapping,
    SpecError,
    load_single,
    plan_chunks,
    reference,
    store_single,
)
from functional_paged.conformance.bits import DTYPES
from functional_paged.conformance.cases.steps import table
from functional_paged.conformance.run.compare import compare
from tests.helpers import (
    FORMS,
    SHAPE,
    SPEC,
    STEP,
    filled,
)

NUM_TOKENS = STEP.num_tokens
WAYS = {
    "eager": load_single,
    "jax.jit": jax.jit(load_single, static_argnums=2),
    "functional_paged.jit": functional_paged.jit(load_single, static_argnums=2),
}


def difference(got: Any, cache: np.ndarray, spec: Any, num_tokens: int = NUM_TOKENS) -> Any:
    """The first element that is not as in the reference, or `None`."""
    want = reference.load_single(cache, spec, num_tokens)
    return compare("states", np.asarray(got), want, want)


@pytest.mark.parametrize("jit", [jax.jit, functional_paged.jit], ids=["jax.jit", "fp.jit"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_load_costs_by_its_tokens(dtype, jit):
    shape = (2**26 // DTYPES[dtype].itemsize // 2**11, 2, 16, 64)  # 64 MiB
    load = jit(load_single, static_argnums=2)
    program = load.lower(jax.ShapeDtypeStruct(shape, DTYPES[dtype]), SPEC, NUM_TOKENS).compile()
    assert program.memory_analysis().temp_size_in_bytes < 2**20


@pytest.mark.parametrize(
    ("dtype", "way"),
    [*((dtype, "eager") for dtype in DTYPES), *(("bf16", way) for way in WAYS if way != "eager")],
)
def test_c16_every_dtype_is_read_bit_for_bit(dtype, way):
    cache = filled(SHAPE, dtype, salt=1)
    assert difference(WAYS[way](jnp.asarray(cache), SPEC, NUM_TOKENS), cache, SPEC) is None


@pytest.mark.parametrize("form", ["chunks", "slots"])
def test_c16_the_other_forms_are_read_bit_for_bit(form):
    cache = filled(SHAPE, "bf16", salt=1)
    spec = FORMS[form]
    got = load_single(jnp.asarray(cache), spec.map(jnp.asarray), NUM_TOKENS)
    assert difference(got, cache, spec) is None


@pytest.mark.parametrize("dtype", ["f32", "bf16", "i8"])
def test_c14_tokens_that_are_not_stored_read_as_zeros(dtype):
    # No zeros are in this cache, and nothing past its end or before its start may be read.
    cache = filled(SHAPE, dtype, salt=1)
    spec = SlotMapping(np.int32([PAD, 14, 15, -15, 2**31 - 1, -(2**31), 0]))
    got = np.asarray(load_single(jnp.asarray(cache), spec, 9))
    assert difference(got, cache, spec, 9) is None
    zero = [not row.view(np.uint8).any() for row in got]
    assert zero == [True, False, True, True, True, True, False, True, True]


def test_c5_numpy_int64_slots_do_not_wrap():
    cache = filled(SHAPE, "bf16", salt=1)
    spec = SlotMapping(np.int64([2**32 + 1, 4, 2**32, -(2**32) + 3, 14]))
    assert difference(load_single(cache, spec, 5), cache, spec, 5) is None


@pytest.mark.parametrize("num_tokens", [0, 5, 12, 20])
def test_c10_as_many_rows_as_are_asked_for(num_tokens):
    cache = filled(SHAPE, "bf16", salt=1)
    got = load_single(jnp.asarray(cache), SPEC, num_tokens)
    assert difference(got, cache, SPEC, num_tokens) is None


def test_c17_the_cache_is_left_alone():
    cache = filled(SHAPE, "bf16", salt=1)
    given_cache = jnp.array(cache, copy=True)
    load_single(given_cache, SPEC, NUM_TOKENS)
    assert compare("cache", np.asarray(given_cache), cache, cache) is None


@pytest.mark.parametrize("way", ["eager", "functional_paged.jit"])
def test_c16_each_leaf_of_a_tree_is_read_as_alone(way):
    caches = {
        "mla": (filled((5, 1, 3, 16), "bf16", 1), filled((5, 1, 3, 4), "bf16", 2)),
        "quantised": [filled((5, 2, 3, 7), "i8", 3), filled((5, 2, 3, 1), "f32", 4)],
    }
    got = WAYS[way](caches, SPEC, NUM_TOKENS)
    assert jax.tree.structure(got) == jax.tree.structure(caches)
    for leaf, cache in zip(jax.tree.leaves(got), jax.tree.leaves(caches), strict=True):
        assert difference(leaf, cache, SPEC) is None


@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)], ids=str)
def test_c16_vmap_over_each_argument(axes):
    specs = [
        SPEC,
        table([[1, 0, PAD], [2, 2, 4], [PAD, 3, 0]], [2, 5, 0], [3, 1, 5]).index_spec,
    ]
    caches = filled((2, *SHAPE), "bf16", salt=1)
    stacked = jax.tree.map(lambda *arrays: np.stack(arrays), *specs)
    load = jax.vmap(lambda cache, spec: load_single(cache, spec, NUM_TOKENS), in_axes=axes)
    got = load(caches if axes[0] == 0 else caches[0], stacked if axes[1] == 0 else specs[0])
    got = np.asarray(got)  # to slice it in JAX is to lose bits, on CPU in older versions
    for i in range(2):
        cache = caches[i if axes[0] == 0 else 0]
        assert difference(got[i], cache, specs[i if axes[1] == 0 else 0]) is None


def test_c1_a_cache_of_three_axes():
    with pytest.raises(SpecError) as error:
        load_single(np.zeros(SHAPE[:3], np.float32), SPEC, NUM_TOKENS)
    assert str(error.value) == (
        "C1: cache must have 4 axes (num_blocks, kv_heads, block_size, head_dim), got 3: (5, 2, 3)"
    )
    assert load_single(np.zeros(SHAPE, np.float32), SPEC, NUM_TOKENS).shape == (12, 2, 7)


# Of one size, so that JAX compiles once a form: B = 3, W = 2, T = 8, M = 12.
NUM_BLOCKS, BLOCK_SIZE = SHAPE[0] + 2, SHAPE[2]
WIDE = (NUM_BLOCKS, SHAPE[1], BLOCK_SIZE, SHAPE[3])


@st.composite
def tables(draw: st.DrawFn) -> IndexSpec:
    """Tables whose rows share no block, with holes, padded rows and rows past their table."""
    blocks = draw(st.permutations(range(NUM_BLOCKS)))[:6]
    blocks = [draw(st.sampled_from([block, block, block, PAD])) for block in blocks]
    contexts = draw(st.lists(st.integers(-2, 2 * BLOCK_SIZE), min_size=3, max_size=3))
    ends = sorted(draw(st.lists(st.integers(0, 9), min_size=3, max_size=3)))
    return BlockTable(np.int32(blocks).reshape(3, 2), np.int32(contexts), np.int32([0, *ends]))


@st.composite
def mappings(draw: st.DrawFn) -> IndexSpec:
    """Slots of which no two are the same, some negative and some past the cache."""
    slots = draw(st.permutations(range(-4, NUM_BLOCKS * BLOCK_SIZE + 4)))
    return SlotMapping(np.int32(slots[:8]))


def plans() -> st.SearchStrategy[IndexSpec]:
    """The plans of those tables, of 12 chunks."""

    def plan(spec: IndexSpec) -> IndexSpec:
        chunks = plan_chunks(spec, cache_shape=WIDE, num_tokens=8).chunks
        return ChunkPlan(np.concatenate([chunks, np.zeros((12 - len(chunks), 4), np.int32)]))

    return tables().map(plan)


@jax.jit
def stored_and_loaded(cache: Any, states: Any, spec: Any) -> Any:
    stored = store_single(cache, states, spec)
    return load_single(cache, spec, 8), load_single(stored, spec, 8)


@pytest.mark.parametrize(
    "specs", [tables(), mappings(), plans()], ids=["tables", "mappings", "plans"]
)
@given(data=st.data())
@settings(max_examples=60)
def test_a_load_undoes_a_store(specs, data):
    spec = data.draw(specs)
    cache = filled(WIDE, "bf16", salt=1)
    states = filled((8, SHAPE[1], SHAPE[3]), "bf16", salt=2)
    before, after = stored_and_loaded(cache, states, spec)
    assert difference(before, cache, spec, 8) is None
    is_stored = np.zeros(8, bool)
    is_stored[[token for token, _, _ in reference.stored_tokens(spec, WIDE, 8)]] = True
    want = np.where(is_stored[:, None, None], states, np.zeros_like(states))
    assert compare("states", np.asarray(after), want, want) is None
