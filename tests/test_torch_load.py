"""Loads and transfers in torch: the reference's rows, into nothing but what is asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses import FakeTensorMode

import bridges
from bridges import _load
from bridges.conformance_adapters import tensor_over as tensor
from functional_paged import PAD, BlockTable, ChunkPlan, SlotMapping, SpecError, reference
from functional_paged.conformance import LAYOUTS, GuardedCache
from functional_paged.conformance.bits import DTYPES, as_bits
from functional_paged.conformance.strategies import problems
from tests.helpers import DYNAMO_BACKENDS, FORMS, SHAPE, STEP, filled, inputs

SPECS = {form: spec.map(torch.from_numpy) for form, spec in FORMS.items()}
ROW = (SHAPE[1], SHAPE[3])

pytestmark = pytest.mark.usefixtures("traceable")


def same(got: torch.Tensor, want: np.ndarray) -> None:
    size = got.dtype.itemsize
    bits = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[size]
    np.testing.assert_array_equal(got.contiguous().view(bits).numpy(), want.view(f"i{size}"))


@pytest.mark.parametrize("planned", [False, True], ids=["spec", "plan"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
def test_c16_rows_of_each_form_and_dtype(form, dtype, planned):
    cache, _ = inputs(dtype)
    before, n = cache.copy(), STEP.num_tokens
    spec = SPECS[form]
    if planned:
        spec = bridges.plan(spec, cache=tensor(cache), num_tokens=n)
    got = bridges.load_single(tensor(cache), spec, num_tokens=n)
    same(got, reference.load_single(before, FORMS[form], n))
    np.testing.assert_array_equal(as_bits(cache), as_bits(before))


@settings(deadline=None, max_examples=60)
@given(problems(hostile=True))
def test_c8_c9_c10_c11_c12_c13_c14_any_spec_loads_what_the_reference_loads(problem):
    spec, shape, n = problem.index_spec, problem.cache_shape, len(problem.states)
    cache = filled(shape, "f32", salt=1)
    given_spec = spec.map(lambda array: torch.from_numpy(np.ascontiguousarray(array)))
    got = bridges.load_single(tensor(cache), given_spec, num_tokens=n)
    same(got, reference.load_single(cache, spec, n))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_c20_caches_of_every_layout_into_strided_rows(layout):
    guarded = GuardedCache.laid_out(SHAPE, DTYPES["bf16"], layout)
    before, n = guarded.buffer.copy(), STEP.num_tokens
    want_rows = reference.load_single(guarded.cache.copy(), FORMS["slots"], n)
    buffer = filled((n + 2, ROW[0], 3 * ROW[1]), "bf16", salt=5)
    expected = buffer.copy()
    stored = reference.slots_of(FORMS["slots"], SHAPE, n) >= 0
    expected[:n, :, 2::3][stored] = want_rows[stored]

    out = tensor(buffer)[:, :, 2::3]
    got = bridges.load_single(tensor(guarded.cache), SPECS["slots"], num_tokens=n, out=out)

    assert got is out
    assert not stored.all()  # so that rows are kept
    np.testing.assert_array_equal(as_bits(buffer), as_bits(expected))
    np.testing.assert_array_equal(as_bits(guarded.buffer), as_bits(before))


def test_c10_rows_past_the_tokens_are_kept_with_a_plan_too():
    cache, _ = inputs("f32")
    plan = bridges.plan(SPECS["slots"], cache=tensor(cache), num_tokens=2)
    out = torch.full((4, *ROW), 7.0)
    bridges.load_single(tensor(cache), plan, out=out)
    want = reference.load_single(cache, FORMS["slots"], 2)
    stored = reference.slots_of(FORMS["slots"], SHAPE, 2) >= 0
    for row in range(4):
        kept = row >= 2 or not stored[row]
        same(out[row], np.full(ROW, 7, np.float32) if kept else want[row])


def test_the_number_of_rows_where_it_is_not_said():
    cache = torch.zeros(SHAPE)
    table, contexts = torch.zeros(3, 2, dtype=torch.int32), torch.zeros(3, dtype=torch.int32)
    for spec, want in (
        (SlotMapping(torch.arange(5)), 5),
        (BlockTable(table, contexts), 3),
        (bridges.plan(SPECS["chunks"], cache=cache, num_tokens=4), 4),
    ):
        assert bridges.load_single(cache, spec).shape == (want, *ROW)
    out = torch.zeros(6, *ROW)
    for spec in SPECS.values():
        assert bridges.load_single(cache, spec, out=out) is out


def test_c18_a_cache_without_a_block_and_a_load_of_nothing():
    empty, out = torch.zeros(0, *SHAPE[1:]), torch.full((3, *ROW), 7.0)
    assert not bridges.load_single(empty, SPECS["slots"], num_tokens=3).any()
    assert (bridges.load_single(empty, SPECS["slots"], out=out) == 7).all()
    assert bridges.load_single(torch.zeros(SHAPE), SPECS["slots"], num_tokens=0).shape == (0, *ROW)
    for tree in ((), {}):
        assert bridges.load_single(tree, SPECS["slots"]) is tree


def test_c15_two_tokens_of_one_slot_both_have_its_row():
    cache = torch.arange(4.0).reshape(2, 1, 2, 1)
    spec = SlotMapping(torch.tensor([3, 3, 1]))
    for given_spec in (spec, bridges.plan(spec, cache=cache, num_tokens=3, backend="torch")):
        assert bridges.load_single(cache, given_spec).flatten().tolist() == [3, 3, 1]


def test_a_tree_has_the_structure_of_its_caches():
    kinds = {"k": ("bf16", 2, 7), "scale": ("f32", 3, 1), "q": ("i8", 3, 5)}
    caches = {n: filled((5, h, 3, d), t, 1) for n, (t, h, d) in kinds.items()}
    tree = {"k": tensor(caches["k"]), "kv": (tensor(caches["q"]), [tensor(caches["scale"])])}
    got = bridges.load_single(tree, SPECS["block_table"], num_tokens=12)
    assert isinstance(got["kv"], tuple)
    assert isinstance(got["kv"][1], list)
    for name, rows in (("k", got["k"]), ("q", got["kv"][0]), ("scale", got["kv"][1][0])):
        same(rows, reference.load_single(caches[name], FORMS["block_table"], 12))
    again = bridges.load_single(tree, SPECS["block_table"], out=got)
    assert again is got


def test_c17_rows_that_share_memory_with_the_cache_are_read_first():
    buffer = torch.arange(8.0)
    cache, out = buffer.view(4, 1, 2, 1), buffer[1:4].view(3, 1, 1)
    bridges.load_single(cache, SlotMapping(torch.tensor([0, 1, 2])), out=out)
    assert buffer.tolist() == [0, 0, 1, 2, 4, 5, 6, 7]


BAD = {
    "no number": (
        {"spec": SPECS["block_table"]},
        "C11: num_tokens must be given for a prefill or a ChunkPlan, whose values alone tell it",
    ),
    "another number than the plan's": (
        {"planned": True, "num_tokens": 3},
        "C11: num_tokens = 3 must be the plan's = 12",
    ),
    "a number that is none": (
        {"num_tokens": -1},
        "C1: num_tokens must be >= 0, got -1",
    ),
    "short out": (
        {"num_tokens": 12, "out": torch.zeros(3, *ROW)},
        "C11: out.shape[0] = 3 must be >= num_tokens = 12, which the plan was made for",
    ),
    "dtype of out": (
        {"out": torch.zeros(12, *ROW).half()},
        "C2: out.dtype must equal cache.dtype = float32, got float16; a store never casts",
    ),
    "shape of out": (
        {"out": torch.zeros(12, 2, 3)},
        "C1: out.shape[2] = 3 must equal head_dim = 7 of cache",
    ),
    "kind of out": (
        {"num_tokens": 12, "out": np.zeros((12, *ROW), np.float32)},
        "C3: out must be a torch tensor for bridges.store_single_, got numpy.ndarray",
    ),
    "overlap of out": (
        {"out": torch.zeros(1, *ROW).expand(12, *ROW)},
        "C20: out must not overlap itself, got shape (12, 2, 7) with strides (0, 7, 1)",
    ),
    "device of out": (
        {"out": torch.zeros(12, *ROW, device="meta")},
        "C3: out must be on cpu, which the plan was made for, got meta",
    ),
    "tree of out": (
        {"num_tokens": 12, "out": [torch.zeros(12, *ROW)]},
        "C1: out must have the tree of cache, got no leaf out",
    ),
    "tree of out for no cache": (
        {"cache": (), "out": (torch.zeros(12, *ROW),)},
        "C1: cache must have the tree of out, got no leaf cache[0]",
    ),
    "grad": (
        {"cache": torch.zeros(SHAPE, requires_grad=True)},
        "C22: cache must not require grad, since a store in place has no derivative; call it "
        "under torch.no_grad() or with cache.detach(), or differentiate "
        "functional_paged.store_single",
    ),
    "kind of cache": (
        {"cache": np.zeros(SHAPE, np.float32)},
        "C3: cache must be a torch tensor for bridges.store_single_, got numpy.ndarray",
    ),
    "rank of cache": (
        {"cache": torch.zeros(SHAPE)[0]},
        "C1: cache must have 4 axes (num_blocks, kv_heads, block_size, head_dim), got 3: (2, 3, 7)",
    ),
    "spec": (
        {"spec": torch.zeros(3)},
        "C1: index_spec must be a BlockTable, ChunkPlan or SlotMapping, got torch.Tensor",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_and_nothing_is_written(name):
    change, message = BAD[name]
    call = {"cache": torch.zeros(SHAPE), "spec": SPECS["slots"], **change}
    planned = call.pop("planned", False)
    cache, spec, out = call.pop("cache"), call.pop("spec"), call.get("out")
    if planned:
        spec = bridges.plan(spec, cache=cache, num_tokens=12)
    with pytest.raises(SpecError) as error:
        bridges.load_single(cache, spec, **call)
    assert str(error.value) == message
    if isinstance(out, torch.Tensor) and not out.is_meta:
        assert not out.any()


@pytest.mark.parametrize("compiler", DYNAMO_BACKENDS)
@pytest.mark.parametrize("form", FORMS)
def test_compiled_load_and_transfer(form, compiler):
    cache, _ = inputs("bf16")
    before, n = cache.copy(), STEP.num_tokens

    @torch.compile(fullgraph=True, backend=compiler)
    def step(cache, to, spec, slots):
        rows = bridges.load_single(cache, spec, num_tokens=n)
        bridges.transfer_(to, slots, cache, spec, num_tokens=n)
        return rows

    to, slots = np.zeros((4, 2, 5, 7), DTYPES["bf16"]), np.arange(n, dtype=np.int32)
    rows = step(tensor(cache), tensor(to), SPECS[form], SlotMapping(torch.from_numpy(slots)))
    want = reference.load_single(before, FORMS[form], n)
    same(rows, want)
    stored = reference.store_single(np.zeros_like(to), want, SlotMapping(slots))
    np.testing.assert_array_equal(as_bits(to), as_bits(stored))


def test_opcheck_of_the_registered_operator():
    cache = torch.rand(SHAPE)[..., 1:]
    out = torch.zeros(4, 2, 12)[..., ::2]
    slots = torch.tensor([9, -1, 0, 3])
    torch.library.opcheck(_load._load_op, ([out], [cache], slots))
    torch.library.opcheck(
        _load._load_op, ([out, torch.zeros(4, 2, 7)], [cache, torch.ones(SHAPE)], slots)
    )


def test_on_a_device_no_value_is_read():
    accelerator = "cuda:0" if torch.cuda.is_available() else "lazy:0"
    with FakeTensorMode():
        cache = torch.zeros(SHAPE, device=accelerator)
        for spec in SPECS.values():
            there = spec.map(
                lambda array: torch.zeros(array.shape, dtype=array.dtype).to(accelerator)
            )
            rows = bridges.load_single(cache, there, num_tokens=12)
            assert (rows.shape, str(rows.device)) == ((12, *ROW), accelerator)
            slots = torch.zeros(12, dtype=torch.int32, device=accelerator)
            _load._load([rows], [cache], slots)  # what the operator runs
            bridges.transfer_(cache, there, cache, SlotMapping(slots))


@settings(deadline=None, max_examples=40)
@given(problems(hostile=True), st.randoms(use_true_random=False), st.integers(1, 5))
def test_a_transfer_is_a_load_and_a_store(problem, random, block_size):
    src_spec, n = problem.index_spec, len(problem.states)
    src = filled(problem.cache_shape, "f32", salt=1)
    _, heads, _, dim = src.shape
    num_blocks = n + 1
    dst = filled((num_blocks, heads, block_size, dim), "f32", salt=3)
    slots = [random.choice([PAD, slot]) for slot in range(num_blocks * block_size)][:n]
    random.shuffle(slots)
    dst_spec = SlotMapping(np.array(slots, np.int32))
    want = reference.store_single(dst, reference.load_single(src, src_spec, n), dst_spec)
    given_spec = src_spec.map(lambda array: torch.from_numpy(np.ascontiguousarray(array)))
    to = tensor(dst)
    got = bridges.transfer_(
        to, dst_spec.map(torch.from_numpy), tensor(src), given_spec, num_tokens=n
    )
    assert got is to
    np.testing.assert_array_equal(as_bits(dst), as_bits(want))


def test_c17_a_transfer_within_one_cache_reads_before_it_writes():
    for backend in ("numba", "torch"):
        cache = torch.arange(8.0).reshape(4, 1, 2, 1)
        src, dst = SlotMapping(torch.arange(7)), SlotMapping(torch.arange(1, 8))
        plan = bridges.plan(dst, cache=cache, num_tokens=7, backend=backend)
        bridges.transfer_(cache, plan, cache, src)
        assert cache.flatten().tolist() == [0, 0, 1, 2, 3, 4, 5, 6]


def test_a_transfer_of_a_pair_by_plans_and_into_another_layout():
    keys, values = (torch.rand(3, 2, 4, dim) for dim in (6, 2))
    table = BlockTable(
        torch.tensor([[2, 0]]).int(), torch.tensor([1]).int(), torch.tensor([0, 6]).int()
    )
    src = bridges.plan(table, cache=keys, num_tokens=6)
    new = [torch.zeros(4, 2, 2, dim).transpose(1, 2) for dim in (6, 2)]  # kept as (N, S, H, D)
    dst = bridges.plan(
        ChunkPlan(torch.tensor([[0, 3, 0, 2], [2, 1, 0, 2], [4, 0, 1, 1]]).int()),
        cache=new[0],
        num_tokens=6,
    )
    assert bridges.transfer_(new, dst, [keys, values], src) is new
    for old, cache in zip((keys, values), new, strict=True):
        rows = bridges.load_single(old, src)
        want = torch.zeros(4, 2, 2, old.shape[3])
        for token, (block, offset) in enumerate([(3, 0), (3, 1), (1, 0), (1, 1), (0, 1)]):
            want[block, :, offset] = rows[token]
        assert torch.equal(cache, want)


def test_a_refused_transfer_writes_nothing():
    cache, other = torch.zeros(2, 1, 2, 1), torch.ones(2, 1, 2, 3)
    spec = SlotMapping(torch.tensor([1]))
    with pytest.raises(SpecError, match=r"^C1: states.shape\[2\] = 3 must equal head_dim = 1"):
        bridges.transfer_(cache, spec, other, spec)
    with pytest.raises(SpecError, match=r"^C1: states must have the tree of cache"):
        bridges.transfer_([cache, other], spec, other, spec)
    assert not cache.any()
