"""The donated store in JAX, and what a caller would write: a scatter, a scan, nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .. import store_single_donated
from .measure import Timer, timed
from .problems import CORES, Problem


def ways(problem: Problem) -> dict[str, Timer]:
    """The ways in JAX, which has no number of threads to set."""
    if problem.device != "cpu" or problem.threads < CORES or problem.group == "plan":
        return {}
    chosen = STORES if problem.group == "store" else STORES[:1]
    return {name: _timer(problem, store, dtype) for name, store, dtype in chosen}


def _timer(problem: Problem, store: Callable[..., Any], dtype: Any) -> Timer:
    """What times `caches = store(caches, states, spec, slots)`, to the end of the work."""
    shape, num_tokens = problem.cache_shape, len(problem.slots)
    caches = [jnp.ones(shape, dtype) for _ in range(problem.tensors)]
    states = [jnp.ones((num_tokens, shape[1], shape[3]), dtype) for _ in caches]
    spec, slots = problem.spec.map(jnp.asarray), jnp.asarray(problem.slots)
    trees: list[Any] = [caches, states] if problem.tensors > 1 else [caches[0], states[0]]

    def call() -> None:
        trees[0] = jax.block_until_ready(store(*trees, spec, slots))

    return timed(call)


def _ours(cache: Any, states: Any, spec: Any, _: Any) -> Any:
    return store_single_donated(cache, states, spec)


@partial(jax.jit, donate_argnums=0)
def _scatter(cache: Any, states: Any, _: Any, slots: Any) -> jax.Array:
    blocks, offsets = jnp.divmod(slots, cache.shape[2])
    return cache.at[blocks, :, offsets].set(states)


@partial(jax.jit, donate_argnums=0)
def _scan(cache: Any, states: Any, _: Any, slots: Any) -> jax.Array:
    def write(cache: Any, token: Any) -> Any:
        row, block, offset = token
        return jax.lax.dynamic_update_slice(cache, row[None, :, None], (block, 0, offset, 0)), None

    return jax.lax.scan(write, cache, (states, *jnp.divmod(slots, cache.shape[2])))[0]


_nothing = jax.jit(lambda cache, *_: cache, donate_argnums=0)
STORES = [
    ("ours: JAX donated", _ours, jnp.bfloat16),
    # As integers: in a plain jit on the CPU a bfloat16 cache is copied whole.
    ("JAX: scatter of uint16", _scatter, jnp.uint16),
    ("JAX: scan of dynamic_update_slice, uint16", _scan, jnp.uint16),
    ("JAX: donated jit of nothing", _nothing, jnp.bfloat16),
]
