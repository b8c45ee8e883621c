"""No call depends on how JAX is set up, but for what docs/jax.md says."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp

from functional_paged import (
    check_spec,
    load_single,
    plan_chunks,
    reference,
    store_single,
    store_single_donated,
    to_slots,
)
from functional_paged.conformance.cases.steps import table
from functional_paged.conformance.run.compare import compare
from tests.helpers import difference, filled, on_device, specs_by_form

SHAPE = (5, 2, 3, 7)
STEP = table([[4, -1, 2], [0, 1, 3], [3, 0, 1]], [1, -1, 7], [6, 2, 3], num_tokens=12)
FORMS = specs_by_form(STEP, SHAPE)
SIZE = {"cache_shape": SHAPE, "num_tokens": STEP.num_tokens}


def config(name: str, value: Any) -> Any:
    @contextlib.contextmanager
    def surroundings():
        before = getattr(jax.config, name)
        jax.config.update(name, value)
        try:
            yield
        finally:
            jax.config.update(name, before)

    return surroundings


STATES_OF_JAX = {
    "transfer guard": lambda: jax.transfer_guard("disallow"),
    "64-bit integers": config("jax_enable_x64", True),
    "strict promotion": config("jax_numpy_dtype_promotion", "strict"),
    "ranks": config("jax_numpy_rank_promotion", "raise"),
    "default device": lambda: jax.default_device(jax.devices()[-1]),
    "leak checks": lambda: jax.checking_leaks(),
    "no jit": lambda: jax.disable_jit(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("state", STATES_OF_JAX)
def test_calls_are_the_same_under(state, form):
    cache, states = filled(SHAPE, "bf16", 1), filled((STEP.num_tokens, 2, 7), "bf16", 2)
    spec = FORMS[form]
    given = on_device((cache, states, spec))
    own = on_device(cache)
    want = plan_chunks(spec, **SIZE).chunks, to_slots(spec, **SIZE).slots
    with STATES_OF_JAX[state]():
        got = [store_single(*given), store_single_donated(own, *given[1:])]
        read = load_single(given[0], given[2], STEP.num_tokens)
        slots, plan = to_slots(given[2], **SIZE).slots, plan_chunks(given[2], **SIZE).chunks
        check_spec(given[2], **SIZE)
    for stored in got:
        assert difference(stored, cache, states, spec) is None
    want_read = reference.load_single(cache, spec, STEP.num_tokens)
    assert compare("states", np.asarray(read), want_read, want_read) is None
    for lowered, expected in zip((plan, slots), want, strict=True):
        assert lowered.dtype == expected.dtype
        np.testing.assert_array_equal(lowered, expected)
    # An uncommitted array is moved to the default device, which leaves the caller's own alive.
    assert own.is_deleted() == (state not in ("no jit", "default device"))


CALLS = {
    "pure": store_single,
    "donated": store_single_donated,
    "load": lambda cache, states, spec: load_single(cache, spec, len(states)),
}


@pytest.mark.parametrize("call", CALLS)
def test_debug_nans_refuses_a_nan_and_leaves_the_cache(call):
    cache = jnp.full(SHAPE, jnp.nan)
    spec, states = FORMS["slots"], jnp.ones((STEP.num_tokens, 2, 7))
    with jax.debug_nans(True), pytest.raises(FloatingPointError):
        CALLS[call](cache, states, spec)
    assert not cache.is_deleted()
    assert store_single(cache, states, spec).shape == SHAPE
