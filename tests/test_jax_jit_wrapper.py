"""`functional_paged.jit` gives what `jax.jit` gives."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp
from jax import export

import functional_paged
from functional_paged import SlotMapping, store_single, store_single_donated
from tests.helpers import difference, filled, on_device

CACHE, STATES = filled((5, 2, 3, 7), "bf16", 1), filled((3, 2, 7), "bf16", 2)
SPEC = SlotMapping(np.int32([14, -1, 3]))
on_cpu = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the options are for CPU")


def given() -> Any:
    return on_device((CACHE, STATES, SPEC))


def assert_stored(got: Any) -> None:
    assert difference(got, CACHE, STATES, SPEC) is None


def test_it_has_every_public_name_of_a_jitted_function():
    ours, theirs = functional_paged.jit(store_single), jax.jit(store_single)
    assert isinstance(ours, jax.stages.Wrapped)
    missing = [x for x in dir(theirs) if not x.startswith("__") and not hasattr(ours, x)]
    assert missing == []
    for name in ("__name__", "__doc__", "__module__", "__wrapped__"):
        assert getattr(ours, name) == getattr(theirs, name)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = ours.no_such_name


@pytest.mark.parametrize(
    "call",
    [
        lambda f: f(*given()),
        lambda f: f.lower(*given()).compile()(*given()),
        lambda f: f.trace(*given()).lower().compile()(*given()),
        lambda f: copy.copy(f)(*given()),
        lambda f: partial(f, index_spec=SPEC)(*given()[:2]),
    ],
    ids=["call", "lower", "trace", "copy", "keyword"],
)
def test_c16_every_way_to_run_it_keeps_every_bit(call):
    assert_stored(call(functional_paged.jit(store_single)))


def test_it_tells_the_shape_of_its_result():
    outline = functional_paged.jit(store_single).eval_shape(CACHE, STATES, SPEC)
    assert (outline.shape, outline.dtype) == (CACHE.shape, jnp.bfloat16)


def test_it_decorates_with_options():
    @functional_paged.jit(donate_argnums=0)
    def step(cache, states, spec):
        """Store."""
        return store_single(cache, states, spec)

    cache, states, spec = given()
    assert_stored(step(cache, states, spec))
    assert cache.is_deleted()
    assert (step.__name__, step.__doc__) == ("step", "Store.")


def test_it_decorates_methods():
    class Layer:
        @partial(functional_paged.jit, static_argnums=0)
        def store(self, cache, states):
            return store_single(cache, states, SPEC)

    assert_stored(Layer().store(CACHE, STATES))


@on_cpu
def test_own_compiler_options_go_beside_those_of_the_store(monkeypatch):
    mine = {"xla_disable_hlo_passes": "some-pass", "xla_cpu_enable_fast_math": False}
    real, seen = jax.jit, {}

    def spy(fun: Any, **options: Any) -> Any:
        seen.update(options)
        return real(fun, **options)

    monkeypatch.setattr(jax, "jit", spy)
    step = functional_paged.jit(store_single, donate_argnums=0, compiler_options=mine)
    assert_stored(step(*given()))
    ours = functional_paged.jit.compiler_options()["xla_disable_hlo_passes"]
    assert seen["compiler_options"] == {**mine, "xla_disable_hlo_passes": f"some-pass,{ours}"}
    assert mine["xla_disable_hlo_passes"] == "some-pass"


def test_an_option_that_xla_has_not_is_refused_by_xla():
    # That the options above reach it.
    step = functional_paged.jit(store_single, compiler_options={"xla_no_such_option": True})
    with pytest.raises(Exception, match="xla_no_such_option"):
        step(*given())


@pytest.mark.parametrize("jit", [jax.jit, functional_paged.jit], ids=["jax", "functional_paged"])
def test_c16_an_exported_store_keeps_every_bit(jit):
    # An exported program is compiled without the options, so it may not count on them.
    exported = export.export(jit(store_single))(CACHE, STATES, SPEC)
    assert_stored(exported.call(*given()))
    assert_stored(functional_paged.jit(exported.call, donate_argnums=0)(*given()))
    on_two = export.export(jit(store_single), platforms=["cpu", "cuda"])(CACHE, STATES, SPEC)
    assert on_two.platforms == ("cpu", "cuda")
    assert_stored(on_two.call(*given()))


def test_the_backend_is_asked_for_on_the_first_use_only(monkeypatch):
    asked = []
    monkeypatch.setattr(jax, "default_backend", lambda: asked.append(1) or "tpu")

    @functional_paged.jit(donate_argnums=())
    def step(x):
        return x

    assert (asked, step.__name__) == ([], "step")
    step(1)
    step(2)
    assert asked == [1]


@pytest.mark.skipif(not hasattr(jax, "make_user_context"), reason="this JAX says nothing")
@pytest.mark.parametrize("inner", [functional_paged.jit(store_single), store_single_donated])
def test_inside_another_trace_jax_says_why_not(inner):
    pair = (CACHE, CACHE), (STATES, STATES), SPEC
    with pytest.raises(ValueError, match="`compiler_options` can only be passed to top-level"):
        jax.jit(lambda *args: inner(*args))(*pair)
