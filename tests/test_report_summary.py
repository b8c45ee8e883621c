"""A report in few words: what holds, and like results told once."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functional_paged.conformance.report.summary import failures, headline, named, notes, verdict_of


def told(
    case_id: str,
    status: str = "fail",
    reason: str = "",
    clause: str = "",
    ending: str = "returned",
) -> dict[str, Any]:
    """A result as a report has it."""
    subject = clause or case_id.partition("_")[0].upper()
    words = {"reason": reason, "ledger": "", "ending": ending}
    return {"id": case_id, "status": status, "clause": subject, **words}


def backend_of(*results: dict[str, Any], name: str = "mine") -> dict[str, Any]:
    by_clause: dict[str, dict[str, int]] = {f"C{n}": {} for n in range(1, 23)}
    counts: dict[str, int] = {}
    for result in results:
        for found in (by_clause[result["clause"]], counts):
            found[result["status"]] = found.get(result["status"], 0) + 1
    return {"name": name, "counts": counts, "by_clause": by_clause, "results": results}


@pytest.mark.parametrize(
    ("verdict", "results"),
    [
        (("idle", "ran no case"), []),
        (("idle", "ran no case"), [told("c5_a", "cannot-express")]),
        (
            ("pass", "2 of 2 clauses hold in the cases that ran"),
            [told("c5_a", "pass"), told("c5_b", "not-run"), told("c8_a", "pass")],
        ),
        (
            ("fail", "1 of 3 clauses holds in the cases that ran; C5 and C9 do not"),
            [told("c5_a", "pass"), told("c5_a"), told("c8_a", "pass"), told("c9_a")],
        ),
        (
            ("xfail", "1 of 2 clauses holds in the cases that ran; C9 is known not to"),
            [told("c5_a", "pass"), told("c9_a", "xfail"), told("c9_b", "pass")],
        ),
        (
            ("fail", "0 of 2 clauses hold in the cases that ran; C5 does not; C9 is known not to"),
            [told("c5_a"), told("c5_b", "xfail"), told("c9_a", "xfail")],
        ),
        (
            (
                "pass",
                "1 of 1 clause holds in the cases that ran; C11 and C12 are not promised; "
                "C5 is promised in part",
            ),
            [told("c5_a", "pass")] + [told(f"{c}_a", "not-promised") for c in ("c5", "c11", "c12")],
        ),
    ],
)
def test_a_verdict_says_what_holds(verdict: tuple[str, str], results: list[dict[str, Any]]) -> None:
    assert verdict_of(backend_of(*results)) == verdict


def test_the_headline_is_the_worst_verdict() -> None:
    right, known = backend_of(told("c5_a", "pass")), backend_of(told("c5_a", "xfail"), name="known")
    idle = backend_of(name="idle")
    assert headline([right, known])[1].startswith("known: 0 of 1 clause holds")
    assert headline([right, known, idle]) == (
        "idle",
        "idle: ran no case (1 of 3 backends hold every clause that ran)",
    )


def test_failures_that_differ_in_numbers_are_one_line() -> None:
    groups = failures(
        [
            told("c5_a/1", reason="cache[1, 0] was to be written: expected 0x1f, got 0xa0"),
            told("c5_a/2", reason="cache[0, 3] was to be written: expected 0xbb, got 0x7f"),
            told("c5_a/3", reason="cache[0, 3] was to be left alone: expected 0xbb, got 0x7f"),
            told("c5_a/4", "pass"),
            told("c5_a/5", "xfail", "cache[0, 3] was to be written: expected 0xbb, got 0x7f"),
            told("c6_a/1", reason="cache[1, 0] was to be written: expected 0x1f, got 0xa0"),
            told(
                "c5_a/6",
                reason="cache[1, 0] was to be written: expected 0x1f, got 0xa0",
                clause="C14",
            ),
        ]
    )
    assert [[result["id"] for result in group] for group in groups] == [
        ["c5_a/1", "c5_a/2"],
        ["c5_a/3"],
        ["c6_a/1"],
        ["c5_a/6"],
    ]


def test_the_worst_failures_come_first() -> None:
    endings = ["crashed", "hung", "raised after writing", "returned", "refused"]
    few_first = [told("c5_a", reason=ending, ending=ending) for ending in endings]
    many_last = [told("c9_a", reason="cache[1]"), told("c9_a", reason="cache[1]")]
    groups = failures([*reversed(few_first), *many_last])
    assert [group[0]["reason"] for group in groups] == [
        *endings[:3],
        "cache[1]",
        *endings[3:],
    ]


def test_notes_tell_each_reason_once_and_the_words_apart() -> None:
    results = [
        told("c1_a", "pass"),
        told("c1_b", "pass", "refused without naming C1: AssertionError: no: 3"),
        told("c2_a", "pass", "refused without naming C2: ValueError: 4"),
        told("c3_a", "no-such-member", "the adapter has no store_apart"),
        told("c5_a", "cannot-express", "heads * 46 must be a power of two"),
        told("c5_b", "cannot-express", "heads * 80 must be a power of two"),
        told("c12_a", "not-promised", "slots are in the cache"),
        told("c13_a", "not-promised", "slots are in the cache"),
        told("c19_a", "not-run", "needs 8 GiB"),
        told("c5_c", reason="cache[1]"),
    ]
    assert notes(results) == [
        "2 pass: refused without naming its clause",
        "2 not promised (C12 and C13): slots are in the cache",
        "1 no such member: the adapter has no store_apart",
        "2 cannot express: heads * 46 must be a power of two",
        "1 not run: needs 8 GiB",
    ]


@given(st.sets(st.integers(1, 30), min_size=1))
def test_clauses_in_words_are_those_clauses(numbers: set[int]) -> None:
    words = named({f"C{n}" for n in numbers})
    found: list[int] = []
    for first, last in re.findall(r"C(\d+)(?:-C(\d+))?", words):
        found += range(int(first), int(last or first) + 1)
    assert found == sorted(numbers)
