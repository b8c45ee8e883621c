"""torch.export with symbolic sizes: blocks, tokens, rows of a table or of a plan, from two up."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.export import Dim

import bridges
from functional_paged import BlockTable, ChunkPlan, IndexSpec, SlotMapping

N, T, B = (Dim(name, min=2, max=4096) for name in ("num_blocks", "num_tokens", "batch"))
SPECS: dict[str, tuple[type[Any], tuple[dict[int, Any], ...]]] = {
    # form: how it is made, which sizes of its arrays are symbolic
    "slots": (SlotMapping, ({0: T},)),
    "decode": (BlockTable, ({0: B}, {0: B})),
    "prefill": (BlockTable, ({0: Dim.AUTO}, {0: Dim.AUTO}, {0: Dim.AUTO})),
    "chunks": (ChunkPlan, ({0: B},)),
}


def arrays(form: str, num_blocks: int, size: int) -> tuple[torch.Tensor, ...]:
    rows = torch.arange(size, dtype=torch.int32)
    block, zero = rows % num_blocks, torch.zeros_like(rows)
    return {
        "slots": (2 * block,),
        "decode": (block[:, None], zero),
        "prefill": (block[:, None], zero, torch.arange(size + 1, dtype=torch.int32)),
        "chunks": (torch.stack([rows, block, zero, zero + 1], dim=1),),
    }[form]


def tensors(num_blocks: int, num_tokens: int, layout: str) -> tuple[torch.Tensor, torch.Tensor]:
    cache = torch.zeros(num_blocks, 1, 2, 3 if layout == "contiguous" else 6)[..., :3]
    states = torch.arange(num_tokens * 3, dtype=torch.float32).view(num_tokens, 1, 3) + 1
    return cache, states


@pytest.mark.usefixtures("cpu_backend", "traceable")
@pytest.mark.parametrize("strict", [False, True], ids=["not strict", "strict"])
@pytest.mark.parametrize("layout", ["contiguous", "packed_kv"])
@pytest.mark.parametrize("form", SPECS)
def test_one_export_serves_all_sizes(form, layout, strict):
    make, symbolic = SPECS[form]

    def spec_of(given: tuple[torch.Tensor, ...]) -> IndexSpec:
        return make(*given)

    class Step(torch.nn.Module):
        def forward(self, cache, states, *given):
            bridges.store_single_(cache, states, spec_of(given))
            return cache * 1

    example = (*tensors(7, 5, layout), *arrays(form, 7, 5 if form == "slots" else 6))
    sizes: Any = {"cache": {0: N}, "states": {0: T}, "given": symbolic}
    step = torch.export.export(Step(), example, dynamic_shapes=sizes, strict=strict).module()
    for num_blocks, size in ((7, 5), (2, 2), (9, 12)):
        cache, states = tensors(num_blocks, size, layout)
        given = arrays(form, num_blocks, size)
        want = cache.clone()
        bridges.store_single_(want, states, spec_of(given))
        got = step(cache, states, *given)
        assert want.any()
        assert torch.equal(got, want)
