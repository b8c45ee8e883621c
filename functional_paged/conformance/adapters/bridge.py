"""A bridge backend as a backend of the check: in place, in the very memory of the case."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import torch

import bridges
from functional_paged import IndexSpec

from .._case import Case

_TORCH_ONLY = {
    np.dtype(ml_dtypes.bfloat16): torch.bfloat16,
    np.dtype(ml_dtypes.float8_e4m3fn): torch.float8_e4m3fn,
    np.dtype(ml_dtypes.float8_e5m2): torch.float8_e5m2,
}


class BridgeAdapter:
    """`bridges.store_single_` on CPU tensors that share the memory of NumPy arrays."""

    def __init__(self, name: str):
        self.name = name

    def info(self) -> dict[str, str]:
        return {"torch": torch.__version__, "device": "cpu"}

    def unsupported(self, case: Case) -> str | None:
        if case.kind == "load":
            return "the bridge only stores"
        if case.kind == "vjp":
            return "a store in place has no derivative; it refuses tensors that require grad"
        return None

    def store(self, cache: np.ndarray, states: np.ndarray, index_spec: IndexSpec) -> np.ndarray:
        self._store(_tensor(cache), _tensor(states), _spec(index_spec))
        return cache

    def store_apart(self, cache: np.ndarray, states: np.ndarray, index_spec: IndexSpec) -> None:
        self._store(_tensor(cache), _tensor(states).to("meta"), _spec(index_spec))

    def check(
        self, index_spec: IndexSpec, cache_shape: tuple[int, int, int, int], num_tokens: int
    ) -> None:
        cache = torch.empty(cache_shape, dtype=torch.bfloat16)
        bridges.plan(
            _spec(index_spec), cache=cache, num_tokens=num_tokens, backend=self.name, check=True
        )

    def _store(self, cache: torch.Tensor, states: torch.Tensor, index_spec: IndexSpec) -> None:
        returned = bridges.store_single_(cache, states, index_spec, backend=self.name)
        if returned is not cache:
            raise AssertionError("C17: store_single_ must return the cache it was given")


def _spec(index_spec: IndexSpec) -> IndexSpec:
    arrays = {k: torch.from_numpy(v) for k, v in vars(index_spec).items() if v is not None}
    return type(index_spec)(**arrays)


def _tensor(array: np.ndarray) -> torch.Tensor:
    """A tensor over the array's memory, with its strides."""
    dtype = _TORCH_ONLY.get(array.dtype)
    bits = array.view(f"i{array.dtype.itemsize}") if dtype is not None else array
    tensor = torch.from_numpy(bits)
    return tensor if dtype is None else tensor.view(dtype)


adapter = BridgeAdapter("torch")
