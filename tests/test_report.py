"""The report is what its schema says, and its page says the same, whatever the report holds."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any, get_args, get_type_hints

import jsonschema
import pytest

from functional_paged.conformance import BackendRun, Case, Result, run_case
from functional_paged.conformance.adapters.reference import ReferenceAdapter
from functional_paged.conformance.cases.case import CaseKind
from functional_paged.conformance.report import page as report_page
from functional_paged.conformance.report.drawing import MOST_LINES, OUTCOMES, lines_of
from functional_paged.conformance.report.page import STATUSES, to_html
from functional_paged.conformance.report.results import report
from functional_paged.conformance.run.compare import Outcome
from functional_paged.conformance.run.run_case import Status
from functional_paged.internal import Clause, cells
from tests.faulty_reports import (
    BY_HAND,
    Faulty,
    OneBlockOff,
    WritesAll,
    a_case,
    faulty_report,
    large_report,
    run_of,
    with_result,
)
from tests.helpers import command_line

Line = cells.Line
SCHEMA = json.loads(
    (resources.files("functional_paged.conformance.report") / "report.schema.json").read_text()
)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_schema_and_the_page_know_every_word() -> None:
    defs = SCHEMA["$defs"]
    assert defs["case"]["properties"]["kind"]["enum"] == list(get_args(CaseKind))
    statuses = get_args(get_type_hints(Clause)["status"])
    assert defs["clause"]["properties"]["status"]["enum"] == list(statuses)
    assert defs["status"]["enum"] == list(get_args(Status))
    assert sorted(STATUSES) == sorted(get_args(Status))
    outcomes = defs["cell"]["properties"]["outcome"]["enum"]
    assert outcomes == list(OUTCOMES) == list(get_args(Outcome))


def crashed(case: Case) -> BackendRun:
    return BackendRun(
        "crashes", {}, (Result(case, "fail", "crashed: the process died of SIGSEGV"),)
    )


@pytest.mark.parametrize(
    "runs",
    [
        pytest.param(lambda: [run_of(ReferenceAdapter(), [a_case()])], id="pass"),
        pytest.param(lambda: [run_of(Faulty(), [a_case()])], id="fail"),
        pytest.param(
            lambda: [with_result(run_of(Faulty(), [a_case()]), status="xfail", ledger="known")],
            id="xfail",
        ),
        pytest.param(
            lambda: [BackendRun("x", {}, (Result(a_case(), "not-run", "no"),))],
            id="not-run",
        ),
        pytest.param(lambda: [crashed(a_case())], id="crash"),
        pytest.param(
            lambda: [with_result(run_of(ReferenceAdapter(), [a_case()]), reason="refused: no")],
            id="remark",
        ),
        pytest.param(
            lambda: [
                BackendRun("x", {}, (Result(a_case(), "not-promised", "y"),), {"C5": "what is y"})
            ],
            id="not promised",
        ),
        pytest.param(list, id="nothing"),
    ],
)
def test_a_report_matches_the_schema(runs: Callable[[], list[BackendRun]]) -> None:
    # Through JSON, as others read it: tuples become arrays.
    VALIDATOR.validate(json.loads(json.dumps(report(runs()))))


def test_a_report_tells_what_went_wrong_and_where() -> None:
    reported = faulty_report()
    result = reported["backends"][1]["results"][1]
    cells = {
        (cell["block"], cell["offset"]): cell["outcome"] for cell in result["mismatch"]["cells"]
    }
    assert cells == BY_HAND
    assert result["mismatch"]["index"] == (1, 0, 2, 0)
    assert result["mismatch"]["expected"] == "0x3f800000"  # 1.0, as the first token begins
    assert result["mismatch"]["actual"] == "0x3f800001"
    assert result["mismatch"]["written"]
    assert reported["cases"][1]["cache_shape"] == [5, 2, 4, 3]
    assert reported["backends"][1]["counts"] == {"cannot-express": 1, "fail": 1}
    assert reported["backends"][1]["by_clause"]["C5"] == {"fail": 1}
    assert reported["backends"][1]["by_clause"]["C16"] == {}
    assert reported["backends"][1]["by_clause"]["C19"] == {}


def test_a_failure_counts_once_for_the_clause_that_it_is_charged_to() -> None:
    run = with_result(run_of(Faulty(), [a_case("c5_a"), a_case("c5_b")]), clause="C16")
    (backend,) = report([run])["backends"]
    counted = {clause: counts for clause, counts in backend["by_clause"].items() if counts}
    assert counted == {"C5": {"fail": 1}, "C16": {"fail": 1}}
    assert backend["counts"] == {"fail": 2}


def test_twins_count_apart_unless_they_fail() -> None:
    twins = [replace(a_case(f"c1_{name}/twin"), clauses=("C1",), twin=True) for name in "abc"]
    results = [
        Result(case, status)
        for case, status in zip(twins, ("pass", "fail", "not-run"), strict=True)
    ]
    reported = report([BackendRun("x", {}, tuple(results))])
    (backend,) = reported["backends"]
    assert backend["twins"] == {"pass": 1, "not-run": 1}
    assert backend["by_clause"]["C1"] == {"fail": 1}
    assert [case["twin"] for case in reported["cases"]] == [True] * 3
    page = to_html(reported)
    assert re.findall('data-row="([^"]+)"', page) == ["C1", "twins", "twins"]
    assert 'href="#clause=twins&amp;backend=x&amp;status=pass"' in page


def broken(change: Callable[[dict[str, Any], dict[str, Any]], object]) -> dict[str, Any]:
    """The faulty report after a change to it, or to the faulty result of it."""
    reported = json.loads(json.dumps(faulty_report()))
    change(reported, reported["backends"][1]["results"][1])
    return reported


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda report, result: report.pop("spec_version"), id="no spec version"),
        pytest.param(lambda report, result: report.update(date="today"), id="unknown field"),
        pytest.param(lambda report, result: report.update(schema_version=1), id="other schema"),
        pytest.param(lambda report, result: report["cases"][0].update(kind="guess"), id="kind"),
        pytest.param(lambda report, result: report["cases"][0].update(link="//x"), id="link"),
        pytest.param(lambda report, result: report["cases"][0].update(clauses=["D1"]), id="clause"),
        pytest.param(lambda report, result: report["cases"][0]["cache_shape"].pop(), id="shape"),
        pytest.param(
            lambda report, result: report["backends"][0]["counts"].update(maybe=1), id="count"
        ),
        pytest.param(
            lambda report, result: report["backends"][0]["counts"].update(fail=0), id="zero count"
        ),
        pytest.param(
            lambda report, result: report["backends"][0]["info"].update(torch=2), id="info"
        ),
        pytest.param(
            lambda report, result: report["backends"][0].update(promises=[{"of": "C5"}]),
            id="promise",
        ),
        pytest.param(lambda report, result: result.update(status="skip"), id="status"),
        pytest.param(lambda report, result: result.update(clause="twins"), id="charged to"),
        pytest.param(lambda report, result: result.update(reason=""), id="fail without a reason"),
        pytest.param(lambda report, result: result.update(status="xfail"), id="xfail, no ledger"),
        pytest.param(
            lambda report, result: result.update(status="pass", reason=""), id="pass with mismatch"
        ),
        pytest.param(
            lambda report, result: result["mismatch"].update(what="guard"), id="cells of a guard"
        ),
        pytest.param(lambda report, result: result["mismatch"].update(index=[-1]), id="index"),
        pytest.param(lambda report, result: result["mismatch"].update(count=0), id="none wrong"),
        pytest.param(
            lambda report, result: result["mismatch"]["cells"][0].update(outcome="lost"),
            id="outcome",
        ),
    ],
)
def test_a_broken_report_is_rejected(change: Callable[..., object]) -> None:
    VALIDATOR.validate(broken(lambda report, result: None))
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(broken(change))


def test_the_command_line_writes_both(tmp_path: Path) -> None:
    page, data = tmp_path / "report.html", tmp_path / "report.json"
    cases = ("--backend", "reference", "--cases", "c14_negative_slots/slots/bf16/n7*")
    ran = command_line("check", *cases, "--html", page, "--json", data)
    assert ran.exit_code == 0, ran.output
    VALIDATOR.validate(json.loads(data.read_text()))
    assert "reference: 1 of 1 clause holds" in page.read_text()


RAN = "in the cases that ran"


@pytest.mark.parametrize(
    ("verdict", "runs"),
    [
        ("Nothing ran", list),
        (f"reference: 1 of 1 clause holds {RAN}", lambda: [run_of(ReferenceAdapter(), [a_case()])]),
        (
            f"faulty: 0 of 1 clause holds {RAN}; C5 does not",
            lambda: [run_of(Faulty(), [a_case()])],
        ),
        (
            f"faulty: 0 of 1 clause holds {RAN}; C5 does not "
            "(1 of 2 backends hold every clause that ran)",
            lambda: [run_of(a(), [a_case()]) for a in (ReferenceAdapter, Faulty)],
        ),
        (
            f"All 2 backends: every clause holds {RAN}",
            lambda: [run_of(ReferenceAdapter(), [a_case()], name) for name in "ab"],
        ),
        (
            "x: ran no case",
            lambda: [BackendRun("x", {}, (Result(a_case(), "not-run", "no"),))],
        ),
        (
            f"faulty: 0 of 1 clause holds {RAN}; C5 is known not to",
            lambda: [with_result(run_of(Faulty(), [a_case()]), status="xfail", ledger="known")],
        ),
        # As the command's exit status: a pass that the ledger does not expect is no pass.
        (
            f"reference: 1 of 1 clause holds {RAN}; the ledger lists 1 case as failing that passed",
            lambda: [with_result(run_of(ReferenceAdapter(), [a_case()]), ledger="known")],
        ),
    ],
)
def test_the_page_says_how_it_ended(verdict: str, runs: Callable[[], list[BackendRun]]) -> None:
    page = to_html(report(runs()))
    headline = re.search("<h1[^>]*>(.*?)</h1>", page)
    assert headline is not None
    assert headline.group(1) == verdict


class Tags(HTMLParser):
    """The start tags of a page, its attributes and its text."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_hostile_text_stays_text() -> None:
    hostile = "</script><script>alert(1)</script><img src=x onerror='alert(2)'>\"' onclick=x &lt;"
    plain = Tags(to_html(faulty_report()))
    reported = copy.deepcopy(faulty_report(faulty_name=hostile))
    backend, result = reported["backends"][1], reported["backends"][1]["results"][1]
    backend["info"] = {hostile: hostile}
    result.update(reason=hostile, ledger=hostile)
    result["mismatch"].update(expected=hostile, actual=hostile)
    reported["backends"][0]["results"][0]["reason"] = hostile
    reported["cases"][0].update(about=hostile, link=f"javascript:{hostile}")
    seen = Tags(to_html(reported))
    assert sorted(set(seen.tags)) == sorted(set(plain.tags))
    assert seen.tags.count("script") == 1
    assert set(seen.attributes) <= set(plain.attributes)
    assert seen.text.count(hostile) >= 8
    assert 'href="javascript:' not in to_html(reported)


def test_the_page_is_plain_ascii_and_asks_for_nothing() -> None:
    reported = faulty_report(faulty_name="\ud800")
    reported["backends"][0]["info"] = {"device": "天数智芯 \ud800"}
    page = to_html(reported)
    assert page.isascii()
    assert "default-src 'none'" in page
    assert "\u5929" in Tags(page).text
    assert not re.search(r'(src|<link|@import|url\((?!#))\s*=?\s*"?https?:', page)


def test_a_drawing_leaves_out_what_was_not_touched() -> None:
    outcomes = {(1, 2): "wrong", (1, 3): "written", (2, 0): "stray", (3, 1): "missing"}
    assert lines_of(outcomes, 4) == ([Line(1, 0, 4), Line(2, 0, 4), Line(3, 0, 4)], 0)


def test_a_long_block_goes_over_even_lines() -> None:
    lines = lines_of({(0, 0): "stray", (0, 20): "stray"}, 33)[0]
    assert lines == [Line(0, 0, 17), Line(0, 17, 33)]
    assert lines_of({(1, 64): "stray"}, 128)[0] == [Line(1, 64, 96)]


def test_a_drawing_prefers_faulty_lines_and_says_what_it_left_out() -> None:
    outcomes = {(n, 0): "written" if n < 25 else "stray" for n in range(100)}
    lines, hidden = lines_of(outcomes, 4)
    assert lines[0] == Line(25, 0, 4)
    assert (len(lines), hidden) == (MOST_LINES, 100 - MOST_LINES)


def test_a_drawing_says_what_the_report_does_not_record() -> None:
    many = run_case(WritesAll(), a_case(shape=(2000, 1, 4, 1)))
    page = to_html(report([BackendRun("x", {}, (many,))]))
    assert "only the first 4,096 positions are recorded" in page
    assert f"{4096 // 4 - MOST_LINES:,} lines not drawn" in page


def test_a_page_says_which_drawings_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    reported = report([run_of(Faulty(), [a_case()]), run_of(OneBlockOff(), [a_case()])])
    assert "not drawn" not in to_html(reported)
    monkeypatch.setattr(report_page, "MOST_DRAWINGS", 1)
    page = to_html(reported)
    assert (page.count("<figure"), page.count("not drawn")) == (1, 1)


def test_a_large_page_stays_light() -> None:
    page = to_html(large_report())
    assert len(page) < 1_500_000
    assert page.count("<figure") == report_page.MOST_DRAWINGS
    assert page.count('class="case"') == 600
