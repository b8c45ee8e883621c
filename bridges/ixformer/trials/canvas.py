"""Tensors that lie inside a larger memory, so that every wrong write and read is seen."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided

from ..._backend import BITS
from ..._overlap import reach

ALIGNMENT = 64
"""Bytes up to which the address of a tensor may matter to a kernel."""


class Canvas:
    """A tensor of a trial on the device, and the host's copy of the memory around it.

    Attributes:
      tensor: what the kernel gets.
      memory: the memory that it is a view of, as integers; on the device.
      host: what the memory held at first; none until `fill_`. The integers of `memory`.
    """

    host: np.ndarray

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device: torch.device,
        margin: int,
        strides: tuple[int, ...] | None = None,
        shift: int = 0,
    ):
        """Allocate the memory: at least `margin` elements on either side of the tensor.

        Its address is `shift` bytes past a multiple of `ALIGNMENT`.
        """
        bits = BITS[dtype.itemsize]
        self._shape = shape
        self._strides = strides or torch.empty(shape, device="meta").stride()
        size = reach(shape, self._strides) + 2 * margin + ALIGNMENT
        self.memory = torch.empty(size, dtype=bits, device=device)
        start = self.memory.data_ptr() + margin * bits.itemsize
        self._offset = margin + (shift - start) % ALIGNMENT // bits.itemsize
        self.tensor = self.memory.view(dtype).as_strided(shape, self._strides, self._offset)

    def fill_(self, host: np.ndarray) -> Canvas:
        """Give the whole memory its values."""
        self.host = host
        self.memory.copy_(torch.from_numpy(host))
        return self

    def fill_with_canaries_(self, seed: int) -> Canvas:
        """Random bits, non-zero, with NaN payloads and subnormals in every third place each."""
        dtype, item = self.tensor.dtype, torch.iinfo(self.memory.dtype)
        random = np.random.default_rng(seed)
        bits = random.integers(item.min, item.max, len(self.memory), item.dtype, endpoint=True)
        if dtype.is_floating_point:
            infinity = torch.tensor(float("inf"), dtype=torch.float32, device="cpu")
            with suppress(NotImplementedError):  # what torch can't convert, it has no NaN of
                exponent = infinity.to(dtype).view(self.memory.dtype).numpy()
                bits[self._offset % 3 :: 3] |= exponent
                bits[(self._offset + 1) % 3 :: 3] &= ~exponent
        return self.fill_(bits | (bits == 0))

    def fill_around_(self, values: np.ndarray, around: int) -> Canvas:
        """The tensor's values, and one harmless value wherever a kernel reads past them."""
        host = np.full(len(self.memory), around, torch.iinfo(self.memory.dtype).dtype)
        self.view_of(host)[...] = values
        return self.fill_(host)

    def view_of(self, host: np.ndarray) -> np.ndarray:
        """The part of a host memory where the tensor lies."""
        steps = [stride * host.itemsize for stride in self._strides]
        return as_strided(host[self._offset :], self._shape, steps)
