"""Trying every small spec: the lowerings against the reference, and the stores against both."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from functional_paged import (
    PAD,
    ChunkPlan,
    SlotMapping,
    plan_chunks,
    reference,
    store_single,
    to_slots,
)
from functional_paged.conformance.cases.small_scopes import Stack

NUMPY_SAMPLE = 41
"""Every so many specs are also lowered by NumPy, one by one, which takes far longer."""


def exhaust(stack: Stack) -> int:
    """Try every spec of a stack and return how many there are.

    Raises:
      AssertionError: something differs from the reference; the text has the spec.
    """
    places = [_places(stack, stack[number]) for number in range(len(stack))]
    slots = np.full((len(stack), stack.num_tokens), PAD)
    for number, stored in enumerate(places):
        for token, slot in stored:
            slots[number, token] = slot
    specs = stack.specs.map(jnp.asarray)
    where: Any = {"cache_shape": stack.cache_shape, "num_tokens": stack.num_tokens}

    def lower(spec: Any) -> Any:
        return to_slots(spec, **where).slots, plan_chunks(spec, **where).chunks

    got, chunks = jax.jit(jax.vmap(lower))(specs)
    _same(stack, "to_slots", np.asarray(got), slots)
    _check_plans(stack, np.asarray(chunks), places)
    _check_numpy(stack, slots, np.asarray(chunks))
    _check_stores(stack, specs, slots)
    return len(stack)


def _places(stack: Stack, spec: Any) -> list[tuple[int, int]]:
    block_size = stack.cache_shape[2]
    stored = reference.stored_tokens(spec, stack.cache_shape, stack.num_tokens)
    return [(token, block * block_size + offset) for token, block, offset in stored]


def _check_plans(stack: Stack, chunks: np.ndarray, places: list[list[tuple[int, int]]]) -> None:
    # Many specs have one plan.
    stored_by: dict[bytes, list[tuple[int, int]]] = {}
    for number, plan in enumerate(chunks):
        key = plan.tobytes()
        if key not in stored_by:
            stored_by[key] = sorted(_places(stack, ChunkPlan(plan)))
        if stored_by[key] != sorted(places[number]):
            raise AssertionError(f"plan_chunks of {stack[number]}: {plan.tolist()}")


def _check_numpy(stack: Stack, slots: np.ndarray, chunks: np.ndarray) -> None:
    where: Any = {"cache_shape": stack.cache_shape, "num_tokens": stack.num_tokens}
    for number in range(0, len(stack), NUMPY_SAMPLE):
        spec = stack[number]
        _same(stack, "to_slots in NumPy", to_slots(spec, **where).slots, slots[number], number)
        plan = plan_chunks(spec, **where).chunks
        _same(stack, "plan_chunks in NumPy", plan, chunks[number], number)


def _check_stores(stack: Stack, specs: Any, slots: np.ndarray) -> None:
    num_slots = stack.cache_shape[0] * stack.cache_shape[2]
    states = np.arange(1, stack.num_tokens + 1, dtype=np.int8)
    before = np.arange(-num_slots, 0, dtype=np.int8)
    caches = np.tile(before, (len(stack), 1))
    # C15: a contested slot may hold any of its tokens, so what may stand there is a set of bits.
    allowed = np.tile(_bit(before), (len(stack), 1))
    for token in range(stack.num_tokens):
        (stored,) = np.nonzero(slots[:, token] >= 0)
        slot = slots[stored, token]
        contested = (slots[stored, :token] == slot[:, None]).any(axis=1)
        others = np.where(contested, allowed[stored, slot], 0)
        allowed[stored, slot] = others | _bit(states[token])

    def store(cache: Any, spec: Any) -> Any:
        shape = (stack.num_tokens, 1, 1)
        return store_single(cache.reshape(stack.cache_shape), states.reshape(shape), spec)

    in_jax = jax.jit(jax.vmap(store))(caches, specs)
    _allowed(stack, "store_single", np.asarray(in_jax).reshape(caches.shape), allowed)
    _allowed(stack, "store_single_", _in_torch(stack, caches, states, slots), allowed)


def _in_torch(
    stack: Stack, caches: np.ndarray, states: np.ndarray, slots: np.ndarray
) -> np.ndarray:
    """All caches of the stack as one cache, and all specs as one mapping."""
    import torch

    import bridges

    first = np.arange(len(stack))[:, None] * caches.shape[1]
    joined = torch.from_numpy(np.where(slots < 0, PAD, slots + first).ravel())
    rows = torch.from_numpy(np.tile(states, len(stack)).reshape(-1, 1, 1))
    _, kv_heads, block_size, head_dim = stack.cache_shape
    cache = torch.from_numpy(caches.copy()).reshape(-1, kv_heads, block_size, head_dim)
    bridges.store_single_(cache, rows, SlotMapping(joined), backend="torch")
    return cache.numpy().reshape(caches.shape)


def _allowed(stack: Stack, what: str, got: np.ndarray, allowed: np.ndarray) -> None:
    wrong = np.argwhere((_bit(got) & allowed) == 0)
    if wrong.size:
        number, slot = wrong[0].tolist()
        raise AssertionError(f"{what} of {stack[number]}: slot {slot} holds {got[number, slot]}")


def _same(
    stack: Stack, what: str, got: np.ndarray, want: np.ndarray, number: int | None = None
) -> None:
    if np.array_equal(got, want):
        return
    if number is None:
        number = int(np.argwhere((got != want).any(axis=-1))[0, 0])
        got, want = got[number], want[number]
    raise AssertionError(f"{what} of {stack[number]}: {got.tolist()} must be {want.tolist()}")


def _bit(value: np.ndarray) -> np.ndarray:
    """A bit of its own for each value from -8 to 31."""
    return np.int64(1) << (value.astype(np.int64) + 8)
