"""Every dtype that JAX has: the bits, the memory of a donated store, linearity."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp

import functional_paged
from functional_paged import (
    PAD,
    SlotMapping,
    load_single,
    reference,
    store_single,
    store_single_donated,
)

SPEC = SlotMapping(np.int32([3, PAD, 7, 0]))
NUM_TOKENS = 4
on_cpu = pytest.mark.skipif(jax.default_backend() != "cpu", reason="what XLA does on CPU")
writes_in_place = pytest.mark.skipif(
    not hasattr(jax, "make_user_context"), reason="this JAX copies what it scatters to, on CPU"
)


def dtypes_of_jax() -> list[str]:
    """The names of all dtypes that a program of JAX takes without 64-bit types."""
    found = []
    for name, scalar in vars(jnp).items():
        dtype = getattr(scalar, "dtype", None)
        if not isinstance(dtype, np.dtype) or jax.dtypes.canonicalize_dtype(dtype) != dtype:
            continue
        try:
            jax.jit(lambda x: x[::-1])(np.zeros(2, dtype)).block_until_ready()
        except Exception:  # a name in jnp and no more, such as float6_e2m3fn and int1
            continue
        found.append(name)
    return sorted(found)


DTYPES = dtypes_of_jax()
FLOATS = [name for name in DTYPES if jnp.issubdtype(getattr(jnp, name), jnp.floating)]


def test_dtypes_are_found():
    expected = {
        "bfloat16",
        "float8_e8m0fnu",
        "float4_e2m1fn",
        "int2",
        "uint4",
        "complex64",
        "bool_",
    }
    assert expected <= set(DTYPES)


def random(shape: tuple[int, ...], dtype: Any, seed: int) -> np.ndarray:
    """An array of random bits."""
    dtype = np.dtype(dtype)
    raw = np.random.default_rng(seed).integers(0, 256, (*shape, dtype.itemsize), np.uint8)
    return (raw & _mask(dtype)).view(dtype)[..., 0]


def bits(array: Any) -> bytes:
    """The bits of all elements; NumPy gives those below a byte a whole one."""
    array = np.ascontiguousarray(np.asarray(array))
    return (array.view(np.uint8) & _mask(array.dtype)).tobytes()


def _mask(dtype: np.dtype) -> np.uint8:
    if dtype.kind == "b":
        return np.uint8(1)
    is_float = jnp.issubdtype(dtype, jnp.inexact)
    width = (jnp.finfo if is_float else jnp.iinfo)(dtype).bits
    return np.uint8(2 ** min(width, 8) - 1)


CALLS = {
    "store": store_single,
    "donated": store_single_donated,
    "jax.jit": jax.jit(store_single),
    "functional_paged.jit": functional_paged.jit(store_single, donate_argnums=0),
}


@pytest.mark.parametrize("head_dim", [1, 3, 16])
@pytest.mark.parametrize("dtype", DTYPES)
def test_c16_every_dtype_keeps_every_bit(dtype, head_dim):
    cache = random((4, 2, 3, head_dim), getattr(jnp, dtype), 1)
    states = random((NUM_TOKENS, 2, head_dim), getattr(jnp, dtype), 2)
    want = bits(reference.store_single(cache, states, SPEC))
    for name, store in CALLS.items():
        got = store(jnp.array(cache, copy=True), jnp.asarray(states), SPEC)
        assert got.dtype == cache.dtype
        assert bits(got) == want, name
    read = load_single(jnp.asarray(cache), SPEC, NUM_TOKENS)
    assert bits(read) == bits(reference.load_single(cache, SPEC, NUM_TOKENS))
    scaled = random((4, 2, 3, 1), np.float32, 3)
    tree = (jnp.asarray(cache), jnp.asarray(scaled))
    new = (jnp.asarray(states), jnp.ones((NUM_TOKENS, 2, 1)))
    assert bits(store_single(tree, new, SPEC)[0]) == want


def copied(name: str) -> bool:
    """Whether a donated store of a cache of this dtype takes memory by the size of the cache."""
    dtype = getattr(jnp, name)
    cache, states = (1024, 2, 16, 64), (NUM_TOKENS, 2, 64)
    args = (jax.ShapeDtypeStruct(cache, dtype), jax.ShapeDtypeStruct(states, dtype), SPEC)
    used = store_single_donated.lower(*args).compile().memory_analysis()
    assert used.alias_size_in_bytes == used.output_size_in_bytes
    return used.temp_size_in_bytes > used.output_size_in_bytes / 100


@on_cpu
@writes_in_place
def test_a_donated_store_copies_the_dtypes_that_the_docs_name_and_no_other():
    page = (Path(__file__).parents[1] / "docs" / "jax.md").read_text()
    (sentence,) = re.findall(r"hold but for ([^.]*), which are copied", page.replace("\n", " "))
    named = re.findall(r"`(\w+)`", sentence)
    assert [name for name in DTYPES if copied(name)] == sorted(named)


@on_cpu
def test_the_options_name_the_pass_of_every_small_float():
    passes = functional_paged.jit.compiler_options()["xla_disable_hlo_passes"].split(",")
    for name, short in [
        ("bfloat16", "bf16"),
        ("float8_e4m3fn", "f8e4m3fn"),
        ("float8_e8m0fnu", "f8e8m0fnu"),
        ("float4_e2m1fn", "f4e2m1fn"),
    ]:
        assert name in FLOATS
        assert f"float-normalization-{short}" in passes
    assert not any(name in "".join(passes) for name in ("f16,", "f32", "f64"))


# float8_e8m0fnu has no zero and no sign, so nothing in it is linear.
@pytest.mark.parametrize("dtype", [name for name in FLOATS if name != "float8_e8m0fnu"])
def test_c22_store_and_load_are_linear_in_every_dtype(dtype):
    scalar = getattr(jnp, dtype)
    numbers = np.float32([0, 0.5, 1, 1.5, 2, -1, -2, -1.5])

    def some(*shape: int) -> np.ndarray:
        return np.resize(numbers[np.arange(np.prod(shape)) % 7 + 1], shape).astype(scalar)

    cache, states = some(4, 2, 3, 3), some(NUM_TOKENS, 2, 3)
    store = lambda cache, states: store_single(cache, states, SPEC)  # noqa: E731
    load = lambda cache: load_single(cache, SPEC, NUM_TOKENS)  # noqa: E731
    zeros = np.zeros_like(states)
    want = (
        bits(reference.store_single(cache, zeros, SPEC)),
        bits(reference.load_single(cache, SPEC, NUM_TOKENS)),
    )

    for transpose in (
        lambda ct: jax.linear_transpose(store, cache, states)(ct),
        lambda ct: jax.linear_transpose(jax.jit(store), cache, states)(ct),
        lambda ct: jax.vjp(store, cache, states)[1](ct),
        functional_paged.jit(lambda ct: jax.vjp(store, cache, states)[1](ct)),
    ):
        d_cache, d_states = transpose(cache)
        assert (bits(d_cache), bits(d_states)) == want
    (d_states,) = jax.linear_transpose(lambda s: store(np.zeros_like(cache), s), states)(cache)
    assert bits(d_states) == want[1]
    (d_cache,) = jax.linear_transpose(load, cache)(states)
    assert bits(d_cache) == bits(reference.store_single(np.zeros_like(cache), states, SPEC))

    batch = jnp.stack([cache, cache]), jnp.stack([states, states])
    both = jax.linear_transpose(jax.vmap(store), *batch)(batch[0])
    assert (bits(both[0][1]), bits(both[1][1])) == want
    out, d_out = jax.jvp(store, (cache, states), (cache, states))
    assert bits(out) == bits(d_out) == bits(reference.store_single(cache, states, SPEC))
    twice = jax.linear_transpose(lambda ct: jax.linear_transpose(store, cache, states)(ct), cache)
    assert bits(twice((cache, states))[0]) == bits(out)


def test_c22_second_derivatives_of_a_small_float():
    cache = np.ones((2, 1, 2, 1), jnp.bfloat16)
    total = lambda s: (store_single(cache, s, SPEC).astype(jnp.float32) ** 2).sum()  # noqa: E731
    hessian = jax.hessian(total)(np.ones((NUM_TOKENS, 1, 1), jnp.bfloat16))
    # Tokens 0 and 3 are stored in this smaller cache.
    assert np.diag(np.asarray(hessian, np.float32).reshape(4, 4)).tolist() == [2, 0, 0, 2]
