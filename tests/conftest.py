"""Settings that must be in place before any test module is imported, and the marker of clauses."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# Sharding tests need several devices, and JAX reads this once, when it starts.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

import pytest
from hypothesis import HealthCheck, settings

from functional_paged.internal import CLAUSES
from tests.helpers import clauses_of

# print_blob: a failure prints what reproduces it. Neither a deadline nor a complaint about slow
# examples: JAX compiles inside some of them, and a busy machine is no fault of the project.
settings.register_profile(
    "project", print_blob=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("project")

TESTS = Path(__file__).parent
_collected = pytest.StashKey[list[pytest.Item]]()


@pytest.hookimpl(tryfirst=True)  # before -k and -m take tests out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark each test with the clauses in its name: `test_c8_...` with `clause(id="C8")`."""
    known = {clause.id for clause in CLAUSES}
    for item in items:
        for clause in clauses_of(item.name):
            if clause not in known:
                raise pytest.UsageError(f"{item.nodeid} is named after {clause}: no such clause")
            item.add_marker(pytest.mark.clause(id=clause))
    config.stash[_collected] = list(items)


@pytest.fixture(scope="session")
def collected(pytestconfig: pytest.Config) -> set[str]:
    """Names of all test functions that pytest finds in tests/, however few this run is of."""
    items = pytestconfig.stash[_collected]
    if {item.path for item in items} >= set(TESTS.glob("test_*.py")):
        return {item.name.partition("[")[0] for item in items}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", TESTS],
        capture_output=True,
        text=True,
        cwd=TESTS.parent,
    )
    assert done.returncode == 0, done.stdout
    ids = [line for line in done.stdout.splitlines() if "::" in line]
    return {node_id.partition("::")[2].partition("[")[0] for node_id in ids}


@pytest.fixture(params=["numba", "torch"], scope="module")  # one that Hypothesis takes
def cpu_backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each backend for CPUs in turn: what a call gets that names none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUNCTIONAL_PAGED_BACKEND", request.param)
        yield request.param


@pytest.fixture
def traceable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lowering as users import it, and `torch.compile` afresh.

    Under pytest the lowering checks its annotations, which dynamo cannot trace.
    """
    import torch

    from bridges import _plan
    from functional_paged import _lowering, _slots

    spec = importlib.util.spec_from_file_location(_slots.__name__, _slots.__file__)
    assert spec is not None
    assert spec.loader is not None
    plain = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plain)
    monkeypatch.setattr(_plan, "slots_in", plain.slots_in)
    monkeypatch.setattr(_lowering, "slots_in", plain.slots_in)
    monkeypatch.setattr(_lowering, "chunks_in", plain.chunks_in)
    torch.compiler.reset()
