"""The drawings of an explanation, in the terminal and as SVG: complete, legible, without colour."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from functional_paged import PAD, BlockTable, ChunkPlan, IndexSpec, SlotMapping, explain
from functional_paged._explain.cells import CELL_WIDTH
from functional_paged._explain.model import Explanation, Fate
from functional_paged._explain.svg import STYLE, to_svg
from functional_paged._explain.text import render
from functional_paged.conformance import strategies
from tests.helpers import i32

SVG = "{http://www.w3.org/2000/svg}"


def told(spec: IndexSpec, num_tokens: int) -> Explanation:
    return explain(spec, cache_shape=(6, 1, 2, 1), num_tokens=num_tokens)


def text_of(explanation: Explanation) -> str:
    stream = io.StringIO()
    Console(file=stream, width=80, color_system=None).print(render(explanation))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def svg_texts(explanation: Explanation) -> list[str]:
    return [element.text or "" for element in ET.fromstring(to_svg(explanation)).iter(f"{SVG}text")]


TABLE = BlockTable(i32([4, PAD, 2], [5, 6, 0], [1, 1, 1]), i32(1, 1, -1), i32(0, 4, 7, 8))
PLAN = ChunkPlan(i32([0, 4, 1, 2], [1, 5, 0, 1], [2, -1, 0, 1], [3, 2, 0, 1], [3, 2, 1, 1]))
SLOTS = SlotMapping(i32(9, PAD, 12, 9, 0))
CASES = {
    "table": told(TABLE, 9),
    "past_table": told(BlockTable(i32([4]), i32(1), i32(0, 3)), 2),
    "plan": told(PLAN, 4),
    "slots": told(SLOTS, 5),
    "total": told(BlockTable(i32([4]), i32(1), i32(1, 1)), 1),
}

TABLE_TEXT = """\
INVALID for a cache of 6 blocks of 2
  C12: block_table[1, 1] = 6 must be < num_blocks = 6
9 tokens: 3 stored, 1 padded row, 2 hole in the table, 1 not named, 2 past the
cache

row 0: context 1, table [4, -1, 2]
   token  position  block:offset  slot  what happens
       0         1           4:1     9  + stored: block_table[0, 0] = 4
    1..2      2..3             -     -  o C8 hole in the table: block_table[0,
                                        1] = -1
       3         4           2:0     4  + stored: block_table[0, 2] = 2

row 1: context 1, table [5, 6, 0]
       4         1           5:1    11  + stored: block_table[1, 0] = 5
    5..6      2..3             -     -  ] C12 past the cache: block_table[1, 1]
                                        = 6 must be < num_blocks = 6

row 2: context -1, table [1, 1, 1] - padded row (C6)
       7         -             -     -  p C6 padded row: context_kv_lens[2] = -1

no row: 1 token
       8         -             -     -  ~ C10 not named: the spec names 8 tokens

the cache, from the offset given (3 other blocks unchanged)
  block 2:0 | 3 . |
  block 4:0 | . 0 |
  block 5:0 | . 4 |

  +  stored
  p  padded row         C6
  o  hole in the table  C8
  ~  not named          C10
  ]  past the cache     C12
  .  unchanged"""


def test_text_of_a_table() -> None:
    assert text_of(CASES["table"]) == TABLE_TEXT


def test_text_marks_a_contested_slot_in_the_map() -> None:
    assert "  block 4:0 |    . !0|3 |" in text_of(CASES["slots"]).splitlines()


def test_text_joins_only_tokens_in_neighbouring_places() -> None:
    explanation = told(SlotMapping(i32(3, 2, 8, 9)), 4)
    rows = [" ".join(line.split()) for line in text_of(explanation).splitlines()]
    for row in ("0 1:1 3 + stored", "1 1:0 2 + stored", "2..3 4:0..1 8..9 + stored"):
        assert row in rows


def test_text_cuts_long_blocks_and_counts_what_it_leaves_out() -> None:
    cache_shape, slots = (40, 1, 100, 1), np.arange(4000, dtype=np.int32)
    spec = SlotMapping(slots)
    text = text_of(explain(spec, cache_shape=cache_shape, num_tokens=4000))
    lines = text.splitlines()
    assert "0..99 0:0..99 0..99 + stored" in [" ".join(line.split()) for line in lines]
    assert "... - - 1600 more tokens" in [" ".join(line.split()) for line in lines]
    assert "  block 0:96  |   96   97   98   99 |" in lines
    # 13 lines of 8 a block, 24 lines shown: block 0, and 88 positions of block 1.
    assert "  ... 496 more lines with 3812 tokens" in lines
    assert max(map(len, lines)) <= 80


def test_text_shows_sixteen_positions_a_line_where_they_fit() -> None:
    explanation = explain(
        SlotMapping(i32(*range(999))), cache_shape=(10, 1, 100, 1), num_tokens=999
    )
    lines = text_of(explanation).splitlines()
    assert f"  block 0:16 | {' '.join(f'{n:3}' for n in range(16, 32))} |" in lines
    assert max(map(len, lines)) == 80


def test_colour_is_only_an_extra() -> None:
    for explanation in CASES.values():
        stream = io.StringIO()
        console = Console(file=stream, width=80, force_terminal=True, color_system="standard")
        console.print(render(explanation))
        coloured = stream.getvalue()
        assert "\x1b[" in coloured
        plain = re.sub(r"\x1b\[[\d;]*m", "", coloured)
        assert [line.rstrip() for line in plain.splitlines()] == text_of(explanation).splitlines()


def test_every_fate_is_drawn_in_some_case_and_has_looks_of_its_own() -> None:
    assert {fate for explanation in CASES.values() for fate in explanation.fates} == set(Fate)
    assert len({fate.symbol for fate in Fate}) == len({fate.label for fate in Fate}) == len(Fate)


@pytest.mark.parametrize("name", CASES)
def test_legends_hold_just_the_kinds_that_occur(name: str) -> None:
    explanation = CASES[name]
    text, svg = text_of(explanation).splitlines(), svg_texts(explanation)
    for fate in Fate:
        occurs = fate in explanation.fates
        entry = f"  {fate.symbol}  {fate.label:<18} {fate.clause or ''}".rstrip()
        assert (entry in text) == occurs, fate
        assert (" ".join(filter(None, [fate.clause, fate.label])) in svg) == occurs, fate
        if fate is not Fate.STORED:
            assert (fate.symbol in svg) == occurs, fate


def test_svg_shows_each_token_in_its_row_and_in_its_block() -> None:
    root = ET.fromstring(to_svg(CASES["table"]))
    numbers = [t.text for t in root.iter(f"{SVG}text") if t.get("class") == "bold"]
    for token in CASES["table"].tokens:
        assert numbers.count(str(token.token)) == 1 + (token.slot is not None), token
    hints = [title.text for title in root.iter(f"{SVG}title")]
    assert hints.count("token 3: stored, block_table[0, 2] = 2, slot 4 = block 2, offset 0") == 2


def test_svg_places_a_token_beside_its_block_under_its_offset() -> None:
    texts = [
        (t.text, float(t.get("x", 0)), float(t.get("y", 0)))
        for t in ET.fromstring(to_svg(told(SlotMapping(i32(7)), 1))).iter(f"{SVG}text")
    ]
    columns = {text: x for text, x, _ in texts if text in ("0", "1")}
    (_, block_x, block_y), (_, x, y) = (
        next(t for t in texts if t[0] == "block 3"),
        [t for t in texts if t[0] == "0"][-1],
    )
    assert x > block_x
    assert (y, x) == (block_y, columns["1"])


def test_svg_shrinks_a_number_that_is_wider_than_its_cell() -> None:
    root = ET.fromstring(to_svg(told(BlockTable(i32([4]), i32(0), i32(0, 2**31 - 1)), 1)))
    [number] = [t for t in root.iter(f"{SVG}text") if t.text == str(2**31 - 2)]
    size = re.fullmatch(r"font-size: ([\d.]+)px", number.get("style", ""))
    assert size
    assert float(size[1]) * 0.6 * len(number.text or "") <= CELL_WIDTH


def test_svg_tells_readers_without_a_picture() -> None:
    root = ET.fromstring(to_svg(CASES["past_table"]))
    title, description = root[0], root[1]
    assert (root.get("role"), root.get("aria-labelledby")) == ("img", "fp-title fp-desc")
    assert (title.tag, title.get("id")) == (f"{SVG}title", "fp-title")
    assert (description.tag, description.get("id")) == (f"{SVG}desc", "fp-desc")
    assert description.text == (
        "C11: cu_q_lens[1] = 3 must be <= num_tokens = 2. 2 tokens: 1 stored, 1 past the table. "
        "row 0: token 0 to slot 9; token 1: C9 past the table; token 2: C11 not in states."
    )


def test_svg_of_a_large_spec_stays_small_and_counts_what_it_leaves_out() -> None:
    batch = 40
    table = np.arange(batch * 16, dtype=np.int32).reshape(batch, 16)
    cu_q_lens = np.arange(batch + 1, dtype=np.int32) * 200
    spec = BlockTable(table, np.zeros(batch, np.int32), cu_q_lens)
    explanation = explain(spec, cache_shape=(1000, 1, 16, 1), num_tokens=8000)
    texts = svg_texts(explanation)
    assert len(to_svg(explanation)) < 150_000
    # 13 runs a row, 4 drawn; 12 rows of 40; 16 lines of 8 positions of 1000 with tokens.
    assert texts.count("... 136 more tokens") == 12
    assert "... 28 more rows with 5600 tokens" in texts
    assert "... 984 more lines with 7872 tokens" in texts
    assert "480 other blocks unchanged" in texts


@settings(max_examples=50)
@given(st.data())
def test_any_spec_can_be_drawn_inside_its_page(data: st.DataObject) -> None:
    size = data.draw(strategies.sizes())
    spec = data.draw(strategies.index_specs(size))
    explanation = explain(spec, cache_shape=size.cache_shape(), num_tokens=size.num_tokens)
    text = text_of(explanation)
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 80
    svg = to_svg(explanation)
    assert svg == to_svg(explain(spec, cache_shape=size.cache_shape(), num_tokens=size.num_tokens))
    root = ET.fromstring(svg)
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    for rect in root.iter(f"{SVG}rect"):
        assert float(rect.get("x", 0)) + float(rect.get("width", 0)) <= width
        assert float(rect.get("y", 0)) + float(rect.get("height", 0)) <= height
    for element in root.iter(f"{SVG}text"):
        characters = len(element.text or "") / (1 if element.get("text-anchor") is None else 2)
        assert float(element.get("x", 0)) + 7.2 * characters <= width
        assert float(element.get("y", 0)) <= height


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_svg_text_is_legible_on_every_ground(mode: str) -> None:
    light, dark = STYLE.split("@media (prefers-color-scheme: dark)")
    rules = light if mode == "light" else dark

    def colour(selector: str) -> str:
        found = re.search(rf"^ *{re.escape(selector)} {{[^}}]*fill: (#\w{{6}})", rules, re.M)
        assert found, selector
        return found[1]

    for ground in (".paper", ".stored", ".skipped", ".wrong"):
        assert contrast(colour("text"), colour(ground)) >= 7, ground
    assert contrast(colour(".faint"), colour(".paper")) >= 4.5


def contrast(first: str, second: str) -> float:
    """The contrast ratio of WCAG 2."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    low, high = sorted([luminance(first), luminance(second)])
    return (high + 0.05) / (low + 0.05)
