"""What adapters of torch's operations share: tensors over the memory of a case, and versions."""

from __future__ import annotations

import ml_dtypes  # noqa: F401 - NumPy knows bfloat16 and float8 by it
import numpy as np
import torch

from ..cases.case import Case


def tensor_over(array: np.ndarray) -> torch.Tensor:
    """A tensor over the array's memory, with its strides; dtypes have one name in both."""
    bits = torch.from_numpy(array.view(f"i{array.dtype.itemsize}"))
    return bits.view(getattr(torch, array.dtype.name))


def array_of(tensor: torch.Tensor) -> np.ndarray:
    """The values of a tensor as an array; over its memory, where that is the host's."""
    bits = tensor.view(getattr(torch, f"int{8 * tensor.itemsize}")).cpu().numpy()
    return bits.view(np.dtype(str(tensor.dtype).removeprefix("torch.")))


class TorchOnCpu:
    """Base of the adapters of torch's own operations: tells versions, and takes every case."""

    def info(self) -> dict[str, str]:
        return {"torch": torch.__version__, "device": "cpu"}

    def unsupported(self, case: Case) -> str | None:
        return None
