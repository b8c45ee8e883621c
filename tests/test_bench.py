"""The benchmark: it runs, says what it could not measure, and the page is made from its results."""

from __future__ import annotations

import dataclasses
import json
import math
import timeit
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import jsonschema
import numpy as np
import pytest
import torch

import bridges.bench_ways
from functional_paged import PAD, BlockTable, plan_chunks, reference, to_slots
from functional_paged._bench import ways as finding
from functional_paged.internal import bench
from tests.helpers import command_line, i32, module_of, run

ROOT = Path(__file__).parents[1]
TEXT, NUMBER = {"type": "string"}, {"type": "number", "exclusiveMinimum": 0}


def each(properties: dict[str, Any]) -> dict[str, Any]:
    """The schema of an object that has these members and no other."""
    return {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }


SCHEMA = each(
    {
        "schema": {"const": 1},
        "machine": each(
            {
                "cpu": TEXT,
                "cores": {"type": "integer"},
                "load": {"type": "number"},
                "system": TEXT,
                "date": {**TEXT, "pattern": r"^\d{4}-\d\d-\d\d$"},
                "versions": {"type": "object", "additionalProperties": TEXT, "required": ["numpy"]},
            }
        ),
        "device": TEXT,
        "quick": {"type": "boolean"},
        "series": {
            "type": "array",
            "minItems": 1,
            "items": each(
                {
                    "group": {"enum": [*bench.GROUPS]},
                    "problem": TEXT,
                    "threads": {"type": "integer", "minimum": 1},
                    "way": TEXT,
                    "baseline": TEXT,
                    "us": {"type": "array", "items": NUMBER, "minItems": 1},
                }
            ),
        },
        "not_measured": {
            "type": "array",
            "items": each({"way": TEXT, "problem": TEXT, "reason": TEXT}),
        },
    }
)
make_performance = module_of(ROOT / "docs" / "make_performance.py")
COMMITTED = json.loads(make_performance.RESULTS.read_text())


def test_a_quick_run_writes_results_tables_and_drawings(tmp_path: Path) -> None:
    # In a process of its own: it sets torch's threads.
    words = ["bench", "--quick", "--json", "found.json", "--plots", "drawings"]
    done = run(
        f"import os, sys\nos.chdir({str(tmp_path)!r})\nsys.argv[1:] = {words}\n"
        "os.environ['COLUMNS'] = '200'\nfrom functional_paged._cli import main\nmain()"
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "found.json").read_text())
    jsonschema.validate(results, SCHEMA)
    assert {series["group"] for series in results["series"]} == {*bench.GROUPS}
    ways = {series["way"] for series in results["series"]}
    assert {"copy", "ours: torch", "ours: JAX donated", "index_put_"} <= ways
    for group, title, lines in bench.tables(results):
        assert title in done.stdout
        assert all(line[0] in done.stdout for line in lines), group
    assert {path.stem for path in (tmp_path / "drawings").iterdir()} == {*bench.GROUPS}
    assert "not measured: ours: ixformer, ours: ixformer, check=True: Back" in done.stdout
    assert "failed" not in done.stderr


def problem_of(group: str, rounds: int = 3, **others: Any) -> bench.Problem:
    """A small problem of a group."""
    quick = [problem for same in bench.problems(quick=True) for problem in same]
    found = next(p for p in quick if p.group == group and p.name == others.get("name", p.name))
    return dataclasses.replace(found, rounds=rounds, **others)


def way(name: str, prepare: Callable[..., Any], baseline: str = "base") -> bench.Way:
    return bench.Way(name, ("call",), prepare, baseline)


class Point:
    """An entry point with ways, or with the error that importing them raises."""

    def __init__(self, name: str, ways: list[bench.Way] | Exception):
        self.name, self._ways = name, ways

    def load(self) -> list[bench.Way]:
        if isinstance(self._ways, Exception):
            raise self._ways
        return self._ways


def raises(*_: Any) -> Any:
    raise RuntimeError("no\nluck")


def test_what_cannot_be_measured_is_named_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    left = iter([1e-6, 2e-6])  # a way that fails in its third round
    ways = [
        way("base", lambda _: lambda: 1e-6),
        way("ours: right", lambda _: lambda: 3e-6),
        way("of another problem", lambda _: None),
        way("never", raises),
        way("not for long", lambda _: lambda: next(left)),
    ]
    points = [Point("absent", ModuleNotFoundError("No module named 'absent'")), Point("a", ways)]
    monkeypatch.setattr(finding, "entry_points", lambda group: points)
    done = command_line("bench", "--quick", "--only", "call", "--json", tmp_path / "j")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-3:] == [
        "not measured: absent: ModuleNotFoundError: No module named 'absent'",
        "not measured: never at call, a call: RuntimeError: no luck",
        "not measured: not for long at call, a call: StopIteration:",
    ]
    assert "right" in done.stdout
    results = json.loads((tmp_path / "j").read_text())
    jsonschema.validate(results, SCHEMA)
    assert {s["way"]: s["us"] for s in results["series"]} == {
        "base": [1.0] * 3,
        "ours: right": [3.0] * 3,
    }


def test_a_baseline_that_fails_takes_nothing_else_along(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ways = [way("base", raises), way("other", lambda _: lambda: 1e-6)]
    monkeypatch.setattr(finding, "entry_points", lambda group: [Point("a", ways)])
    done = command_line("bench", "--quick", "--only", "call", "--plots", tmp_path)
    assert done.exit_code == 0
    assert "not measured: base" in done.stdout
    ET.fromstring((tmp_path / "call.svg").read_text())


def test_each_round_has_every_way_once_in_an_order_of_its_own() -> None:
    seen: list[str] = []

    def noting(name: str) -> bench.Way:
        return way(name, lambda _: lambda: seen.append(name) or 1e-6)

    bench.measure([problem_of("call", rounds=20)], [noting(name) for name in "abc"])
    rounds = ["".join(seen[at : at + 3]) for at in range(0, 60, 3)]
    assert {"".join(sorted(one)) for one in rounds} == {"abc"}
    assert len(set(rounds)) > 3


def test_a_timer_is_of_one_call_and_of_one_store(monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert bench.timed(lambda: None, per=2)() == pytest.approx(50e-6)


def test_code_in_a_process_that_fails_is_an_error_in_words() -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError: division by zero"):
        bench.in_processes("1 / 0")()
    assert bench.in_processes("import os; assert os.environ['A'] == 'b'", A="b")() > 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["--only", "stores"],
            "--only must be one of store, growth, layers, ",
        ),
        (["--device", "abacus"], "--device abacus: "),
        (["--json", "absent/results.json"], "--json absent/results.json: cannot be written"),
        (["--plots", "taken"], "--plots taken: File exists"),
        (["--plots", "full"], "--plots store full/store.svg: cannot be written"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_measured(
    words: list[str], told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bench, "ways_found", raises)
    monkeypatch.chdir(tmp_path)
    Path("taken").touch()
    Path("full/store.svg").mkdir(parents=True)
    before = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    done = command_line("bench", "--quick", *words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(told)
    assert done.stderr.count("\n") == 1
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == before


@pytest.fixture
def called_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ways on torch whose preparation is followed by one call, with torch's threads as before."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(bridges.bench_ways, "timed", lambda problem, call, per=1: call())
    yield
    torch.set_num_threads(threads)


STORES = ["ours: torch", "index_put_", "index_copy_ of int64 rows", "a loop over chunks in Python"]


def stored_by(name: str, problem: bench.Problem) -> np.ndarray:
    """Bits of the cache after a way of this name; states and cache have bits of their own."""
    ((cache, states),) = bridges.bench_ways.step_of(problem).pairs
    cache.zero_()
    states.view(torch.int16).copy_(torch.arange(states.numel()).view(states.shape))
    (found,) = [w for w in bridges.bench_ways.ways if w.name == name and problem.group in w.groups]
    found.prepare(problem)
    return cache.view(torch.int16).numpy()


def wanted(problem: bench.Problem) -> np.ndarray:
    _, kv_heads, _, head_dim = problem.cache_shape
    states = np.arange(problem.num_tokens * kv_heads * head_dim, dtype=np.int16)
    states = states.reshape(problem.num_tokens, kv_heads, head_dim)
    return reference.store_single(np.zeros(problem.cache_shape, np.int16), states, problem.spec)


@pytest.mark.parametrize("kind", ["prefill 64", "decode 4"])
@pytest.mark.parametrize("name", STORES)
def test_what_is_compared_does_the_same_store(name: str, kind: str, called_once: None) -> None:
    problem = problem_of("store", name=kind)
    assert np.array_equal(stored_by(name, problem), wanted(problem))


@pytest.mark.parametrize("kind", ["prefill 64", "decode 4"])
@pytest.mark.parametrize("name", ["_scatter", "_scan"])
def test_what_is_compared_in_jax_does_the_same_store(name: str, kind: str) -> None:
    from functional_paged._bench import jax_ways

    problem = problem_of("store", name=kind)
    shape = problem.cache_shape
    slots = to_slots(problem.spec, cache_shape=shape, num_tokens=problem.num_tokens).slots
    states = np.arange(problem.num_tokens * shape[1] * shape[3], dtype=np.int16)
    states = states.reshape(problem.num_tokens, shape[1], shape[3])
    program = jax_ways._program(getattr(jax_ways, name))
    assert np.array_equal(program(np.zeros(shape, np.int16), states, None, slots), wanted(problem))


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


def results_of(**us: dict[str, list[float]]) -> dict[str, Any]:
    """Results of one problem a group; a way's baseline is the first way."""
    series = [
        {
            "group": group,
            "problem": "decode 4",
            "threads": 1,
            "way": way,
            "baseline": next(iter(ways)),
            "us": times,
        }
        for group, ways in us.items()
        for way, times in ways.items()
    ]
    return {**COMMITTED, "series": series, "not_measured": []}


def test_a_ratio_is_taken_within_a_round() -> None:
    results = results_of(store={"copy": [1.0, 10.0, 2.0], "ours: torch": [2.0, 40.0, 6.0]})
    [(_, title, lines)] = bench.tables(results)
    assert title.endswith("1 thread, times the copy")
    assert lines == [["way", "decode 4"], ["copy", "1"], ["ours: torch", "3 (2.2-3.8)"]]


@pytest.mark.parametrize(("ours", "met"), [(14.9, "yes"), (15.1, "**no**")])
def test_a_target_is_met_up_to_its_limit(ours: float, met: str) -> None:
    results = results_of(store={"copy": [5.0] * 3, "ours: torch": [ours] * 3, "other": [20.0] * 3})
    found = {line[0]: line[1] for line in make_performance.targets(results)}
    assert found["A decode takes at most 2 copies and 5 us"] == met
    assert found["A store in torch is ahead of every other way"] == "yes"
    assert found["A plan is ahead of chunks by a mask"] == "not measured"


def test_a_target_without_its_baseline_is_not_measured() -> None:
    results = results_of(plan={"gone": [1.0], "ours: a": [1.0]})
    results["series"] = results["series"][1:]
    assert {line[1] for line in make_performance.targets(results)[1:]} == {"not measured"}


def test_the_backend_that_plan_takes_is_held_to_the_targets() -> None:
    ways = {"copy": [5.0], "ours: JAX donated": [1.0], "ours: a": [21.0], "ours: b": [1.0]}
    results = results_of(store={**ways, "other": [20.0]})
    [line] = [x for x in make_performance.targets(results) if x[0].startswith("A store in torch")]
    assert line[1:] == ["**no**", "1.05 (1.05-1.05)", "ours: a against other: decode 4, 1 thread"]


def test_a_drawing_shows_each_way_in_its_place() -> None:
    results = results_of(store={"copy": [1.0, 1.0], "ours: a": [10.0, 10.0], "b": [100.0, 100.0]})
    root = ET.fromstring(bench.plot(results, "store"))
    svg = "{http://www.w3.org/2000/svg}"
    marks = [r for r in root.iter(f"{svg}rect") if r.get("height") == "10"]
    assert [mark.get("class") for mark in marks] == ["skipped", "stored", "skipped"]
    low, ours, high = (float(mark.attrib["x"]) for mark in marks)
    assert math.isclose(ours - low, high - ours, abs_tol=0.2)  # a logarithmic axis
    description = root.findtext(f"{svg}desc")
    assert description is not None
    assert "decode 4, ours: a, 1 thread: 10 (10-10) times the copy." in description


def test_the_committed_results_are_valid_and_whole() -> None:
    jsonschema.validate(COMMITTED, SCHEMA)
    assert not COMMITTED["quick"]
    assert {series["group"] for series in COMMITTED["series"]} == {*bench.GROUPS}


def test_the_page_and_its_drawings_are_made_from_the_results(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(make_performance.sys, "argv", ["make_performance.py", "--check"])
    assert make_performance.main() == 0, capsys.readouterr().err
    names = {path.stem for path in make_performance.IMAGES.iterdir()}
    assert names == {*bench.GROUPS}


def test_a_stale_page_is_found_and_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "performance.md"
    page.write_text("# Mine\n<!-- begin targets -->\nold\n<!-- end -->\n")
    monkeypatch.setattr(make_performance, "PAGE", page)
    monkeypatch.setattr(make_performance, "IMAGES", tmp_path / "img")
    monkeypatch.setattr(make_performance.sys, "argv", ["make_performance.py", "--check"])
    assert make_performance.main() == 1
    assert f"{page} is stale" in capsys.readouterr().err
    assert "old" in page.read_text()
    monkeypatch.setattr(make_performance.sys, "argv", ["make_performance.py"])
    assert make_performance.main() == 0
    text = page.read_text()
    assert text.startswith("# Mine\n<!-- begin targets -->\n\n| target | met |")
    assert "old" not in text
