"""Nothing is written before nothing can be refused any more: one table of all refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

import bridges
from bridges.ixformer import model
from bridges.mojo import MojoStorePagedSingleCache
from functional_paged import SlotMapping, SpecError

# Warnings of torch itself.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor"),
    pytest.mark.filterwarnings("ignore:Sparse"),
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
]

SHAPE = (4, 2, 3, 5)
BACKENDS = {"torch": "torch", "ixformer": model.backend()}
POISON = 77.0

Change = Callable[[torch.Tensor], Any]


def quantised(x: torch.Tensor) -> torch.Tensor:
    return torch.quantize_per_tensor(x, 1.0, 0, torch.qint8)


def nested(x: torch.Tensor) -> torch.Tensor:
    return torch.nested.nested_tensor(list(x))


REFUSED: dict[str, tuple[str, str, Change]] = {
    # name: the clause, the argument, what becomes of it
    "heads": ("C1", "states", lambda x: x[:, :1]),
    "head_dim": ("C1", "states", lambda x: x[..., 1:]),
    "rank": ("C1", "states", lambda x: x[0]),
    "no array": ("C1", "states", lambda x: x.tolist()),
    "dtype": ("C2", "states", lambda x: x.half()),
    "quantised": ("C2", "states", quantised),
    "numpy": ("C3", "states", lambda x: x.numpy()),
    "device": ("C3", "states", lambda x: x.to("meta")),
    "sparse": ("C20", "states", torch.Tensor.to_sparse),
    "mkldnn": ("C20", "states", torch.Tensor.to_mkldnn),
    "nested": ("C20", "states", nested),
    "requires grad": ("C22", "states", lambda x: x.clone().requires_grad_()),
    "tangent": ("C22", "states", lambda x: forward_ad.make_dual(x, torch.ones_like(x))),
    "cache rank": ("C1", "cache", lambda x: x[0]),
    "cache overlaps": ("C20", "cache", lambda x: x.as_strided(SHAPE, (1, 15, 5, 1))),
    "cache requires grad": ("C22", "cache", lambda x: x.requires_grad_()),
    "cache tangent": ("C22", "cache", lambda x: forward_ad.make_dual(x, torch.ones_like(x))),
    "cache quantised": ("C2", "cache", quantised),
    "slots of floats": ("C4", "slots", lambda x: x.float()),
    "slots of rank 2": ("C1", "slots", lambda x: x[None]),
    "slots elsewhere": ("C3", "slots", lambda x: x.to("meta")),
    "slots of numpy": ("C3", "slots", lambda x: x.numpy()),
}


def stores(backend: Any, slots: Any) -> dict[str, Callable[[Any, Any], Any]]:
    """The public entries, given what all of them share."""

    def by_plan(cache: Any, states: Any) -> Any:
        plan = bridges.plan(
            SlotMapping(slots), cache=torch.zeros(SHAPE), num_tokens=2, backend=backend
        )
        return bridges.store_single_(cache, states, plan)

    return {
        "spec": lambda cache, states: bridges.store_single_(
            cache, states, SlotMapping(slots), backend=backend
        ),
        "plan": by_plan,
    }


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("entry", ["spec", "plan"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_has_written_nothing(name, entry, backend):
    clause, argument, change = REFUSED[name]
    memory = torch.full(SHAPE, POISON)
    with forward_ad.dual_level():
        given = {
            "cache": memory.view(SHAPE),
            "states": torch.ones(2, 2, 5),
            "slots": torch.tensor([7, -1]),
        }
        given[argument] = change(given[argument])
        store: Any = stores(BACKENDS[backend], given.pop("slots"))[entry]
        with pytest.raises(SpecError) as error:
            store(**given)
    assert error.value.clause == clause
    assert argument in str(error.value)
    assert torch.equal(memory.detach(), torch.full(SHAPE, POISON))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("entry", ["spec", "plan"])
def test_the_twin_of_them_all_is_stored(entry, backend):
    cache = torch.full(SHAPE, POISON)
    stores(BACKENDS[backend], torch.tensor([7, -1]))[entry](cache, torch.ones(2, 2, 5))
    want = np.full(SHAPE, POISON, np.float32)
    want[2, :, 1] = 1
    np.testing.assert_array_equal(cache.numpy(), want)


@pytest.mark.parametrize("dtype", [torch.complex128])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_dtype_that_a_backend_does_not_move_is_refused_before_any_tensor(backend, dtype):
    # Of two caches of one plan, the one that could be written is not.
    spec = SlotMapping(torch.tensor([7, -1]))
    fine = torch.full(SHAPE, POISON)
    plan = bridges.plan(spec, cache=fine, num_tokens=2, backend=BACKENDS[backend])
    wide = torch.zeros(SHAPE, dtype=dtype)
    states = torch.ones(2, 2, 5)
    if backend == "torch":
        with pytest.raises(bridges.BackendUnsupported, match="elements of 1, 2, 4 or 8 bytes"):
            plan.lowered.write_((fine, wide), (states, states.to(dtype)))
    with pytest.raises(bridges.BackendUnsupported):
        bridges.store_single_(wide, states.to(dtype), plan)
    assert fine.unique().tolist() == [POISON]
    assert not wide.any()


def test_c1_the_drop_in_refuses_before_it_writes():
    cache = torch.full(SHAPE, POISON)
    for states in (torch.ones(2, 1, 5), torch.ones(2, 2, 5).half()):
        with pytest.raises(SpecError):
            MojoStorePagedSingleCache("torch")(
                states, cache, torch.tensor([[2], [0]]).int(), None, torch.tensor([1, -1]).int()
            )
    assert cache.unique().tolist() == [POISON]
