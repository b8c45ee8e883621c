"""The drawings of `docs/spec.md` are current, shown where they belong, and draw its examples."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from functional_paged import PAD, BlockTable, ChunkPlan, IndexSpec, SlotMapping
from functional_paged.internal import CLAUSES
from tests.helpers import module_of

DOCS = Path(__file__).parents[1] / "docs"
IMAGE = re.compile(r"^!\[(.+)\]\(img/(\w+)\.svg\)$", re.MULTILINE)


draw_clauses = module_of(DOCS / "draw_clauses.py")


def sections() -> dict[str, str]:
    text = (DOCS / "spec.md").read_text()
    parts = re.split(r"^### (C\d+): ", text.split("\n## Where this page")[0], flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_drawings_are_current() -> None:
    wanted = {f"{drawing.name}.svg": drawing.svg() for drawing in draw_clauses.DRAWINGS}
    assert {p.name: p.read_text("utf-8") for p in (DOCS / "img").glob("*.svg")} == wanted


def test_each_drawing_is_shown_once_in_the_section_of_its_clause() -> None:
    shown = {
        clause: [name for _, name in IMAGE.findall(text)] for clause, text in sections().items()
    }
    wanted: dict[str, list[str]] = {clause.id: [] for clause in CLAUSES if clause.id[0] == "C"}
    for drawing in draw_clauses.DRAWINGS:
        wanted[drawing.clause].append(drawing.name)
    assert shown == wanted


def test_the_page_lists_the_clauses_without_a_drawing() -> None:
    [listed] = re.findall(r"(C1-C4, .+) have no drawing\.", (DOCS / "spec.md").read_text())
    drawn = {drawing.clause for drawing in draw_clauses.DRAWINGS}
    without = [clause.id for clause in CLAUSES if clause.id[0] == "C" and clause.id not in drawn]
    assert re.findall(r"C\d+", listed.replace("C1-C4", "C1, C2, C3, C4")) == without


Example = tuple[IndexSpec, int, tuple[int, ...]]


def examples(section: str) -> list[Example]:
    """What the section's examples pass to `slots` and `try_check`."""
    seen: list[Example] = []

    def record(
        spec: IndexSpec, num_tokens: int, cache_shape: tuple[int, ...] = (6, 1, 2, 1)
    ) -> None:
        seen.append((spec, num_tokens, cache_shape))

    names: dict[str, Any] = {
        "np": np,
        "PAD": PAD,
        "BlockTable": BlockTable,
        "ChunkPlan": ChunkPlan,
        "SlotMapping": SlotMapping,
        "i32": lambda *values: np.array(values, np.int32),
        "slots": record,
        "try_check": record,
    }
    for example in doctest.DocTestParser().get_examples(section):
        exec(example.source, names)
    return seen


def same(first: IndexSpec, second: IndexSpec) -> bool:
    mine, other = first.arrays(), second.arrays()
    return mine.keys() == other.keys() and all(
        np.array_equal(mine[name], other[name]) for name in mine
    )


@pytest.mark.parametrize("drawing", draw_clauses.DRAWINGS, ids=lambda drawing: drawing.name)
def test_a_drawing_draws_an_example_of_its_clause(drawing: Any) -> None:
    sizes = (drawing.num_tokens, drawing.cache_shape)
    assert any(
        same(drawing.spec, spec) and sizes == (num_tokens, cache_shape)
        for spec, num_tokens, cache_shape in examples(sections()[drawing.clause])
    )
