"""`functional-paged explain`: a documented file in, a drawing or a clear refusal out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from functional_paged import BlockTable, ChunkPlan, SlotMapping
from functional_paged._explain.spec_json import parse_spec
from tests.helpers import command_line

SIZES = {"num_blocks": 6, "block_size": 2, "num_tokens": 2}
TABLE = {
    "form": "block_table",
    "block_table": [[4, 2], [5, -1]],
    "context_kv_lens": [1, 2],
    "cu_q_lens": [0, 1, 2],
    **SIZES,
}
PLAN = {"form": "chunks", "chunks": [[0, 4, 0, 2]], **SIZES}
SLOTS = {"form": "slots", "slots": [9, -1], **SIZES}


def without(spec: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if key != name}


def test_the_three_forms_are_read() -> None:
    table, plan, slots = (parse_spec(json.dumps(spec)) for spec in (TABLE, PLAN, SLOTS))
    assert table.cache_shape == (6, 1, 2, 1)
    assert table.num_tokens == 2
    assert isinstance(table.index_spec, BlockTable)
    np.testing.assert_array_equal(table.index_spec.block_table, [[4, 2], [5, -1]])
    np.testing.assert_array_equal(table.index_spec.context_kv_lens, [1, 2])
    np.testing.assert_array_equal(table.index_spec.cu_q_lens, [0, 1, 2])
    assert isinstance(plan.index_spec, ChunkPlan)
    np.testing.assert_array_equal(plan.index_spec.chunks, [[0, 4, 0, 2]])
    assert isinstance(slots.index_spec, SlotMapping)
    np.testing.assert_array_equal(slots.index_spec.slots, [9, -1])
    arrays = (*table.index_spec.arrays().values(), plan.index_spec.chunks, slots.index_spec.slots)
    assert {array.dtype.name for array in arrays} == {"int32"}


@pytest.mark.parametrize("spec", [without(TABLE, "cu_q_lens"), {**TABLE, "cu_q_lens": None}])
def test_no_running_total_is_decode(spec: dict[str, Any]) -> None:
    table = parse_spec(json.dumps(spec)).index_spec
    assert isinstance(table, BlockTable)
    assert table.cu_q_lens is None


def test_slots_are_int64_where_one_needs_it() -> None:
    slots = parse_spec(json.dumps({**SLOTS, "slots": [2**31, -(2**63)]})).index_spec
    assert isinstance(slots, SlotMapping)
    assert slots.slots.tolist() == [2**31, -(2**63)]


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        ({**PLAN, "chunks": []}, (0, 4)),
        ({**TABLE, "block_table": [], "context_kv_lens": [], "cu_q_lens": [0]}, (0, 0)),
        ({**TABLE, "block_table": [[], []]}, (2, 0)),
    ],
)
def test_c18_empty_fields_keep_their_axes(spec: dict[str, Any], shape: tuple[int, int]) -> None:
    index_spec = parse_spec(json.dumps(spec)).index_spec
    assert next(iter(index_spec.arrays().values())).shape == shape


# Each one change away from a file that is drawn: the text, and what is said of it.
REFUSED = {
    "no_json": ("{", "must be JSON: Expecting property name enclosed in double quotes"),
    "too_deep": ("[" * 100_000, "must be JSON: "),
    "endless_number": (json.dumps(SLOTS).replace("9", "9" * 5000), "must be JSON: Exceeds the"),
    "no_object": ([1], "must be a JSON object, got [1]"),
    "no_form": (
        without(SLOTS, "form"),
        "form must be one of block_table, chunks, slots, got null",
    ),
    "form": (
        {**SLOTS, "form": "slot"},
        'form must be one of block_table, chunks, slots, got "slot"',
    ),
    "form_type": ({**SLOTS, "form": ["slots"]}, 'slots, got ["slots"]'),
    "missing_field": (without(SLOTS, "slots"), "slots is missing; form slots needs it"),
    "missing_row": (
        without(TABLE, "context_kv_lens"),
        "context_kv_lens is missing; form block_table needs it",
    ),
    "missing_size": (without(PLAN, "block_size"), "block_size is missing; form chunks needs it"),
    "unknown_field": (
        {**SLOTS, "cu_q_lens": [0]},
        "cu_q_lens is no field of form slots, which has slots, num_blocks, block_size, num_tokens",
    ),
    "size_type": (
        {**SLOTS, "num_blocks": "6"},
        'num_blocks must be an integer in 0..2**31 - 1, got "6"',
    ),
    "size_float": ({**SLOTS, "num_tokens": 2.0}, "num_tokens must be an integer in 0..2**31 - 1, "),
    "size_bool": ({**SLOTS, "num_tokens": True}, "2**31 - 1, got true"),
    "size_negative": ({**SLOTS, "num_blocks": -1}, "2**31 - 1, got -1"),
    "size_large": ({**SLOTS, "num_blocks": 2**31}, "2**31 - 1, got 2147483648"),
    "tokens_large": (
        {**SLOTS, "num_tokens": 100_001},
        "num_tokens must be <= 100000 to be drawn, got 100001",
    ),
    "block_size": (
        {**SLOTS, "block_size": 0},
        "C1: block_size = cache.shape[2] must be in 1..2**30, got 0",
    ),
    "vector_type": ({**SLOTS, "slots": 9}, "slots must be a list of integers, got 9"),
    "vector_entry": (
        {**TABLE, "context_kv_lens": [1, 2.5]},
        "context_kv_lens must have int32 integers, got 2.5",
    ),
    "vector_range": (
        {**TABLE, "cu_q_lens": [0, 1, 2**31]},
        "cu_q_lens must have int32 integers, got 2147483648",
    ),
    "vector_nan": (
        {**TABLE, "context_kv_lens": [float("nan"), 2]},
        "context_kv_lens must have int32 integers, got NaN",
    ),
    "slots_range": (
        {**SLOTS, "slots": [2**63]},
        "slots must have int64 integers, got 9223372036854775808",
    ),
    "table_type": (
        {**TABLE, "block_table": {"0": [4]}},
        'block_table must be a list of lists of integers, got {"0": [4]}',
    ),
    "table_row": (
        {**TABLE, "block_table": [4, 2]},
        "block_table must be a list of lists of integers, got [4, 2]",
    ),
    "table_entry": (
        {**TABLE, "block_table": [[4, 2], [5, None]]},
        "block_table must have int32 integers, got null",
    ),
    "table_range": (
        {**TABLE, "block_table": [[4, -(2**31) - 1], [5, 0]]},
        "block_table must have int32 integers, got -2147483649",
    ),
    "table_ragged": (
        {**TABLE, "block_table": [[4, 2], [5]]},
        "block_table must have rows of one length, got [[4, 2], [5]]",
    ),
    "plan_columns": (
        {**PLAN, "chunks": [[0, 4, 0]]},
        "C1: chunks must have 4 columns (src_token_start, dst_block_id, dst_block_offset, "
        "chunk_len), got 3",
    ),
    "row_counts": (
        {**TABLE, "context_kv_lens": [1]},
        "C1: context_kv_lens.shape[0] = 1 must equal batch = 2",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_spec_is_refused(name: str, tmp_path: Path) -> None:
    spec, message = REFUSED[name]
    file = tmp_path / "spec.json"
    file.write_text(spec if isinstance(spec, str) else json.dumps(spec))
    ran = command_line("explain", file)
    assert ran.exit_code == 2
    assert ran.stdout == ""
    assert ran.stderr.startswith(f"{file}: ")
    assert message in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_files_that_cannot_be_read_or_written_are_refused(tmp_path: Path) -> None:
    def refused(*words: object) -> str:
        ran = command_line("explain", *words)
        assert ran.exit_code == 2
        return ran.stderr

    file = tmp_path / "spec.json"
    assert refused(file) == f"{file}: No such file or directory\n"
    file.write_bytes(b'{"form": "\xff"}')
    assert refused(file) == f"{file}: must be UTF-8 text, byte 10 is not\n"
    file.write_text(json.dumps(SLOTS))
    assert refused(file, "--svg", tmp_path) == f"--svg {tmp_path}: cannot be written\n"


@pytest.mark.parametrize("spec", [TABLE, PLAN, SLOTS], ids=["table", "plan", "slots"])
def test_a_valid_spec_is_drawn(spec: dict[str, Any], tmp_path: Path) -> None:
    file, svg = tmp_path / "spec.json", tmp_path / "spec.svg"
    file.write_text(json.dumps(spec))
    ran = command_line("explain", file, "--svg", svg)
    assert ran.exit_code == 0
    assert ran.stdout.startswith("valid for a cache of 6 blocks of 2\n2 tokens: ")
    assert ET.parse(svg).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_an_invalid_spec_is_drawn_under_what_the_check_says(tmp_path: Path) -> None:
    file = tmp_path / "spec.json"
    file.write_text(json.dumps({**SLOTS, "slots": [9, 12]}))
    ran = command_line("explain", file)
    assert ran.exit_code == 0
    assert ran.stdout.splitlines()[:2] == [
        "INVALID for a cache of 6 blocks of 2",
        "  C12: slots[1] = 12 must be < num_blocks * block_size = 12",
    ]


def test_output_to_a_pipe_needs_neither_colour_nor_more_than_ascii(tmp_path: Path) -> None:
    file = tmp_path / "spec.json"
    file.write_text(json.dumps(TABLE))
    command = [sys.executable, "-m", "functional_paged._cli", "explain", str(file)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "80"}
    done = subprocess.run(command, capture_output=True, env=environment, timeout=60, check=True)
    assert b"\x1b" not in done.stdout
    assert done.stdout.isascii()
    assert done.stderr == b""
