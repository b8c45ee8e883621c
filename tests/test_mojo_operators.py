"""The drop-ins for mojo_opset's other operators, each against the reference."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad

from bridges import BackendUnsupported, mojo
from bridges.ixformer import model
from bridges.ixformer.model import KernelSemantics
from functional_paged import BlockTable, SlotMapping, SpecError
from functional_paged.codecs import INT8_PER_CHANNEL
from tests.guarded import Guarded, a_states, kit_steps

BACKENDS = ["torch", model.backend()]
STEPS = ["c5_decode", "c5_prefill", "c6_padded_row", "c8_hole", "c9_past_the_table"]
BF16, F32, I8 = torch.bfloat16, torch.float32, torch.int8


def sides_of(*widths, dtypes=(BF16, F32)):
    """A poisoned cache and states for each pair of heads and head size."""
    shapes = [(9, heads, 16, width) for heads, width in widths]
    return [(shape, dtype, Guarded(shape, dtype)) for shape, dtype in zip(shapes, dtypes)]  # noqa: B905


def arrays_of(spec):
    given_spec = spec.map(torch.from_numpy)
    return given_spec.block_table, given_spec.cu_q_lens, given_spec.context_kv_lens


def a_step(name):
    steps = {key: step for key, step in kit_steps((9, 2, 16, 16)).items() if key.startswith(name)}
    step = next(step for step in steps.values() if isinstance(step.index_spec, BlockTable))
    return step.index_spec, step.num_tokens


def int32(*values):
    return torch.tensor(values, dtype=torch.int32)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        (
            "MojoStorePagedKVCache",
            "key_states value_states key_cache value_cache block_table=None cu_q_lens=None "
            "context_kv_lens=None * chunk_metadata=None",
        ),
        (
            "MojoStorePagedMLAKVCache",
            "compressed_kv_states k_pe_states compressed_kv_cache k_pe_cache block_table cu_q_lens "
            "context_kv_lens",
        ),
        (
            "MojoStorePagedKVCacheC8",
            "key_states value_states key_cache value_cache key_scale value_scale block_table=None "
            "cu_q_lens=None context_kv_lens=None * chunk_metadata=None slot_mapping=None",
        ),
        ("MojoStoreLowrank", "label_cache key_lr block_idxs token_idxs token_num"),
        (
            "MojoDequantFromPagedKVCache",
            "* key value=None key_cache key_cache_scale value_cache=None value_cache_scale=None "
            "context_lengths=None max_context_len context_seq_offset=None block_tables",
        ),
    ],
)
def test_the_arguments_are_in_upstreams_order(name, parameters):
    words, keyword_only = [], False
    for parameter in list(inspect.signature(getattr(mojo, name).forward).parameters.values())[1:]:
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            words.append("*")
        default = "" if parameter.default is parameter.empty else f"={parameter.default}"
        words.append(parameter.name + default)
    assert words == parameters.split()


@pytest.mark.parametrize("backend", BACKENDS, ids=["torch", "ixformer-model"])
@pytest.mark.parametrize("name", STEPS)
def test_c5_c6_c8_c9_keys_and_values_of_other_sizes_and_dtypes(name, backend):
    spec, num_tokens = a_step(name)
    (k_shape, k_dtype, keys), (v_shape, v_dtype, values) = sides_of((2, 16), (3, 8))
    rows = a_states(num_tokens, k_shape, k_dtype), a_states(num_tokens, v_shape, v_dtype)
    store = mojo.MojoStorePagedKVCache(backend)
    k_cache, v_cache = store(*rows, keys.tensor, values.tensor, *arrays_of(spec))
    assert k_cache is keys.tensor  # C17
    assert v_cache is values.tensor
    keys.check(rows[0], spec)
    values.check(rows[1], spec)


@pytest.mark.parametrize("backend", BACKENDS, ids=["torch", "ixformer-model"])
@pytest.mark.parametrize("name", STEPS)
def test_c8_latents_and_positional_keys_have_one_head(name, backend):
    spec, num_tokens = a_step(name)
    (l_shape, l_dtype, latents), (p_shape, p_dtype, k_pes) = sides_of((1, 16), (1, 8))
    rows = a_states(num_tokens, l_shape, l_dtype), a_states(num_tokens, p_shape, p_dtype)
    store = mojo.MojoStorePagedMLAKVCache(backend)
    two_axes = [row[:, 0] for row in rows]
    out = store(*two_axes, latents.tensor, k_pes.tensor, *arrays_of(spec))
    assert out[0] is latents.tensor
    assert out[1] is k_pes.tensor
    latents.check(rows[0], spec)
    k_pes.check(rows[1], spec)


def test_c20_one_tensor_may_be_both_sides():
    spec, num_tokens = a_step("c5_prefill")
    store = mojo.MojoStorePagedKVCache("torch")
    rows = a_states(num_tokens, (9, 2, 16, 16), BF16)
    (_, _, one), (_, _, other) = sides_of((2, 16), (2, 16), dtypes=(BF16, BF16))
    store(rows, rows, one.tensor, other.tensor, *arrays_of(spec))
    one.check(rows, spec)
    other.check(rows, spec)
    (_, _, both), _ = sides_of((2, 16), (2, 16), dtypes=(BF16, BF16))
    out = store(rows * 2, rows, both.tensor, both.tensor, *arrays_of(spec))
    assert out[0] is out[1] is both.tensor
    both.check(rows, spec)  # the values come after the keys


class Call:
    """A good call of a storing drop-in with two sides, whose arguments a test may change."""

    def __init__(self, name):
        self.store = getattr(mojo, name)("torch")
        two_axes, is_c8 = "MLA" in name, name.endswith("C8")
        heads = 1 if two_axes else 2
        self.caches = [torch.full((4, heads, 4, 3), 7.0) for _ in range(2)]
        self.states = [torch.ones(2, 3) if two_axes else torch.ones(2, heads, 3) for _ in range(2)]
        self.scales = [torch.ones(2, 3) for _ in range(2)] if is_c8 else []
        if is_c8:
            self.caches = [cache.to(I8) for cache in self.caches]
        self.index = [int32([3, 1]), int32(0, 2), int32(3)]

    def __call__(self):
        return self.store(*self.states, *self.caches, *self.scales, *self.index)


def second(call, caches=None, states=None):
    if caches is not None:
        call.caches[1] = caches(call.caches[1])
    if states is not None:
        call.states[1] = states(call.states[1])


BAD = {
    "C1 blocks": lambda call: second(call, caches=lambda c: c[:3]),
    "C1 width": lambda call: second(call, caches=lambda c: c[..., :2]),
    "C1 rank": lambda call: second(call, caches=lambda c: c[0]),
    "C1 table": lambda call: call.index.__setitem__(0, call.index[0][0]),
    "C1 contexts": lambda call: call.index.__setitem__(2, int32(3, 3)),
    "C3 kind": lambda call: second(call, caches=lambda c: c.numpy()),
    "C3 device": lambda call: second(call, caches=lambda c: c.to("meta")),
    "C4": lambda call: call.index.__setitem__(2, call.index[2].long()),
    "C20": lambda call: second(call, caches=lambda c: c[:1].expand(4, -1, -1, -1)),
    "C3 kind of states": lambda call: second(call, states=lambda s: s.numpy()),
    "C20 sparse": lambda call: second(call, states=lambda s: s.to_sparse()),
    "C22": lambda call: second(call, states=lambda s: s.requires_grad_()),
}
NAMES = ["MojoStorePagedKVCache", "MojoStorePagedMLAKVCache", "MojoStorePagedKVCacheC8"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fault", BAD)
def test_c17_where_one_side_is_refused_neither_is_written(name, fault):
    call = Call(name)
    BAD[fault](call)
    tensors = [cache for cache in call.caches if torch.is_tensor(cache) and not cache.is_meta]
    before = [cache.clone() for cache in tensors]
    with pytest.raises(SpecError) as error:
        call()
    assert error.value.clause == fault.split()[0]
    for now, then in zip(tensors, before, strict=True):
        assert torch.equal(now, then)
    good = Call(name)
    for now, then in zip(good(), before, strict=False):  # the valid twin, one change away
        assert not torch.equal(now, then)


@pytest.mark.parametrize("name", NAMES)
def test_c2_a_cache_of_another_dtype_is_refused(name):
    call = Call(name)
    call.caches[1] = call.caches[1].double()
    with pytest.raises(SpecError, match=r"^C2: .*float64"):
        call()
    assert not (call.caches[0] == 1).any()


def test_c1_states_with_an_axis_of_heads_are_no_latents():
    call = Call("MojoStorePagedMLAKVCache")
    call.states[1] = call.states[1][:, None]
    with pytest.raises(SpecError, match=r"^C1: k_pe_states must be \(num_tokens, width\), got"):
        call()
    call = Call("MojoStorePagedMLAKVCache")
    call.index[2] = None
    with pytest.raises(SpecError, match="context_kv_lens"):
        call()


SCALE_DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


@pytest.mark.parametrize("form", ["table", "chunks", "slots"])
@pytest.mark.parametrize("dtype", SCALE_DTYPES, ids=str)
def test_q2_keys_and_values_are_encoded_and_stored(form, dtype):
    spec, num_tokens = a_step("c8_hole")
    shape = (9, 2, 16, 16)
    generator = torch.Generator().manual_seed(7)
    rows = [torch.randn(num_tokens, 2, 16, generator=generator).to(BF16) * 50 for _ in range(2)]
    scales = [(torch.rand(2, 16, generator=generator) + 0.1).to(dtype) for _ in range(2)]
    caches = [Guarded(shape, I8) for _ in range(2)]
    arrays = arrays_of(spec)
    index = {
        "table": dict(zip(("block_table", "cu_q_lens", "context_kv_lens"), arrays, strict=True)),
        "chunks": {"chunk_metadata": mojo.build_paged_kv_chunk_metadata(*arrays, 16)},
        "slots": {"slot_mapping": torch.arange(num_tokens).flip(0) - 3},
    }[form]
    spec = SlotMapping(index["slot_mapping"].numpy()) if form == "slots" else spec
    out = mojo.MojoStorePagedKVCacheC8("torch")(
        *rows, *(c.tensor for c in caches), *scales, **index
    )
    for cache, returned, states, scale in zip(caches, out, rows, scales, strict=True):
        assert returned is cache.tensor
        encoded, _ = INT8_PER_CHANNEL.encode(states.float().numpy(), scale.float().numpy())
        cache.check(torch.from_numpy(encoded), spec)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("side", [0, 1])
def test_q6_a_scale_that_is_invalid_by_value_stores_nothing(bad, side):
    call = Call("MojoStorePagedKVCacheC8")
    call.scales[side][1, 2] = bad
    before = [cache.clone() for cache in call.caches]
    out = call()
    for returned, cache, then in zip(out, call.caches, before, strict=True):
        assert returned is cache
        assert torch.equal(cache, then)


@pytest.mark.parametrize(
    ("scale", "text"),
    [
        (torch.ones(3), r"C1: value_scale must be \(kv_heads, head_dim\), got \(3,\)"),
        (torch.ones(2, 4), r"Q1: scale must have a shape that broadcasts to \(2, 3\)"),
        (torch.ones(2, 3).numpy(), "C3: value_scale must be a torch tensor"),
        (None, "C1: value_scale must be an array, got NoneType"),
    ],
)
def test_c1_c3_a_scale_of_another_kind_is_refused(scale, text):
    call = Call("MojoStorePagedKVCacheC8")
    call.scales[1] = scale
    with pytest.raises(SpecError, match=text):
        call()
    assert (call.caches[0] == 7).all()


def test_c1_slots_come_without_the_other_forms():
    call = Call("MojoStorePagedKVCacheC8")
    arguments = (*call.states, *call.caches, *call.scales)
    with pytest.raises(SpecError, match="C1: chunk_metadata must come without slot_mapping"):
        call.store(*arguments, chunk_metadata=int32([0, 0, 0, 1]), slot_mapping=int32(0, 1))
    with pytest.raises(SpecError, match="C1: slot_mapping must come without cu_q_lens"):
        call.store(*arguments, cu_q_lens=int32(0, 1), slot_mapping=int32(0, 1))
    assert (call.caches[0] == 7).all()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_c12_c14_lowrank_keys_go_where_both_indices_are_inside(data):
    num_blocks, size, tokens = 3, 4, data.draw(st.integers(0, 6))
    inside = [(b, o) for b in range(num_blocks) for o in range(size)]
    outside = [(-1, 2), (-3, 0), (1, -1), (0, size), (2, size + 1), (num_blocks, 0), (2**31 - 1, 1)]
    outside += [(0, 2**31 - 1)]
    pairs = data.draw(st.permutations(inside + outside))[:tokens]
    spare = data.draw(st.integers(0, 2))
    cache, rows = torch.zeros(num_blocks, 2, size, 3), torch.rand(tokens + spare, 2, 3) + 1
    expected = cache.clone()
    for token, (block, offset) in enumerate(pairs):
        if (block, offset) in inside:
            expected[block, :, offset] = rows[token]
    columns = int32(*pairs).reshape(-1, 2)
    store = mojo.MojoStoreLowrank("torch")
    assert store(cache, rows, columns[:, 0], columns[:, 1], tokens) is cache
    assert torch.equal(cache, expected)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"token_num": -1}, "C1: token_num must be >= 0, got -1"),
        ({"token_num": 1.5}, "C1: token_num must be an integer"),
        ({"token_num": 1}, "C1: block_idxs must be (1), got (2,)"),
        ({"token_idxs": int32(0)}, "C1: token_idxs must be (2), got (1,)"),
        ({"block_idxs": int32([0, 1])}, "C1: block_idxs must be (2), got (1, 2)"),
        ({"token_idxs": int32(0, 1).long()}, "C4: token_idxs must be int32, got int64"),
        ({"block_idxs": [0, 1]}, "block_idxs must be an array, got list"),
        ({"key_lr": torch.ones(2, 1, 3)}, "C1: states.shape[1] = 1 must equal kv_heads = 2"),
        ({"key_lr": torch.ones(2, 2, 3).double()}, "C2: states.dtype must equal"),
    ],
)
def test_c1_c2_c4_bad_arguments_of_the_lowrank_store(change, text):
    cache = torch.zeros(3, 2, 4, 3)
    good = {
        "label_cache": cache,
        "key_lr": torch.ones(2, 2, 3),
        "block_idxs": int32(0, 1),
        "token_idxs": int32(0, 1),
        "token_num": 2,
    }
    with pytest.raises(SpecError) as error:
        mojo.MojoStoreLowrank("torch")(**{**good, **change})
    assert text in str(error.value)
    assert not cache.any()
    mojo.MojoStoreLowrank("torch")(**good)
    assert cache.sum() == 12


def test_c11_more_tokens_than_rows_stores_the_rows_there_are():
    cache = torch.zeros(3, 1, 4, 1)
    store = mojo.MojoStoreLowrank("torch")
    store(cache, torch.ones(1, 1, 1), int32(0, 1), int32(0, 1), 2)
    assert cache.nonzero().tolist() == [[0, 0, 0, 0]]


class Contexts:
    """Arguments of the dequantising load, with outputs that are slices of a poisoned tensor."""

    def __init__(self, lengths, gaps, seed=0, dtype=BF16, with_offsets=True):
        generator = torch.Generator().manual_seed(seed)
        self.lengths, self.size, heads, width = lengths, 4, 2, 3
        starts = np.cumsum([0, *lengths])[:-1] + np.cumsum(gaps)
        order = torch.randperm(len(lengths), generator=generator).tolist()
        self.starts = starts.tolist()
        total = int(sum(lengths) + sum(gaps)) + 2
        self.fused = torch.rand(2 * heads, total, width + 2, generator=generator).to(dtype)
        self.outs = [
            self.fused[:heads, :, :width].transpose(0, 1),
            self.fused[heads:, :, 1 : width + 1].transpose(0, 1),
        ]
        blocks = max([-(-length // self.size) for length in lengths], default=0) + 1
        table = torch.randperm(40, generator=generator)[: len(lengths) * blocks]
        self.table = table.int().reshape(len(lengths), blocks)
        shape = (40, heads, self.size, width)
        self.caches = [
            torch.randint(-128, 128, shape, generator=generator).to(I8) for _ in range(2)
        ]
        self.scales = [torch.rand(heads, width, generator=generator) + 0.1 for _ in range(2)]
        self.rows = order if with_offsets else range(len(lengths))

    def arguments(self, offsets=True, value=True):
        rows = list(self.rows)
        given = {
            "key": self.outs[0],
            "key_cache": self.caches[0],
            "key_cache_scale": self.scales[0],
            "context_lengths": int32(*(self.lengths[row] for row in rows)),
            "max_context_len": 99,
            "block_tables": self.table[rows],
        }
        if offsets:
            given["context_seq_offset"] = int32(*(self.starts[row] for row in rows))
        if value:
            given |= {
                "value": self.outs[1],
                "value_cache": self.caches[1],
                "value_cache_scale": self.scales[1],
            }
        return given

    def expected(self, sides=2):
        fused = self.fused.clone()
        heads, width = 2, 3
        outs = [fused[:heads, :, :width], fused[heads:, :, 1 : width + 1]]
        for out, cache, scale in list(zip(outs, self.caches, self.scales, strict=True))[:sides]:
            for row, (start, length) in enumerate(zip(self.starts, self.lengths, strict=True)):
                for i in range(length):
                    block = int(self.table[row, i // self.size])
                    if block >= 0:
                        read = cache[block, :, i % self.size].float() * scale.float()
                        out[:, start + i] = read.to(out.dtype)
        return fused


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), max_size=4),
    st.integers(0, 99),
    st.sampled_from([BF16, F32]),
    st.booleans(),
)
def test_c6_c7_contexts_are_read_back_in_any_order_of_rows(rows, seed, dtype, has_holes):
    lengths, gaps = [length for length, _ in rows], [gap for _, gap in rows]
    contexts = Contexts(lengths, gaps, seed, dtype)
    if has_holes and len(lengths):
        contexts.table[-1, 0] = -1
    expected, given_ = contexts.expected(), contexts.arguments()
    key, value = mojo.MojoDequantFromPagedKVCache()(**given_)
    assert key is given_["key"]
    assert value is given_["value"]
    assert torch.equal(contexts.fused, expected)


@pytest.mark.parametrize("value", [True, False])
def test_c5_without_offsets_rows_are_one_after_the_other(value):
    contexts = Contexts([5, 0, 9, 1], [0, 0, 0, 0], with_offsets=False)
    expected = contexts.expected(sides=1 + value)
    given_ = contexts.arguments(offsets=False, value=value)
    out = mojo.MojoDequantFromPagedKVCache()(**given_)
    assert out[0] is given_["key"]
    assert out[1] is given_.get("value")
    assert torch.equal(contexts.fused, expected)


def test_c21_rows_that_overlap_are_not_read():
    contexts = Contexts([5, 3], [0, 0], with_offsets=False)
    given_, before = contexts.arguments(), contexts.fused.clone()
    given_["context_seq_offset"] = int32(0, 4)
    mojo.MojoDequantFromPagedKVCache()(**given_)
    assert torch.equal(contexts.fused, before)


@pytest.mark.parametrize(
    ("name", "change", "text"),
    [
        ("context_lengths", lambda _: None, "context_lengths must be an array, got NoneType"),
        ("context_lengths", lambda x: x.long(), "C4: context_lengths must be int32"),
        ("context_lengths", lambda x: x[:1], "C1: context_lengths must be (2), got (1,)"),
        ("context_seq_offset", lambda x: x.long(), "C4: context_seq_offset must be int32"),
        ("block_tables", lambda x: x[0], "C1: block_tables must be (batch, max_blocks_per_seq)"),
        ("key", lambda x: x[0], "C1: key must be (num_tokens, kv_heads, head_dim)"),
        ("value", lambda _: None, "value must be an array, got NoneType"),
        ("value", lambda x: x[:-1], "C1: num_blocks"),
        ("value", lambda x: x[:1].expand(len(x), -1, -1), "C20: cache must not overlap itself"),
        ("value", lambda x: x.detach().clone().requires_grad_(), "C22: "),
        ("value", lambda x: x[..., :2], "C1: states.shape[2]"),
        ("value_cache", lambda _: None, "must be an array, got NoneType"),
        ("value_cache", lambda x: x.float(), "Q2: payload must be int8, got float32"),
        ("value_cache_scale", lambda _: None, "C1: value_cache_scale must be an array"),
        ("value_cache_scale", lambda x: x[:, :2], "Q1: scale must have a shape"),
    ],
)
def test_c1_c4_c20_c22_bad_arguments_of_the_load(name, change, text):
    contexts = Contexts([5, 3], [0, 0], with_offsets=False)
    good, before = contexts.arguments(), contexts.fused.clone()
    with pytest.raises(SpecError) as error:
        mojo.MojoDequantFromPagedKVCache()(**{**good, name: change(good[name])})
    assert text in str(error.value)
    assert torch.equal(contexts.fused, before)


@pytest.mark.usefixtures("traceable")
@pytest.mark.parametrize("name", ["MojoStorePagedKVCache", "MojoStorePagedKVCacheC8"])
def test_compiled_in_one_graph(name):
    call = Call(name)
    eager = [cache.clone() for cache in call()]
    again = Call(name)
    compiled = torch.compile(again.store, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        compiled(*again.states, *again.caches, *again.scales, *again.index)
    for one, other in zip(again.caches, eager, strict=True):
        assert torch.equal(one, other)


def test_c17_where_one_kind_is_not_proven_neither_side_is_written():
    only_bf16 = model.backend(KernelSemantics(dtypes=frozenset({BF16})))
    spec, num_tokens = a_step("c5_prefill")
    (k_shape, k_dtype, keys), (v_shape, v_dtype, values) = sides_of((2, 16), (2, 16))
    rows = a_states(num_tokens, k_shape, k_dtype), a_states(num_tokens, v_shape, v_dtype)
    with pytest.raises(BackendUnsupported, match="float32"):
        mojo.MojoStorePagedKVCache(only_bf16)(*rows, keys.tensor, values.tensor, *arrays_of(spec))
    assert keys.unchanged()
    assert values.unchanged()


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # torch's own
@pytest.mark.parametrize("side", [0, 1])
def test_c22_states_that_carry_a_tangent_are_not_encoded(side):
    call = Call("MojoStorePagedKVCacheC8")
    with forward_ad.dual_level():
        states = call.states[side]
        call.states[side] = forward_ad.make_dual(states, torch.ones_like(states))
        with pytest.raises(SpecError, match=r"^C22: (key|value)_states must not carry a tangent"):
            call()
    assert all((cache == 7).all() for cache in call.caches)


def test_nothing_waits_for_values():
    with FakeTensorMode():
        for name in NAMES:
            call = Call(name)
            out = call()
            assert out[0] is call.caches[0]
        columns = int32(0, 1)
        cache = torch.zeros(3, 2, 4, 3)
        assert mojo.MojoStoreLowrank()(cache, torch.ones(2, 2, 3), columns, columns, 2) is cache
    contexts = Contexts([5, 3], [1, 2], with_offsets=False)
    for offsets in (True, False):
        given_ = contexts.arguments(offsets).items()
        with FakeTensorMode() as mode:
            fakes = {k: mode.from_tensor(v) if torch.is_tensor(v) else v for k, v in given_}
            assert mojo.MojoDequantFromPagedKVCache()(**fakes)[0] is fakes["key"]
