"""A bridge backend as a backend of the check: in place, in the memory of the case."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch

import bridges
from bridges.ixformer import model
from functional_paged import BlockTable, ChunkPlan, IndexSpec, SlotMapping
from functional_paged.conformance.adapter import CaseUnsupported
from functional_paged.conformance.adapters.torch_memory import array_of, tensor_over
from functional_paged.conformance.cases.case import Case
from functional_paged.conformance.cases.quantised import CODECS


class BridgeAdapter:
    """`bridges.store_single_` by one backend.

    On the CPU, tensors share the memory of the case's arrays. On a device they are copies, of the
    guards around the cache too, and are copied back, after an error as well.
    """

    strict = True

    def __init__(self, backend: str | bridges.Backend, device: str = "cpu"):
        self.name = backend if isinstance(backend, str) else backend.name
        self._backend = backend
        self._device = torch.device(device)
        self.isolation = "fork" if self._device.type == "cpu" else "process"
        reason = bridges.available_backends(self._device).get(self.name)
        if reason is not None:
            raise ImportError(reason)
        if self.isolation == "fork":
            # What a plan compiles is loaded here, or every case's fork would load it again.
            cache, index = torch.zeros(1, 1, 1, 1), partial(torch.zeros, dtype=torch.int32)
            for spec in (
                BlockTable(index(1, 1), index(1)),
                ChunkPlan(index(1, 4)),
                SlotMapping(index(1)),
            ):
                bridges.plan(spec, cache=cache, num_tokens=1, backend=backend)

    def info(self) -> dict[str, str]:
        on_gpu = self._device.type == "cuda"
        device = torch.cuda.get_device_name(self._device) if on_gpu else self._device.type
        return {"torch": torch.__version__, "device": device}

    def unsupported(self, case: Case) -> str | None:
        if case.kind == "vjp":
            return "a store in place has no derivative; it refuses tensors that require grad"
        return None

    def store(self, cache: np.ndarray, states: np.ndarray, index_spec: IndexSpec) -> np.ndarray:
        with self._written(cache) as tensor:
            self._store(tensor, self._there(states)[1], self._spec(index_spec))
        return cache

    def load(self, cache: np.ndarray, index_spec: IndexSpec, num_tokens: int) -> np.ndarray:
        rows = np.zeros((num_tokens, *cache.shape[1::2]), cache.dtype)
        there, spec = self._there(cache)[1], self._spec(index_spec)
        tensor_over(rows).copy_(bridges.load_single(there, spec, num_tokens=num_tokens))
        return rows

    def transfer(
        self,
        dst: np.ndarray,
        dst_spec: IndexSpec,
        src: np.ndarray,
        src_spec: IndexSpec,
        num_tokens: int,
    ) -> np.ndarray:
        with self._written(dst) as to, _refusals():
            of = to if src is dst else self._there(src)[1]
            given: dict[str, Any] = {"cache": to, "num_tokens": num_tokens}
            plan = bridges.plan(self._spec(dst_spec), **given, backend=self._backend)
            bridges.transfer_(to, plan, of, self._spec(src_spec), num_tokens=num_tokens)
        return dst

    def store_apart(self, *given: Any) -> None:
        """Of one cache or of a pair, with the last states elsewhere."""
        *arrays, index_spec = given
        *there, _ = [self._there(array)[1] for array in arrays]
        there.append(tensor_over(arrays[-1]).to("meta"))
        half = len(there) // 2
        self._store(there[:half], there[half:], self._spec(index_spec))

    def check(
        self, index_spec: IndexSpec, cache_shape: tuple[int, int, int, int], num_tokens: int
    ) -> None:
        cache = torch.empty(cache_shape, dtype=torch.bfloat16, device=self._device)
        spec = self._spec(index_spec)
        given: dict[str, Any] = {"cache": cache, "num_tokens": num_tokens, "check": True}
        with _refusals():
            bridges.plan(spec, **given, backend=self._backend)

    @contextmanager
    def _written(self, cache: np.ndarray) -> Iterator[torch.Tensor]:
        """The cache on the device; what is written there, before an error too, is copied back."""
        memory, tensor = self._there(cache)
        try:
            yield tensor
        finally:
            if self._device.type != "cpu":
                tensor_over(_owner(cache)).copy_(memory)

    def encode(
        self, states: np.ndarray, scale: np.ndarray | None, codec: str
    ) -> tuple[np.ndarray, np.ndarray]:
        scales = () if scale is None else (self._there(scale)[1],)
        payload, used = CODECS[codec].encode(self._there(states)[1], *scales)
        return array_of(payload), array_of(used)

    def decode(
        self, payload: np.ndarray, scale: np.ndarray, codec: str, dtype: np.dtype
    ) -> np.ndarray:
        given = self._there(payload)[1], self._there(scale)[1]
        return array_of(CODECS[codec].decode(*given, dtype.name))

    def _store(self, cache: Any, states: Any, index_spec: IndexSpec) -> None:
        with _refusals():
            returned = bridges.store_single_(cache, states, index_spec, backend=self._backend)
        if returned is not cache:
            raise AssertionError("C17: store_single_ must return the cache it was given")

    def _spec(self, index_spec: IndexSpec) -> IndexSpec:
        return index_spec.map(lambda array: self._there(array)[1])

    def _there(self, array: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """All memory that an array is a view of, on the device, and the view with its strides."""
        owner = _owner(array)
        memory = tensor_over(owner).to(self._device)
        strides = [stride // array.itemsize for stride in array.strides]
        start = array.__array_interface__["data"][0] - owner.__array_interface__["data"][0]
        return memory, memory.as_strided(array.shape, strides, start // array.itemsize)


class PairAdapter(BridgeAdapter):
    """The same with two caches a call, as the keys and values of a layer are stored."""

    def __init__(self, backend: str | bridges.Backend, device: str = "cpu"):
        super().__init__(backend, device)
        self.name += "-pair"

    def store_pair(
        self,
        key_cache: np.ndarray,
        value_cache: np.ndarray,
        keys: np.ndarray,
        values: np.ndarray,
        index_spec: IndexSpec,
    ) -> tuple[np.ndarray, np.ndarray]:
        with self._written(key_cache) as key, self._written(value_cache) as value:
            rows = self._there(keys)[1], self._there(values)[1]
            self._store((key, value), rows, self._spec(index_spec))
        return key_cache, value_cache


@contextmanager
def _refusals() -> Iterator[None]:
    """What a backend cannot serve is a case that it cannot be given."""
    try:
        yield
    except bridges.BackendUnsupported as error:
        raise CaseUnsupported(str(error)) from error


def _owner(array: np.ndarray) -> np.ndarray:
    owner = array if array.base is None else array.base
    return owner.view(array.dtype).reshape(-1)


torch_backend = partial(BridgeAdapter, "torch")
numba_backend = partial(BridgeAdapter, "numba")
torch_pair = partial(PairAdapter, "torch")
numba_pair = partial(PairAdapter, "numba")
ixformer_backend = partial(BridgeAdapter, "ixformer", "cuda")


# On a GPU, else on the CPU, where `TRITON_INTERPRET=1` must be set.
_TRITON = "triton", "cuda" if torch.cuda.is_available() else "cpu"
triton_backend = partial(BridgeAdapter, *_TRITON)
triton_pair = partial(PairAdapter, *_TRITON)


def ixformer_model_backend() -> BridgeAdapter:
    """The ixformer backend around the software model of the kernels."""
    return BridgeAdapter(model.backend())
