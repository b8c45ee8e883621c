"""`docs/hazards.md` names cases, tests and planted bugs that exist."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

from functional_paged.conformance import all_cases
from functional_paged.conformance.cases.suite import large_cases
from tests.planted import BUGS

ROOT = Path(__file__).parents[1]


def rows() -> list[list[str]]:
    """The code spans in the last column of each row."""
    lines = (ROOT / "docs" / "hazards.md").read_text().splitlines()
    table = [line for line in lines if line.startswith("| ")][2:]
    return [re.findall(r"`([^`]+)`", line.split(" | ")[-1]) for line in table]


def test_every_hazard_names_something_that_exists(collected: set[str]) -> None:
    ids = [case.id for case in (*all_cases(), *large_cases())]
    for names in rows():
        assert names
        for name in names:
            if name.startswith("test_"):
                assert name in collected
            elif name[0].isupper():
                assert name in {str(bug) for bug in BUGS}
            else:
                assert any(fnmatchcase(case_id, name) for case_id in ids), name


def test_links_of_cases_are_in_the_document() -> None:
    text = (ROOT / "docs" / "hazards.md").read_text()
    links = {case.link for case in (*all_cases(), *large_cases()) if case.link}
    assert len(links) >= 10
    assert {link for link in links if link not in text} == set()
