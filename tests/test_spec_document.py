"""`docs/spec.md`, the code's list of clauses and the tests name the same things."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from functional_paged.internal import CLAUSES
from tests.helpers import clauses_of

ROOT = Path(__file__).parents[1]
CLAUSE = re.compile(r"^### (C\d+): (.+)\n\n(\w+) · `(test_c\d+_\w+)`\n", re.MULTILINE)


def documented() -> list[tuple[str, str, str, str]]:
    return CLAUSE.findall((ROOT / "docs" / "spec.md").read_text())


def test_document_and_code_list_the_same_clauses() -> None:
    in_code = [(clause.id, clause.title, clause.status) for clause in CLAUSES]
    in_document = [
        (id_, title.replace("2^31", "2**31"), status) for id_, title, status, _ in documented()
    ]
    assert in_document == in_code
    assert [clause.id for clause in CLAUSES] == [f"C{number}" for number in range(1, 23)]


def test_every_clause_names_a_test_that_exists(collected: set[str]) -> None:
    for id_, _, _, test in documented():
        assert clauses_of(test) == [id_], f"{id_} must name a test of its own"
        assert test in collected, f"{id_} names {test}, which does not exist"


def test_c8_c9_a_name_is_a_marker(request: pytest.FixtureRequest) -> None:
    marked = [marker.kwargs["id"] for marker in request.node.iter_markers("clause")]
    assert marked == ["C8", "C9"]


def test_a_name_without_a_clause_has_no_marker(request: pytest.FixtureRequest) -> None:
    assert request.node.get_closest_marker("clause") is None


def test_every_clause_has_an_example() -> None:
    sections = re.split(r"^### ", (ROOT / "docs" / "spec.md").read_text(), flags=re.MULTILINE)[1:]
    for section in sections:
        assert ">>> " in section, section.splitlines()[0]
