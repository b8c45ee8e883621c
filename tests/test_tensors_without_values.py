"""What reads values on the host refuses tensors that have none."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from functional_paged import BlockTable, ChunkPlan, SlotMapping, SpecError, check_spec, explain
from tests.helpers import i32

SPECS = [
    BlockTable(i32([4, 2], [5, 0]), i32(1, 2), i32(0, 3, 4)),
    ChunkPlan(i32([0, 4, 1, 1], [1, 2, 0, 2])),
    SlotMapping(i32(9, -7, 3)),
]
MODE = FakeTensorMode()
WITHOUT_VALUES = {
    "meta": lambda array: torch.tensor(array, device="meta"),
    "fake": lambda array: MODE.from_tensor(torch.tensor(array)),
}


@pytest.mark.parametrize("kind", WITHOUT_VALUES)
@pytest.mark.parametrize("check", [check_spec, explain])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.form)
def test_c3_tensors_without_values_are_refused(spec, check, kind):
    sizes = {"cache_shape": (6, 1, 2, 3), "num_tokens": 4}
    check(spec.map(torch.tensor), **sizes)
    with pytest.raises(SpecError) as error:
        check(spec.map(WITHOUT_VALUES[kind]), **sizes)
    assert str(error.value) == f"C3: index arrays must have values to read, got a {kind} tensor"
