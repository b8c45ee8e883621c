"""The same paged caches in JAX, and the means to compare them bit for bit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import torch

import functional_paged


class JaxMirror:
    """Copies of torch's caches in JAX, with each store repeated there."""

    def __init__(self, caches: dict[str, torch.Tensor]) -> None:
        self.caches = {name: to_jax(cache) for name, cache in caches.items()}
        self.stores = 0

    def store(self, name: str, states: torch.Tensor, spec: functional_paged.BlockTable) -> None:
        """Repeat one store of `bridges`: same states, same index spec."""
        self.caches[name] = functional_paged.store_single_donated(
            self.caches[name], to_jax(states), spec.map(to_jax)
        )
        self.stores += 1


def to_jax(tensor: torch.Tensor) -> jax.Array:
    """Return a copy, as torch goes on writing to its own memory."""
    return jnp.from_dlpack(tensor.clone())  # `copy=True` shares memory nevertheless on the CPU


def assert_same_bits(actual: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    """Compare as integers, since a NaN equals nothing."""
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[actual.itemsize]
    torch.testing.assert_close(
        actual.view(bits), expected.view(bits), rtol=0, atol=0, msg=lambda text: f"{what}: {text}"
    )
