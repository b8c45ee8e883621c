"""The rules of a ledger: a reason for each known failure, and no failure that has gone away."""

from __future__ import annotations

from pathlib import Path

import pytest

from functional_paged.conformance import BackendRun, Result
from functional_paged.conformance.cases.suite import find_case
from functional_paged.conformance.run.ledger import Ledger, LedgerError, draft_ledger, read_ledger

SHAPE = "n7_h3_s16_d46"
HOLE = find_case(f"c8_hole/block_table/bf16/{SHAPE}")
NEGATIVE = find_case(f"c14_negative_slots/slots/bf16/{SHAPE}")
GOOD = """
backend = "mine"
[[known]]
id = "c14_negative_slots/*"
status = "xfail"
reason = "-1 counts from the end"
link = "https://example.org/1"
"""


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    return file


def over(ledger: Ledger, *results: Result) -> tuple[tuple[Result, ...], list[str]]:
    """The results as the ledger has them, and what contradicts it."""
    run, errors = ledger.read_over(
        BackendRun("mine", {}, results), [result.case for result in results]
    )
    return run.results, errors


def test_a_known_failure_is_xfail(tmp_path: Path) -> None:
    ledger = read_ledger(written(tmp_path, GOOD))
    applied, errors = over(ledger, Result(HOLE, "pass"), Result(NEGATIVE, "fail", "slot 3"))
    assert errors == []
    assert [result.status for result in applied] == ["pass", "xfail"]
    assert applied[1].ledger == "-1 counts from the end https://example.org/1"
    assert applied[1].reason == "slot 3"


def test_an_unexpected_pass_is_an_error(tmp_path: Path) -> None:
    ledger = read_ledger(written(tmp_path, GOOD))
    _, errors = over(ledger, Result(NEGATIVE, "pass"))
    assert errors == [
        f"{NEGATIVE.id} passes, but the ledger says: -1 counts from the end",
    ]


def test_an_id_that_matches_nothing_is_an_error(tmp_path: Path) -> None:
    ledger = read_ledger(written(tmp_path, GOOD.replace("c14_negative", "c14_positive")))
    assert over(ledger, Result(HOLE, "pass"))[1] == ["id 'c14_positive_slots/*' matches no case"]


@pytest.mark.parametrize("pattern", ["c14_negative_slots/*", "c19_last_block/*"])
def test_an_id_may_match_a_case_that_was_not_run(tmp_path: Path, pattern: str) -> None:
    ledger = read_ledger(written(tmp_path, GOOD.replace("c14_negative_slots/*", pattern)))
    assert over(ledger, Result(HOLE, "pass"))[1] == []


def test_a_failure_that_the_ledger_does_not_know_stays_one(tmp_path: Path) -> None:
    ledger = read_ledger(written(tmp_path, GOOD))
    applied, _ = over(ledger, Result(HOLE, "fail", "off by one"))
    assert applied[0].status == "fail"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('reason = "-1 counts from the end"', "", r"known\[0\]: reason must be a text, got ''"),
        ('reason = "-1 counts from the end"', 'reason = " "', r"known\[0\]: reason must be a text"),
        ('status = "xfail"', 'status = "flaky"', "must be 'xfail' or 'not-run', got 'flaky'"),
        ('status = "xfail"', "status = 1", r"known\[0\]: status must be a text, got 1"),
        ("link =", "lnik =", r"known\[0\]: .* unexpected keyword argument 'lnik'"),
        ('backend = "mine"', "", "a ledger must have backend and known, got known"),
        ("[[known]]", "[known]", r"known\[0\]: .* must be a mapping, not str"),
        ("[[known]]", "[[known", "mine.toml: "),
    ],
)
def test_a_malformed_ledger_says_where(tmp_path: Path, old: str, new: str, message: str) -> None:
    read_ledger(written(tmp_path, GOOD))
    with pytest.raises(LedgerError, match=message):
        read_ledger(written(tmp_path, GOOD.replace(old, new)))


def test_a_draft_reads_back_and_covers_the_run(tmp_path: Path) -> None:
    results = [
        Result(HOLE, "fail", 'raised ValueError("a \\ b\nc")'),
        Result(NEGATIVE, "fail", "hung: no result in 60 s", ending="hung"),
    ]
    ledger = read_ledger(written(tmp_path, draft_ledger(Ledger("mine"), results)))
    applied, errors = over(ledger, results[0])
    assert (applied[0].status, errors) == ("xfail", [])
    assert ledger.to_run([NEGATIVE, HOLE]) == [HOLE]
