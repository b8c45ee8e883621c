"""The JAX store as a backend."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import functional_paged
from functional_paged import IndexSpec

from ..cases.case import Case
from ..cases.guarded_cache import Order
from ..cases.quantised import CODECS


class JaxAdapter:
    """`store_single` or `store_single_donated`, as a caller without a jit of its own runs it.

    Inputs stay in NumPy, and results in JAX, which may not have computed them yet: the store must
    not need what it was given any more (C17).
    """

    isolation = "process"
    strict = True

    def __init__(self, name: str, store: Any, order: Order = "HND"):
        self.name = name
        self.order: Order = order
        self._store = functools.partial(store, layout=order)

    def info(self) -> dict[str, str]:
        return {"jax": jax.__version__, "device": jax.devices()[0].device_kind}

    def unsupported(self, case: Case) -> str | None:
        if case.kind == "apart" and len(jax.devices()) < 2:
            return "JAX has one device here; XLA_FLAGS=--xla_force_host_platform_device_count=2"
        return None

    def store(self, cache: np.ndarray, states: np.ndarray, index_spec: IndexSpec) -> Any:
        return self._store(cache, states, index_spec)

    def store_apart(self, cache: np.ndarray, states: np.ndarray, index_spec: IndexSpec) -> None:
        here, there = jax.devices()[:2]
        self._store(jax.device_put(cache, here), jax.device_put(states, there), index_spec)

    def check(
        self, index_spec: IndexSpec, cache_shape: tuple[int, int, int, int], num_tokens: int
    ) -> None:
        functional_paged.check_spec(index_spec, cache_shape=cache_shape, num_tokens=num_tokens)

    def load(self, cache: np.ndarray, index_spec: IndexSpec, num_tokens: int) -> Any:
        return functional_paged.load_single(cache, index_spec, num_tokens, layout=self.order)

    def transfer(
        self, dst: Any, dst_spec: IndexSpec, src: Any, src_spec: IndexSpec, num_tokens: int
    ) -> Any:
        return functional_paged.transfer(
            dst, dst_spec, src, src_spec, num_tokens, layout=self.order
        )

    def vjp(
        self, cache: np.ndarray, states: np.ndarray, index_spec: IndexSpec, cotangent: np.ndarray
    ) -> Any:
        store = functools.partial(
            functional_paged.store_single, index_spec=index_spec, layout=self.order
        )
        _, pull = jax.vjp(store, cache, states)
        return pull(cotangent)

    def encode(self, states: np.ndarray, scale: np.ndarray | None, codec: str) -> Any:
        return jax.jit(CODECS[codec].encode)(jnp.array(states), scale)

    def decode(self, payload: np.ndarray, scale: np.ndarray, codec: str, dtype: np.dtype) -> Any:
        return jax.jit(CODECS[codec].decode, static_argnums=2)(payload, scale, dtype)


def _store_donated(
    cache: np.ndarray, states: np.ndarray, index_spec: IndexSpec, layout: Order
) -> jax.Array:
    # JAX reads or takes over a NumPy array's memory after the call, so it gets some of its own.
    owned = jnp.asarray(cache.copy())
    return functional_paged.store_single_donated(owned, states, index_spec, layout=layout)


adapter = JaxAdapter("jax", functional_paged.store_single)
donated = JaxAdapter("jax-donated", _store_donated)
nhd = JaxAdapter("jax-nhd", functional_paged.store_single, "NHD")
