"""Codecs that are wrong in one way each: the kit charges each to the clause that it breaks."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from functional_paged.codecs import Codec
from functional_paged.conformance import all_cases, run_case
from functional_paged.conformance.adapters.reference import ReferenceAdapter
from functional_paged.conformance.cases.quantised import CODECS
from functional_paged.conformance.run.attribution import attributed

CASES = [case for case in all_cases() if case.kind in ("encode", "decode")]
NAN = {"int8": 0, "float8_e4m3fn": 0x7F, "float8_e5m2": 0x7E}


class ByHand(ReferenceAdapter):
    """A right codec of parts that a planted bug replaces."""

    name = "by-hand"
    codec: Codec

    def encode(self, states: np.ndarray, scale: np.ndarray | None, codec: str) -> Any:
        self.codec = CODECS[codec]
        with np.errstate(all="ignore"):
            number = states.astype(np.float32)
            if scale is None:
                scale = self.floored(self.divided(self.absmax(number)))
            quotient = self.quotient(states, self.taken(scale))
            rounded = self.rounded(self.saturated(quotient))
            payload = rounded.astype(self.dtype())
            bits = np.where(np.isnan(number), self.nan(number), payload.view(np.uint8))
        return bits.astype(np.uint8).view(payload.dtype), self.given(scale)

    def dtype(self) -> Any:
        return np.int8 if self.is_int() else getattr(ml_dtypes, self.codec.payload)

    def is_int(self) -> bool:
        return self.codec.payload == "int8"

    def absmax(self, number: np.ndarray) -> np.ndarray:
        finite = np.where(np.isfinite(number), abs(number), np.float32(0))
        return finite.max(axis=2, keepdims=True)

    def divided(self, absmax: np.ndarray) -> np.ndarray:
        return absmax / np.float32(self.codec.high)

    def floored(self, scale: np.ndarray) -> np.ndarray:
        return np.maximum(scale, np.float32(self.codec.floor))

    def taken(self, scale: np.ndarray) -> np.ndarray:
        return scale

    def given(self, scale: np.ndarray) -> np.ndarray:
        return scale

    def quotient(self, states: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return states.astype(np.float32) / scale

    def saturated(self, quotient: np.ndarray) -> np.ndarray:
        return np.clip(quotient, self.codec.low, self.codec.high)

    def rounded(self, number: np.ndarray) -> np.ndarray:
        return np.round(number) if self.is_int() else number

    def nan(self, number: np.ndarray) -> Any:
        return NAN[self.codec.payload]


class ReturnsTheReciprocalQ1(ByHand):
    def given(self, scale):
        return scale if self.codec.scale == "absmax" else 1 / scale


class DecodesInBfloat16Q1(ByHand):
    def decode(self, payload, scale, codec, dtype):
        narrow = ml_dtypes.bfloat16
        return (payload.astype(narrow) * scale.astype(narrow)).astype(dtype)


class OneScaleForAllHeadsQ1(ByHand):
    def taken(self, scale):
        return scale if self.codec.scale == "absmax" else scale[:1]


class MultipliesByTheReciprocalQ2(ByHand):
    def quotient(self, states, scale):
        return states.astype(np.float32) * (np.float32(1) / scale)


class DividesInBfloat16Q2(ByHand):
    def quotient(self, states, scale):
        narrow = ml_dtypes.bfloat16
        return (states.astype(narrow) / scale.astype(narrow)).astype(np.float32)


class TakesItsScaleInBfloat16Q2(ByHand):
    def taken(self, scale):
        return scale.astype(ml_dtypes.bfloat16).astype(np.float32)


class TruncatesQ3(ByHand):
    def rounded(self, number):
        if self.is_int():
            return np.trunc(number)
        mask = np.uint32(0xFFFFFFFF << (20 if "e4m3" in self.codec.payload else 21) & 0xFFFFFFFF)
        normal = (number.view(np.uint32) & mask).view(np.float32)
        least = 2.0**-9 if "e4m3" in self.codec.payload else 2.0**-16
        return np.where(abs(number) < 8 * least, np.trunc(number / least) * least, normal)


class RoundsHalfUpQ3(ByHand):
    def rounded(self, number):
        if self.is_int():
            return np.clip(np.floor(number + np.float32(0.5)), self.codec.low, self.codec.high)
        above = np.clip(np.nextafter(number, np.float32(np.inf)), self.codec.low, self.codec.high)
        return np.where(number == 0, number, above)


class SaturatesToNaNQ4(ByHand):
    def saturated(self, quotient):
        return quotient.astype(np.float64)

    def rounded(self, number):
        clipped = super().rounded(np.clip(number, self.codec.low, self.codec.high))
        return np.where(
            abs(number) > 1.1 * self.codec.high, 0 if self.is_int() else np.nan, clipped
        )


class InfinityEntersTheAbsmaxQ4(ByHand):
    def absmax(self, number):
        return np.fmax.reduce(abs(number), axis=2, keepdims=True)


class NaNIsTheLeastIntegerQ5(ByHand):
    def nan(self, number):
        return 0x80 if self.is_int() else super().nan(number)


class NaNKeepsItsSignQ5(ByHand):
    def nan(self, number):
        sign = 0 if self.is_int() else np.where(np.signbit(number), 0x80, 0)
        return super().nan(number) | sign


class NaNEntersTheAbsmaxQ5(ByHand):
    def absmax(self, number):
        return abs(number).max(axis=2, keepdims=True)


class HasNoFloorQ7(ByHand):
    def floored(self, scale):
        return scale


class DividesByAnotherBoundQ7(ByHand):
    def divided(self, absmax):
        return absmax / np.float32(self.codec.high + 1)


class MultipliesTheAbsmaxQ7(ByHand):
    def divided(self, absmax):
        return absmax * np.float32(1 / self.codec.high)


class RoundsItsAbsmaxScaleQ7(ByHand):
    def floored(self, scale):
        return super().floored(scale).astype(ml_dtypes.bfloat16).astype(np.float32)


class TakesTheNextTokensScaleQ8(ByHand):
    def absmax(self, number):
        return np.roll(super().absmax(number), 1, axis=0)


class HasOneAbsmaxForAllTokensQ8(ByHand):
    def absmax(self, number):
        found = super().absmax(number)
        return np.broadcast_to(found.max(axis=0), found.shape).copy()


class ChangesItsStatesQ9(ByHand):
    def quotient(self, states, scale):
        quotient = super().quotient(states, scale)
        states[:1] = 0
        return quotient


BUGS = [bug for bug in ByHand.__subclasses__() if bug.__name__[-2] == "Q"]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_bug_is_caught_by_its_clause_and_no_other(bug: type[ByHand]) -> None:
    failed = [r for r in attributed(run_case(bug(), case) for case in CASES) if r.status == "fail"]
    clause = bug.__name__[-2:]
    assert [(r.case.id, r.clause, r.reason) for r in failed if r.clause != clause] == []
    assert failed
    assert not any(r.reason.startswith("raised") for r in failed), failed[0].reason


def test_a_codec_by_hand_that_is_right_stays_green() -> None:
    failed = [r for r in (run_case(ByHand(), case) for case in CASES) if r.status != "pass"]
    assert [(r.case.id, r.reason) for r in failed] == []


def test_every_clause_of_a_codec_that_a_case_is_about_has_a_bug() -> None:
    # What fails Q10 fails another clause, too; Q6 is about values that no encode looks at.
    assert {case.clauses[0] for case in CASES} - {bug.__name__[-2:] for bug in BUGS} == {"Q10"}
    every = [bug.__name__[-2:] for bug in BUGS]
    assert sorted(set(every)) == ["Q1", "Q2", "Q3", "Q4", "Q5", "Q7", "Q8", "Q9"]


@pytest.mark.parametrize("codec", CODECS)
def test_q2_a_division_case_has_a_quotient_in_each_head_that_the_reciprocal_gets_wrong(
    codec: str,
) -> None:
    for case in CASES:
        if case.id.startswith(f"q2_division/{codec}/"):
            problem = case.build()
            arguments = problem.states, problem.scale, codec
            right = ReferenceAdapter().encode(*arguments)[0].view(np.uint8)
            wrong = MultipliesByTheReciprocalQ2().encode(*arguments)[0].view(np.uint8)
            assert (right != wrong)[0, :, 1].sum() == 8, case.id


def test_an_adapter_without_a_codec_has_no_such_member() -> None:
    class Store:
        name = "store"

        def unsupported(self, case: Any) -> None:
            return None

        def store(self, cache: Any, states: Any, index_spec: Any) -> Any:
            return cache

    for case in CASES[:30]:
        result = run_case(Store(), case)
        assert result.status == "no-such-member"
        assert result.reason == f"the adapter has no {case.kind}"
