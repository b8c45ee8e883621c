"""The door for bridges and kit opens to what draws, and loads it only when it is used."""

from __future__ import annotations

import pytest

from tests.helpers import run

PROBE = """
import sys
from functional_paged import internal
{use}
print(sorted(name for name in sys.modules if name.startswith("functional_paged._explain")))
"""


def loaded_after(use: str) -> str:
    done = run(PROBE.format(use=use))
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_internal_loads_nothing_that_draws() -> None:
    assert loaded_after("") == "[]\n"
    assert loaded_after("assert not hasattr(internal, 'nothing')") == "[]\n"


def test_internal_has_the_drawing_of_cells() -> None:
    assert "functional_paged._explain.cells" in loaded_after("internal.cells.draw_lines")


def test_an_unknown_name_is_an_attribute_error() -> None:
    from functional_paged import internal

    with pytest.raises(AttributeError, match=r"'functional_paged\.internal' has no attribute 'no'"):
        _ = internal.no
