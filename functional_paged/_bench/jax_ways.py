"""The donated store in JAX, and what a caller would write: a scatter, a scan, nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .. import store_single_donated, to_slots
from .problems import Problem, cores
from .ways import Timer, Way, timed

NOTHING = "JAX: donated jit of nothing"


def _donated(store: Callable[..., Any], dtype: Any) -> Callable[[Problem], Timer | None]:
    """What times `caches = store(caches, states, spec, slots)`, to the end of the work."""

    def prepare(problem: Problem) -> Timer | None:
        if problem.device != "cpu" or problem.threads < cores():
            return None  # JAX has no number of threads to set
        shape, num_tokens = problem.cache_shape, problem.num_tokens
        caches = [jnp.ones(shape, dtype) for _ in range(problem.tensors)]
        states = [jnp.ones((num_tokens, shape[1], shape[3]), dtype) for _ in caches]
        spec = problem.spec.map(jnp.asarray)
        slots = to_slots(spec, cache_shape=shape, num_tokens=num_tokens).slots
        trees: list[Any] = [caches, states] if problem.tensors > 1 else [caches.pop(), states[0]]
        del caches

        def call() -> None:
            trees[0] = jax.block_until_ready(store(*trees, spec, slots))

        return timed(call)

    return prepare


def _program(store: Callable[..., jax.Array]) -> Callable[..., Any]:
    """A donating program of `store(cache, states, blocks, offsets)` for each cache."""

    def run(caches: Any, states: Any, _: Any, slots: jax.Array) -> Any:
        def each(cache: jax.Array, rows: jax.Array) -> jax.Array:
            return store(cache, rows, slots // cache.shape[2], slots % cache.shape[2])

        return jax.tree.map(each, caches, states)

    return jax.jit(run, donate_argnums=0)


def _scatter(cache: Any, states: Any, blocks: Any, offsets: Any) -> jax.Array:
    return cache.at[blocks, :, offsets].set(states)


def _scan(cache: Any, states: Any, blocks: Any, offsets: Any) -> jax.Array:
    def write(cache: Any, token: Any) -> Any:
        row, block, offset = token
        return jax.lax.dynamic_update_slice(cache, row[None, :, None], (block, 0, offset, 0)), None

    return jax.lax.scan(write, cache, (states, blocks, offsets))[0]


def _ours(cache: Any, states: Any, spec: Any, _: Any) -> Any:
    return store_single_donated(cache, states, spec)


_SCAN = "JAX: scan of dynamic_update_slice, uint16"
_nothing = _donated(_program(lambda cache, *_: cache), jnp.bfloat16)
_donating = _donated(_ours, jnp.bfloat16)

ways = [
    Way("ours: JAX donated", ("store", "growth", "layers"), _donating, "copy"),
    # As integers: in a plain jit on the CPU a bfloat16 cache is copied whole.
    Way("JAX: scatter of uint16", ("store",), _donated(_program(_scatter), jnp.uint16), "copy"),
    Way(_SCAN, ("store",), _donated(_program(_scan), jnp.uint16), "copy"),
    Way(NOTHING, ("store",), _nothing, "copy"),
    Way(NOTHING, ("call",), _nothing, NOTHING),
    Way("ours: JAX donated", ("call",), _donating, NOTHING),
]
