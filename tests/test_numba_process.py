"""The numba backend in its process: threads, forks, the end; what is compiled, when and where."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest
import torch

import bridges
from bridges import _host, numba_cpu
from functional_paged import SlotMapping
from tests.helpers import run

# JAX warns where another test of this process has used it; these forks call nothing of it.
pytestmark = pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")

SHAPE = (4, 5, 8, 16)
SLOTS = torch.arange(4 * 8)
SPEC = SlotMapping(SLOTS)
SECONDS = 60.0  # a bound on what would hang


@pytest.fixture(autouse=True)
def shared(monkeypatch) -> None:
    """Small stores are shared among threads, too."""
    monkeypatch.setattr(numba_cpu, "BYTES_A_THREAD", 1)
    monkeypatch.setattr(numba_cpu.torch, "get_num_threads", lambda: 3)


def stores(value: float = 3.0) -> bool:
    """Whether a store writes all of a cache."""
    cache = torch.zeros(SHAPE)
    bridges.store_single_(cache, torch.full((32, 5, 16), value), SPEC, backend="numba")
    return bool((cache == value).all())


def test_many_threads_store_at_once():
    done: list[bool] = []
    own = [
        threading.Thread(target=lambda i=i: done.extend(stores(i + 1.0) for _ in range(40)))
        for i in range(8)
    ]
    for thread in own:
        thread.start()
    for thread in own:
        thread.join(SECONDS)
    assert done == [True] * 8 * 40


def in_a_fork() -> int:
    """The status of a fork that stores: 0 where that ended and was right."""
    child = os.fork()
    if child == 0:
        signal.alarm(int(SECONDS))
        os._exit(0 if stores() and stores(4.0) else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_fork_of_a_process_that_has_threads_stores():
    assert stores()
    assert numba_cpu._threads.cache_info().currsize == 1
    assert in_a_fork() == 0
    assert stores()
    child = multiprocessing.get_context("fork").Process(target=_assert_stores)
    child.start()
    child.join(SECONDS)
    assert child.exitcode == 0


def _assert_stores() -> None:
    assert stores()


def test_a_fork_while_other_threads_store():
    stop = threading.Event()
    done: list[bool] = []

    def on_and_on() -> None:
        while not stop.is_set():
            done.append(stores())

    others = [threading.Thread(target=on_and_on) for _ in range(2)]
    for thread in others:
        thread.start()
    try:
        assert [in_a_fork() for _ in range(10)] == [0] * 10
    finally:
        stop.set()
        for thread in others:
            thread.join(SECONDS)
    assert all(done)


class Never:
    """Threads that never begin."""

    def __init__(self, most: int):
        self.futures: list[Future[None]] = []
        self.most, self.ended = most, False

    def submit(self, function) -> Future[None]:
        if len(self.futures) == self.most:
            raise RuntimeError("can't start new thread")
        self.futures.append(Future())
        return self.futures[-1]

    def shutdown(self, *, cancel_futures: bool) -> None:
        self.ended = [future.cancel() for future in self.futures] == [True] * self.most


@pytest.mark.parametrize("most", [0, 1, 2])
def test_a_thread_that_never_begins_holds_up_nothing(monkeypatch, most):
    never = Never(most)
    monkeypatch.setattr(numba_cpu, "_threads", lambda: never)
    monkeypatch.setattr(numba_cpu._threads, "cache_clear", lambda: None, raising=False)
    assert stores()
    assert [future.cancelled() for future in never.futures] == [True] * most
    assert never.ended == (most < 2)  # so that nothing begins once the store has returned


def test_what_another_thread_raises_is_raised():
    begun = threading.Event()

    def copy(part: int, parts: int) -> None:
        if threading.current_thread() is threading.main_thread():
            assert begun.wait(SECONDS)
        else:
            begun.set()
            raise OverflowError(part)

    with pytest.raises(OverflowError):
        numba_cpu._in_parts(copy, 2)


PROCESS = f"""
import atexit, sys, threading, torch, bridges
from bridges import numba_cpu
from functional_paged import SlotMapping
numba_cpu.BYTES_A_THREAD = 1
torch.set_num_threads(3)
spec = SlotMapping(torch.arange(32))
def stores():
    cache = torch.zeros({SHAPE})
    bridges.store_single_(cache, torch.ones(32, 5, 16), spec)
    return bool((cache == 1).all())
"""


@pytest.mark.parametrize("before", ["", "stores()\n"], ids=["first", "again"])
def test_a_store_as_the_interpreter_ends(before):
    done = run(f"{PROCESS}atexit.register(lambda: print(stores(), flush=True))\n{before}")
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr


def test_a_plan_compiles_and_its_stores_do_not(monkeypatch):
    made: list[str] = []
    compiled = _host.compiled

    def counted(decorator, signature, function):
        made.append(function.__name__)
        return compiled(decorator, signature, function)

    monkeypatch.setattr(_host, "compiled", counted)
    monkeypatch.setattr(numba_cpu, "compiled", counted)
    numba_cpu._compiled_for.cache_clear()
    _host._loop.cache_clear()
    cache, states = torch.zeros(SHAPE), torch.ones(32, 5, 16)
    plan = bridges.plan(SPEC, cache=cache, num_tokens=32, backend="numba")
    assert sorted(made) == ["_copy_rows", "_of_slots"]
    for _ in range(2):
        bridges.store_single_(cache, states, plan)
        bridges.store_single_(cache, states, SPEC, backend="numba")
    assert len(made) == 2


def in_process(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROCESS + code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


HITS = """
print(stores())
from bridges import _host
print(numba_cpu._compiled_for(torch.int64).code.cache_hits,
      sum(_host._loop(SlotMapping).stats.cache_hits.values()))
"""


def test_the_next_process_loads_what_one_compiled_and_compiles_where_that_is_broken(tmp_path):
    where = {"NUMBA_CACHE_DIR": str(tmp_path)}
    assert in_process(HITS, **where) == "True\n0 0\n"
    files = list(tmp_path.rglob("*.nb?"))
    assert {file.suffix for file in files} == {".nbi", ".nbc"}
    assert in_process(HITS, **where) == "True\n1 2\n"  # slots of either dtype
    for suffix in (".nbc", ".nbi"):
        for file in tmp_path.rglob(f"*{suffix}"):
            file.write_bytes(b"broken")
        assert in_process("print(stores())", **where) == "True\n"


def test_without_a_folder_to_write_to_it_compiles_in_memory(tmp_path: Path):
    file = tmp_path / "file"
    file.touch()
    no_tree = """
from numba.core import caching
caching.InTreeCacheLocator.get_cache_path = lambda self: self._py_file
"""
    where = {"HOME": f"{file}/no", "XDG_CACHE_HOME": f"{file}/no", "NUMBA_CACHE_DIR": f"{file}/no"}
    assert in_process(no_tree + HITS, **where) == "True\n0 0\n"


def test_without_numba_torch_serves_and_the_reason_names_the_extra():
    use = "print(stores(), bridges.available_backends()['numba'])"
    done = run(f"import sys\nsys.modules['numba'] = None{PROCESS}{use}")
    assert done.stdout == "True no numba; pip install 'functional-paged[cpu]'\n", done.stderr
