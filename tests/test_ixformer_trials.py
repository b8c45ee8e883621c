"""What a trial is made of: room around its tensors, canaries in it, and words for its kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bridges._overlap import reach
from bridges.ixformer.trials.canvas import ALIGNMENT, Canvas
from bridges.ixformer.trials.specs import PREFILL, decode_rows
from bridges.ixformer.trials.trial import TensorKind, canvases

CPU = torch.device("cpu")
KIND = TensorKind(torch.float16, 2, 16, 8)
BLOCK, ROW = 2 * 16 * 8, 2 * 8
PADDED = KIND._replace(cache_strides=(3 * BLOCK, 128, 8, 1), states_strides=(5 * ROW, 8, 1))


@pytest.mark.parametrize(("kind", "step"), [(KIND, BLOCK), (PADDED, 3 * BLOCK)])
def test_a_write_or_read_a_block_or_16_rows_off_stays_in_the_memory_of_a_trial(kind, step):
    canvas_of = dict(zip(("cache", "states"), canvases(kind, decode_rows(7, 16), CPU), strict=True))
    for name, room in (("cache", step + BLOCK), ("states", 16 * ROW)):
        canvas = canvas_of[name]
        before = canvas.tensor.storage_offset()
        after = len(canvas.memory) - before - reach(canvas.tensor.shape, canvas.tensor.stride())
        assert min(before, after) >= room, name


@pytest.mark.parametrize("shift", [0, 2, 62])
def test_a_canvas_lies_as_many_bytes_past_a_multiple_as_it_should(shift):
    canvas = Canvas((3, 5), torch.float16, CPU, margin=9, shift=shift)
    assert canvas.tensor.data_ptr() % ALIGNMENT == shift


def test_elements_that_a_strided_tensor_spans():
    assert reach((2, 3), (3, 1)) == 6
    assert reach((2, 3), (10, 2)) == 1 + 10 + 4


def test_canaries_are_never_zero_and_a_third_each_is_nan_and_subnormal():
    canvas = Canvas((40, 50), torch.float16, CPU, margin=7).fill_with_canaries_(seed=1)
    exponent = canvas.host & 0x7C00
    at = (np.arange(len(canvas.host)) - canvas.tensor.storage_offset()) % 3
    integers = Canvas((40, 50), torch.int8, CPU, margin=7).fill_with_canaries_(seed=1).host
    assert set(integers.tolist()) == set(range(-128, 128)) - {0}
    assert (exponent[at == 0] == 0x7C00).all()
    assert (exponent[at == 1] == 0).all()
    assert np.mean(exponent[at == 2] == 0x7C00) < 0.2
    assert np.array_equal(canvas.memory.numpy(), canvas.host)


def test_a_kind_says_in_words_what_is_not_as_usual():
    plain = "torch.float16 rows of kv_heads = 2, head_dim = 8 in blocks of block_size = 16"
    assert str(KIND) == plain
    assert str(PADDED) == f"{plain}, cache strides (768, 128, 8, 1)"
    shifted = KIND._replace(cache_shift=2)
    assert str(shifted) == f"{plain}, cache 2 bytes past a multiple of 64"


@pytest.mark.parametrize("block_size", [1, 16])
def test_c8_a_token_goes_to_each_hole_of_the_trial_of_holes(block_size):
    spec = PREFILL["prefill, hole in the table"](block_size).spec
    reached = {
        (row, position // block_size)
        for row, (start, length) in enumerate(
            zip(spec.context_kv_lens.tolist(), np.diff(spec.cu_q_lens).tolist(), strict=True)
        )
        for position in range(start, start + length)
    }
    holes = {tuple(hole) for hole in np.argwhere(spec.block_table < 0).tolist()}
    assert len(holes) == 2
    assert holes <= reached
