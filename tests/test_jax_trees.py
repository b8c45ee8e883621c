"""Trees of caches: one store is the composition of K and V, MLA, or a cache and its scales."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")


from functional_paged import (
    PAD,
    SpecError,
    load_single,
    reference,
    store_single,
    store_single_donated,
)
from functional_paged.conformance.cases.steps import table
from functional_paged.conformance.run.compare import compare
from tests.helpers import filled, on_device, specs_by_form

NUM_BLOCKS, BLOCK_SIZE = 5, 3
STEP = table([[4, PAD, 2], [0, 1, 3], [3, 0, 1]], [1, -1, 7], [6, 2, 3])
SPEC = STEP.index_spec
FORMS = specs_by_form(STEP, (NUM_BLOCKS, 1, BLOCK_SIZE, 1))
STORES = {"pure": store_single, "donated": store_single_donated}

# kv_heads, head_dim and dtype of each cache.
TREES: dict[str, Any] = {
    "k and v": (("bf16", 2, 7), ("bf16", 2, 7)),
    "mla": (("bf16", 1, 16), ("bf16", 1, 4)),
    "cache and scales": {"values": ("i8", 2, 7), "scales": ("f32", 2, 1)},
    "layers": [
        {"k": ("i8", 2, 7), "v": (("f8e4m3fn", 4, 5), ("f32", 4, 1)), "none": None},
        {"k": ("i8", 2, 7), "v": (("f8e4m3fn", 4, 5), ("f32", 4, 1)), "none": None},
    ],
    "one in a list": [("f16", 2, 7)],
}


def arrays_of(tree: Any) -> tuple[Any, Any]:
    """Caches and states for a tree of `TREES`; no two leaves have the same bits."""
    leaves, structure = jax.tree.flatten(
        tree, is_leaf=lambda x: isinstance(x, tuple) and len(x) == 3
    )
    caches = [
        filled((NUM_BLOCKS, heads, BLOCK_SIZE, dim), dtype, salt=2 * i + 1)
        for i, (dtype, heads, dim) in enumerate(leaves)
    ]
    states = [
        filled((STEP.num_tokens, heads, dim), dtype, salt=2 * i + 2)
        for i, (dtype, heads, dim) in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, caches), jax.tree.unflatten(structure, states)


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("tree", TREES)
def test_c16_each_leaf_is_stored_as_alone(tree, store):
    caches, states = arrays_of(TREES[tree])
    got = STORES[store](*on_device((caches, states, SPEC)))
    assert jax.tree.structure(got) == jax.tree.structure(caches)
    leaves = [jax.tree.leaves(part) for part in (got, caches, states)]
    for got_leaf, cache, new in zip(*leaves, strict=True):
        want = reference.store_single(cache, new, SPEC)
        assert compare("cache", np.asarray(got_leaf), want, cache) is None


def test_a_tree_without_caches_is_returned_as_it_is():
    assert store_single((), (), SPEC) == ()
    assert load_single({"layers": []}, SPEC, 3) == {"layers": []}


def operations(jaxpr: Any) -> list[str]:
    """Names of all operations outside of the scatters, with those of inner functions."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("move_bits", "scatter", "gather"):
            continue
        found.append(equation.primitive.name)
        for value in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(value, "jaxpr", value)
            found += operations(inner) if hasattr(inner, "eqns") else []
    return found


def slot_operations(function: Any, *args: Any) -> list[str]:
    return operations(jax.make_jaxpr(function)(*args).jaxpr)


@pytest.mark.parametrize("form", FORMS)
def test_slots_are_computed_once_for_all_leaves(form):
    caches, states = arrays_of(TREES["k and v"])
    spec = FORMS[form]
    one = slot_operations(store_single, caches[0], states[0], spec)
    assert one
    assert slot_operations(store_single, caches, states, spec) == one
    assert slot_operations(store_single, (caches, caches), (states, states), spec) == one
    # What the count would say of a store that starts over for each leaf.
    by_leaf = lambda c, s, i: jax.tree.map(lambda *leaf: store_single(*leaf, i), c, s)  # noqa: E731
    assert slot_operations(by_leaf, caches, states, spec) == one + one


def test_slots_of_a_load_are_computed_once_for_all_leaves():
    caches, _ = arrays_of(TREES["mla"])

    def load(tree):
        return load_single(tree, SPEC, STEP.num_tokens)

    assert slot_operations(load, caches) == slot_operations(load, caches[0])


def cache_of(num_blocks: int = 5, block_size: int = 3) -> np.ndarray:
    return np.zeros((num_blocks, 2, block_size, 7), np.float32)


def states_of(num_tokens: int = STEP.num_tokens) -> np.ndarray:
    return np.ones((num_tokens, 2, 7), np.float32)


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize(
    ("caches", "states", "message"),
    [
        (
            (cache_of(), cache_of()),
            states_of(),
            "C1: states must have the tree of cache = PyTreeDef((*, *)), got PyTreeDef(*)",
        ),
        (
            (cache_of(), cache_of()),
            [states_of(), states_of()],
            "C1: states must have the tree of cache = PyTreeDef((*, *)), got PyTreeDef([*, *])",
        ),
        (
            {"k": cache_of(), "v": cache_of()},
            {"k": states_of(), "w": states_of()},
            "C1: states must have the tree of cache = PyTreeDef({'k': *, 'v': *}), "
            "got PyTreeDef({'k': *, 'w': *})",
        ),
        (
            (cache_of(), cache_of()),
            (states_of(), None),
            "C1: states must have the tree of cache = PyTreeDef((*, *)), got PyTreeDef((*, None))",
        ),
        (
            (cache_of(), cache_of(), cache_of(num_blocks=6)),
            (states_of(), states_of(), states_of()),
            "C1: leaf 2 of cache must have num_blocks = 5 of leaf 0, got 6",
        ),
        (
            (cache_of(), cache_of(block_size=4)),
            (states_of(), states_of()),
            "C1: leaf 1 of cache must have block_size = 3 of leaf 0, got 4",
        ),
        (
            (cache_of(), cache_of()),
            (states_of(), states_of(12)),
            "C1: leaf 1 of states must have num_tokens = 11 of leaf 0, got 12",
        ),
        (
            (cache_of(), cache_of()),
            (states_of(), states_of()[:, :1]),
            "C1: states.shape[1] = 1 must equal kv_heads = 2 of cache",
        ),
        (
            (cache_of(), cache_of().astype(np.float16)),
            (states_of(), states_of()),
            "C2: states.dtype must equal cache.dtype = float16, got float32; a store never casts",
        ),
    ],
    ids=["bare", "list", "key", "none", "num_blocks", "block_size", "num_tokens", "heads", "dtype"],
)
def test_c1_trees_that_do_not_match(caches, states, message, store):
    with pytest.raises(SpecError) as error:
        STORES[store](caches, states, SPEC)
    assert str(error.value) == message
    assert error.value.clause == message[:2]


@pytest.mark.parametrize(
    ("caches", "states"),
    [
        ((cache_of(), cache_of()), (states_of(), states_of())),
        ([cache_of(), cache_of()], [states_of(), states_of()]),
        ({"k": cache_of(), "v": cache_of()}, {"k": states_of(), "v": states_of()}),
        ((cache_of(), None), (states_of(), None)),
        ((cache_of(6), cache_of(6), cache_of(6)), (states_of(), states_of(), states_of())),
        ((cache_of(5, 4), cache_of(5, 4)), (states_of(), states_of())),
        ((cache_of(), cache_of()), (states_of(12), states_of(12))),
        ((cache_of(), cache_of()[:, :1]), (states_of(), states_of()[:, :1])),
        (
            (cache_of(), cache_of().astype(np.float16)),
            (states_of(), states_of().astype(np.float16)),
        ),
    ],
    ids=["pair", "list", "key", "none", "num_blocks", "block_size", "num_tokens", "heads", "dtype"],
)
def test_c1_their_valid_twins(caches, states):
    got = store_single(caches, states, SPEC)
    assert all(np.asarray(leaf).any() for leaf in jax.tree.leaves(got))


def test_c1_load_refuses_caches_of_different_layout():
    def refusal(*caches):
        with pytest.raises(SpecError) as error:
            load_single(caches, SPEC, STEP.num_tokens)
        return str(error.value)

    assert refusal(cache_of(), cache_of(num_blocks=6)) == (
        "C1: leaf 1 of cache must have num_blocks = 5 of leaf 0, got 6"
    )
    assert refusal(cache_of(), cache_of(block_size=4)) == (
        "C1: leaf 1 of cache must have block_size = 3 of leaf 0, got 4"
    )
    k, v = load_single((cache_of(), cache_of()[:, :1]), SPEC, STEP.num_tokens)
    assert (k.shape, v.shape) == ((11, 2, 7), (11, 1, 7))
