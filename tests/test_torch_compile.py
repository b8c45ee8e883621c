"""Under torch.compile: one graph, the same bits, and a schema that keeps the write."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch

import bridges
from bridges import numba_cpu, torch_inplace
from bridges._compiler import constant_in_graphs
from bridges.conformance_adapters import tensor_over as tensor
from functional_paged import (
    IndexSpec,
    SlotMapping,
    SpecError,
    plan_chunks,
    reference,
    to_slots,
)
from functional_paged.conformance import GuardedCache
from functional_paged.conformance.bits import DTYPES, as_bits, pattern
from functional_paged.conformance.cases.steps import table
from tests.helpers import DYNAMO_BACKENDS, needs_compiler, specs_by_form

SHAPE = (7, 3, 5, 4)
STEP = table([[3, 1, 1], [6, 0, 2], [4, -1, 5]], [-1, 4, 3], [2, 7, 8])
FORMS = specs_by_form(STEP, SHAPE)
FORMS["decode"] = table([[-1], [6], [2], [4]], [0, 4, -1, 3]).index_spec

OPERATORS = {"numba": numba_cpu._store_op, "torch": torch_inplace._store_op}

pytestmark = pytest.mark.usefixtures("traceable")


def compiled(function: Any, backend: str) -> Any:
    return torch.compile(function, fullgraph=True, backend=backend)


def store(cache: torch.Tensor, states: torch.Tensor, given: Any) -> None:
    bridges.store_single_(cache, states, given)


def rows(num_tokens: int = STEP.num_tokens, dtype: str = "bf16") -> np.ndarray:
    return pattern(num_tokens * 12, DTYPES[dtype], salt=2, payloads=True).reshape(num_tokens, 3, 4)


def check_store(
    run: Any,
    spec: IndexSpec,
    layout: str = "contiguous",
    dtype: str = "bf16",
    planned: bool = False,
) -> None:
    guarded, states = GuardedCache.laid_out(SHAPE, DTYPES[dtype], layout), rows(dtype=dtype)
    expected = guarded.buffer.copy()
    view = guarded.view_in(expected)
    view[...] = reference.store_single(view, states, spec)
    cache, given = tensor(guarded.cache), spec.map(torch.from_numpy)
    if planned:
        given = bridges.plan(given, cache=cache, num_tokens=len(states))

    run(cache, tensor(states), given)

    np.testing.assert_array_equal(as_bits(guarded.buffer), as_bits(expected))


@pytest.mark.usefixtures("cpu_backend")
@pytest.mark.parametrize("backend", DYNAMO_BACKENDS)
@pytest.mark.parametrize("form", FORMS)
def test_compiled_store_of_a_spec(form, backend):
    check_store(compiled(store, backend), FORMS[form])


@pytest.mark.usefixtures("cpu_backend")
@pytest.mark.parametrize("backend", DYNAMO_BACKENDS)
@pytest.mark.parametrize("form", FORMS)
def test_compiled_store_of_a_plan(form, backend):
    check_store(compiled(store, backend), FORMS[form], planned=True)


@pytest.mark.usefixtures("cpu_backend")
@pytest.mark.parametrize("planned", [False, True], ids=["spec", "plan"])
@pytest.mark.parametrize("layout", ["packed_kv", "kv_pair", "token_major"])
def test_c20_compiled_store_of_strided_caches(layout, planned):
    check_store(compiled(store, "aot_eager"), FORMS["slots"], layout, planned=planned)


@needs_compiler
def test_c20_inductor_store_of_a_strided_cache():
    check_store(compiled(store, "inductor"), FORMS["slots"], "packed_kv", planned=True)


@pytest.mark.usefixtures("cpu_backend")
@pytest.mark.parametrize("backend", DYNAMO_BACKENDS)
def test_c16_compiled_store_keeps_nan_payloads_of_each_width(backend):
    run = compiled(store, backend)
    for dtype in ("f8e5m2", "f32"):
        check_store(run, FORMS["slots"], dtype=dtype, planned=True)


@pytest.mark.usefixtures("cpu_backend")
def test_one_compiled_store_serves_growing_shapes():
    # The second size makes torch trace again, now with sizes as symbols.
    run = compiled(store, "aot_eager")
    for num_blocks in (4, 5, 6):
        for num_tokens in (3, 6, 7):
            cache = pattern(num_blocks * 2 * 3 * 8, DTYPES["f32"], salt=1, payloads=True)
            halves = cache.reshape(num_blocks, 2, 3, 8)
            states = pattern(num_tokens * 8, DTYPES["f32"], salt=2, payloads=True).reshape(
                num_tokens, 2, 4
            )
            spec = SlotMapping(np.arange(num_tokens, dtype=np.int32) + 4)
            expected = halves.copy()
            expected[..., :4] = reference.store_single(halves[..., :4], states, spec)
            run(tensor(halves)[..., :4], tensor(states), spec.map(torch.from_numpy))
            np.testing.assert_array_equal(as_bits(halves), as_bits(expected))


@pytest.mark.usefixtures("cpu_backend")
@pytest.mark.parametrize("backend", DYNAMO_BACKENDS)
def test_compiled_step_of_two_layers_reads_what_it_wrote(backend):
    # K and V of two layers with one plan, read back in the same graph.
    def step(caches: list[torch.Tensor], states: torch.Tensor, spec: Any) -> torch.Tensor:
        plan = bridges.plan(spec, cache=caches[0], num_tokens=states.shape[0])
        total = torch.zeros(())
        for number, cache in enumerate(caches):
            bridges.store_single_(cache, states + number, plan)
            total = total + cache.sum()
        return total

    spec = SlotMapping(np.int32([9, -1, 0])).map(torch.from_numpy)
    given = [torch.zeros(SHAPE) for _ in range(4)]
    result = compiled(step, backend)(given, torch.ones(3, 3, 4), spec)
    assert result == sum(2 * 12 * (1 + number) for number in range(4))
    assert [int(cache.sum()) for cache in given] == [24, 48, 72, 96]


REFUSED = {
    "C2": (
        torch.zeros(SHAPE),
        torch.ones(17, 3, 4, dtype=torch.float16),
        "C2: states.dtype must equal cache.dtype = float32, got float16; a store never casts",
    ),
    "C20": (
        torch.zeros(1, 3, 5, 4).expand(SHAPE),
        torch.ones(17, 3, 4),
        f"C20: cache must not overlap itself, got shape {SHAPE} with strides (0, 20, 4, 1)",
    ),
}


@pytest.mark.parametrize("clause", REFUSED)
def test_c2_c20_compiled_store_refuses_what_eager_refuses(clause):
    cache, states, message = REFUSED[clause]
    given = FORMS["slots"].map(torch.from_numpy)
    with pytest.raises(SpecError) as error:
        torch.compile(store, backend="aot_eager")(cache, states, given)
    assert str(error.value) == message
    # One graph has no room for a Python error, so there torch refuses in its own words.
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported):
        compiled(store, "aot_eager")(cache, states, given)
    assert not cache.any()


LOWERINGS = [to_slots, plan_chunks]


def check_lowering(lower: Any, form: str, backend: str) -> None:
    run = functools.partial(lower, cache_shape=SHAPE, num_tokens=STEP.num_tokens)
    (want,) = run(FORMS[form]).arrays().values()
    (got,) = compiled(run, backend)(FORMS[form].map(torch.from_numpy)).arrays().values()
    assert got.dtype == torch.int32
    np.testing.assert_array_equal(got.numpy(), want)


@pytest.mark.parametrize("lower", LOWERINGS)
@pytest.mark.parametrize("form", FORMS)
def test_compiled_lowering(form, lower):
    check_lowering(lower, form, "aot_eager")


@needs_compiler
@pytest.mark.parametrize("lower", LOWERINGS)
def test_inductor_lowering(lower):
    check_lowering(lower, "block_table", "inductor")


def operands(cache: torch.Tensor, backend: str = "torch") -> tuple[Any, ...]:
    num_tokens, heads, dim = 3, cache.shape[1], cache.shape[3]
    states = tensor(pattern(num_tokens * heads * dim, DTYPES["bf16"], salt=2, payloads=True))
    spec = SlotMapping(np.int32([9, -1, 0])).map(torch.from_numpy)
    plan = bridges.plan(spec, cache=cache, num_tokens=num_tokens, backend=backend)
    return [cache], [states.view(num_tokens, heads, dim)], *vars(plan.lowered).values()


@pytest.mark.parametrize("layout", ["contiguous", "packed_kv", "kv_pair", "token_major"])
def test_opcheck_of_the_registered_operator(layout, cpu_backend):
    guarded = GuardedCache.laid_out(SHAPE, DTYPES["bf16"], layout)
    torch.library.opcheck(OPERATORS[cpu_backend], operands(tensor(guarded.cache), cpu_backend))


def test_opcheck_where_nothing_is_stored_and_with_strided_states():
    cache, states, *to, _ = operands(torch.ones(SHAPE, dtype=torch.bfloat16))
    torch.library.opcheck(torch_inplace._store_op, (cache, states, *to, torch.tensor(False)))
    head_major = states[0].transpose(0, 1).contiguous().transpose(0, 1)
    assert not head_major.is_contiguous()
    torch.library.opcheck(torch_inplace._store_op, (cache, [head_major], *to, torch.tensor(True)))


@pytest.mark.parametrize("name", OPERATORS)
def test_c17_the_schema_says_that_only_the_cache_changes(name):
    schema = OPERATORS[name]._schema
    assert schema.returns == []
    written = [a.name for a in schema.arguments if a.alias_info and a.alias_info.is_write]
    assert written == ["cache"]


@pytest.fixture
def planted():
    """The same kernel behind schemas that are not honest."""
    library = torch.library.Library("functional_paged_planted", "DEF")
    operand = "Tensor[] states, Tensor rows, Tensor blocks, Tensor offsets, Tensor any_stored"
    library.define(f"silent(Tensor[] cache, {operand}) -> ()")
    library.define(f"returning(Tensor[] cache, {operand}) -> Tensor")

    def returning(cache: list[torch.Tensor], *rest: Any) -> torch.Tensor:
        torch_inplace._write_rows(cache, *rest)
        return cache[0]

    kind = "CompositeExplicitAutograd"
    library.impl("silent", torch_inplace._write_rows, kind)
    library.impl("returning", returning, kind)
    name = "functional_paged_planted::"
    torch.library.register_fake(f"{name}silent", lambda *_: None, lib=library)
    torch.library.register_fake(
        f"{name}returning", lambda cache, *_: torch.empty_like(cache[0]), lib=library
    )
    yield torch.ops.functional_paged_planted
    library._destroy()


@pytest.mark.parametrize("name", ["silent", "returning"])
def test_opcheck_finds_a_schema_that_is_not_honest(planted, name):
    given = operands(torch.ones(SHAPE, dtype=torch.bfloat16))
    with pytest.raises(torch.testing._internal.optests.OpCheckError):
        torch.library.opcheck(getattr(planted, name).default, given)


@pytest.mark.parametrize("name", ["silent", "returning"])
def test_a_schema_that_is_not_honest_loses_the_write(planted, monkeypatch, name):
    # So the tests above would fail with one, whatever opcheck thinks of it.
    monkeypatch.setenv("FUNCTIONAL_PAGED_BACKEND", "torch")
    monkeypatch.setattr(torch_inplace, "_store_op", getattr(planted, name).default)
    check_store(store, FORMS["slots"], planned=True)  # eager: no difference
    with pytest.raises(AssertionError, match="Mismatched elements"):
        check_store(compiled(store, "aot_eager"), FORMS["slots"], planned=True)


def test_a_function_is_marked_as_torch_marks_it() -> None:
    def ours() -> None: ...

    def theirs() -> None: ...

    assert constant_in_graphs(ours) is ours
    assert vars(ours) == vars(torch.compiler.assume_constant_result(theirs)) != {}
