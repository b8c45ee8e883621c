"""C22: the derivative of a store and of a load, among others for tokens that are not stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp
from jax.test_util import check_grads

import functional_paged
from functional_paged import PAD, ChunkPlan, SlotMapping, load_single, reference, store_single
from functional_paged.conformance.bits import DTYPES
from functional_paged.conformance.cases.steps import table
from functional_paged.conformance.run.compare import compare

SHAPE = (5, 2, 3, 4)
NUM_TOKENS = 12
STATES_SHAPE = (NUM_TOKENS, 2, 4)
# Tokens 0, 1, 5, 8 and 9 are stored. The others: a hole, a padded row, past the table, not named.
FORMS = {
    "block_table": table([[4, PAD, 2], [0, 1, 3], [3, 0, 1]], [1, -1, 7], [6, 2, 3]).index_spec,
    "chunks": ChunkPlan(
        np.int32([[5, 2, 0, 1], [0, 4, 1, 2], [2, PAD, 0, 3], [7, 3, 2, 0], [8, 1, 1, 2]])
    ),
    "slots": SlotMapping(np.int32([13, 14, PAD, -4, 15, 6, PAD, -13, 4, 5, 99])),
}
SPEC = FORMS["block_table"]
JITS = {"eager": lambda f: f, "jax.jit": jax.jit, "functional_paged.jit": functional_paged.jit}


def numbers(shape: tuple[int, ...], dtype: str, seed: int) -> np.ndarray:
    """Distinct numbers that the dtype holds, of either sign, none of them 0."""
    order = np.random.default_rng(seed).permutation(int(np.prod(shape)))
    return ((order + 1) * np.where(order % 2, 0.5, -0.5)).astype(DTYPES[dtype]).reshape(shape)


def cache_and_states(dtype: str = "f32", seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return numbers(SHAPE, dtype, 2 * seed), numbers(STATES_SHAPE, dtype, 2 * seed + 1)


def pulled_back(cotangent: np.ndarray, spec: Any) -> tuple[np.ndarray, np.ndarray]:
    """What C22 says a store's cotangent becomes for the cache and for the states."""
    zeros = np.zeros(STATES_SHAPE, cotangent.dtype)
    d_cache = reference.store_single(cotangent, zeros, spec)
    return d_cache, reference.load_single(cotangent, spec, NUM_TOKENS)


def assert_same(got: Any, want: Any) -> None:
    """Compare trees of arrays bit for bit."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert compare("derivative", np.asarray(one), other, other) is None


def test_every_form_stores_the_same_five_tokens():
    # Else the tests below would not all meet tokens that are dropped, and tokens that are not.
    for spec in FORMS.values():
        places = set(reference.stored_tokens(spec, SHAPE, NUM_TOKENS))
        assert places == {(0, 4, 1), (1, 4, 2), (5, 2, 0), (8, 1, 1), (9, 1, 2)}


# Both are linear, so that a difference over a large step is as good as the derivative.
@pytest.mark.parametrize("form", FORMS)
def test_c22_store_agrees_with_finite_differences(form):
    def store(cache, states):
        return store_single(cache, states, FORMS[form])

    check_grads(store, cache_and_states(), order=2, modes=("fwd", "rev"), eps=1.0)


@pytest.mark.parametrize("form", FORMS)
def test_c22_load_agrees_with_finite_differences(form):
    def load(cache):
        return load_single(cache, FORMS[form], NUM_TOKENS)

    check_grads(load, cache_and_states()[:1], order=2, modes=("fwd", "rev"), eps=1.0)


def test_check_grads_finds_a_wrong_derivative():
    # That the two tests above can fail: the states' derivative goes missing.
    def store(cache, states):
        return store_single(cache, jax.lax.stop_gradient(states), SPEC)

    with pytest.raises(AssertionError):
        check_grads(store, cache_and_states(), order=1, modes=("rev",), eps=1.0)


@pytest.mark.parametrize(
    ("form", "dtype", "jit"),
    [
        *(("block_table", "f32", jit) for jit in JITS),
        *(("block_table", "bf16", jit) for jit in JITS),
        ("chunks", "bf16", "eager"),
        ("slots", "bf16", "functional_paged.jit"),
    ],
)
def test_c22_reverse_mode_of_a_store(form, dtype, jit):
    spec = FORMS[form]
    cotangent = numbers(SHAPE, dtype, seed=7)

    @JITS[jit]
    def pull(cache, states, cotangent):
        _, vjp = jax.vjp(lambda *args: store_single(*args, spec), cache, states)
        return vjp(cotangent)

    got = pull(*cache_and_states(dtype), cotangent)
    assert_same(got, pulled_back(cotangent, spec))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_c22_zeros_are_zeros_whatever_the_cotangent(bad):
    # A derivative that multiplies by a mask would spread NaN.
    cotangent = np.full(SHAPE, bad, np.float32)
    _, vjp = jax.vjp(lambda *args: store_single(*args, SPEC), *cache_and_states())
    d_cache, d_states = vjp(jnp.asarray(cotangent))
    assert_same((d_cache, d_states), pulled_back(cotangent, SPEC))
    assert not np.asarray(d_states)[2].any()
    assert not np.asarray(d_cache)[4, :, 1].any()


@pytest.mark.parametrize(
    ("dtype", "jit"), [("f32", "eager"), ("bf16", "jax.jit"), ("bf16", "functional_paged.jit")]
)
def test_c22_forward_mode_of_a_store(dtype, jit):
    primals, tangents = cache_and_states(dtype), cache_and_states(dtype, seed=3)

    @JITS[jit]
    def push(primals, tangents):
        return jax.jvp(lambda *args: store_single(*args, SPEC), primals, tangents)

    got = push(primals, tangents)
    assert_same(
        got, (reference.store_single(*primals, SPEC), reference.store_single(*tangents, SPEC))
    )


@pytest.mark.parametrize("argument", [0, 1], ids=["cache", "states"])
def test_c22_one_argument_at_a_time(argument):
    # The other one's tangent is a symbolic zero.
    args = list(cache_and_states())
    cotangent = numbers(SHAPE, "f32", seed=7)

    def store(x):
        return store_single(*args[:argument], x, *args[argument + 1 :], SPEC)

    _, vjp = jax.vjp(store, args[argument])
    assert_same(vjp(cotangent)[0], pulled_back(cotangent, SPEC)[argument])
    tangents = [np.zeros_like(arg) for arg in args]
    tangents[argument] = numbers(args[argument].shape, "f32", seed=8)
    got = jax.jvp(store, (args[argument],), (tangents[argument],))[1]
    assert_same(got, reference.store_single(*tangents, SPEC))


@pytest.mark.parametrize(
    ("form", "dtype"),
    [("block_table", "f32"), ("chunks", "bf16"), ("slots", "bf16")],
)
def test_c22_both_modes_of_a_load(dtype, form):
    spec = FORMS[form]
    cache, tangent = numbers(SHAPE, dtype, seed=1), numbers(SHAPE, dtype, seed=2)
    cotangent = numbers(STATES_SHAPE, dtype, seed=3)

    def load(cache):
        return load_single(cache, spec, NUM_TOKENS)

    got, d_states = jax.jvp(load, (cache,), (tangent,))
    want = [reference.load_single(array, spec, NUM_TOKENS) for array in (cache, tangent)]
    assert_same([got, d_states], want)
    (d_cache,) = jax.vjp(load, cache)[1](cotangent)
    assert_same(d_cache, reference.store_single(np.zeros_like(cache), cotangent, spec))


def test_c22_a_slot_that_is_loaded_twice_gets_the_sum():
    spec = SlotMapping(np.int32([7, 7, PAD, 0]))
    cotangent = numbers((4, 2, 4), "f32", seed=3)
    cache = numbers(SHAPE, "f32", seed=1)
    (d_cache,) = jax.vjp(lambda cache: load_single(cache, spec, 4), cache)[1](cotangent)
    want = np.zeros(SHAPE, np.float32)
    want[2, :, 1] = cotangent[0] + cotangent[1]
    want[0, :, 0] = cotangent[3]
    assert_same(d_cache, want)


def loss(cache: Any, states: Any, weights: Any, spec: Any) -> Any:
    """A number whose gradient is what becomes of the cotangent `weights`."""
    stored = store_single(cache, states, spec)
    return sum(
        (leaf * weight).astype(jnp.float32).sum()
        for leaf, weight in zip(jax.tree.leaves(stored), jax.tree.leaves(weights), strict=True)
    )


def test_c22_grad_of_a_tree():
    (k, k_new), (v, v_new) = cache_and_states("f32"), cache_and_states("bf16", seed=1)
    weights = {"k": numbers(SHAPE, "f32", seed=7), "v": numbers(SHAPE, "bf16", seed=8)}
    grad = jax.grad(loss, argnums=(0, 1))
    d_caches, d_states = grad({"k": k, "v": v}, {"k": k_new, "v": v_new}, weights, SPEC)
    for name, weight in weights.items():
        assert_same((d_caches[name], d_states[name]), pulled_back(weight, SPEC))


@pytest.mark.parametrize("jit", ["eager", "functional_paged.jit"])
def test_c22_integers_of_a_tree_have_no_derivative(jit):
    # An int8 cache beside its float32 scales.
    scales, new_scales = cache_and_states()
    caches = (scales.astype(np.int8), scales)
    states = (new_scales.astype(np.int8), new_scales)
    cotangent = numbers(SHAPE, "f32", seed=7)

    def nothing(tree):
        return np.zeros(tree[0].shape, jax.dtypes.float0)

    @JITS[jit]
    def pull(caches, states, cotangent):
        out, vjp = jax.vjp(lambda *args: store_single(*args, SPEC), caches, states)
        (d_ints, d_cache), (d_int_states, d_states) = vjp((nothing(out), cotangent))
        assert d_ints.dtype == d_int_states.dtype == jax.dtypes.float0
        assert (d_ints.shape, d_int_states.shape) == (SHAPE, STATES_SHAPE)
        return d_cache, d_states

    assert_same(pull(caches, states, cotangent), pulled_back(cotangent, SPEC))

    @JITS[jit]
    def push(caches, states, tangents):
        pairs = zip((caches, states), tangents, strict=True)
        tangents = [(nothing(tree), tangent) for tree, tangent in pairs]
        store = lambda *args: store_single(*args, SPEC)  # noqa: E731
        (ints, _), (d_ints, d_cache) = jax.jvp(store, (caches, states), tuple(tangents))
        assert (d_ints.dtype, d_ints.shape) == (jax.dtypes.float0, SHAPE)
        return ints, d_cache

    tangents = cache_and_states(seed=3)
    ints = reference.store_single(caches[0], states[0], SPEC)
    assert_same(push(caches, states, tangents), (ints, reference.store_single(*tangents, SPEC)))


def test_c22_load_of_integers_has_no_derivative():
    cache = numbers(SHAPE, "f32", seed=1).astype(np.int8)
    tangent = np.zeros(SHAPE, jax.dtypes.float0)
    load = lambda cache: load_single(cache, SPEC, NUM_TOKENS)  # noqa: E731
    got, d_states = jax.jvp(load, (cache,), (tangent,))
    assert_same(got, reference.load_single(cache, SPEC, NUM_TOKENS))
    assert (d_states.dtype, d_states.shape) == (jax.dtypes.float0, STATES_SHAPE)


@pytest.mark.parametrize(
    ("dtype", "jit"), [("f32", "eager"), ("bf16", "jax.jit"), ("bf16", "functional_paged.jit")]
)
def test_c22_vmap_of_grad(dtype, jit):
    specs = [
        SPEC,
        table([[1, 0, PAD], [2, 2, 4], [PAD, 3, 0]], [2, 5, 0], [3, 1, 5]).index_spec,
    ]
    pairs = zip(*(cache_and_states(dtype, i) for i in range(2)), strict=True)
    caches, states = map(np.stack, pairs)
    weights = numbers(SHAPE, dtype, seed=7)
    stacked = jax.tree.map(lambda *arrays: np.stack(arrays), *specs)
    grad = jax.vmap(jax.grad(loss, argnums=(0, 1)), in_axes=(0, 0, None, 0))
    d_caches, d_states = JITS[jit](grad)(caches, states, weights, stacked)
    for i, spec in enumerate(specs):
        assert_same((d_caches[i], d_states[i]), pulled_back(weights, spec))


def test_c22_grad_of_a_scan_passes_the_overwritten_by():
    # Slot 7 is stored to by both steps: only the later one's row is left to have a derivative.
    slots = np.int32([[7, 0, PAD], [14, 7, 99]])
    cache = numbers(SHAPE, "f32", seed=1)
    states, weights = numbers((2, 3, 2, 4), "f32", seed=2), numbers(SHAPE, "f32", seed=3)

    def total(cache, states):
        def step(cache, new):
            return store_single(cache, new[0], SlotMapping(new[1])), None

        return (jax.lax.scan(step, cache, (states, slots))[0] * weights).sum()

    d_cache, d_states = jax.grad(total, argnums=(0, 1))(cache, states)
    cotangent, want = weights, []
    for step_slots in map(SlotMapping, slots[::-1]):
        want.append(reference.load_single(cotangent, step_slots, 3))
        cotangent = reference.store_single(cotangent, np.zeros_like(states[0]), step_slots)
    assert_same((d_cache, d_states), (cotangent, np.stack(want[::-1])))
    assert not np.asarray(d_states)[0, 0].any()
