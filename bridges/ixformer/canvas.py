"""Tensors that lie inside a larger memory of canaries, so that every wrong write is seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided

ALIGNMENT = 64
"""Bytes up to which the address of a tensor may matter to a kernel."""

BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""The integer type of each element size."""


class Canvas:
    """A tensor of a trial, on the host and on the device, inside a larger memory.

    Attributes:
      tensor: what the kernel gets.
      memory: the memory that it is a view of, as integers; on the device.
      host: what the memory held at first.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        strides: tuple[int, ...] | None,
        shift: int,
        margin: int,
        dtype: torch.dtype,
        device: torch.device,
    ):
        bits = BITS[dtype.itemsize]
        self._shape = shape
        self._strides = strides or torch.empty(shape, device="meta").stride()
        size = reach(shape, self._strides) + 2 * margin + ALIGNMENT
        self.memory = torch.empty(size, dtype=bits, device=device)
        start = self.memory.data_ptr() + margin * bits.itemsize
        self._offset = margin + (shift - start) % ALIGNMENT // bits.itemsize
        self.host = _canaries(size, dtype, seed=len(shape), phase=self._offset)
        self.memory.copy_(torch.from_numpy(self.host))
        self.tensor = self.memory.view(dtype).as_strided(shape, self._strides, self._offset)

    def view_of(self, host: np.ndarray) -> np.ndarray:
        """The part of a host memory where the tensor lies."""
        steps = [stride * host.itemsize for stride in self._strides]
        return as_strided(host[self._offset :], self._shape, steps)


def reach(shape: tuple[int, ...], strides: Sequence[int]) -> int:
    """How many elements of memory a strided tensor spans."""
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


def _canaries(size: int, dtype: torch.dtype, seed: int, phase: int) -> np.ndarray:
    """Random bits, non-zero, with NaN payloads and subnormals in every third place each."""
    bits = BITS[dtype.itemsize]
    info = torch.iinfo(bits)
    rng = np.random.default_rng(seed)
    host = rng.integers(info.min, info.max, size, str(bits)[len("torch.") :], endpoint=True)
    if dtype.is_floating_point:
        exponent = torch.tensor(float("inf")).to(dtype).view(bits).numpy()
        host[phase % 3 :: 3] |= exponent
        host[(phase + 1) % 3 :: 3] &= ~exponent
    return host | (host == 0)
