"""Plans and exported programs name what they need and find it: copied, pickled, elsewhere."""

from __future__ import annotations

import copy
import importlib
import pickle
import subprocess
import sys
from typing import Any

import pytest
import torch

import bridges
from bridges import BackendUnsupported, numba_cpu, torch_inplace
from bridges import _registry as registry
from bridges.torch_inplace import TorchBackend
from functional_paged import BlockTable, ChunkPlan, SlotMapping
from tests.helpers import loaded_again, run

pytestmark = pytest.mark.usefixtures("cpu_backend")

SHAPE = (4, 1, 2, 3)
SPECS = {
    "block_table": BlockTable(torch.tensor([[3, 1]]).int(), torch.tensor([1]).int()),
    "chunks": ChunkPlan(torch.tensor([[0, 3, 1, 1]]).int()),
    "slots": SlotMapping(torch.tensor([7, -1])),
}
COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda plan: pickle.loads(pickle.dumps(plan)),
}


def plan_of(form: str = "slots", backend: Any = None) -> bridges.StorePlan:
    return bridges.plan(SPECS[form], cache=torch.zeros(SHAPE), num_tokens=2, backend=backend)


def check(plan: bridges.StorePlan, backend: str | None = None) -> None:
    cache = torch.zeros(SHAPE)
    bridges.store_single_(cache, torch.ones(2, 1, 3), plan, backend=backend)
    want = torch.zeros(SHAPE)
    want[3, 0, 1] = 1
    assert torch.equal(cache, want)


@pytest.mark.parametrize("form", SPECS)
@pytest.mark.parametrize("kind", COPIES)
def test_a_plan_that_was_copied_stores_the_same(kind, form, cpu_backend):
    plan = plan_of(form)
    again = COPIES[kind](plan)
    assert again is not plan
    assert again.backend == cpu_backend
    assert (again.route, again.device) == (plan.route, plan.device)
    check(again, backend=cpu_backend)


def test_a_plan_of_an_object_finds_that_very_object():
    calls = []

    class Mine(TorchBackend):
        name = "mine"

        def lower(self, *args, **options):
            calls.append(self)
            return super().lower(*args, **options)

    mine = Mine()
    plan = plan_of(backend=mine)
    assert registry.find(plan.backend) is mine
    check(pickle.loads(pickle.dumps(plan)), backend=plan.backend)
    with pytest.raises(ValueError, match=f"^backend must be the plan's = {plan.backend!r}, got "):
        bridges.store_single_(torch.zeros(SHAPE), torch.ones(2, 1, 3), plan, backend=Mine())
    assert calls == [mine]


def test_a_plan_outlives_the_object_that_made_it(monkeypatch, cpu_backend):
    # As where bridges is loaded again: the new registry has another object of the name.
    plan = plan_of()
    monkeypatch.setattr(registry, "_named", {})
    check(plan, backend=cpu_backend)


def test_a_pickled_plan_stores_in_another_process(tmp_path, cpu_backend):
    file = tmp_path / "plan"
    file.write_bytes(pickle.dumps(plan_of()))
    done = run(
        f"import pickle, torch\nplan = pickle.load(open({str(file)!r}, 'rb'))\n"
        "import bridges\ncache = torch.zeros(4, 1, 2, 3)\n"
        f"bridges.store_single_(cache, torch.ones(2, 1, 3), plan, backend={cpu_backend!r})\n"
        "print(cache.flatten().tolist())"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == str([0.0] * 21 + [1.0] * 3)


def test_an_exported_program_needs_no_more_than_bridges(tmp_path):
    class Step(torch.nn.Module):
        def forward(self, cache, states, slots):
            bridges.store_single_(cache, states, SlotMapping(slots))
            return cache * 1

    given = (torch.zeros(SHAPE), torch.ones(2, 1, 3), torch.tensor([7, -1]))
    file = tmp_path / "step.pt2"
    torch.export.save(torch.export.export(Step(), given, strict=False), file)
    code = f"""
import sys, torch
if "bridges" in sys.argv:
    import bridges
step = torch.export.load({str(file)!r}).module()
print(step(torch.zeros(4, 1, 2, 3), torch.ones(2, 1, 3), torch.tensor([7, -1])).sum().item())
"""

    def elsewhere(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "ignore", "-c", code, *words]
        return subprocess.run(command, capture_output=True, text=True)

    done = elsewhere("bridges")
    assert done.stdout.split() == ["3.0"], done.stderr
    assert elsewhere().returncode == 1  # so the import is what does it


@pytest.mark.parametrize("module", ["_operator", "torch_inplace", "numba_cpu", "ixformer.backend"])
def test_a_module_of_an_operator_may_be_loaded_again(module):
    before = torch_inplace._store_op, numba_cpu._store_op
    with loaded_again(importlib.import_module(f"bridges.{module}")):
        assert (torch_inplace._store_op, numba_cpu._store_op) == before
        check(plan_of())


def test_a_name_of_another_process_is_refused_in_words():
    with pytest.raises(BackendUnsupported, match=r"^backend 'mine#7' does not exist; backends: "):
        registry.find("mine#7")
