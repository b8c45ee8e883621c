"""A backend goes by its name: in plans, graphs and exported programs, here and elsewhere."""

from __future__ import annotations

import copy
import pickle
import subprocess

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import bridges
from bridges import BackendUnsupported, _registry
from bridges.ixformer import IxformerBackend, model
from bridges.ixformer import backend as module
from bridges.ixformer.backend import NATIVE, SAFE
from bridges.ixformer.model import KernelSemantics, ModelFunctions
from functional_paged import SlotMapping
from tests.guarded import PLAIN, Guarded, a_states, kit_steps, store
from tests.helpers import loaded_again, run

SHAPE, DTYPE = PLAIN
STEP = kit_steps(SHAPE)["c5_prefill"]
SPEC, NUM_TOKENS = STEP.index_spec, STEP.num_tokens
STATES = a_states(NUM_TOKENS, SHAPE, DTYPE)
GIVEN = SPEC.map(torch.from_numpy)


def backend_of(name: str = "ixformer", **semantics) -> IxformerBackend:
    functions = ModelFunctions(KernelSemantics(**semantics))
    return IxformerBackend(functions, device_check=False, name=name)


class Step(torch.nn.Module):
    """A step of a serving engine, to be traced."""

    def __init__(self, backend: str | bridges.Backend):
        super().__init__()
        self.backend = backend

    def forward(self, cache, states, slots):
        bridges.store_single_(cache, states, SlotMapping(slots), backend=self.backend)
        return cache.clone()


def test_a_second_object_of_a_name_gets_a_name_of_its_own():
    first, second = backend_of("twin"), backend_of("twin", store_mode="missing")
    assert (first.name, second.name) == ("twin", "twin#2")
    assert _registry.find("twin") is first
    assert _registry.find("twin#2") is second
    assert backend_of().name.startswith("ixformer#")  # the name of the installed library's


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))]
)
def test_a_plan_can_be_copied_and_pickled(copied, check):
    cache = Guarded(SHAPE, DTYPE)
    plan = bridges.plan(
        GIVEN, cache=cache.tensor, num_tokens=NUM_TOKENS, backend=backend_of(), check=check
    )
    again = copied(plan)
    assert again.route == plan.route == (NATIVE if check else SAFE)
    bridges.store_single_(cache.tensor, STATES, again)
    cache.check(STATES, SPEC)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A program that names the backend "exported-here", and the result that it should have."""
    example = (torch.zeros(3, 1, 2, 4), torch.ones(2, 1, 4), torch.tensor([5, -1]))
    program = torch.export.export(Step(backend_of("exported-here")), example)
    path = tmp_path_factory.mktemp("exported") / "step.pt2"
    torch.export.save(program, path)
    return path


def run_exported(path, prepare: str) -> subprocess.CompletedProcess[str]:
    code = f"""
import torch, bridges
program = torch.export.load({str(path)!r})
{prepare}
out = program.module()(torch.zeros(3, 1, 2, 4), torch.ones(2, 1, 4), torch.tensor([5, -1]))
print(out.flatten().tolist())
"""
    return run(code)


def test_an_exported_program_finds_its_backend_in_another_process(exported):
    made = """
from bridges.ixformer import IxformerBackend, model
IxformerBackend(model.ModelFunctions(), device_check=False, name="exported-here")
"""
    done = run_exported(exported, made)
    assert done.stdout == f"{[0.0] * 20 + [1.0] * 4}\n", done.stderr


def test_an_exported_program_says_which_backend_it_misses(exported):
    done = run_exported(exported, "")
    assert "BackendUnsupported: backend 'exported-here' does not exist" in done.stderr


def test_loading_the_operator_again_is_harmless():
    before = module._store_op
    with loaded_again(module):
        assert module._store_op is before
        assert store(backend_of(), Guarded(SHAPE, DTYPE), STATES, SPEC) == SAFE


class Untouched(ModelFunctions):
    """A library whose kernels must not run."""

    def _with_block_table(self, *args, **mode):
        raise AssertionError("a kernel ran on tensors that have no values")


TENSORS = {
    "fake": lambda: FakeTensorMode(),
    "meta": lambda: torch.device("meta"),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_without_values_go_the_safe_way_without_a_trial(kind):
    backend = IxformerBackend(Untouched(), device_check=False)
    with TENSORS[kind]():
        cache, states = torch.zeros(SHAPE, dtype=DTYPE), torch.ones(3, 2, 16, dtype=DTYPE)
        spec = SlotMapping(torch.zeros(3, dtype=torch.int32))
        plan = bridges.plan(spec, cache=cache, num_tokens=3, backend=backend)
        assert bridges.store_single_(cache, states, plan) is cache
    assert plan.route == SAFE
    assert bridges.store_single_(cache, states, plan) is cache
    real = Guarded(SHAPE, DTYPE)
    assert store(model.backend(), real, STATES, SPEC, check=True) == NATIVE


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_a_traced_store_has_no_trial_in_its_graph(mode, traceable):
    backend = backend_of()
    cache, states, slots = torch.zeros(4, 2, 16, 8), torch.ones(2, 2, 8), torch.tensor([17, -1])
    graph = make_fx(Step(backend), tracing_mode=mode)(cache.clone(), states, slots)
    targets = [node.target for node in graph.graph.nodes if node.op == "call_function"]
    assert targets.count(module._store_op) == 1
    assert len(targets) < 60
    out = graph(cache, states, slots)
    assert torch.equal(out[1, :, 1], states[0])
    assert out.sum() == 16


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
@pytest.mark.parametrize("check", [False, True])
def test_no_trial_depends_on_what_torch_takes_by_default(device, dtype, check):
    cache = Guarded(SHAPE, DTYPE)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device), torch.inference_mode():
            assert store(backend_of(), cache, STATES, SPEC, check=check) == (
                NATIVE if check else SAFE
            )
    finally:
        torch.set_default_dtype(before)


def test_a_probe_does_not_depend_on_it_either():
    plain = bridges.ixformer.probe(ModelFunctions(), "cpu")
    with torch.device("meta"), torch.inference_mode():
        assert bridges.ixformer.probe(ModelFunctions(), "cpu") == plain


def test_a_name_that_no_backend_has_is_refused():
    with pytest.raises(BackendUnsupported, match="backend 'ixformer-model#99' does not exist"):
        _registry.find("ixformer-model#99")
