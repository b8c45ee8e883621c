"""Whatever an adapter does, it is told in words as its failure, and its run goes on."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from functional_paged import reference
from functional_paged.conformance import BackendNotFound, adapter, find_adapter, run_backend
from functional_paged.conformance.cases.suite import find_case

SLOTS = [
    find_case(f"{name}/slots/bf16/n7_h3_s16_d46")
    for name in ("c6_padded_rows", "c7_empty_rows", "c14_negative_slots")
]
RIGHT = """
import os, subprocess, sys
from functional_paged import reference
class A:
    name = "mine"
    def unsupported(self, case):
        self.case = case.id
        return None
    def store(self, cache, states, index_spec):
        return reference.store_single(cache, states, index_spec)
"""
RAISED = "raised with nothing written"
STORE = "        return reference.store_single"


@pytest.fixture
def save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write a module into the current folder; returns the name of the adapter in it."""
    monkeypatch.chdir(tmp_path)
    names = iter(f"failing_adapter_{number}" for number in range(9))

    def write(source: str) -> str:
        name = next(names)
        (tmp_path / f"{name}.py").write_text(source)
        return f"{name}:A"

    return write


def outcomes(backend: str) -> list[tuple[str, str]]:
    results = run_backend(backend, SLOTS, seconds_per_case=30).results
    assert [result.case for result in results] == SLOTS
    return [(result.status, result.reason) for result in results]


# What a module may do when it is loaded, and what is said of it.
LOADS = {
    "raises": ("raise RuntimeError('no driver')", "RuntimeError: no driver"),
    "import": ("import no_such_thing", "ModuleNotFoundError: No module named 'no_such_thing'"),
    "syntax": ("def f(:\n", "SyntaxError: invalid syntax"),
    "exits": ("import sys; sys.exit('goodbye')", "SystemExit: goodbye"),
    "wants_arguments": (f"{RIGHT}\n    def __init__(self, device): pass\n", "TypeError: "),
    "no_words": (
        "class E(Exception):\n    def __str__(self): return 1 / 0\nraise E",
        "E: its text raises ZeroDivisionError",
    ),
    "no_name": (RIGHT.replace('"mine"', "None"), "must have a str for its name, got None"),
    "number": (RIGHT.replace('"mine"', "7"), "must have a str for its name, got 7"),
    "no_store": (RIGHT.replace("def store", "def stores"), "must have a member 'store'"),
    "no_method": (f"{RIGHT}\n    load = 5", "must have a method 'load', got 5"),
    "info_raises": (f"{RIGHT}\n    def info(self): raise OSError('gone')", "OSError: gone"),
    "info_list": (f"{RIGHT}\n    def info(self): return ['1.0']", "must return a dict: Attribute"),
    "dies": ("import os; os._exit(0)", "the process ended before the case did, with status 0"),
}


@pytest.mark.parametrize("name", LOADS)
def test_an_adapter_that_cannot_load_says_why(name: str, save) -> None:
    source, message = LOADS[name]
    with pytest.raises(BackendNotFound) as caught:
        run_backend(save(source), SLOTS)
    assert message in str(caught.value)
    assert "failing_adapter" in str(caught.value) or "mine" in str(caught.value)


def test_a_right_adapter_is_one_change_away(save) -> None:
    assert outcomes(save(RIGHT)) == [("pass", "")] * 3


def test_a_text_of_a_class_of_the_adapters_own(save) -> None:
    own = "class Own(str): pass\n" + RIGHT.replace('"mine"', 'Own("mine")')
    backend = save(
        own.replace("return None", "return Own('not today') if 'c7' in case.id else None")
    )
    run = run_backend(backend, SLOTS)
    assert (run.name, run.results[1].reason) == ("mine", "not today")


# What an adapter may do in the middle of a run, and what its case is charged with.
FAILS = {
    "raises": (
        "raise KeyError(7)",
        f"{RAISED}: KeyError: 7 (store, failing_adapter_0.py:",
    ),
    "exits": (
        "sys.exit(0)",
        f"{RAISED}: SystemExit: 0 (store, failing_adapter_0.py:",
    ),
    "ends": ("os._exit(0)", "crashed: the process ended before the case did, with status 0"),
    "closes": ("os.closerange(3, 99)", "crashed: the process "),
}


@pytest.mark.parametrize("name", FAILS)
def test_what_a_store_does_costs_its_own_case(name: str, save) -> None:
    deed, message = FAILS[name]
    source = RIGHT.replace(STORE, f"        if 'c7' in self.case: {deed}\n{STORE}")
    before, failed, after = outcomes(save(source))
    assert (before, failed[0], after) == (("pass", ""), "fail", ("pass", ""))
    assert failed[1].startswith(message)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero (unsupported, failing_adapter_0.py:"),
        ("True", "TypeError: unsupported() must return a str or None, got True (call, "),
    ],
)
def test_unsupported_that_fails_costs_its_own_case(answer: str, message: str, save) -> None:
    source = RIGHT.replace("return None", f"return {answer} if 'c7' in case.id else None")
    before, failed, after = outcomes(save(source))
    assert (before, failed[0], after) == (("pass", ""), "fail", ("pass", ""))
    assert failed[1].startswith(f"{RAISED}: {message}")


@pytest.mark.parametrize(
    "deed",
    [
        "assert sys.stdin.readline() == ''",
        "assert subprocess.run(['cat'], capture_output=True, timeout=20).stdout == b''",
        "print('no result'); os.write(1, b'{}'); subprocess.run(['echo', '{}'])",
        "os.fork() or os._exit(0)",
        "sys.stdin.close(); sys.stdout.close()",
    ],
)
def test_standard_input_and_output_are_the_adapters_own(deed: str, save) -> None:
    assert outcomes(save(RIGHT.replace(STORE, f"        {deed}\n{STORE}"))) == [("pass", "")] * 3


def test_what_an_adapter_starts_has_no_channel(save) -> None:
    deed = (
        "fds = subprocess.run(['ls', '/proc/self/fd'], capture_output=True, text=True).stdout\n"
        "        assert len(fds.split()) <= 4, fds"
    )
    assert outcomes(save(RIGHT.replace(STORE, f"        {deed}\n{STORE}"))) == [("pass", "")] * 3


def test_the_worker_finds_what_its_caller_can_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_on_the_path_of_the_caller.py").write_text(RIGHT)
    with pytest.raises(BackendNotFound, match="No module named"):
        run_backend("only_on_the_path_of_the_caller:A", ())
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert outcomes("only_on_the_path_of_the_caller:A") == [("pass", "")] * 3


@pytest.mark.parametrize("safe", ["", "1"])
def test_a_file_is_found_by_its_path(
    safe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONSAFEPATH", safe)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beside_it.py").write_text("")
    (tmp_path / "adapter_by_path.py").write_text("import beside_it\n" + RIGHT)
    for name in ("adapter_by_path.py:A", "./adapter_by_path:A", f"{tmp_path}/adapter_by_path.py:A"):
        assert run_backend(name, SLOTS[:1]).results[0].status == "pass"
    with pytest.raises(BackendNotFound, match="FileNotFoundError"):
        run_backend("./none:A", ())
    if safe:
        hint = "No module named 'adapter_by_path' in sys.path; a file is named by its path, ./adap"
        with pytest.raises(BackendNotFound, match=hint):
            run_backend("adapter_by_path:A", ())


@pytest.mark.parametrize("name", ["my_adapter", "my_adapter.py", ":A", "my_adapter:", ""])
def test_a_name_that_is_no_path_says_what_is_one(name: str) -> None:
    with pytest.raises(BackendNotFound, match=r"must be one of ixformer, .* package.module:attr"):
        find_adapter(name)


def test_two_registrations_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    group = adapter.ENTRY_POINTS
    ours = EntryPoint("mine", "functional_paged.conformance.adapters.reference:adapter", group)
    points = [ours, ours]  # one of them from an installation, one from its sources
    monkeypatch.setattr(adapter, "entry_points", lambda group: EntryPoints(points))
    assert find_adapter("mine").store is not reference.store_single
    points.append(EntryPoint("mine", "another:Adapter", group))
    with pytest.raises(BackendNotFound, match="'mine' is registered twice: another:Adapter and f"):
        find_adapter("mine")
