"""The probe tells what a library does, and harms nothing while it finds out."""

from __future__ import annotations

import importlib
import io
import json
from dataclasses import FrozenInstanceError

import pytest
import torch

from bridges.ixformer import probe
from bridges.ixformer.model import KernelSemantics, ModelFunctions
from bridges.ixformer.trials.canvas import Canvas
from functional_paged._cli.probe import probe as probe_command
from tests.helpers import command_line

pytestmark = pytest.mark.usefixtures("fewer_sizes")

# The package has a function of the module's name.
probe_module = importlib.import_module("bridges.ixformer.probe")

ONE_TENSOR = "store_mode=1, key and value one tensor"
PAIR = "7 arguments, key and value one tensor"
SIDES = "store_mode=1: the sides that it writes"


@pytest.fixture
def fewer_sizes(monkeypatch):
    monkeypatch.setattr(probe_module, "_ROWS", (7, 63))
    monkeypatch.setattr(probe_module, "_BLOCK_SIZES", (7, 16))


def findings(**semantics):
    report = probe(ModelFunctions(KernelSemantics(**semantics)), "cpu")
    return {c.name: (c.status, c.evidence) for c in report.capabilities}


def test_the_default_wheel_does_everything_but_int64(monkeypatch):
    monkeypatch.undo()  # all sizes
    found = findings()
    assert "8191 tokens of one row in prefill" in found
    assert [name for name, (status, _) in found.items() if status != "proven"] == ["int64 indices"]


@pytest.mark.parametrize(
    ("deviation", "disproven"),
    [
        ({"store_mode": "missing"}, {SIDES, ONE_TENSOR}),
        ({"store_mode": "neither"}, {SIDES, ONE_TENSOR}),
        ({"store_mode": "key", "aliased": "raises"}, {PAIR}),
        ({"store_mode": "value", "aliased": "stale"}, {PAIR}),
        ({"hole": "stop"}, {"prefill, hole in the table"}),
        ({"hole": "before"}, {"prefill, hole in the table", "decode, hole in the table"}),
        ({"hole": "last"}, {"prefill, hole in the table", "decode, hole in the table"}),
        ({"short_table": "next"}, {"prefill, row past the table"}),
        ({"negative_decode": "zero"}, {"decode, negative context"}),
        ({"negative_decode": "before"}, {"decode, negative context"}),
        ({"negative_prefill": "zero"}, {"prefill, negative context"}),
        ({"negative_prefill": "before"}, {"prefill, negative context"}),
        ({"empty_row": "one"}, {"prefill, row of no tokens"}),
        ({"spare_states": "append"}, {"prefill, more states than tokens"}),
        ({"spare_states": "raises"}, {"prefill, more states than tokens"}),
        (
            {"strided_states": "ignored"},
            {
                "strided states: a slice of fused q, k and v",
                "strided states: heads before tokens",
            },
        ),
        (
            {"strided_cache": "raises"},
            {"strided cache: key and value packed", "strided cache: positions before heads"},
        ),
        ({"unaligned": "rounded"}, {"unaligned states", "unaligned cache"}),
        ({"dtypes": frozenset({torch.bfloat16})}, {"dtype float32", "dtype int8"}),
        ({"head_dims": frozenset({128, 64})}, {"head_dim 1", "head_dim 576"}),
        ({"block_sizes": frozenset({16})}, {"block_size 7"}),
        ({"max_rows": 32}, {"63 rows in decode", "63 tokens of one row in prefill"}),
        ({"int64_indices": "misread"}, {"int64 indices"}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_a_wheel_lacks_is_disproven_by_name(deviation, disproven):
    found = findings(**deviation)
    lacking = {name for name, (status, _) in found.items() if status == "disproven"}
    assert disproven <= lacking
    swept = ("dtype", "head_dim", "block_size", "7 tokens", "63 tokens")
    others = {name for name in lacking - disproven if not name.startswith(swept)}
    assert others <= {"int64 indices"}


@pytest.mark.parametrize(
    ("side", "evidence"),
    [
        ("key", "the key side is written, the value side is untouched"),
        ("value", "the key side is untouched, the value side is written"),
        ("both", "the key side is written, the value side is written"),
    ],
)
def test_the_sides_that_store_mode_writes_are_told_apart(side, evidence):
    assert findings(store_mode=side)[SIDES] == ("proven", evidence)


def test_an_exception_is_kept_as_evidence():
    status, evidence = findings(dtypes=frozenset({torch.bfloat16}))["dtype float32"]
    assert status == "disproven"
    text = "RuntimeError: torch.float32 is not supported"
    assert evidence == f"{text}; at a second try: {text}"


def test_a_write_outside_the_cache_is_seen_there():
    _, evidence = findings(hole="before")["decode, hole in the table"]
    assert evidence == "256 elements differ from the reference, 256 outside the cache"


def test_nothing_is_tried_through_a_call_that_is_not_proven():
    found = findings(store_mode="missing", aliased="stale")
    assert found["prefill"] == ("not tried", "no call form for it")
    assert found["return value"][0] == "not tried"


def test_a_missing_kernel_is_a_finding():
    assert findings(block_table_kernel=False) == {
        "paged_store_kv_cache_with_block_table": ("disproven", "missing")
    }


def test_the_returned_value_is_told():
    assert findings(returns="caches")["return value"] == ("proven", "a tuple, not used")
    assert findings()["return value"] == ("proven", "nothing")


def test_a_report_is_frozen_and_has_no_other_names():
    report = probe(ModelFunctions(), "cpu")
    assert (report.device, report.driver) == ("cpu", "none")
    with pytest.raises(KeyError):
        report["no such thing"]
    with pytest.raises(FrozenInstanceError):
        report.wheel = "other"  # type: ignore[misc]


def test_the_command_without_the_library_says_so_and_exits_2(tmp_path):
    file = tmp_path / "report.json"
    done = command_line("probe", "--json", file)
    assert done.exit_code == 2
    assert "nothing to probe: no usable ixformer" in done.output
    assert not file.exists()


@pytest.fixture
def installed(monkeypatch):
    """Have the command find a library of those semantics; returns how often it was looked for."""

    def install(functions):
        looked = []

        def found():
            looked.append(functions)
            return functions, torch.device("cpu")

        monkeypatch.setattr(probe_module, "_installed", found)
        return looked

    return install


@pytest.mark.parametrize(("aliased", "status"), [("safe", 0), ("torn", 1)])
def test_the_command_prints_the_report(aliased, status, tmp_path, installed):
    installed(ModelFunctions(KernelSemantics(store_mode="missing", aliased=aliased)))
    file = tmp_path / "report.json"
    done = command_line("probe", "--json", file)
    assert done.exit_code == status
    assert "7 arguments" in done.output
    assert "TypeError" in done.output
    written = json.loads(file.read_text())
    assert written["capabilities"][0]["status"] == "proven"


def test_a_file_that_cannot_be_opened_is_said_before_the_probe(tmp_path, installed):
    looked = installed(ModelFunctions())
    done = command_line("probe", "--json", tmp_path)
    assert done.exit_code == 2
    assert "cannot be written" in done.output
    assert not looked


@pytest.mark.parametrize(("aliased", "status"), [("safe", 2), ("torn", 1)])
def test_a_file_that_cannot_be_written_does_not_lose_the_findings(aliased, status, installed):
    installed(ModelFunctions(KernelSemantics(store_mode="missing", aliased=aliased)))
    done = command_line("probe", "--json", "/dev/full")
    assert done.exit_code == status
    assert "No space left on device" in done.output
    assert "prefill, hole in the table" in done.output


def test_a_vendors_text_is_written_whatever_the_locale(tmp_path, installed, monkeypatch):
    class Failing(ModelFunctions):
        def _with_block_table(self, *args, **mode):
            raise RuntimeError("\u8bbe\u5907\u9519\u8bef")

    installed(Failing())
    stdout = io.TextIOWrapper(io.BytesIO(), "latin-1")
    monkeypatch.setattr("sys.stdout", stdout)
    assert probe_command(tmp_path / "report.json") == 1
    stdout.flush()
    assert b"\\u8bbe\\u5907" in stdout.buffer.getvalue()
    written = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    (pair,) = (found for found in written["capabilities"] if found["name"] == PAIR)
    assert "\u8bbe\u5907\u9519\u8bef" in pair["evidence"]


def test_a_device_that_breaks_ends_the_probe_and_keeps_the_findings(monkeypatch):
    class Breaking(ModelFunctions):
        def _with_block_table(self, *args, **mode):
            if args[5] is not None:
                monkeypatch.setattr(Canvas, "fill_", broken)
            return super()._with_block_table(*args, **mode)

    def broken(*_):
        raise RuntimeError("CUDA error: device-side assert triggered")

    report = probe(Breaking(), "cpu")
    *kept, last = report.capabilities
    assert report.stores_one_tensor
    assert [c.name for c in kept][-1].startswith("prefill")
    assert last.name == "all else"
    assert (last.status, last.evidence.count("device-side assert")) == ("not tried", 1)
