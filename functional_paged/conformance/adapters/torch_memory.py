"""What adapters of torch's operations share: tensors over the memory of a case, and versions."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import torch

from ..cases.case import Case

_TORCH_ONLY = {
    np.dtype(ml_dtypes.bfloat16): torch.bfloat16,
    np.dtype(ml_dtypes.float8_e4m3fn): torch.float8_e4m3fn,
    np.dtype(ml_dtypes.float8_e5m2): torch.float8_e5m2,
}


def tensor_over(array: np.ndarray) -> torch.Tensor:
    """A tensor over the array's memory, with its strides."""
    dtype = _TORCH_ONLY.get(array.dtype)
    if dtype is None:
        return torch.from_numpy(array)
    return torch.from_numpy(array.view(f"i{array.dtype.itemsize}")).view(dtype)


def array_of(tensor: torch.Tensor) -> np.ndarray:
    """The values of a tensor as an array; over its memory, where that is the host's."""
    dtype = next((dtype for dtype, known in _TORCH_ONLY.items() if known == tensor.dtype), None)
    if dtype is None:
        return tensor.cpu().numpy()
    return tensor.view(getattr(torch, f"int{8 * dtype.itemsize}")).cpu().numpy().view(dtype)


class TorchOnCpu:
    """Base of the adapters of torch's own operations: tells versions, and takes every case."""

    def info(self) -> dict[str, str]:
        return {"torch": torch.__version__, "device": "cpu"}

    def unsupported(self, case: Case) -> str | None:
        return None
