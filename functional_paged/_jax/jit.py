"""A `jax.jit` in which a store costs O(tokens) on every platform and keeps every bit."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import jax

from .._spec import IndexSpec
from .bits import passes_off
from .store import PyTree, check_trees, store_single

_WIDENED = (
    "bf16",
    "f8e4m3fn",
    "f8e5m2",
    "f8e4m3",
    "f8e3m4",
    "f8e4m3fnuz",
    "f8e5m2fnuz",
    "f8e4m3b11fnuz",
)


def compiler_options() -> dict[str, str]:
    """XLA options with which the default backend neither widens nor copies a small-float cache.

    They turn off the CPU passes that emulate bfloat16 and float8 in float32 around operations
    that only move data; arithmetic in those types is then up to LLVM. Empty elsewhere.

    Returns:
      What to pass as `compiler_options` to a top-level `jax.jit`. A plain `jax.jit` with these
      options still copies; `functional_paged.jit` also tells the store that they are on.

    Example:
      >>> sorted(compiler_options())
      ['xla_disable_hlo_passes']
    """
    if jax.default_backend() != "cpu":
        return {}
    passes = ",".join(f"float-normalization-{name}" for name in _WIDENED)
    return {"xla_disable_hlo_passes": passes}


def jit(fun: Callable[..., Any], **jit_options: Any) -> Callable[..., Any]:
    """`jax.jit` whose stores write a donated cache in place, in O(tokens), in every dtype.

    For use at top level: JAX takes no compiler options in a jit inside another trace, so `grad`
    and `vmap` go inside `fun`.

    Args:
      fun: as for `jax.jit`; may call `store_single` any number of times.
      **jit_options: as for `jax.jit`, without `compiler_options`.

    Returns:
      The compiled function, with `lower` for ahead-of-time use.

    Example:
      >>> import jax.numpy as jnp
      >>> from functional_paged import SlotMapping, store_single
      >>> step = jit(lambda kv, new, spec: store_single(kv, new, spec), donate_argnums=0)
      >>> kv = (jnp.zeros((2, 1, 2, 1)), jnp.zeros((2, 1, 2, 1)))
      >>> new = (jnp.ones((1, 1, 1)), jnp.full((1, 1, 1), 2.0))
      >>> [float(cache.sum()) for cache in step(kv, new, SlotMapping(jnp.array([3])))]
      [1.0, 2.0]
    """

    @functools.cache
    def compiled() -> Any:
        # On the first call, since asking for the backend starts it.
        options = compiler_options()
        return jax.jit(_traced_with(options, fun), compiler_options=options, **jit_options)

    @functools.wraps(fun)
    def call(*args: Any, **kwargs: Any) -> Any:
        return compiled()(*args, **kwargs)

    call.lower = lambda *args, **kwargs: compiled().lower(*args, **kwargs)  # type: ignore
    return call


def _traced_with(options: dict[str, str], fun: Callable[..., Any]) -> Callable[..., Any]:
    if not options:
        return fun

    @functools.wraps(fun)
    def traced(*args: Any, **kwargs: Any) -> Any:
        # Under disable_jit nothing is compiled, so no option is on.
        compiled = not jax.config.jax_disable_jit  # pyright: ignore[reportAttributeAccessIssue]
        with passes_off() if compiled else contextlib.nullcontext():
            return fun(*args, **kwargs)

    return traced


_store_donated = jit(store_single, donate_argnums=0)


def store_single_donated(cache: PyTree, states: PyTree, index_spec: IndexSpec) -> PyTree:
    """`store_single` that writes into the memory of `cache`, in O(tokens).

    Args:
      cache: as in `store_single`; donated: the caller's array is deleted.
      states: as in `store_single`. Left alone.
      index_spec: any of the three forms. Left alone.

    Returns:
      The caches, in the buffers of the caches that were given.

    Raises:
      SpecError: as `store_single`; the cache is then not donated.

    Unspecified: as `store_single`.

    Example:
      >>> import jax.numpy as jnp
      >>> from functional_paged import SlotMapping
      >>> cache = jnp.zeros((2, 1, 2, 1))
      >>> out = store_single_donated(cache, jnp.ones((1, 1, 1)), SlotMapping(jnp.array([3])))
      >>> cache.is_deleted()
      True
    """
    check_trees(cache, states, index_spec)
    return _store_donated(cache, states, index_spec)


store_single_donated.lower = _store_donated.lower  # type: ignore
