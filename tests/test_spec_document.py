"""The pages of clauses, the code's lists of them and the tests name the same things."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from functional_paged.internal import CLAUSES
from tests.helpers import clauses_of

DOCS = Path(__file__).parents[1] / "docs"
PAGES = {"spec.md": ("C", 22), "quantised.md": ("Q", 10)}
CLAUSE = re.compile(r"^### ([CQ]\d+): (.+)\n\n(\w+) · `(test_[cq]\d+_\w+)`\n", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_document_and_code_list_the_same_clauses(page: str) -> None:
    letter, count = PAGES[page]
    clauses = [clause for clause in CLAUSES if clause.id.startswith(letter)]
    in_code = [(clause.id, clause.title, clause.status) for clause in clauses]
    in_document = [
        (id_, title.replace("2^31", "2**31"), status)
        for id_, title, status, _ in CLAUSE.findall((DOCS / page).read_text())
    ]
    assert in_document == in_code
    assert [clause.id for clause in clauses] == [f"{letter}{n}" for n in range(1, count + 1)]


@pytest.mark.parametrize("page", PAGES)
def test_every_clause_names_a_test_that_exists(page: str, collected: set[str]) -> None:
    for id_, _, _, test in CLAUSE.findall((DOCS / page).read_text()):
        assert clauses_of(test) == [id_], f"{id_} must name a test of its own"
        assert test in collected, f"{id_} names {test}, which does not exist"


def test_c8_c9_a_name_is_a_marker(request: pytest.FixtureRequest) -> None:
    marked = [marker.kwargs["id"] for marker in request.node.iter_markers("clause")]
    assert marked == ["C8", "C9"]


def test_a_name_without_a_clause_has_no_marker(request: pytest.FixtureRequest) -> None:
    assert request.node.get_closest_marker("clause") is None


@pytest.mark.parametrize("page", PAGES)
def test_every_clause_has_an_example(page: str) -> None:
    sections = re.split(r"^### ", (DOCS / page).read_text(), flags=re.MULTILINE)[1:]
    for section in sections:
        assert ">>> " in section, section.splitlines()[0]
