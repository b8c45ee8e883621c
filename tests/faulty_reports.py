"""Reports of backends that are wrong in known ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from functional_paged import IndexSpec, SlotMapping, reference
from functional_paged.conformance import BackendRun, Case, Problem, run_case
from functional_paged.conformance.adapters.reference import ReferenceAdapter
from functional_paged.conformance.report.results import report
from functional_paged.conformance.run.compare import Outcome

SHAPE = (5, 2, 4, 3)
SLOTS = (6, 7, 13)
BY_HAND: dict[tuple[int, int], Outcome] = {
    (1, 2): "wrong",  # slot 6
    (1, 3): "written",
    (2, 0): "stray",  # after slot 7
    (3, 1): "missing",  # slot 13
}
"""What `Faulty` does to the positions of `a_case()`, as (block, offset)."""


def a_case(case_id: str = "c5_by_hand/slots", shape: tuple[int, int, int, int] = SHAPE) -> Case:
    states = np.arange(1, len(SLOTS) * shape[1] * shape[3] + 1, dtype=np.float32)
    rows = states.reshape(len(SLOTS), shape[1], shape[3])
    spec = SlotMapping(np.array(SLOTS, np.int32))
    return Case(
        case_id,
        ("C5", "C16"),
        "three tokens",
        lambda: Problem(shape, rows.dtype, rows, spec),
        link="https://example.org/issues/1?a=1&b=2",
    )


class Faulty(ReferenceAdapter):
    """Flips a bit of the first token, writes the second twice if a block ends, drops the last."""

    name = "faulty"

    def info(self) -> dict[str, str]:
        return {"wheel": "faulty 0.1", "device": "none"}

    def store(self, cache: np.ndarray, states: np.ndarray, index_spec: IndexSpec) -> np.ndarray:
        stored = cache.copy()
        places = list(reference.stored_tokens(index_spec, cache.shape, len(states)))
        for number, (token, block, offset) in enumerate(places):
            if number == len(places) - 1:
                continue
            stored[block, :, offset] = states[token]
            if number == 0:
                stored.view(np.uint8)[block, 0, offset, 0] ^= 1
            elif offset + 1 == cache.shape[2] and block + 1 < cache.shape[0]:
                stored[block + 1, :, 0] = states[token]
        return stored


class OneBlockOff(ReferenceAdapter):
    """Writes each token a block too far."""

    name = "one-block-off"

    def store(self, cache: np.ndarray, states: np.ndarray, index_spec: IndexSpec) -> np.ndarray:
        stored = cache.copy()
        for token, block, offset in reference.stored_tokens(index_spec, cache.shape, len(states)):
            stored[(block + 1) % cache.shape[0], :, offset] = states[token]
        return stored


class WritesAll(ReferenceAdapter):
    """Changes every element."""

    name = "writes-all"

    def store(self, cache: np.ndarray, states: np.ndarray, index_spec: IndexSpec) -> np.ndarray:
        return (~cache.view(f"u{cache.itemsize}")).view(cache.dtype)


def run_of(adapter: Any, cases: Sequence[Case], name: str | None = None) -> BackendRun:
    results = tuple(run_case(adapter, case) for case in cases)
    return BackendRun(name or adapter.name, adapter.info(), results)


def with_result(run: BackendRun, **changes: Any) -> BackendRun:
    """The run with its first result changed."""
    return replace(run, results=(replace(run.results[0], **changes), *run.results[1:]))


def faulty_report(*, faulty_name: str = "faulty") -> dict[str, Any]:
    """The reference beside `Faulty`, over the case by hand and one that no one supports."""
    apart = replace(a_case("c3_by_hand/slots"), kind="apart", clauses=("C3",), link=None)
    cases = [apart, a_case()]
    return report([run_of(ReferenceAdapter(), cases), run_of(Faulty(), cases, faulty_name)])


def large_report() -> dict[str, Any]:
    """As many cases as the suite has, each failing on four backends, no two drawn alike."""
    shapes = [(7, 2, 16, 3), (6, 1, 128, 2), (64, 2, 3, 1), (5, 1, 33, 4)]
    cases = [a_case(f"c5_of_many/block_table/f8e4m3fn/{n}", s) for n, s in enumerate(shapes)]
    adapters = (Faulty(), OneBlockOff(), WritesAll(), WritesAll())
    large = report([run_of(a, cases, f"backend-{n}") for n, a in enumerate(adapters)])
    large["cases"] = _repeated(large["cases"])
    for number, case in enumerate(large["cases"]):
        case["cache_shape"] = [case["cache_shape"][0] + number, *case["cache_shape"][1:]]
    for backend in large["backends"]:
        backend["results"] = _repeated(backend["results"])
        backend["counts"] = {"fail": len(backend["results"])}
    return large


def _repeated(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**entry, "id": f"{entry['id']}_{n}_of_600"} for n in range(150) for entry in entries]
