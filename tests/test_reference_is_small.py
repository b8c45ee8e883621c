"""The reference is what reviewers read: short, and independent of what it checks."""

from __future__ import annotations

import ast
import inspect

from functional_paged import reference


def test_reference_has_at_most_forty_lines_of_code() -> None:
    source = inspect.getsource(reference)
    lines: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines.update(range(node.lineno, node.body[0].lineno))
            for statement in body:
                lines.update(range(statement.lineno, statement.end_lineno + 1))
    text = source.splitlines()
    assert len([n for n in lines if text[n - 1].strip()]) <= 40


def test_reference_shares_no_index_arithmetic() -> None:
    imported = {
        alias.name
        for node in ast.walk(ast.parse(inspect.getsource(reference)))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert imported.isdisjoint({"_slots", "to_slots", "slots_in", "destinations", "plan_chunks"})
    assert not hasattr(reference, "to_slots")
