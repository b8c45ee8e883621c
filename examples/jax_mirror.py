"""The same paged caches in JAX, and the means to compare them bit for bit."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import torch

import functional_paged


class JaxMirror:
    """Copies of torch's caches in JAX, with each store repeated there."""

    def __init__(self, caches: dict[str, torch.Tensor]) -> None:
        self.caches = {name: jnp.array(to_numpy(cache)) for name, cache in caches.items()}
        self.stores = 0

    def store(self, name: str, states: torch.Tensor, spec: functional_paged.BlockTable) -> None:
        """Repeat one store of `bridges`: same states, same index spec."""
        self.caches[name] = functional_paged.store_single_donated(
            self.caches[name], to_numpy(states), jax.tree.map(to_numpy, spec)
        )
        self.stores += 1


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Return a copy of the tensor as a NumPy array, bit for bit."""
    # A copy, as JAX may use a NumPy array's memory, and torch goes on writing to its own.
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.int16).numpy().copy().view(ml_dtypes.bfloat16)
    return tensor.numpy().copy()


def assert_same_bits(actual: torch.Tensor, expected: Any, what: str) -> None:
    """Compare as integers, since a NaN equals nothing."""
    arrays = (to_numpy(actual), np.asarray(expected))
    actual_bits, expected_bits = (array.view(f"u{array.itemsize}") for array in arrays)
    np.testing.assert_array_equal(actual_bits, expected_bits, what)


def poisoned(shape: tuple[int, ...], dtype: torch.dtype, start: int) -> torch.Tensor:
    """Return NaNs of running payload, so that a read of or a write to a wrong place shows."""
    bits_dtype, infinity, payload_bits = {
        torch.float32: (torch.int32, 0x7F800000, 23),
        torch.bfloat16: (torch.int16, 0x7F80, 7),
    }[dtype]
    # Never 0, which would be infinity; the period is odd, so that no block repeats the one before.
    payload = (torch.arange(math.prod(shape)) + start) % (2**payload_bits - 1) + 1
    return (infinity + payload).to(bits_dtype).view(dtype).reshape(shape)
