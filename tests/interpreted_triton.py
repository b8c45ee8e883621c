"""The triton backend where triton interprets its kernel on the CPU, as `test_triton.py` runs it.

Not collected: `TRITON_INTERPRET=1` must be set before triton is imported.
"""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bridges
from bridges import BackendUnsupported, _triton_kernel, triton_gpu
from bridges import _registry as registry
from bridges.conformance_adapters import tensor_over as tensor
from bridges.ixformer import IxformerBackend, library
from bridges.ixformer.model import KernelSemantics, ModelFunctions
from functional_paged import PAD, SlotMapping, SpecError, reference
from functional_paged.conformance import LAYOUTS, GuardedCache
from functional_paged.conformance.bits import DTYPES, as_bits
from tests.guarded import PLAIN, Guarded, a_states
from tests.helpers import FORMS, SHAPE, STEP, filled, inputs

SLOTS = FORMS["slots"]
ROW = (SHAPE[1], SHAPE[3])


def test_the_kernel_is_interpreted():
    assert _triton_kernel.INTERPRETED
    assert bridges.available_backends("cpu")["triton"] is None
    assert bridges.available_backends("cuda")["triton"] is None
    assert "a GPU that torch calls cuda, got meta" in str(bridges.available_backends("meta"))


def expect(memory: np.ndarray, cache: np.ndarray, states: np.ndarray, spec: Any) -> np.ndarray:
    """The memory of a cache, as a store leaves it."""
    expected = memory.copy()
    offset = cache.__array_interface__["data"][0] - memory.__array_interface__["data"][0]
    raw = expected.view(np.uint8)
    there = np.ndarray(cache.shape, cache.dtype, raw, offset, cache.strides)
    there[...] = reference.store_single(cache, states.copy(), spec)
    return expected


@pytest.mark.parametrize("dtype", ["u8", "f8e5m2", "bf16", "f32"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_c16_c20_layouts_and_widths(layout, dtype):
    guarded = GuardedCache.laid_out(SHAPE, DTYPES[dtype], layout)
    states = filled((STEP.num_tokens, *ROW), dtype, salt=2)
    expected = expect(guarded.buffer, guarded.cache, states, SLOTS)
    cache = tensor(guarded.cache)
    spec = SLOTS.map(torch.from_numpy)
    assert bridges.store_single_(cache, tensor(states), spec, backend="triton") is cache
    np.testing.assert_array_equal(as_bits(guarded.buffer), as_bits(expected))


@st.composite
def views(draw: st.DrawFn, shape: tuple[int, ...], dtype: str, salt: int) -> list[np.ndarray]:
    """Memory and a view of it: its axes in any order, each with a step and room around it."""
    order = draw(st.permutations(range(len(shape))))
    steps = [draw(st.integers(1, 3)) for _ in shape]
    before = [draw(st.integers(0, 2)) for _ in shape]
    ends = [b + (shape[axis] - 1) * k + 1 for axis, k, b in zip(order, steps, before, strict=True)]
    memory = filled(tuple(end + draw(st.integers(0, 2)) for end in ends), dtype, salt)
    view = memory[tuple(map(slice, before, ends, steps))].transpose(np.argsort(order))
    assert view.shape == shape
    return [memory, view]


@settings(max_examples=60)
@given(data=st.data(), size=st.sampled_from([1, 2]), slot_dtype=st.sampled_from(["i4", "i8"]))
def test_c14_c15_c20_one_or_two_tensors_of_any_strides_and_slots(data, size, slot_dtype):
    num_blocks, block_size = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    end = num_blocks * block_size
    stored = data.draw(st.lists(st.integers(0, end - 1), unique=True, max_size=end))
    skipped = st.sampled_from([PAD, -7, end, end + 3, -(2**31), 2**31 - 1])
    slots = np.array(data.draw(st.permutations([*stored, data.draw(skipped)])), slot_dtype)
    sides = []
    for _ in range(size):
        heads, dim = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 5)))
        dtype = data.draw(st.sampled_from(["u8", "f8e4m3fn", "f16", "bf16", "f32"]))
        memory, cache = data.draw(views((num_blocks, heads, block_size, dim), dtype, salt=1))
        rows = len(slots) + data.draw(st.integers(0, 2))  # C10
        _, states = data.draw(views((rows, heads, dim), dtype, salt=2))
        spec = SlotMapping(np.pad(slots, (0, rows - len(slots)), constant_values=PAD))
        sides.append((memory, tensor(cache), tensor(states), expect(memory, cache, states, spec)))
    memories, caches, states, expected = zip(*sides, strict=True)

    # The operator itself, which nobody has to have checked.
    triton_gpu.SlotWrites(torch.from_numpy(slots)).write_(caches, states)

    for memory, bits in zip(memories, expected, strict=True):
        np.testing.assert_array_equal(as_bits(memory), as_bits(bits))


def plan(spec: Any = SLOTS, num_tokens: int = STEP.num_tokens) -> bridges.StorePlan:
    cache = torch.zeros(SHAPE)
    given = spec.map(torch.from_numpy)
    return bridges.plan(given, cache=cache, num_tokens=num_tokens, backend="triton")


@pytest.mark.parametrize(("tensors", "launches"), [(1, 1), (2, 1), (3, 2), (4, 2)])
def test_a_pair_of_tensors_is_one_launch(tensors, launches, monkeypatch):
    grids = []

    class Counting:
        def __getitem__(self, grid):
            grids.append(grid)
            return kernel[grid]

    kernel = _triton_kernel.store_kernel
    monkeypatch.setattr(_triton_kernel, "store_kernel", Counting())
    arrays = [inputs("bf16"), inputs("f32"), inputs("u8"), inputs("f16")][:tensors]
    caches, states = zip(*[(tensor(cache), tensor(rows)) for cache, rows in arrays], strict=True)
    expected = [reference.store_single(cache, rows, SLOTS) for cache, rows in arrays]
    plan().lowered.write_(caches, states)
    assert len(grids) == launches
    for (cache, _), bits in zip(arrays, expected, strict=True):
        np.testing.assert_array_equal(as_bits(cache), as_bits(bits))


def test_a_row_of_many_tiles(monkeypatch):
    monkeypatch.setattr(_triton_kernel, "MAX_TILE", 8)
    cache, states = inputs()
    expected = reference.store_single(cache, states, SLOTS)
    other = torch.zeros(SHAPE[0], 1, SHAPE[2], 1)
    plan().lowered.write_((tensor(cache), other), (tensor(states), torch.ones(len(states), 1, 1)))
    np.testing.assert_array_equal(as_bits(cache), as_bits(expected))
    assert other.sum() == sum(0 <= slot < SHAPE[0] * SHAPE[2] for slot in SLOTS.slots)


FAR = {
    # name: strides of a cache of shape (3, 3, 3, 3), and of states of shape (3, 3, 3). Each is
    # a number of 32 bits, twice which is none.
    "blocks": ((2**30 + 8, 9, 3, 1), (9, 3, 1)),
    "heads": ((9, 2**30 + 2, 3, 1), (9, 3, 1)),
    "offsets": ((9, 3, 2**30 + 5, 1), (9, 3, 1)),
    "dims": ((9, 3, 1, 2**30 + 4), (9, 3, 1)),
    "tokens": ((27, 9, 3, 1), (2**30 + 64, 3, 1)),
    "heads of states": ((27, 9, 3, 1), (3, 2**30 + 8, 1)),
    "dims of states": ((27, 9, 3, 1), (1, 3, 2**30 + 16)),
}


@pytest.mark.parametrize("name", FAR)
def test_c19_offsets_past_two_to_the_31(name):
    # Memory that nobody touches is not there, so this takes little.
    cache_strides, states_strides = FAR[name]
    cache = torch.empty(2**31 + 2**10, dtype=torch.int8).as_strided((3, 3, 3, 3), cache_strides)
    states = torch.empty(2**31 + 2**10, dtype=torch.int8).as_strided((3, 3, 3), states_strides)
    before, rows = filled((3, 3, 3, 3), "i8", salt=1), filled((3, 3, 3), "i8", salt=2)
    cache.copy_(torch.from_numpy(before))
    states.copy_(torch.from_numpy(rows))
    spec = SlotMapping(np.int32([8, 3, 1]))
    bridges.store_single_(cache, states, spec.map(torch.from_numpy), backend="triton")
    np.testing.assert_array_equal(cache.numpy(), reference.store_single(before, rows, spec))


def test_c19_a_slot_past_two_to_the_31():
    cache = torch.empty(2**31 + 2**20, dtype=torch.int8).view(-1, 1, 2**10, 1)
    cache[0] = cache[-1] = 1
    slots = torch.tensor([cache.numel() - 1, cache.numel(), -1 - 2**31, 2**32])
    bridges.store_single_(
        cache, torch.full((4, 1, 1), 7).to(torch.int8), SlotMapping(slots), backend="triton"
    )
    assert (cache[-1, 0, -1], cache[-1].sum(), cache[0].sum()) == (7, 2**10 + 6, 2**10)


@pytest.mark.parametrize("of", ["itself", "the other of a pair"])
def test_c20_states_that_are_a_view_of_a_cache(of):
    """The rows that are stored are those from before the store."""
    keys, values = (tensor(filled(SHAPE, "f32", salt)) for salt in (1, 2))
    states = keys.transpose(1, 2)[0]  # what is in slots 0, 1 and 2
    slots = torch.tensor([1, 2, 0])
    pairs = {
        "itself": [(keys, states)],
        "the other of a pair": [(keys, torch.zeros(3, *ROW)), (values, states)],
    }[of]
    cache = pairs[-1][0]
    want = cache.clone()
    want.transpose(1, 2)[0, slots] = states.clone()
    triton_gpu.SlotWrites(slots).write_(*zip(*pairs, strict=True))
    assert torch.equal(cache.view(torch.int32), want.view(torch.int32))


@pytest.mark.parametrize("shape", [(0, 2, 3, 7), (5, 0, 3, 7), (5, 2, 3, 0)])
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "in a pair"])
def test_c18_empty_tensors(shape, beside):
    cache, states = torch.zeros(shape), torch.zeros(3, shape[1], shape[3])
    other = torch.zeros(max(shape[0], 1), 1, 3, 1)
    writes = triton_gpu.SlotWrites(torch.tensor([1, -1, 0]))
    if beside:
        writes.write_((cache, other), (states, torch.ones(3, 1, 1)))
        assert other.sum() == 2
    else:
        writes.write_((cache,), (states,))
    triton_gpu.SlotWrites(torch.tensor([], dtype=torch.int32)).write_((other,), (other[:0, 0],))


@pytest.mark.parametrize("dtype", [torch.complex128, torch.complex64])
def test_c2_elements_of_16_bytes_are_refused_before_any_write(dtype):
    narrow, wide = torch.zeros(SHAPE), torch.zeros(SHAPE, dtype=dtype)
    states = torch.ones(STEP.num_tokens, *ROW)
    writes, given = plan().lowered, ((narrow, wide), (states, states.to(dtype)))
    if dtype == torch.complex64:
        writes.write_(*given)
        assert torch.equal(narrow, wide.real)
        return
    with pytest.raises(BackendUnsupported, match=r"elements of 1, 2, 4 or 8 bytes, got .*128$"):
        writes.write_(*given)
    assert not narrow.any()


def test_c16_states_that_torch_conjugates_or_negates_as_they_are_read():
    spec = SlotMapping(torch.tensor([4, 7]))
    values = torch.tensor([3 + 4j, -5j]).reshape(2, 1, 1)
    for states in (values.conj(), torch._neg_view(values.real), values.conj().imag):
        cache = torch.zeros(3, 1, 3, 1, dtype=states.dtype)
        bridges.store_single_(cache, states, spec, backend="triton")
        assert cache[1, 0, 1] == states[0].resolve_conj().resolve_neg()
        assert cache[2, 0, 1] == states[1].resolve_conj().resolve_neg()


@pytest.mark.parametrize("kind", [copy.deepcopy, lambda step: pickle.loads(pickle.dumps(step))])
def test_a_plan_travels_and_says_its_route(kind):
    step = kind(plan())
    assert (step.backend, step.route) == ("triton", "triton")
    cache, states = inputs()
    expected = reference.store_single(cache, states, SLOTS)
    bridges.store_single_(tensor(cache), tensor(states), step)
    np.testing.assert_array_equal(as_bits(cache), as_bits(expected))


def operands() -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
    packed = torch.ones(5, 2, 3, 14)
    narrow = torch.ones(5, 1, 3, 4, dtype=torch.bfloat16)
    states = [torch.rand(4, 2, 7), torch.ones(4, 1, 4).bfloat16()]
    return [packed[..., 7:], narrow], states, torch.tensor([4, -1, 99, 0])


@pytest.mark.parametrize("leaves", [0, 1, 2])
def test_opcheck(leaves):
    caches, states, slots = operands()
    torch.library.opcheck(triton_gpu._store_op, (caches[:leaves], states[:leaves], slots))


def test_c17_the_schema_says_that_only_caches_change():
    schema = triton_gpu._store_op._schema
    assert schema.returns == []
    assert [a.name for a in schema.arguments if a.alias_info and a.alias_info.is_write] == ["cache"]


def test_a_pair_is_one_launch_but_for_caches_that_share_memory(monkeypatch):
    launches = []
    monkeypatch.setattr(_triton_kernel, "launch", lambda caches, *_: launches.append(len(caches)))
    buffer, rows = torch.zeros(5, 2, 3, 14), torch.ones(4, 2, 7)
    keys, values = buffer[..., :7], buffer[..., 7:]
    for caches, want in (
        ([keys], [1]),
        ([keys, values], [2]),
        ([keys, keys], [1, 1]),
        ([keys, buffer[..., 6:13]], [1, 1]),
        ([keys, values, torch.zeros(5, 2, 3, 7)], [2, 1]),
    ):
        launches.clear()
        triton_gpu._store_op(caches, [rows] * len(caches), torch.tensor([4, -1, 99, 0]))
        assert launches == want


@pytest.mark.usefixtures("traceable")
@pytest.mark.parametrize("planned", [False, True], ids=["spec", "plan"])
@pytest.mark.parametrize("form", FORMS)
def test_c17_a_compiled_step_reads_what_it_wrote(form, planned):
    spec = FORMS[form].map(torch.from_numpy)
    step_plan = plan(FORMS[form])

    @torch.compile(fullgraph=True, backend="aot_eager")
    def step(keys, values, states):
        given = step_plan if planned else spec
        if not planned:
            given = bridges.plan(given, cache=keys, num_tokens=len(states), backend="triton")
        before = keys.sum()
        given.lowered.write_((keys, values), (states * 2, states[:, :1]))
        bridges.store_single_(values, states[:, :1] * 3, given)
        return before, keys.sum(), values.sum()

    keys, values = torch.zeros(SHAPE), torch.zeros(SHAPE[0], 1, *SHAPE[2:])
    ones = np.ones((STEP.num_tokens, *ROW), np.float32)
    want = reference.store_single(keys.numpy(), ones * 2, FORMS[form])
    before, after, other = step(keys, values, torch.from_numpy(ones))
    np.testing.assert_array_equal(keys.numpy(), want)
    assert (before, after, other) == (0, want.sum(), want.sum() / ROW[0] * 3 / 2)
    assert values.sum() == other


@pytest.mark.usefixtures("traceable")
def test_one_export_serves_all_sizes(tmp_path):
    class Step(torch.nn.Module):
        def forward(self, cache, states, slots):
            bridges.store_single_(cache, states, SlotMapping(slots), backend="triton")
            return cache * 1

    def arguments(num_blocks: int, num_tokens: int) -> tuple[torch.Tensor, ...]:
        slots = torch.arange(num_tokens, dtype=torch.int32) * 2 % (num_blocks * 3)
        return torch.zeros(num_blocks, 2, 3, 8)[..., :7], torch.ones(num_tokens, 2, 7), slots

    blocks, tokens = (torch.export.Dim(name, min=2, max=99) for name in ("blocks", "tokens"))
    sizes = ({0: blocks}, {0: tokens}, {0: tokens})
    program = torch.export.export(Step(), arguments(7, 5), dynamic_shapes=sizes, strict=False)
    torch.export.save(program, tmp_path / "step.pt2")
    step = torch.export.load(tmp_path / "step.pt2").module()
    for num_blocks, num_tokens in ((7, 5), (2, 2), (9, 12)):
        cache, states, slots = arguments(num_blocks, num_tokens)
        spec = SlotMapping(slots.numpy())
        want = reference.store_single(cache.numpy(), states.numpy(), spec)
        np.testing.assert_array_equal(step(cache, states, slots).numpy(), want)
        assert want.any()


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
def test_c22_a_tensor_with_a_tangent_is_refused_in_either_place():
    for side, place in itertools.product((0, 1), (0, 1)):
        given = operands()
        with torch.autograd.forward_ad.dual_level():
            of = given[side]
            of[place] = torch.autograd.forward_ad.make_dual(of[place], torch.ones_like(of[place]))
            with pytest.raises(SpecError, match=r"^C22: .* must not carry a tangent"):
                triton_gpu._store_op(*given)


BF16 = torch.bfloat16


@pytest.fixture
def on_iluvatar(monkeypatch):
    """Every device passes for an Iluvatar device; its ixformer stores float32 alone."""
    monkeypatch.setattr(library, "why_not", lambda device: None)
    monkeypatch.setattr(registry, "_named", {})
    monkeypatch.setattr(registry, "_reasons", {})
    wheel = ModelFunctions(KernelSemantics(dtypes=frozenset({torch.float32})))
    loaders = {
        "ixformer": lambda: IxformerBackend(wheel, device_check=False, name="an ixformer"),
        "triton": triton_gpu.TritonBackend,
        "torch": registry._LOADERS["torch"],
    }
    monkeypatch.setattr(registry, "_LOADERS", loaders)
    launch, rows = _triton_kernel.launch, []

    def recording(caches, states, slots):
        rows.append(len(slots))
        launch(caches, states, slots)

    monkeypatch.setattr(_triton_kernel, "launch", recording)
    return rows


def stored_by(dtype: torch.dtype, backend: str | None = None) -> str:
    """The backend that stored the step, every bit of it right."""
    cache, states = Guarded(PLAIN[0], dtype), a_states(4, PLAIN[0], dtype)
    spec = SlotMapping(np.int32([17, PAD, 3, 144]))
    step = bridges.plan(
        spec.map(torch.from_numpy), cache=cache.tensor, num_tokens=4, backend=backend
    )
    bridges.store_single_(cache.tensor, states, step)
    cache.check(states, spec)
    return step.backend


def test_what_ixformer_refuses_goes_to_triton_after_a_trial(on_iluvatar):
    assert stored_by(torch.float32) == "ixformer"
    assert on_iluvatar == []
    for dtype, backend in ((BF16, None), (torch.float16, "triton")):
        assert stored_by(dtype, backend) == "triton"
        # Trials have seven rows: one, and one more where the states lie otherwise in memory.
        assert {*on_iluvatar[:-1]} == {7}
        assert on_iluvatar[-1] == 4
        on_iluvatar.clear()


def test_a_long_store_on_iluvatar_is_cut_as_the_trials_are(on_iluvatar, monkeypatch):
    monkeypatch.setattr("bridges.ixformer.proofs.MAX_ROWS", 3)
    assert stored_by(BF16) == "triton"
    assert {*on_iluvatar[:-2]} == {7}
    assert on_iluvatar[-2:] == [3, 1]


def next_slot(caches, states, slots):
    return caches, states, torch.where(slots >= 0, slots + 1, slots)


def pads_count_from_the_end(caches, states, slots):
    return caches, states, torch.where(slots < 0, slots + caches[0].shape[0], slots)


def rows_in_another_order(caches, states, slots):
    return caches, [rows.flip(0) for rows in states], slots


def rounded(caches, states, slots):
    return caches, [(rows.float() * 1.001).to(rows.dtype) for rows in states], slots


@pytest.mark.parametrize(
    "wrong", [next_slot, pads_count_from_the_end, rows_in_another_order, rounded]
)
def test_a_triton_that_stores_wrongly_is_refused(on_iluvatar, monkeypatch, wrong):
    right = _triton_kernel.launch
    monkeypatch.setattr(_triton_kernel, "launch", lambda *given: right(*wrong(*given)))
    with pytest.raises(BackendUnsupported, match=r"^this triton was not seen to store .*bfloat16"):
        stored_by(BF16, "triton")
    assert stored_by(BF16) == "torch"


def test_a_triton_that_raises_is_refused_with_what_it_said(on_iluvatar, monkeypatch):
    def broken(*given):
        raise RuntimeError("no such intrinsic")

    monkeypatch.setattr(_triton_kernel, "launch", broken)
    with pytest.raises(BackendUnsupported, match="no such intrinsic") as refusal:
        stored_by(BF16, "triton")
    assert "backend='torch'" in str(refusal.value)


def test_c19_on_iluvatar_a_cache_past_2_31_elements_is_refused(on_iluvatar):
    cache = torch.empty(2**17 + 1, 1, 16, 2**10, dtype=torch.int8)  # never touched
    spec = SlotMapping(torch.tensor([0]))
    with pytest.raises(BackendUnsupported, match=r"^no triton was seen to reach past 2\*\*31"):
        bridges.plan(spec, cache=cache, num_tokens=1, backend="triton")
