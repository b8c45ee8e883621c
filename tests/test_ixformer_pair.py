"""Two caches in one call of the vendor's kernel, where a trial has shown that it can."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import bridges
from bridges.conformance_adapters import tensor_over as tensor
from bridges.ixformer import IxformerBackend
from bridges.ixformer.model import KernelSemantics, ModelFunctions
from bridges.ixformer.trials.canvas import ALIGNMENT
from functional_paged import reference
from functional_paged.conformance.bits import as_bits
from tests.helpers import FORMS, SHAPE, STEP, filled

ROW = (SHAPE[1], SHAPE[3])


class Library(ModelFunctions):
    """Counts the calls for caches of `SHAPE`; may confuse the sides of a pair."""

    def __init__(self, confuses: str = "", **semantics: Any):
        super().__init__(KernelSemantics(**semantics))
        self.confuses, self.calls = confuses, []

    def _write(self, states, caches, writes, sides):
        apart = caches[0].data_ptr() != caches[1].data_ptr()
        if caches[0].shape == SHAPE:
            self.calls.append(2 if apart else 1)
        if apart and self.confuses == "raises":
            raise RuntimeError("not today")
        if apart and self.confuses == "keys twice":
            states = (states[0], states[0])
        if apart and self.confuses == "keys alone":
            sides = "key"
        return super()._write(states, caches, writes, sides)


def store(library: Library, caches: list[np.ndarray], spec: Any, check: bool = False) -> None:
    """Store twice, and compare the bits of all caches; the second time is counted."""
    backend = IxformerBackend(library, device_check=False)
    rows = [
        aligned(filled((STEP.num_tokens, *c.shape[1::2]), SHORT[c.dtype.name], 5 + i))
        for i, c in enumerate(caches)
    ]
    given = spec.map(torch.from_numpy)
    plan = bridges.plan(
        given, cache=tensor(caches[0]), num_tokens=STEP.num_tokens, backend=backend, check=check
    )
    for _ in range(2):
        before = [cache.copy() for cache in caches]
        library.calls.clear()
        bridges.store_single_([*map(tensor, caches)], [*map(tensor, rows)], plan)
        for cache, old, states in zip(caches, before, rows, strict=True):
            want = reference.store_single(old, states, spec)
            np.testing.assert_array_equal(as_bits(cache), as_bits(want))


SHORT = {"bfloat16": "bf16", "float32": "f32", "int8": "i8"}


def caches(*dtypes: str) -> list[np.ndarray]:
    return [aligned(filled(SHAPE, dtype, i)) for i, dtype in enumerate(dtypes)]


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy that lies as memory of a device does, so that all are of one kind."""
    memory = np.empty(array.nbytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


@pytest.mark.parametrize("form", FORMS)
def test_keys_and_values_are_one_call(form):
    library = Library()
    store(library, caches("bf16", "bf16"), FORMS[form])
    assert library.calls == [2]


@pytest.mark.parametrize("confuses", ["keys twice", "keys alone", "raises"])
def test_where_the_kernel_confuses_them_each_has_its_own(confuses):
    library = Library(confuses)
    store(library, caches("bf16", "bf16"), FORMS["block_table"])
    assert library.calls == [1, 1]


def test_of_three_the_two_neighbours_of_one_kind_are_one_call():
    for dtypes, want in (
        (("bf16", "f32", "f32"), [1, 2]),
        (("f32", "f32", "bf16"), [2, 1]),
        (("f32", "bf16", "f32"), [1, 1, 1]),
    ):
        library = Library()
        store(library, caches(*dtypes), FORMS["slots"])
        assert library.calls == want


def test_a_pair_goes_the_native_way_where_that_is_proven_of_pairs():
    seen = []

    class Native(Library):
        def _table_writes(self, table, cu_q_lens, *rest):
            seen.append(cu_q_lens is not None)
            return super()._table_writes(table, cu_q_lens, *rest)

    library = Native()
    spec = FORMS["block_table"]
    store(library, caches("f32", "f32"), spec, check=False)
    assert library.calls == [2]
    assert not seen[-1]
    valid = type(spec)(np.int32([[4, 2, 1], [0, 3, 3]]), np.int32([1, 0]), np.int32([0, 6, 8]))
    store(library, caches("f32", "f32"), valid, check=True)
    assert library.calls == [2]
    assert seen[-1]


def test_two_caches_in_one_memory_are_stored_one_after_the_other():
    library = Library()
    backend = IxformerBackend(library, device_check=False)
    cache = torch.zeros(SHAPE)
    rows = torch.ones(STEP.num_tokens, *ROW), torch.full((STEP.num_tokens, *ROW), 2.0)
    spec = FORMS["slots"].map(torch.from_numpy)
    bridges.store_single_((cache, cache), rows, spec, backend=backend)
    assert library.calls[-2:] == [1, 1]
    assert cache.unique().tolist() == [0, 2]
