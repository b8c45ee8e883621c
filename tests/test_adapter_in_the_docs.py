"""The adapter of `docs/conformance.md` is complete: saved and named, it runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from functional_paged.conformance import run_backend
from functional_paged.conformance.cases.suite import all_cases

ROOT = Path(__file__).parents[1]


def test_the_adapter_in_the_docs_does_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / "conformance.md").read_text()
    (source,) = re.findall(r"<!-- adapter -->\n```python\n(.*?)```", text, re.DOTALL)
    assert len([line for line in source.splitlines() if line.strip()]) <= 20
    (tmp_path / "my_adapter.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    cases = [case for case in all_cases() if case.quick]
    assert "to_slots" not in source  # it would hide what the kernel does
    run = run_backend("my_adapter:MyAdapter", cases)
    assert run.name == "my-kernel"
    assert run.info == {"my-kernel": "1.0", "device": "cpu"}
    failed = {result.case.clauses[0] for result in run.results if result.status == "fail"}
    # It checks nothing, as the page says.
    assert failed <= {"C1", "C2", "C4"}
    assert "C2" in failed
    assert sum(result.status == "pass" for result in run.results) > 12
