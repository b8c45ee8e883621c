"""The reference loops as a backend: what every other is compared with, through the same harness."""

from __future__ import annotations

from typing import Any

import numpy as np

from functional_paged import IndexSpec, check_spec, reference

from ..cases.case import Case
from ..cases.quantised import CODECS


class ReferenceAdapter:
    """NumPy loops."""

    name = "reference"
    strict = True

    def info(self) -> dict[str, str]:
        return {"numpy": np.__version__, "device": "cpu"}

    def unsupported(self, case: Case) -> str | None:
        return "NumPy has one device" if case.kind == "apart" else None

    def store(self, cache: np.ndarray, states: np.ndarray, index_spec: IndexSpec) -> np.ndarray:
        return reference.store_single(cache, states, index_spec)

    def check(
        self, index_spec: IndexSpec, cache_shape: tuple[int, int, int, int], num_tokens: int
    ) -> None:
        check_spec(index_spec, cache_shape=cache_shape, num_tokens=num_tokens)

    def load(self, cache: np.ndarray, index_spec: IndexSpec, num_tokens: int) -> np.ndarray:
        return reference.load_single(cache, index_spec, num_tokens)

    def transfer(
        self, dst: Any, dst_spec: IndexSpec, src: Any, src_spec: IndexSpec, num_tokens: int
    ) -> np.ndarray:
        rows = reference.load_single(src, src_spec, num_tokens)
        return reference.store_single(dst, rows, dst_spec)

    def vjp(
        self, cache: np.ndarray, states: np.ndarray, index_spec: IndexSpec, cotangent: np.ndarray
    ) -> tuple[np.ndarray, Any]:
        d_cache = reference.store_single(cotangent, np.zeros_like(states), index_spec)
        return d_cache, reference.load_single(cotangent, index_spec, states.shape[0])

    def encode(self, states: np.ndarray, scale: np.ndarray | None, codec: str) -> Any:
        return CODECS[codec].encode(states, scale)

    def decode(self, payload: np.ndarray, scale: np.ndarray, codec: str, dtype: np.dtype) -> Any:
        return CODECS[codec].decode(payload, scale, dtype)


adapter = ReferenceAdapter()
