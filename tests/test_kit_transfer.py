"""The kit's cases of a transfer: what a wrong one does is found, and by which case."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from functional_paged import reference
from functional_paged.conformance import all_cases, run_case
from functional_paged.conformance.adapters.reference import ReferenceAdapter
from functional_paged.conformance.run.call import here, in_a_fork

CASES = [case for case in all_cases() if case.kind == "transfer"]


class InPlace(ReferenceAdapter):
    """A right transfer in place."""

    def transfer(self, dst, dst_spec, src, src_spec, num_tokens):
        dst[...] = super().transfer(dst, dst_spec, src, src_spec, num_tokens)
        return dst


class RowAfterRow(InPlace):
    """Reads what it has written already."""

    order_of_tokens = staticmethod(lambda places: places)

    def transfer(self, dst, dst_spec, src, src_spec, num_tokens):
        tokens = range(num_tokens)
        for token in self.order_of_tokens(tokens):
            (row,) = self.row(src, src_spec, num_tokens, token)
            for other, block, offset in reference.stored_tokens(dst_spec, dst.shape, num_tokens):
                if other == token:
                    dst[block, :, offset] = row
        return dst

    def row(self, src, src_spec, num_tokens, token):
        return reference.load_single(src, src_spec, num_tokens)[token : token + 1]


class LastRowFirst(RowAfterRow):
    order_of_tokens = staticmethod(reversed)


class NoZeros(InPlace):
    """Leaves a place alone for which there is no row."""

    def transfer(self, dst, dst_spec, src, src_spec, num_tokens):
        before = dst.copy()
        super().transfer(dst, dst_spec, src, src_spec, num_tokens)
        stored = {token for token, *_ in reference.stored_tokens(src_spec, src.shape, num_tokens)}
        for token, block, offset in reference.stored_tokens(dst_spec, dst.shape, num_tokens):
            if token not in stored:
                dst[block, :, offset] = before[block, :, offset]
        return dst


class OneBlockSize(InPlace):
    """Takes the blocks of the source for as large as its own."""

    def transfer(self, dst, dst_spec, src, src_spec, num_tokens):
        heads, dim = dst.shape[1::2]
        rows = src.swapaxes(1, 2).reshape(dst.shape[0], dst.shape[2], heads, dim)
        return super().transfer(dst, dst_spec, rows.swapaxes(1, 2), src_spec, num_tokens)


class SpoilsItsSource(InPlace):
    def transfer(self, dst, dst_spec, src, src_spec, num_tokens):
        moved = super().transfer(dst, dst_spec, src, src_spec, num_tokens)
        if src is not dst:
            src[0, 0, 0] = 0
        return moved


class SpoilsItsSpec(InPlace):
    def transfer(self, dst, dst_spec, src, src_spec, num_tokens):
        moved = super().transfer(dst, dst_spec, src, src_spec, num_tokens)
        next(iter(src_spec.arrays().values()))[0] = 0
        return moved


class Late(ReferenceAdapter):
    """Reads its source after it has returned."""

    def transfer(self, dst: Any, dst_spec: Any, src: Any, src_spec: Any, num_tokens: int) -> Any:
        mine, specs = dst.copy(), [spec.map(np.copy) for spec in (dst_spec, src_spec)]

        class Answer:
            def __array__(self, dtype=None, copy=None):
                rows = reference.load_single(src, specs[1], num_tokens)
                return reference.store_single(mine, rows, specs[0])

        return Answer()


def failed(adapter: Any, ask: Any = here) -> set[str]:
    results = [run_case(adapter, case, ask=ask) for case in CASES]
    assert {result.status for result in results} <= {"pass", "fail"}
    return {
        result.case.id.split("/")[0].partition("transfer_")[2]
        for result in results
        if result.status == "fail"
    }


@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
@pytest.mark.parametrize("ask", [here, in_a_fork])
def test_c17_a_right_transfer_passes(ask):
    assert len(CASES) == 5
    assert failed(ReferenceAdapter(), ask) == failed(InPlace(), ask) == set()


EVERY = {"block_size", "zeros", "swap", "up", "down"}


@pytest.mark.parametrize(
    ("wrong", "cases"),
    [
        (RowAfterRow, {"swap", "up"}),
        (LastRowFirst, {"swap", "down"}),
        (NoZeros, {"zeros"}),
        (OneBlockSize, {"block_size"}),
        (SpoilsItsSource, {"block_size", "zeros"}),
        (SpoilsItsSpec, EVERY),
        (Late, EVERY),
    ],
)
def test_c17_a_wrong_transfer_fails(wrong, cases):
    assert failed(wrong()) == cases


def test_c17_a_spoilt_source_is_charged_to_the_inputs():
    (case,) = [case for case in CASES if "block_size" in case.id]
    result = run_case(SpoilsItsSource(), case)
    assert result.clause == "C17"
    assert result.reason.startswith("source given cache[")
