"""A bridge backend as a backend of the check: in place, in the memory of the case."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

import bridges
from bridges.ixformer import model
from functional_paged import BlockTable, ChunkPlan, IndexSpec, SlotMapping
from functional_paged.conformance.adapter import CaseUnsupported
from functional_paged.conformance.adapters.torch_memory import tensor_over
from functional_paged.conformance.cases.case import Case


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
        return {
            "load": "the bridge only stores",
            "vjp": "a store in place has no derivative; it refuses tensors that require grad",
        }.get(case.kind)

    def store(self, cache: np.ndarray, states: np.ndarray, index_spec: IndexSpec) -> np.ndarray:
        memory, tensor = self._there(cache)
        try:
            self._store(tensor, self._there(states)[1], self._spec(index_spec))
        finally:  # what an error left behind is judged, too
            if self._device.type != "cpu":
                tensor_over(_owner(cache)).copy_(memory)
        return cache

    def store_apart(self, cache: np.ndarray, states: np.ndarray, index_spec: IndexSpec) -> None:
        self._store(self._there(cache)[1], tensor_over(states).to("meta"), self._spec(index_spec))

    def check(
        self, index_spec: IndexSpec, cache_shape: tuple[int, int, int, int], num_tokens: int
    ) -> None:
        cache = torch.empty(cache_shape, dtype=torch.bfloat16, device=self._device)
        spec = self._spec(index_spec)
        try:
            bridges.plan(
                spec, cache=cache, num_tokens=num_tokens, backend=self._backend, check=True
            )
        except bridges.BackendUnsupported as error:
            raise CaseUnsupported(str(error)) from error

    def _store(self, cache: torch.Tensor, states: torch.Tensor, index_spec: IndexSpec) -> None:
        try:
            returned = bridges.store_single_(cache, states, index_spec, backend=self._backend)
        except bridges.BackendUnsupported as error:
            raise CaseUnsupported(str(error)) from error
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


def _owner(array: np.ndarray) -> np.ndarray:
    owner = array if array.base is None else array.base
    return owner.view(array.dtype).reshape(-1)


torch_backend = partial(BridgeAdapter, "torch")
numba_backend = partial(BridgeAdapter, "numba")
ixformer_backend = partial(BridgeAdapter, "ixformer", "cuda")


def triton_backend() -> BridgeAdapter:
    """The triton backend on a GPU, else on the CPU, where `TRITON_INTERPRET=1` must be set."""
    return BridgeAdapter("triton", "cuda" if torch.cuda.is_available() else "cpu")


def ixformer_model_backend() -> BridgeAdapter:
    """The ixformer backend around the software model of the kernels."""
    return BridgeAdapter(model.backend())
