"""C22 in forward mode, and inside torch.func: no tangent is dropped in silence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.autograd import forward_ad

import bridges
from bridges import numba_cpu, torch_inplace
from bridges.ixformer import model
from bridges.mojo import MojoStorePagedSingleCache
from functional_paged import BlockTable, SlotMapping, SpecError
from tests.helpers import DYNAMO_BACKENDS

# torch's own, when it loads its rules for duals.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")

SHAPE = (4, 2, 3, 5)
BACKENDS = {"numba": "numba", "torch": "torch", "ixformer": model.backend()}
OPERATORS = {"numba": numba_cpu._store_op, "torch": torch_inplace._store_op}


def tensors() -> dict[str, torch.Tensor]:
    return {"cache": torch.full(SHAPE, 7.0), "states": torch.ones(2, 2, 5)}


def spec() -> SlotMapping:
    return SlotMapping(torch.tensor([7, -1]))


def by_spec(cache, states, backend):
    return bridges.store_single_(cache, states, spec(), backend=backend)


def by_plan(cache, states, backend):
    plan = bridges.plan(spec(), cache=torch.zeros(SHAPE), num_tokens=2, backend=backend)
    return bridges.store_single_(cache, states, plan)


def by_drop_in(cache, states, backend):
    table, contexts = torch.tensor([[2], [0]]).int(), torch.tensor([1, -1]).int()
    return MojoStorePagedSingleCache(backend=backend)(states, cache, table, None, contexts)


def compiled(cache, states, backend):
    plan = bridges.plan(spec(), cache=torch.zeros(SHAPE), num_tokens=2, backend=backend)
    run = torch.compile(bridges.store_single_, fullgraph=True, backend="aot_eager")
    return run(cache, states, plan)


ENTRIES = {entry.__name__: entry for entry in (by_spec, by_plan, by_drop_in, compiled)}


def text(name: str) -> str:
    return (
        f"C22: {name} must not carry a tangent, since a store in place has no derivative; call it "
        f"with {name}.detach(), or differentiate functional_paged.store_single"
    )


@pytest.mark.usefixtures("traceable")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("name", ["cache", "states"])
def test_c22_a_dual_tensor_is_refused_by_every_entry(name, entry, backend):
    store = ENTRIES[entry]
    given = tensors()
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(given[name], torch.ones_like(given[name]))
        with torch.no_grad(), pytest.raises(SpecError) as error:  # no_grad is for reverse mode
            store(**{**given, name: dual}, backend=BACKENDS[backend])
        assert str(error.value) == text(name)
        assert error.value.clause == "C22"
        assert given["cache"].unique().tolist() == [7]

        store(**{**given, name: dual.detach()}, backend=BACKENDS[backend])
        assert given["cache"].unique().tolist() == [1, 7]


@pytest.mark.parametrize("compiler", DYNAMO_BACKENDS)
@pytest.mark.parametrize("name", ["cache", "states"])
@pytest.mark.usefixtures("cpu_backend", "traceable")
def test_c22_what_was_compiled_before_there_was_a_tangent_refuses_it(name, compiler):
    run = torch.compile(bridges.store_single_, fullgraph=True, backend=compiler)
    plan = bridges.plan(spec(), cache=torch.zeros(SHAPE), num_tokens=2)
    run(**tensors(), index_spec_or_plan=plan)
    given = tensors()
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(given[name], torch.ones_like(given[name]))
        with pytest.raises((SpecError, RuntimeError)):
            run(**{**given, name: dual}, index_spec_or_plan=plan)
    assert given["cache"].unique().tolist() == [7]


@pytest.mark.parametrize("name", ["cache", "states"])
def test_c22_the_operator_refuses_for_every_graph_that_holds_it(name, cpu_backend):
    given = tensors()
    plan = bridges.plan(spec(), cache=torch.zeros(SHAPE), num_tokens=2)
    with forward_ad.dual_level():
        given[name] = forward_ad.make_dual(given[name], torch.ones_like(given[name]))
        with pytest.raises(SpecError, match=r"^C22: "):
            OPERATORS[cpu_backend](*([x] for x in given.values()), *vars(plan.lowered).values())


def followed(transform: Callable[..., Any], name: str, cache: torch.Tensor) -> None:
    """Store inside a transformation that follows one of the tensors."""
    given = {**tensors(), "cache": cache}

    def loss(followed: torch.Tensor) -> torch.Tensor:
        by_spec(**{**given, name: followed * 1.0}, backend="torch")
        return followed.sum()

    transform(loss, given[name])


def jvp(function: Any, x: torch.Tensor) -> Any:
    return torch.func.jvp(function, (x,), (torch.ones_like(x),))


def inside(outer: Callable[..., Any], inner: Callable[..., Any]) -> Callable[..., Any]:
    """An outer transformation that follows the tensor, an inner one that follows another."""

    def nested(loss: Any, x: torch.Tensor) -> Any:
        def one(x: torch.Tensor) -> Any:
            inner(lambda y: loss(x) + y.sum(), torch.ones(2))
            return x.sum()

        return outer(one, x)

    return nested


def grad(function: Any, x: torch.Tensor) -> Any:
    return torch.func.grad(function)(x)


DERIVATIVES = {
    "jvp": jvp,
    "jacfwd": lambda function, x: torch.func.jacfwd(function)(x),
    "grad": grad,
    "vjp": torch.func.vjp,
    "hessian": lambda function, x: torch.func.hessian(function)(x),
    "jvp around jvp": inside(jvp, jvp),
    "jvp around grad": inside(jvp, grad),
    "grad around jvp": inside(grad, jvp),
    "grad around grad": inside(grad, grad),
}


@pytest.mark.parametrize("transform", DERIVATIVES)
@pytest.mark.parametrize("name", ["cache", "states"])
def test_c22_each_derivative_of_torch_func_is_refused(name, transform):
    cache = tensors()["cache"]
    with pytest.raises(SpecError, match=f"^C22: {name} must not "):
        followed(DERIVATIVES[transform], name, cache)
    assert cache.unique().tolist() == [7]


def test_c22_a_derivative_of_torch_func_has_words_of_its_own():
    with pytest.raises(SpecError) as error:
        followed(jvp, "states", tensors()["cache"])
    assert str(error.value) == (
        "C22: states must not be a tensor that a derivative of torch.func follows, since a store "
        "in place has no derivative; store outside of it, or differentiate "
        "functional_paged.store_single"
    )


@pytest.mark.parametrize("transform", DERIVATIVES)
def test_a_derivative_of_something_else_is_no_reason(transform):
    # An engine's cache is a constant of the function that is differentiated.
    given = tensors()

    def loss(x: torch.Tensor) -> torch.Tensor:
        by_spec(**given, backend="torch")
        return (x * given["cache"].sum()).sum()

    DERIVATIVES[transform](loss, torch.ones(3))
    assert given["cache"].unique().tolist() == [1, 7]


def test_integers_and_tensors_of_inference_mode_carry_no_tangent():
    with torch.inference_mode():
        given = tensors()
    whole = {name: tensor.to(torch.int8) for name, tensor in tensors().items()}
    with forward_ad.dual_level():
        for made in (given, whole):
            by_spec(**made, backend="torch")
            assert made["cache"].unique().tolist() == [1, 7]


@pytest.mark.parametrize("name", ["cache", "states", "slots"])
def test_c20_a_tensor_of_vmap_is_refused(name):
    given: dict[str, torch.Tensor] = {**tensors(), "slots": torch.tensor([7, -1])}

    def store(cache, states, slots):
        bridges.store_single_(cache, states, SlotMapping(slots), backend="torch")
        return states.sum()

    def of_one(one: torch.Tensor) -> torch.Tensor:
        return store(**{**given, name: one})

    with pytest.raises(SpecError) as error:
        torch.vmap(of_one)(torch.stack([given[name]] * 2))
    assert str(error.value) == (
        f"C20: {name} must be strided, got a tensor inside torch.func.vmap or functionalize; "
        "store outside of it"
    )
    assert given["cache"].unique().tolist() == [7]


def test_c20_a_tensor_of_functionalize_is_refused():
    given = tensors()
    with pytest.raises(SpecError, match=r"^C20: cache must be strided, got a tensor inside "):
        torch.func.functionalize(lambda cache: by_spec(cache, given["states"], "torch"))(
            given["cache"]
        )
    assert given["cache"].unique().tolist() == [7]


def test_vmap_of_something_else_is_no_reason():
    given = tensors()

    def one(x: torch.Tensor) -> torch.Tensor:
        by_spec(**given, backend="torch")
        return x * 2

    torch.vmap(one)(torch.ones(3))
    assert given["cache"].unique().tolist() == [1, 7]


def test_a_block_table_of_vmap_can_still_be_lowered():
    # Only a store needs memory of its own.
    from functional_paged import to_slots

    def lower(contexts: torch.Tensor) -> torch.Tensor:
        table = BlockTable(torch.tensor([[2], [0]]).int(), contexts)
        return to_slots(table, cache_shape=SHAPE, num_tokens=2).slots

    slots = torch.vmap(lower)(torch.tensor([[1, -1], [0, 2]]).int())
    assert slots.tolist() == [[7, -1], [6, 2]]


def test_c22_a_dual_tensor_inside_a_derivative_of_something_else():
    given = tensors()
    with forward_ad.dual_level():
        given["states"] = forward_ad.make_dual(given["states"], torch.ones(2, 2, 5))

        def loss(x: torch.Tensor) -> torch.Tensor:
            by_spec(**given, backend="torch")
            return x.sum()

        with pytest.raises(SpecError, match=r"^C22: states must not "):
            torch.func.grad(loss)(torch.ones(3))
    assert given["cache"].unique().tolist() == [7]


@pytest.mark.usefixtures("traceable")
@pytest.mark.parametrize("name", ["cache", "states"])
def test_c22_a_derivative_inside_compiled_code(name):
    cache = tensors()["cache"]

    @torch.compile(backend="aot_eager")
    def run(x: torch.Tensor) -> None:
        followed(jvp, name, x)

    with pytest.raises((SpecError, RuntimeError)):
        run(cache)
    assert cache.unique().tolist() == [7]
