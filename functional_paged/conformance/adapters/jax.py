"""The JAX store as a backend."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import functional_paged
from functional_paged import IndexSpec

from ..cases.case import Case


class JaxAdapter:
    """`store_single` or `store_single_donated`, as a caller without a jit of its own runs it."""

    def __init__(self, name: str, store: Any):
        self.name = name
        self._store = store

    def info(self) -> dict[str, str]:
        return {"jax": jax.__version__, "device": jax.devices()[0].device_kind}

    def unsupported(self, case: Case) -> str | None:
        if case.kind == "apart" and len(jax.devices()) < 2:
            return "JAX has one device here; XLA_FLAGS=--xla_force_host_platform_device_count=2"
        return None

    def store(self, cache: np.ndarray, states: np.ndarray, index_spec: IndexSpec) -> np.ndarray:
        return np.asarray(self._store(_copied(cache), _copied(states), _spec(index_spec)))

    def store_apart(self, cache: np.ndarray, states: np.ndarray, index_spec: IndexSpec) -> None:
        here, there = jax.devices()[:2]
        self._store(jax.device_put(cache, here), jax.device_put(states, there), index_spec)

    def check(
        self, index_spec: IndexSpec, cache_shape: tuple[int, int, int, int], num_tokens: int
    ) -> None:
        functional_paged.check_spec(
            _spec(index_spec), cache_shape=cache_shape, num_tokens=num_tokens
        )

    def load(self, cache: np.ndarray, index_spec: IndexSpec, num_tokens: int) -> np.ndarray:
        return np.asarray(
            functional_paged.load_single(_copied(cache), _spec(index_spec), num_tokens)
        )

    def vjp(
        self, cache: np.ndarray, states: np.ndarray, index_spec: IndexSpec, cotangent: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        def store(cache: jax.Array, states: jax.Array) -> jax.Array:
            return functional_paged.store_single(cache, states, _spec(index_spec))

        _, pull = jax.vjp(store, _copied(cache), _copied(states))
        d_cache, d_states = pull(_copied(cotangent))
        return np.asarray(d_cache), np.asarray(d_states)


def _copied(array: np.ndarray) -> jax.Array:
    # JAX may take over a NumPy array's memory, and a donated store would write to it.
    return jnp.array(array, copy=True)


def _spec(index_spec: IndexSpec) -> IndexSpec:
    if any(array.dtype == np.int64 for array in index_spec.arrays().values()):
        return index_spec  # without 64-bit integers a JAX array of it would be another spec
    return index_spec.map(jnp.asarray)


adapter = JaxAdapter("jax", functional_paged.store_single)
donated = JaxAdapter("jax-donated", functional_paged.store_single_donated)
