"""What a result says is one line, however much a backend has to say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from functional_paged.conformance.run.words import MOST, in_words, shortened


def test_a_short_text_stays_as_it_is() -> None:
    for text in ("", "no driver", "a" * 2 * MOST):
        assert shortened(text) == text


def test_of_a_traceback_the_first_and_the_last_line_stay() -> None:
    lines = ["INTERNAL: CpuCallback error:", *(f"  line {n}" for n in range(99)), "", "KeyError: 7"]
    assert shortened("\n".join(lines)) == "INTERNAL: CpuCallback error: ... KeyError: 7"
    assert in_words(RuntimeError("\n".join(lines))).startswith("RuntimeError: INTERNAL: Cpu")


def test_one_long_line_keeps_its_ends() -> None:
    text = "first" + "x" * 2700 + "last"
    short = shortened(text)
    assert (short[:5], short[-4:]) == ("first", "last")
    assert len(short) < 2 * MOST + 9


@given(st.text(max_size=50).map(lambda text: text * 20))
def test_any_text_becomes_one_line_that_is_short_for_good(text: str) -> None:
    short = shortened(text)
    assert len(short.splitlines()) <= 1
    assert len(short) <= 2 * MOST + len(" ... ")
    assert shortened(short) == short
