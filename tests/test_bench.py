"""The benchmark: it runs, says what it could not measure, and the page is made from its results."""

from __future__ import annotations

import importlib
import json
import re
import timeit
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bridges.bench_ways
from functional_paged import PAD, BlockTable, plan_chunks, reference
from functional_paged.internal import bench
from tests.helpers import command_line, i32, module_of, run

ROOT = Path(__file__).parents[1]
make_performance = module_of(ROOT / "docs" / "make_performance.py")
COMMITTED = json.loads(make_performance.RESULTS.read_text())
measuring = importlib.import_module("functional_paged._bench.measure")
FIELDS = {"group", "threads", "problem", "way", "baseline", "us"}


def groups_of(results: dict[str, Any]) -> set[str]:
    """The groups of results, which are whole."""
    assert {*results} == {"machine", "not_measured", "series"}
    for series in results["series"]:
        assert {*series} == FIELDS
        assert min(series["us"]) > 0
    return {series["group"] for series in results["series"]}


def test_a_quick_run_writes_results_and_tables(tmp_path: Path) -> None:
    # In a process of its own: it sets torch's threads.
    words = ["bench", "--quick", "--json", "found.json"]
    done = run(
        f"import os, sys\nos.chdir({str(tmp_path)!r})\nsys.argv[1:] = {words}\n"
        "os.environ['COLUMNS'] = '200'\nfrom functional_paged._cli import main\nmain()"
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "found.json").read_text())
    assert groups_of(results) == {*bench.GROUPS}
    ways = {series["way"] for series in results["series"]}
    assert {"copy", "ours: torch", "ours: JAX donated", "index_put_", "1 MiB"} <= ways
    for title, lines in bench.tables(results["series"]).items():
        assert title in done.stdout
        assert all(line[0] in done.stdout for line in lines), title
    assert "not measured: ours: ixformer: BackendUnsupported" in done.stdout
    assert done.stdout.startswith(results["machine"])


def problem_of(name: str, rounds: int = 2) -> bench.Problem:
    """A small problem: a store."""
    quick = [problem for same in bench.problems(quick=True) for problem in same]
    return replace(next(problem for problem in quick if problem.name == name), rounds=rounds)


class Point:
    """An entry point with timers by name, or with the error that importing them raises."""

    def __init__(self, name: str, timers: dict[str, Callable[[], float]] | Exception):
        self.name, self._timers = name, timers

    def load(self) -> Any:
        if isinstance(self._timers, Exception):
            raise self._timers
        return lambda problem: self._timers


def raises(*_: Any) -> Any:
    raise RuntimeError("no\nluck")


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> list[Point]:
    """The entry points that a measurement finds."""
    found: list[Point] = []
    monkeypatch.setattr(measuring, "entry_points", lambda group: found)
    return found


def test_what_cannot_be_measured_is_named_and_the_rest_goes_on(
    points: list[Point], tmp_path: Path
) -> None:
    left = iter([1e-6] * 3)  # a way that fails in its fourth round
    points += [
        Point("absent", ModuleNotFoundError("No module named 'absent'")),
        Point("a", {"other": lambda: 4e-6, "copy": lambda: 1e-6, "ours: [b]": lambda: 3e-6}),
        Point("b", {"never": raises, "not for long": lambda: next(left)}),
    ]
    done = command_line("bench", "--quick", "--json", tmp_path / "j")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-3:] == [
        "not measured: absent: ModuleNotFoundError: No module named 'absent'",
        "not measured: never: RuntimeError: no luck",
        "not measured: not for long: StopIteration:",
    ]
    assert "ours: [b]" in done.stdout
    results = json.loads((tmp_path / "j").read_text())
    assert groups_of(results) == {*bench.GROUPS}
    decode = [s for s in results["series"] if (s["group"], s["problem"]) == ("store", "decode 4")]
    assert [(s["way"], s["us"]) for s in decode] == [
        ("copy", [1, 1]),
        ("ours: [b]", [3, 3]),
        ("other", [4, 4]),
    ]


def test_a_way_whose_baseline_fails_is_in_no_table(points: list[Point]) -> None:
    points.append(Point("a", {"copy": raises, "other": lambda: 1e-6}))
    lost: dict[str, str] = {}
    series = bench.measure([problem_of("decode 4")], lost)
    assert [s["way"] for s in series] == ["other"]
    assert [*lost] == ["copy"]
    assert bench.tables(series) == {}


def test_each_round_has_every_way_once_in_an_order_of_its_own(points: list[Point]) -> None:
    seen: list[str] = []
    points += [Point(n, {n: lambda n=n: seen.append(n) or 1e-6}) for n in "abc"]
    bench.measure([problem_of("decode 4", rounds=20)], {})
    rounds = ["".join(seen[at : at + 3]) for at in range(0, 60, 3)]
    assert {"".join(sorted(one)) for one in rounds} == {"abc"}
    assert len(set(rounds)) > 3


def test_a_way_is_measured_against_itself_in_the_first_cache(points: list[Point]) -> None:
    times = iter([2e-6, 6e-6, 2e-6, 6e-6])
    points.append(Point("a", {"a": lambda: next(times)}))
    (same, *_) = [p for p in bench.problems(quick=True) if p[0].group == "growth"]
    series = bench.measure([replace(problem, rounds=1) for problem in same], {})
    assert [(s["problem"], s["way"], s["baseline"]) for s in series] == [
        ("prefill 64, a", "1 MiB", "1 MiB"),
        ("prefill 64, a", "2 MiB", "1 MiB"),
    ]


def test_a_timer_is_of_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    class Timer:
        """A call of 100 us, disturbed in all but the first of some blocks."""

        def __init__(self, call: Callable[[], object]):
            call()

        def timeit(self, number: int) -> float:
            return number * 100e-6

        def repeat(self, repeat: int, number: int) -> list[float]:
            return [number * 100e-6 * (1 + block) for block in range(repeat)]

    monkeypatch.setattr(timeit, "Timer", Timer)
    assert bench.timed(lambda: None)() == pytest.approx(100e-6)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--device", "abacus"], "--device abacus: "),
        (["--json", "absent/results.json"], "--json absent/results.json: cannot be written"),
        (["--json", "folder"], "--json folder: cannot be written"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_measured(
    words: list[str], told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bench, "measure", raises)
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    done = command_line("bench", "--quick", *words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(told)
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


@pytest.fixture
def called_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Timers on torch that are calls, with torch's threads as before."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(bench, "timed", lambda call: call)
    yield
    torch.set_num_threads(threads)


def states_of(problem: bench.Problem) -> np.ndarray:
    """States for a problem that have bits of their own."""
    _, kv_heads, _, head_dim = problem.cache_shape
    states = np.arange(len(problem.slots) * kv_heads * head_dim, dtype=np.int16)
    return states.reshape(-1, kv_heads, head_dim)


def wanted(problem: bench.Problem) -> np.ndarray:
    cache = np.zeros(problem.cache_shape, np.int16)
    return reference.store_single(cache, states_of(problem), problem.spec)


STORES = ["ours: torch", "index_put_", "index_copy_ of int64 rows", "a loop over chunks in Python"]


@pytest.mark.parametrize("group", ["store", "layers"])
@pytest.mark.parametrize("kind", ["prefill 64", "decode 4"])
@pytest.mark.parametrize("name", STORES)
def test_what_is_compared_does_the_same_store(
    name: str, kind: str, group: str, called_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = replace(problem_of(kind), group=group)
    cache = torch.zeros(problem.cache_shape, dtype=torch.bfloat16)
    states = torch.from_numpy(states_of(problem)).view(torch.bfloat16)
    monkeypatch.setattr(bridges.bench_ways, "pairs_of", lambda _: [(cache, states)])
    bridges.bench_ways.ways(problem)[name]()
    assert np.array_equal(cache.view(torch.int16).numpy(), wanted(problem))


@pytest.mark.parametrize("kind", ["prefill 64", "decode 4"])
@pytest.mark.parametrize("name", ["_scatter", "_scan"])
def test_what_is_compared_in_jax_does_the_same_store(name: str, kind: str) -> None:
    from functional_paged._bench import jax_ways

    problem = problem_of(kind)
    cache = np.zeros(problem.cache_shape, np.int16)
    got = getattr(jax_ways, name)(cache, states_of(problem), None, problem.slots)
    assert np.array_equal(got, wanted(problem))


@pytest.mark.parametrize(
    ("contexts", "cu_q_lens"), [([1, -1, 2], [0, 5, 7, 9]), ([4, -1, 2], None)]
)
def test_the_chunks_that_are_compared_are_the_chunks(
    contexts: list[int], cu_q_lens: list[int] | None
) -> None:
    table, totals = i32([4, PAD, 2], [0, 1, 3], [5, 6, 7]), cu_q_lens and i32(*cu_q_lens)
    spec = BlockTable(table, i32(*contexts), totals)
    got = bridges.bench_ways.chunks_of(spec.map(torch.from_numpy), 3)
    tokens = 9 if cu_q_lens else 3
    want = plan_chunks(spec, cache_shape=(8, 1, 3, 1), num_tokens=tokens).chunks
    assert np.array_equal(got.numpy(), want[want[:, 3] > 0])


def test_a_ratio_is_taken_within_a_round() -> None:
    same = {"group": "store", "threads": 1, "problem": "decode 4", "baseline": "copy"}
    series = [
        {**same, "way": "copy", "us": [1.0, 10.0, 2.0]},
        {**same, "way": "ours: torch", "us": [2.0, 40.0, 6.0]},
        {**same, "way": "stalls", "us": [8000.0, 80123.0, 16000.0]},
    ]
    [(title, lines)] = bench.tables(series).items()
    assert title.endswith("made before, 1 thread")
    assert lines == [
        ["copy = 1", "decode 4"],
        ["copy", "1"],
        ["ours: torch", "3 (2.2-3.8)"],
        ["stalls", "8000 (8000-8010)"],
    ]


def test_the_committed_results_are_whole() -> None:
    assert groups_of(COMMITTED) == {*bench.GROUPS}
    problems = {series["problem"] for series in COMMITTED["series"]}
    assert {same[0].name for same in bench.problems()} <= {
        p.partition(", ours")[0] for p in problems
    }


def test_the_tables_of_the_page_are_those_of_the_results(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = make_performance.PAGE.read_text()
    assert make_performance.made() == text
    stale = tmp_path / "performance.md"
    stale.write_text(re.sub(r"\d \(", "0 (", text))
    monkeypatch.setattr(make_performance, "PAGE", stale)
    made = make_performance.made()
    assert made.split("<!-- begin store -->")[1].split("<!-- end")[0] in text


NUMBA, JAX = "ours: numba", "ours: JAX donated"
LIMITS = [
    (NUMBA, "prefill 4096", 2, {"torch.compile of the indexed store": 1}),
    (NUMBA, "prefill 4096, S 128", 2, {"torch.compile of the indexed store": 1}),
    (NUMBA, "decode 256", 2, {"torch.compile of the indexed store": 1}),
    (NUMBA, "decode 64", 2, {"vLLM's CPU kernel, half a pair": 1}),
    (NUMBA, "decode 256", 2, {"vLLM's CPU kernel, half a pair": 1}),
    (NUMBA, "prefill 4096", 2, {"layout change": 1}),
    (NUMBA, "prefill 4096, S 128", 2, {"layout change": 1}),
    *((NUMBA, f"decode {n}", t, {"copy": 2, "us": 5}) for n in (64, 256) for t in (1, 2)),
    (JAX, "prefill 4096", 2, {"layout change": 1}),
    (JAX, "prefill 4096, S 128", 2, {"layout change": 1}),
    (JAX, "decode 64", 2, {"copy": 4, "JAX: donated jit of nothing": 1, "us": 25}),
    (JAX, "decode 256", 2, {"copy": 4, "JAX: donated jit of nothing": 1, "us": 25}),
]
"""What the page says of the targets: a way, a problem, threads, and a sum of other times."""


def test_the_missed_targets_of_the_page_are_those_of_the_results() -> None:
    page = " ".join(make_performance.PAGE.read_text().split())
    _, told = page.split("## What is met, and what is missed")
    told, _ = told.split("## A store")
    found = []
    for way, problem, threads, limit in LIMITS:
        us = {
            s["way"]: np.array(s["us"])
            for s in COMMITTED["series"]
            if (s["group"], s["problem"], s["threads"]) == ("store", problem, threads)
        }
        us["us"] = np.ones(1)
        ratio = us[way] / sum(us[name] * factor for name, factor in limit.items())
        low, median, high = np.quantile(ratio, (0.1, 0.5, 0.9))
        found.append(f"{median:.3g} ({low:.3g}-{high:.3g})")
    of_growth = "1.27 (1.07-1.67)"
    assert of_growth in page.split("## Larger caches")[1]
    assert re.findall(r"[\d.]+ \([\d.]+-[\d.]+\)", told) == [of_growth, *found]
