"""A plan: made once a step, right for every layer and tensor of it, and for nothing else."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import bridges
from bridges import _registry as registry
from bridges.conformance_adapters import tensor_over as tensor
from bridges.torch_inplace import TorchBackend
from functional_paged import PAD, BlockTable, ChunkPlan, SlotMapping, SpecError, reference
from functional_paged.conformance.bits import DTYPES, as_bits, pattern
from functional_paged.conformance.cases.steps import mapping, plan_of, table, with_cu_q_lens
from tests.helpers import specs_by_form

pytestmark = pytest.mark.usefixtures("cpu_backend")

SHAPE = (7, 3, 5, 4)
STEP = table([[3, 1, 1], [6, 0, 2], [4, PAD, 5]], [-1, 4, 3], [2, 7, 8])
FORMS = specs_by_form(STEP, SHAPE)
FORMS["decode"] = table([[PAD], [6], [2], [4]], [0, 4, -1, 3]).index_spec


def filled(*shape: int, dtype: str = "bf16", salt: int = 1) -> np.ndarray:
    return pattern(int(np.prod(shape)), DTYPES[dtype], salt, payloads=True).reshape(shape)


def plan(spec, num_tokens: int = STEP.num_tokens, **options) -> bridges.StorePlan:
    cache = torch.zeros(SHAPE)
    return bridges.plan(spec.map(torch.from_numpy), cache=cache, num_tokens=num_tokens, **options)


@pytest.mark.parametrize("form", FORMS)
def test_one_plan_serves_keys_values_scales_and_latents(form):
    step = plan(FORMS[form])
    for heads, dim, dtype in [(3, 4, "bf16"), (3, 4, "bf16"), (2, 9, "f32"), (5, 1, "i8")]:
        cache = filled(7, heads, 5, dim, dtype=dtype)
        states = filled(STEP.num_tokens, heads, dim, dtype=dtype, salt=2)
        expected = reference.store_single(cache, states, FORMS[form])
        bridges.store_single_(tensor(cache), tensor(states), step)
        np.testing.assert_array_equal(as_bits(cache), as_bits(expected))


@pytest.mark.parametrize("form", FORMS)
def test_planning_writes_nothing(form):
    cache = filled(*SHAPE)
    before = as_bits(cache).copy()
    bridges.plan(FORMS[form].map(torch.from_numpy), cache=tensor(cache), num_tokens=STEP.num_tokens)
    np.testing.assert_array_equal(as_bits(cache), before)


@pytest.mark.parametrize("form", FORMS)
def test_a_plan_stays_when_the_spec_changes(form):
    # A serving engine writes the next step's table into the same memory.
    spec = copy.deepcopy(FORMS[form]).map(torch.from_numpy)
    cache, states = filled(*SHAPE), filled(STEP.num_tokens, 3, 4, salt=2)
    expected = reference.store_single(cache, states, FORMS[form])
    step = bridges.plan(spec, cache=tensor(cache), num_tokens=STEP.num_tokens)
    for array in spec.arrays().values():
        array.fill_(1)
    bridges.store_single_(tensor(cache), tensor(states), step)
    np.testing.assert_array_equal(as_bits(cache), as_bits(expected))


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("num_slots", [2, 3, 4])
def test_a_plan_stays_when_the_slots_change(dtype, num_slots):
    # Slots need no arithmetic, so here a view is the likeliest.
    spec = mapping(*range(5, 5 + num_slots), dtype=dtype).index_spec
    given = SlotMapping(spec.slots.copy()).map(torch.from_numpy)
    cache, states = filled(*SHAPE), filled(3, 3, 4, salt=2)
    expected = reference.store_single(cache, states, spec)
    step = bridges.plan(given, cache=tensor(cache), num_tokens=3)
    given.slots.fill_(0)
    bridges.store_single_(tensor(cache), tensor(states), step)
    np.testing.assert_array_equal(as_bits(cache), as_bits(expected))


def test_a_plan_is_the_same_after_use():
    step = plan(FORMS["block_table"])
    for _ in range(2):
        cache, states = filled(*SHAPE), filled(STEP.num_tokens, 3, 4, salt=2)
        expected = reference.store_single(cache, states, FORMS["block_table"])
        bridges.store_single_(tensor(cache), tensor(states), step)
        np.testing.assert_array_equal(as_bits(cache), as_bits(expected))


def f32(*shape: int, device: str = "cpu") -> torch.Tensor:
    return torch.zeros(shape, device=device)


MADE_FOR = "which the plan was made for"
MISFITS = {
    "num_blocks": (
        (f32(8, 3, 5, 4), f32(17, 3, 4)),
        f"C1: num_blocks = 8 of cache must equal 7, {MADE_FOR}",
    ),
    "block_size": (
        (f32(7, 3, 6, 4), f32(17, 3, 4)),
        f"C1: block_size = 6 of cache must equal 5, {MADE_FOR}",
    ),
    "both sizes swapped": (
        (f32(5, 3, 7, 4), f32(17, 3, 4)),
        f"C1: num_blocks = 5 of cache must equal 7, {MADE_FOR}",
    ),
    "short states": (
        (f32(7, 3, 5, 4), f32(16, 3, 4)),
        f"C11: states.shape[0] = 16 must be >= num_tokens = 17, {MADE_FOR}",
    ),
    "cache elsewhere": (
        (f32(7, 3, 5, 4, device="meta"), f32(17, 3, 4)),
        f"C3: cache must be on cpu, {MADE_FOR}, got meta",
    ),
    "states elsewhere": (
        (f32(7, 3, 5, 4), f32(17, 3, 4, device="meta")),
        f"C3: states must be on cpu, {MADE_FOR}, got meta",
    ),
    "heads": (
        (f32(7, 3, 5, 4), f32(17, 2, 4)),
        "C1: states.shape[1] = 2 must equal kv_heads = 3 of cache",
    ),
    "head_dim": (
        (f32(7, 3, 5, 4), f32(17, 3, 5)),
        "C1: states.shape[2] = 5 must equal head_dim = 4 of cache",
    ),
    "dtype": (
        (f32(7, 3, 5, 4), f32(17, 3, 4).half()),
        "C2: states.dtype must equal cache.dtype = float32, got float16; a store never casts",
    ),
    "cache of three axes": (
        (f32(7, 3, 5), f32(17, 3, 4)),
        "C1: cache must have 4 axes (num_blocks, kv_heads, block_size, head_dim), got 3: (7, 3, 5)",
    ),
    "states of two axes": (
        (f32(7, 3, 5, 4), f32(17, 12)),
        "C1: states must have 3 axes (num_tokens, kv_heads, head_dim), got (17, 12)",
    ),
    "numpy": (
        (np.zeros(SHAPE, np.float32), np.zeros((17, 3, 4), np.float32)),
        "C3: cache must be a torch tensor for bridges.store_single_, got numpy.ndarray",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_c1_c2_c3_c11_a_call_that_a_plan_does_not_fit(name):
    (cache, states), message = MISFITS[name]
    step = plan(FORMS["block_table"])
    with pytest.raises(SpecError) as error:
        bridges.store_single_(cache, states, step)
    assert str(error.value) == message
    if getattr(cache, "device", None) == torch.device("cpu"):
        assert not cache.any()


def test_a_call_that_a_plan_fits_is_one_change_away():
    cache = f32(*SHAPE)
    bridges.store_single_(cache, f32(17, 3, 4) + 1, plan(FORMS["block_table"]))
    assert cache.any()


def test_c3_a_spec_of_numpy_arrays_is_refused():
    spec = mapping(1, 2).index_spec
    message = "C3: slots must be a torch tensor for bridges.store_single_, got numpy.ndarray"
    with pytest.raises(SpecError, match=f"^{message}$"):
        bridges.plan(spec, cache=f32(*SHAPE), num_tokens=2)
    bridges.plan(spec.map(torch.from_numpy), cache=f32(*SHAPE), num_tokens=2)


def test_c3_a_spec_on_another_device_is_refused():
    slots = torch.tensor([1, 2])
    message = "C3: slots must be on the device of cache = cpu, got meta"
    with pytest.raises(SpecError, match=f"^{message}$"):
        bridges.plan(SlotMapping(slots.to("meta")), cache=f32(*SHAPE), num_tokens=2)
    bridges.plan(SlotMapping(slots), cache=f32(*SHAPE), num_tokens=2)


class OtherBackend(TorchBackend):
    """Another object of the same name, as a backend with other kernels would be."""

    def __repr__(self) -> str:
        return "<other>"


def test_a_backend_that_contradicts_the_plan_is_an_error(cpu_backend):
    step = plan(FORMS["block_table"])
    cache, states = f32(*SHAPE), f32(17, 3, 4) + 1
    with pytest.raises(ValueError, match=f"^backend must be the plan's = {cpu_backend!r}, got"):
        bridges.store_single_(cache, states, step, backend=OtherBackend())
    assert not cache.any()

    for agreeing in (None, cpu_backend, registry.find(cpu_backend)):
        cache = f32(*SHAPE)
        bridges.store_single_(cache, states, step, backend=agreeing)
        assert cache.any()


INVALID = {
    # name: invalid step, the error, the valid twin
    "C11": (
        table([[1, 2]], [3], [4], num_tokens=3),
        "C11: cu_q_lens[1] = 4 must be <= num_tokens = 3",
        table([[1, 2]], [3], [3], num_tokens=3),
    ),
    "C12 block": (
        table([[1, 7]], [3], [4]),
        "C12: block_table[0, 1] = 7 must be < num_blocks = 7",
        table([[1, 6]], [3], [4]),
    ),
    "C12 slot": (
        mapping(0, 35),
        "C12: slots[1] = 35 must be < num_blocks * block_size = 35",
        mapping(0, 34),
    ),
    "C13": (
        plan_of((0, 1, 3, 3), num_tokens=3),
        "C13: chunks[0, 2] + chunk_len = 6 must be <= block_size = 5",
        plan_of((0, 1, 2, 3), num_tokens=3),
    ),
    "C15": (
        mapping(7, 3, 7),
        "C15: tokens 0 and 2 must not share slot 7 (block 1, offset 2)",
        mapping(7, 3, 8),
    ),
    "C21": (
        with_cu_q_lens(table([[1], [2]], [0, 0]), [0, 3, 2]),
        "C21: cu_q_lens[2] = 2 must be >= cu_q_lens[1] = 3",
        with_cu_q_lens(table([[1], [2]], [0, 0]), [0, 3, 3]),
    ),
}


@pytest.mark.parametrize("name", INVALID)
def test_c11_c12_c13_c15_c21_check_raises_what_no_check_skips(name):
    invalid, message, valid = INVALID[name]
    cache = filled(*SHAPE)
    before = as_bits(cache).copy()

    def planned(step, check):
        spec = step.index_spec.map(torch.from_numpy)
        return bridges.plan(spec, cache=tensor(cache), num_tokens=step.num_tokens, check=check)

    with pytest.raises(SpecError) as error:
        planned(invalid, check=True)
    assert str(error.value) == message
    assert error.value.clause == name.split()[0]
    np.testing.assert_array_equal(as_bits(cache), before)
    planned(invalid, check=False)

    states = filled(valid.num_tokens, 3, 4, salt=2)
    expected = reference.store_single(cache, states, valid.index_spec)
    bridges.store_single_(tensor(cache), tensor(states), planned(valid, check=True))
    np.testing.assert_array_equal(as_bits(cache), as_bits(expected))


def test_fields_of_a_plan(cpu_backend):
    step = plan(FORMS["block_table"])
    assert step.backend == cpu_backend
    assert step.route == {"numba": "rows", "torch": "index_put"}[cpu_backend]
    assert (step.num_blocks, step.block_size, step.num_tokens) == (7, 5, 17)
    assert step.device == torch.device("cpu")
    with pytest.raises(AttributeError):
        step.num_tokens = 3


def test_a_plan_of_no_form_is_an_error():
    message = "C1: index_spec must be a BlockTable, ChunkPlan or SlotMapping, got dict"
    with pytest.raises(SpecError, match=f"^{message}$"):
        bridges.plan({"slots": torch.tensor([1])}, cache=f32(*SHAPE), num_tokens=1)
    for form in (BlockTable, ChunkPlan, SlotMapping):
        assert isinstance(FORMS[form.form], form)
