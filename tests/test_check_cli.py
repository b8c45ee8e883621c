"""The command line of the check: exit statuses, choices, files. Quiet runs are not green."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from functional_paged._cli.results import show_results
from tests.helpers import command_line

ADAPTER = """
from functional_paged import reference

class Base:
    def unsupported(self, case):
        return None
    def store(self, cache, states, index_spec):
        return reference.store_single(cache, states, index_spec)

class Right(Base):
    name = "right"

class Idle(Base):
    name = "idle"
    def unsupported(self, case):
        return "not today"

class Trusts(Base):
    name = "trusts"
    not_promised = {"C15": "slots differ", "c8_*decode*": "no table has a hole"}
    def store(self, cache, states, index_spec):
        slots = getattr(index_spec, "slots", None)
        if slots is not None and slots.ndim == 1 and (slots < 0).any():
            raise IndexError("negative")
        return super().store(cache, states, index_spec)

class Dies(Base):
    name = "dies"
    def store(self, cache, states, index_spec):
        import os
        os._exit(9)

class Wraps(Base):
    name = "wraps"
    def store(self, cache, states, index_spec):
        stored = super().store(cache, states, index_spec)
        slots = getattr(index_spec, "slots", None)
        if slots is not None and slots.ndim == 1 and (slots == -1).any() and len(states):
            stored[-1, :, -1] = states[0]
        return stored
"""


@pytest.fixture
def adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_adapters.py").write_text(ADAPTER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


PADS = "c14_pad/slots/bf16/*_h[37]_*"


def run(*words: str) -> tuple[int, str]:
    result = command_line("check", *words)
    return result.exit_code, " ".join(result.output.split())


def test_a_right_backend_is_green(adapters: Path) -> None:
    status, output = run(
        "--backend", "my_adapters:Right", "--cases", "c8*/block_table/*", "--jobs", "1"
    )
    assert status == 0
    assert "right" in output
    assert "21 cases" in output
    assert "21 pass" in output


def test_a_wrong_backend_is_red_and_the_first_mismatch_is_whole(adapters: Path) -> None:
    status, output = run("--backend", "my_adapters:Wraps", "--cases", PADS, "--jobs", "1")
    assert status == 1
    assert "wraps: 2 failed" in output
    assert "case c14_pad/slots/bf16/n5_h7_s33_d64" in output
    assert "clause C14" in output
    assert "result cache[4, 0, 32, 0] was to be left alone: expected 0x" in output
    assert "seen at https://github.com/NVIDIA/TensorRT-LLM/issues/18673" in output


def test_failures_are_a_line_for_each_scenario_and_reason(
    adapters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("check", "--backend", "my_adapters:Wraps", "--cases", "c8*/slots/*s16*")
    whole = command_line(*words).stdout.splitlines()
    first = re.compile(
        r"  (c8_\w+)  +\d+ cases?  C\d+  cache\[\d.* \((the first of them )?\1/slots/.*\)$"
    )
    line, *_ = (shown for shown in whole if first.match(shown))
    assert len(line) > 100
    scenarios = [shown.split()[0] for shown in whole if shown.startswith("  c8_")]
    assert sorted(set(scenarios)) == sorted(scenarios)
    assert whole[-1].startswith("wraps: 0 of 1 clause holds in the cases that ran; C")
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    monkeypatch.setenv("COLUMNS", "70")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", command_line(*words).stdout)
    assert f"{line[:69]}\u2026\n" in plain


def test_the_table_fits_its_terminal_and_gives_up_the_titles_first(adapters: Path) -> None:
    words = ("--backend", "my_adapters:Right", "--backend", "my_adapters:Idle", "--json", "r.json")
    run(*words, "--cases", "c[13]_*")
    results = json.loads(Path("r.json").read_text())
    for width, titles in ((200, True), (80, True), (64, False)):
        with Console(width=width, file=io.StringIO()) as console, console.capture() as capture:
            show_results(console, results, [])
        table = capture.get().partition("untested")[0].splitlines()[1:]
        assert max(map(len, table)) <= width
        assert ("what must hold" in table[0]) == titles
        rows = [line.split()[0] for line in table if line[:1].strip()]
        assert rows[2:] == ["C1", "C3", "twins", "all"]


def test_a_run_in_which_nothing_ran_is_not_green(adapters: Path) -> None:
    status, output = run("--backend", "my_adapters:Idle", "--cases", "c14*", "--jobs", "1")
    assert status == 2
    assert "idle: ran no case" in output
    assert run("--backend", "my_adapters:Right", "--cases", "no_such_case")[0] == 2
    status, output = run("--backend", "my_adapters:Nobody", "--cases", "c14*")
    assert status == 2
    assert "cannot load" in output
    assert run("--backend", "nonsense")[0] == 2


def test_one_idle_backend_beside_a_right_one_is_not_green(adapters: Path) -> None:
    words = ("--backend", "my_adapters:Right", "--backend", "my_adapters:Idle")
    assert run(*words, "--cases", PADS, "--jobs", "1")[0] == 2


def test_the_ledger_turns_known_failures_green_and_stale_entries_red(adapters: Path) -> None:
    words = ("--backend", "my_adapters:Wraps", "--cases", PADS, "--jobs", "1")
    status, _ = run(*words, "--write-ledger", "wraps.toml")
    assert status == 1
    status, output = run(*words, "--ledger", "wraps.toml")
    assert status == 0
    assert "2 xfail" in output
    text = Path("wraps.toml").read_text()
    Path("wraps.toml").write_text(text.replace('"wraps"', '"right"'))
    status, output = run(
        "--backend",
        "my_adapters:Right",
        "--cases",
        PADS,
        "--ledger",
        "wraps.toml",
    )
    assert status == 1
    assert "right: c14_pad/slots/bf16/n5_h7_s33_d64 passes, but the ledger says" in output
    status, output = run(*words, "--ledger", "wraps.toml")
    assert status == 1
    assert "backend 'right' was not run" in output
    assert run(*words, "--ledger", "missing.toml")[0] == 2


def test_a_case_that_the_ledger_keeps_from_running_is_not_run(adapters: Path) -> None:
    words = ("--backend", "my_adapters:Dies", "--jobs", "1")
    assert run(*words, "--cases", "c7*bf16*", "--write-ledger", "dies.toml")[0] == 1
    drafted = Path("dies.toml").read_text()
    assert 'status = "xfail"\nreason = "crashed: the process exited with status 9"' in drafted
    Path("dies.toml").write_text(drafted.replace('"xfail"', '"not-run"'))
    # The ledger has the adapter's name, the command line its path.
    status, output = run(*words, "--cases", "c7*bf16*", "--ledger", "dies.toml")
    assert status == 2  # nothing is left that ran
    assert "5 not run: see the ledger" in output


def test_the_results_are_written_as_json(adapters: Path) -> None:
    run(
        "--backend",
        "my_adapters:Wraps",
        "--cases",
        PADS,
        "--jobs",
        "1",
        "--json",
        "r.json",
    )
    data = json.loads(Path("r.json").read_text())
    (backend,) = data["backends"]
    assert (backend["name"], backend["counts"]) == ("wraps", {"fail": 2})
    assert backend["by_clause"]["C14"] == {"fail": 2}
    mismatch = backend["results"][0]["mismatch"]
    assert mismatch["index"] == [4, 0, 32, 0]
    assert mismatch["written"] is False


def test_what_is_not_promised_is_not_run(adapters: Path) -> None:
    words = ("--backend", "my_adapters:Trusts", "--cases", "c8*/slots/bf16*s16*")
    status, output = run(*words, "--json", "r.json")
    assert status == 1  # a hole in prefill is promised
    assert "trusts: 1 not promised (C14): no table has a hole" in output
    assert output.endswith("; C14 does not; C14 is promised in part")
    (backend,) = json.loads(Path("r.json").read_text())["backends"]
    assert backend["promises"] == [
        {"of": "C15", "caller": "slots differ"},
        {"of": "c8_*decode*", "caller": "no table has a hole"},
    ]
    assert backend["counts"] == {"fail": 1, "not-promised": 1}
    assert "1 fail, 1 not promised" in output


def test_list_and_quick_and_large_choose_cases() -> None:
    every = run("--list")[1].split()
    assert len(every) > 600
    assert len(set(every)) == len(every)
    quick = run("--list", "--quick")[1].split()
    assert 100 < len(quick) < len(every) / 2
    assert set(quick) < set(every)
    large = run("--list", "--large")[1].split()
    assert set(large) - set(every) == {case for case in large if case.startswith("c19_")}
    assert len(large) > len(every)
    assert run("--list", "--cases", "c8_hole/*")[1].split() == [
        case for case in every if case.startswith("c8_hole/")
    ]


def test_a_shape_adds_every_scenario_also_to_a_quick_run(adapters: Path) -> None:
    quick = set(run("--list", "--quick")[1].split())
    words = ("--quick", "--shape", "6,48,20", "--shape", "6,48,20")
    more = run("--list", *words)[1].split()
    assert len(set(more)) == len(more)
    added = set(more) - quick
    assert {case.rpartition("/")[2] for case in added} == {"n7_h6_s48_d20"}
    assert {case.partition("_")[0] for case in added} >= {f"c{n}" for n in (5, 6, 8, 9, 12, 14)}
    one = next(case for case in sorted(added) if case.startswith("c14_pad/"))
    words = ("--backend", "my_adapters:Wraps", "--cases", one, "--shape", "6,48,20")
    assert run(*words, "--write-ledger", "wraps.toml")[0] == 1
    # Such a case exists for a ledger, whether or not it was asked for.
    assert run(*words, "--ledger", "wraps.toml")[0] == 0
    words = ("--backend", "my_adapters:Wraps", "--cases", "c7_*/block_table/bf16/*_s16_*")
    assert run(*words, "--ledger", "wraps.toml")[0] == 0


@pytest.mark.parametrize(
    "shape", ["", "8,16", "8,16,0", "8,-16,4", "8,16,128,1", "8x16x64", "\u0668,1,1"]
)
def test_what_is_no_shape_is_refused(shape: str) -> None:
    status, output = run("--list", "--shape", shape)
    assert status == 2
    assert output == (
        f"--shape must be kv_heads,block_size,head_dim, three integers of at least 1, got {shape!r}"
    )


def test_every_clause_has_a_case() -> None:
    cases = run("--list", "--large")[1].split()
    assert {case.partition("_")[0] for case in cases} == {
        *(f"c{n}" for n in range(1, 23)),
        *(f"q{n}" for n in range(1, 11) if n not in (6, 9)),  # Q9 is in each of theirs
    }


def test_shipped_backends_pass_the_quick_run() -> None:
    words = [sys.executable, "-m", "functional_paged._cli", "check", "--quick"]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_without_its_packages_the_command_says_what_to_install() -> None:
    block = (
        "import sys; sys.modules['typer'] = None\nfrom functional_paged._cli import main; main()\n"
    )
    ran = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert ran.stderr.strip() == "functional-paged needs typer: pip install 'functional-paged[cli]'"
