"""Every dtype that torch has is stored bit for bit, or refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import bridges
from bridges import BackendUnsupported
from bridges._backend import BITS
from bridges.ixformer import model
from functional_paged import SlotMapping, reference
from tests.helpers import i32

SHAPE = (9, 2, 4, 6)
QUANTISED = {torch.qint8, torch.quint8, torch.qint32, torch.quint4x2, torch.quint2x4}
DTYPES = {str(d): d for d in vars(torch).values() if isinstance(d, torch.dtype)}


@pytest.mark.parametrize("dtype", [d for d in DTYPES.values() if d not in QUANTISED], ids=str)
@pytest.mark.parametrize("check", [False, True])
def test_c16_every_dtype_keeps_its_bits(dtype, check):
    item, random = dtype.itemsize, np.random.default_rng(5)
    high = 2 if dtype == torch.bool else 256
    memory = random.integers(0, high, (*SHAPE[:3], SHAPE[3] * item), np.uint8)
    rows = random.integers(0, high, (3, SHAPE[1], SHAPE[3] * item), np.uint8)
    before, spec = memory.copy(), SlotMapping(i32(17, -1, 3))
    cache, states = (torch.from_numpy(array).view(dtype) for array in (memory, rows))

    def store():
        plan = bridges.plan(
            spec.map(torch.from_numpy),
            cache=cache,
            num_tokens=3,
            backend=model.backend(),
            check=check,
        )
        bridges.store_single_(cache, states, plan)

    if item in BITS:
        store()
        assert (memory == reference.store_single(before, rows, spec)).all()
    else:
        with pytest.raises(BackendUnsupported, match="not tried: elements of 16 bytes"):
            store()
        assert (memory == before).all()
