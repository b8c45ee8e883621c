"""The report's page in a real browser: what a person sees, points at and filters."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from functional_paged.conformance import BackendRun, Result
from functional_paged.conformance.adapters.reference import ReferenceAdapter
from functional_paged.conformance.report.page import to_html
from functional_paged.conformance.report.results import report
from tests.faulty_reports import (
    BY_HAND,
    SHAPE,
    Faulty,
    a_case,
    faulty_report,
    large_report,
    run_of,
    with_result,
)

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HEADLINE = (
    "faulty: 0 of 1 clause holds in the cases that ran; C5 does not "
    "(1 of 2 backends hold every clause that ran)"
)
TIP = "#tip"
DRAWING = "svg.blocks"
MIDDLE_OF_CELL = """([block, offset]) => {
    const svg = document.querySelector("svg.blocks");
    const label = [...svg.querySelectorAll("text")].find((t) => t.textContent === `block ${block}`);
    const row = label.nextElementSibling.getBoundingClientRect(), frame = svg.getScreenCTM();
    return [frame.e + (offset + 0.5) * 15 * frame.a, (row.top + row.bottom) / 2];
}"""


def lacking(what: str) -> NoReturn:
    # Where they are required, a skip would hide that the page was never seen.
    if os.environ.get("FUNCTIONAL_PAGED_REQUIRE_BROWSER"):
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        lacking(f"no playwright: {error}")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        lacking(f"no browser: none of {', '.join(BROWSERS)} is on the path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Open the page of a report; afterwards it must have asked for nothing and had no error."""
    errors, requests, contexts = [], [], []

    def show(reported: dict[str, Any], fragment: str = "", **context: Any) -> Any:
        file = tmp_path / "report.html"
        file.write_text(to_html(reported))
        contexts.append(browser.new_context(viewport={"width": 1200, "height": 1000}, **context))
        page = contexts[-1].new_page()
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(file.as_uri() + fragment)
        return page

    yield show
    for context in contexts:
        context.close()
    assert errors == []
    assert [url for url in requests if not url.startswith(tmp_path.as_uri())] == []


def test_a_lack_is_skipped_unless_a_browser_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FUNCTIONAL_PAGED_REQUIRE_BROWSER", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no browser"):
        lacking("no browser")
    monkeypatch.setenv("FUNCTIONAL_PAGED_REQUIRE_BROWSER", "1")
    with pytest.raises(pytest.fail.Exception, match="no browser"):
        lacking("no browser")


def ids_shown(page: Any) -> list[str]:
    return page.locator(".case:not([hidden]) > summary code").all_text_contents()


def point_at(page: Any, block: int, offset: int) -> tuple[str, str]:
    """The class of what is painted over a cell, and the title that a browser shows there."""
    at = page.evaluate(MIDDLE_OF_CELL, [block, offset])
    return tuple(
        page.evaluate(
            """([x, y]) => {
                const hit = document.elementFromPoint(x, y);
                return [hit.getAttribute("class"), hit.querySelector(":scope > title").textContent];
            }""",
            at,
        )
    )


def names(title: str, block: int, offset: int) -> str:
    """The outcome in a title that must name the cell, alone or in a run."""
    found = re.fullmatch(r"block (\d+), offsets? (\d+)(?:-(\d+))?, (\w+)(: .+)?", title)
    assert found, title
    assert int(found[1]) == block
    assert int(found[2]) <= offset <= int(found[3] or found[2])
    assert bool(found[5]) == (found[4] != "untouched"), "what it means"
    return found[4]


def test_the_verdict_comes_first(show: Callable[..., Any]) -> None:
    page = show(faulty_report())
    assert page.locator("h1").inner_text() == HEADLINE
    assert page.title() == f"{HEADLINE} \u00b7 functional-paged check"
    assert page.locator(".backend h2").all_inner_texts() == ["faulty", "reference"]  # worst first
    card = page.locator(".backend", has_text="faulty 0.1")
    assert card.locator(".verdict").inner_text() in HEADLINE
    row = page.locator("tbody tr", has_text="C5").first
    assert row.locator("td").all_inner_texts() == ["1 pass", "1 fail"]
    untested = page.locator("tbody tr", has_text="C19").first
    assert untested.locator("td").all_inner_texts() == ["untested", "untested"]


def test_each_status_has_a_mark_of_its_own(show: Callable[..., Any]) -> None:
    page = show(faulty_report())
    marks = {
        status: page.locator(f"table .n.{status}").first.evaluate(
            "element => getComputedStyle(element, '::before').content"
        )
        for status in ("pass", "fail", "cannot-express", "untested")
    }
    assert len(set(marks.values())) == 4


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_drawing_shows_each_cell_as_it_is(show: Callable[..., Any], scheme: str) -> None:
    page = show(faulty_report(), color_scheme=scheme)
    page.locator(DRAWING).scroll_into_view_if_needed()
    for block in {block for block, _ in BY_HAND}:
        for offset in range(SHAPE[2]):
            outcome = BY_HAND.get((block, offset), "untouched")
            painted, title = point_at(page, block, offset)
            # What the mouse hits is what is painted there.
            assert painted.removesuffix(" first") == outcome
            assert names(title, block, offset) == outcome
    words = page.locator(f"{DRAWING} > text").all_text_contents()
    assert words == ["0", "block 1", "block 2", "block 3"]
    caption = page.locator("figcaption").inner_text()
    assert "1 stray: block 2, offset 0" in caption
    assert "1 missing: block 3, offset 1" in caption
    assert page.locator(TIP).is_hidden()


def test_each_outcome_is_painted_in_its_own_way(show: Callable[..., Any]) -> None:
    page = show(faulty_report())
    page.locator(DRAWING).scroll_into_view_if_needed()
    pictures = set()
    for block, offset in [*BY_HAND, (3, 2)]:
        x, y = page.evaluate(MIDDLE_OF_CELL, [block, offset])
        # Within the frame around the first wrong cell.
        clip = {"x": round(x) - 5, "y": round(y) - 5, "width": 10, "height": 10}
        pictures.add(page.screenshot(clip=clip))
    assert len(pictures) == len(BY_HAND) + 1


def test_the_first_wrong_element_is_told(show: Callable[..., Any]) -> None:
    page = show(faulty_report())
    result = page.locator(".result.fail")
    told = result.locator("dl").inner_text()
    assert "cache[block 1, head 0, offset 2, element 0]" in told
    assert "was to be\nwritten" in told
    assert "0x3f800000" in told
    assert "0x3f800001" in told
    frame = result.locator("rect.first").bounding_box()
    x, y = page.evaluate(MIDDLE_OF_CELL, [1, 2])
    assert abs(frame["x"] + frame["width"] / 2 - x) < 2
    assert abs(frame["y"] + frame["height"] / 2 - y) < 2
    link = page.get_by_role("link", name="example.org")
    assert link.get_attribute("href") == "https://example.org/issues/1?a=1&b=2"


def test_the_keyboard_reads_a_drawing(show: Callable[..., Any]) -> None:
    page = show(faulty_report())
    page.get_by_role("link", name="example.org").focus()
    page.keyboard.press("Tab")
    tip = page.locator(TIP)
    assert tip.inner_text().startswith("block 1, offset 2, wrong: was to be written, and holds")
    for key, told in [
        ("ArrowRight", "block 1, offset 3, written"),
        ("ArrowRight", "block 2, offset 0, stray"),  # the line ends there, so on in the next
        ("ArrowDown", "block 3, offset 0, untouched"),
        ("ArrowDown", "block 3, offset 0, untouched"),  # the last line
        ("ArrowRight", "block 3, offset 1, missing"),
        ("ArrowUp", "block 2, offsets 1-3, untouched"),
        ("ArrowLeft", "block 2, offset 0, stray"),
    ]:
        page.keyboard.press(key)
        assert tip.inner_text().partition(":")[0] == told
        assert page.locator(".cursor title").text_content() == tip.inner_text()
    box, cell = tip.bounding_box(), page.locator(".cursor").bounding_box()
    assert abs(box["x"] - cell["x"]) < 4
    assert 0 < box["y"] - cell["y"] - cell["height"] < 10
    page.keyboard.press("Tab")
    assert tip.is_hidden()
    assert page.locator(".cursor").count() == 0


def test_filters_show_what_they_name(show: Callable[..., Any]) -> None:
    page = show(faulty_report())
    both = ["c5_by_hand/slots", "c3_by_hand/slots"]
    assert ids_shown(page) == both  # the failure first
    page.get_by_role("combobox", name="status").select_option("cannot-express")
    assert ids_shown(page) == ["c3_by_hand/slots"]
    assert page.locator("#cases output").inner_text() == "1 of 2 cases"
    page.get_by_role("combobox", name="clause").select_option("C5")
    assert ids_shown(page) == []
    page.get_by_role("button", name="Show all").click()
    assert page.locator("#cases output").inner_text() == "2 cases"
    assert ids_shown(page) == both
    page.get_by_role("searchbox", name="id").fill("c5_")
    assert ids_shown(page) == ["c5_by_hand/slots"]
    page.get_by_role("combobox", name="backend").select_option("reference")
    assert page.locator(".result:visible h4").all_inner_texts() == ["reference pass"]


def test_a_count_leads_to_its_cases_and_the_address_keeps_them(show: Callable[..., Any]) -> None:
    name = "faulty & <b>/+ 100%"
    run = with_result(run_of(Faulty(), [a_case()], name), clause="C16")
    page = show(report([run_of(ReferenceAdapter(), [a_case()]), run]))
    page.locator("tbody tr", has_text="C16").get_by_role("link", name="1 fail").click()
    assert page.locator(".result:visible h4").all_inner_texts() == [f"{name} fail for C16"]
    assert ids_shown(page) == ["c5_by_hand/slots"]
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    assert page.get_by_role("combobox", name="backend").input_value() == name
    assert page.locator(".result:visible h4").all_inner_texts() == [f"{name} fail for C16"]
    page.get_by_role("combobox", name="clause").select_option("C5")  # its subject: the reference's
    assert page.locator(".result:visible").count() == 0
    page.get_by_role("combobox", name="backend").select_option("")
    page.get_by_role("combobox", name="status").select_option("")
    assert page.locator(".result:visible h4").all_inner_texts() == ["reference pass"]


def test_cases_open_and_close_together(show: Callable[..., Any]) -> None:
    page = show(faulty_report(), "#status=fail")
    page.get_by_role("button", name="Open all").click()
    assert page.locator(".case[open]:visible").count() == 1
    page.get_by_role("button", name="Close all").click()
    assert page.locator(".case[open]:visible").count() == 0


def test_the_page_reads_without_scripts(show: Callable[..., Any]) -> None:
    page = show(faulty_report(), java_script_enabled=False)
    assert page.locator("h1").inner_text() == HEADLINE
    assert page.locator(DRAWING).is_visible()
    assert "1 stray: block 2, offset 0" in page.locator("figcaption").inner_text()
    assert page.locator("#filter").is_hidden()
    page.locator(".group > summary").last.click()
    assert page.get_by_text("c3_by_hand/slots").is_visible()


def test_hostile_text_runs_nothing(show: Callable[..., Any]) -> None:
    hostile = "</script><script>window.ran=1</script><img src=x onerror='window.ran=1'>\"'"
    hostile_report = faulty_report(faulty_name=hostile)
    hostile_report["backends"][1]["results"][1]["ledger"] = hostile
    page = show(hostile_report)
    assert page.evaluate("window.ran") is None
    assert page.locator("thead th").last.inner_text() == hostile


def test_what_is_not_promised_stands_by_itself(show: Callable[..., Any]) -> None:
    assert show(faulty_report()).get_by_role("heading", name="Not promised").count() == 0
    left = Result(a_case(), "not-promised", "slots are in the cache")
    promises = {"C5": "slots are in the cache", "c5_*": "no more than 8 tokens"}
    page = show(report([BackendRun("mine", {}, (left,), promises)]))
    table = page.locator("section", has=page.get_by_role("heading", name="Not promised"))
    assert table.locator("tbody tr").all_inner_texts() == [
        "mine\tC5 a token's slot, in unbounded integers\tslots are in the cache",
        "mine\tc5_*\tno more than 8 tokens",
    ]
    assert "1 not promised (C5): slots are in the cache" in page.locator(".backend").inner_text()


def test_a_pass_may_have_a_remark(show: Callable[..., Any]) -> None:
    remark = "refused without naming C5: AssertionError: dtype"
    page = show(report([with_result(run_of(ReferenceAdapter(), [a_case()]), reason=remark)]))
    assert "1 pass: refused without naming its clause" in page.locator(".backend").inner_text()
    page.locator(".group > summary").click()
    page.locator(".case > summary").click()
    assert page.locator(".result.pass .reason").inner_text() == remark
    assert page.locator(".fail").count() == 0


def test_a_narrow_screen_needs_no_scrolling_sideways(show: Callable[..., Any]) -> None:
    page = show(faulty_report(faulty_name="a-backend-with-a-name-that-never-ends" * 3))
    page.set_viewport_size({"width": 360, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_large_report_can_be_filtered(show: Callable[..., Any]) -> None:
    page = show(large_report(), "#backend=backend-3&id=_9_of_600")
    assert len(ids_shown(page)) == 4
    assert page.locator(".result:visible").count() == 1
