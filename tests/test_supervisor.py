"""A backend that crashes, hangs, prints or changes what it must not costs its case, not the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from functional_paged.conformance import BackendNotFound, run_backend
from functional_paged.conformance.cases.suite import find_case

ADAPTER = """
import os, signal, time
from functional_paged import reference
from functional_paged.conformance import Case

class Hostile:
    name = "hostile"
    def info(self):
        return {"temper": "bad"}
    def unsupported(self, case):
        self.case = case.id
        return None
    def store(self, cache, states, index_spec):
        print("a line on standard output that is no result", flush=True)
        if self.case.startswith("c7"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.case.startswith("c8"):
            time.sleep(600)
        if self.case.startswith("c9"):
            os._exit(3)
        if self.case.startswith("c10"):
            raise RuntimeError("no such luck")
        return reference.store_single(cache, states, index_spec)
"""
SHAPE = "n7_h3_s16_d46"
IDS = [
    f"c6_padded_rows/slots/bf16/{SHAPE}",
    f"c7_empty_rows/slots/bf16/{SHAPE}",
    f"c8_hole/slots/bf16/{SHAPE}",
    f"c9_past_the_table/slots/bf16/{SHAPE}",
    f"c10_more_states/slots/bf16/{SHAPE}",
    f"c14_negative_slots/slots/bf16/{SHAPE}",
]


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "hostile_adapter.py").write_text(ADAPTER)
    monkeypatch.chdir(tmp_path)
    return "hostile_adapter:Hostile"


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_rest_of_the_run_goes_on(hostile: str, jobs: int) -> None:
    cases = [find_case(case_id) for case_id in IDS]
    seen = []
    run = run_backend(
        hostile, cases, seconds_per_case=5, jobs=jobs, on_result=lambda r: seen.append(r.case.id)
    )
    assert (run.name, run.info) == ("hostile", {"temper": "bad"})
    assert [result.case.id for result in run.results] == IDS
    assert sorted(seen) == sorted(IDS)
    reasons = {r.case.id.split("_")[0]: (r.status, r.reason) for r in run.results}
    assert reasons["c6"] == ("pass", "")
    assert reasons["c7"][1].startswith("crashed: the process died of SIGSEGV in store, hostile_ada")
    assert reasons["c8"][1].startswith("hung: no result in 5 s (--seconds; a framework that a fork")
    assert reasons["c9"] == ("fail", "crashed: the process exited with status 3")
    assert reasons["c10"][0] == "fail"
    told = "raised with nothing written: RuntimeError: no such luck (store, hostile_adapter.py:"
    assert reasons["c10"][1].startswith(told)
    assert reasons["c14"] == ("pass", "")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise ImportError('no driver here')", "no driver here"),
        ("import os; os._exit(7)", "exited with status 7"),
        ("adapter = object()", "must have a member 'name'"),
        ("", "has no attribute 'adapter'"),
    ],
)
def test_a_backend_that_cannot_load_says_why(
    source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_adapter.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BackendNotFound, match=message):
        run_backend("broken_adapter:adapter", [find_case(IDS[0])])


def test_a_mismatch_survives_the_way_from_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "idle_adapter.py").write_text(
        "class Idle:\n"
        "    name = 'idle'\n"
        "    def unsupported(self, case): return None\n"
        "    def store(self, cache, states, index_spec): return cache.copy()\n"
    )
    monkeypatch.chdir(tmp_path)
    (result,) = run_backend("idle_adapter:Idle", [find_case(IDS[-1])]).results
    assert result.status == "fail"
    mismatch = result.mismatch
    assert mismatch is not None
    assert (mismatch.what, mismatch.index, mismatch.written) == ("cache", (0, 0, 1, 0), True)
    assert {cell.outcome for cell in mismatch.cells} == {"missing"}
    assert {(cell.block, cell.offset) for cell in mismatch.cells} == {(0, 1), (6, 15)}


def test_an_interrupt_ends_the_run_and_leaves_no_process(tmp_path: Path) -> None:
    (tmp_path / "sleepy_adapter.py").write_text(
        "import os, pathlib, time\n"
        "class Sleepy:\n"
        "    name = 'sleepy'\n"
        "    def unsupported(self, case): return None\n"
        "    def store(self, *arguments):\n"
        "        pathlib.Path(f'{os.getpid()}.pid').touch()\n"
        "        time.sleep(600)\n"
    )
    words = ["check", "--backend", "./sleepy_adapter.py:Sleepy", "--cases", "c5*", "--jobs", "2"]
    code = "from functional_paged._cli import main; main()"
    check = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        deadline = time.monotonic() + 120
        while len(pids := [int(file.stem) for file in tmp_path.glob("*.pid")]) < 2:
            assert check.poll() is None, check.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for _ in range(3):
            # Python drops an interrupt that reaches it inside a finalizer: a user presses again.
            check.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                check.communicate(timeout=30)
                break
    finally:
        check.kill()
        check.communicate()
    assert check.returncode > 0  # it ended by itself
    assert [pid for pid in pids if is_alive(pid)] == []


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "XZ"  # dead, whether or not somebody has looked
