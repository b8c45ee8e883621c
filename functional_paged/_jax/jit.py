"""A `jax.jit` in which a store costs O(tokens) on every platform and keeps every bit."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import jax

from .._layout import LayoutName, layout_of
from .._spec import IndexSpec, narrowed
from .bits import passes_off, widened_dtypes
from .store import store_single
from .trees import Caches, States, check_donation, check_trees, values_now

_DISABLED = "xla_disable_hlo_passes"


def compiler_options() -> dict[str, str]:
    """XLA options with which the default backend neither widens nor copies a small-float cache.

    They turn off the CPU passes that emulate floats of up to 16 bits in wider ones around
    operations that only move data; arithmetic in those types is then up to LLVM. Empty elsewhere.

    Returns:
      What to pass as `compiler_options` to a top-level `jax.jit`. A plain `jax.jit` with these
      options still copies; `functional_paged.jit` also tells the store that they are on.

    Example:
      >>> sorted(compiler_options())
      ['xla_disable_hlo_passes']
    """
    if jax.default_backend() != "cpu":
        return {}
    # XLA's name of float8_e4m3fn is f8e4m3fn, that of bfloat16 is bf16.
    names = [name.replace("loat", "").replace("_", "") for name in widened_dtypes()]
    return {_DISABLED: ",".join(f"float-normalization-{name}" for name in names)}


def jit(fun: Callable[..., Any] | None = None, /, **jit_options: Any) -> Any:
    """`jax.jit` whose stores write a donated cache in place, in O(tokens).

    In every dtype but those that docs/jax.md names. For use at top level: JAX takes no compiler
    options in a jit inside another trace, so `grad` and `vmap` go inside `fun`.

    Args:
      fun: as for `jax.jit`; may call `store_single` any number of times. May be left out to
        decorate with options.
      **jit_options: as for `jax.jit`; `compiler_options` go beside those of the store, which
        `jit.compiler_options()` tells.

    Returns:
      A callable with all that the one of `jax.jit` has (`lower`, `trace`, `eval_shape`, ...), also
      for `jax.export` and as a method. It makes the one of `jax.jit` on its first use, since asking
      for the backend starts it. What it exports copies small-float caches on CPU to keep their
      bits: an exported program does not carry its compiler options.

    Example:
      >>> import jax.numpy as jnp
      >>> from functional_paged import SlotMapping, store_single
      >>> step = jit(lambda kv, new, spec: store_single(kv, new, spec), donate_argnums=0)
      >>> kv = (jnp.zeros((2, 1, 2, 1)), jnp.zeros((2, 1, 2, 1)))
      >>> new = (jnp.ones((1, 1, 1)), jnp.full((1, 1, 1), 2.0))
      >>> [float(cache.sum()) for cache in step(kv, new, SlotMapping(jnp.array([3])))]
      [1.0, 2.0]
    """
    return functools.partial(jit, **jit_options) if fun is None else _Jit(fun, jit_options)


jit.compiler_options = compiler_options  # type: ignore


class _Jit:
    """The callable that `jit` returns; as a `jax.stages.Wrapped` it can be exported.

    `disabled` names one more pass that is off on CPU.
    """

    def __init__(
        self, fun: Callable[..., Any], jit_options: dict[str, Any], disabled: str | None = None
    ):
        functools.update_wrapper(self, fun)
        self._options, self._disabled = jit_options, disabled

    @functools.cached_property
    def _jitted(self) -> Any:
        fun, options = self.__wrapped__, dict(self._options)
        disabled = compiler_options()
        if disabled:
            fun = passes_off()(fun)
            given = options.get("compiler_options") or {}
            passes = filter(None, (given.get(_DISABLED), disabled[_DISABLED], self._disabled))
            options["compiler_options"] = {**given, _DISABLED: ",".join(passes)}
        return jax.jit(fun, **options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._jitted(*args, **kwargs)

    def lower(self, *args: Any, **kwargs: Any) -> Any:
        return self._jitted.lower(*args, **kwargs)

    def trace(self, *args: Any, **kwargs: Any) -> Any:
        return self._jitted.trace(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._jitted, name)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)


# The scatter runs on one thread in any case, and the index arithmetic is not worth waking others:
# a prefill of 4096 tokens took about a fifth longer with them.
_store_donated = _Jit(
    store_single,
    {"donate_argnums": 0, "static_argnames": "layout"},
    disabled="cpu-parallel-task-assigner",
)


def store_single_donated(
    cache: Caches, states: States, index_spec: IndexSpec, *, layout: LayoutName = "HND"
) -> Caches:
    """`store_single` that writes into the memory of `cache`, in O(tokens).

    Args:
      cache: as in `store_single`, but donated: the caller's array is deleted. A NumPy array is
        copied and left alone.
      states: as in `store_single`.
      index_spec: any of the three forms.
      layout: as in `store_single`.

    Returns:
      The caches, in the buffers of the caches that were given.

    Raises:
      SpecError: as `store_single`; C17 where an array is deleted already, or two leaves of `cache`
        are one buffer. Nothing is donated then.

    Example:
      >>> import jax.numpy as jnp
      >>> from functional_paged import SlotMapping
      >>> cache = jnp.zeros((2, 1, 2, 1))
      >>> out = store_single_donated(cache, jnp.ones((1, 1, 1)), SlotMapping(jnp.array([3])))
      >>> cache.is_deleted()
      True
    """
    check_trees(cache, states, index_spec, layout_of(layout))
    index_spec = narrowed(index_spec)
    check_donation(cache, states, index_spec)
    return _store_donated(*values_now((cache, states)), index_spec, layout=layout)


store_single_donated.lower = _store_donated.lower  # type: ignore
