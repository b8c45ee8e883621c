"""vLLM's store by its signatures: the definition's bits, in the layouts that its kernels write."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from bridges import vllm
from bridges.conformance_adapters import tensor_over as tensor
from functional_paged import PAD, SlotMapping, SpecError, codecs, reference
from functional_paged.conformance.bits import DTYPES, as_bits, pattern
from tests.helpers import filled

N, S, H, D, V = 5, 4, 3, 16, 8
X = 8
SLOTS = np.array([17, PAD, 3, 0, 400, 18], np.int64)
"""With a padded token, one past the cache, and one slot fewer than there are rows."""
T = len(SLOTS) + 1

pytestmark = pytest.mark.usefixtures("cpu_backend")


def hnd_of(name: str, cache: np.ndarray) -> np.ndarray:
    """The `(N, H, S, D)` view of a cache, by axes and not as the drop-in makes it."""
    if name == "flash":
        return np.moveaxis(cache, 1, 2)
    if cache.ndim == 4:
        return np.moveaxis(cache, 3, 2)
    return np.moveaxis(cache, 3, 2).reshape(N, H, S, D)  # a copy


def keys_from(name: str, hnd: np.ndarray, like: np.ndarray) -> np.ndarray:
    if name == "flash":
        return np.moveaxis(hnd, 2, 1)
    if like.ndim == 4:
        return np.moveaxis(hnd, 2, 3)
    return np.moveaxis(hnd.reshape(N, H, S, D // X, X), 2, 3)


SHAPES = {
    "flash": ((N, S, H, D), (N, S, H, V)),
    "paged": ((N, H, D // X, S, X), (N, H, V, S)),
}
STORES: dict[str, Any] = {"flash": vllm.reshape_and_cache_flash, "paged": vllm.reshape_and_cache}
ONE = torch.ones(1)


def call(name: str, dtype: str, **change: Any) -> dict[str, Any]:
    key_shape, value_shape = SHAPES[name]
    given = {
        "key": tensor(filled((T, H, D), dtype, 2)),
        "value": tensor(filled((T, H, V), dtype, 3)),
        "key_cache": tensor(filled(key_shape, dtype, 4)),
        "value_cache": tensor(filled(value_shape, dtype, 5)),
        "slot_mapping": torch.from_numpy(SLOTS),
        "kv_cache_dtype": "auto",
        "k_scale": ONE,
        "v_scale": ONE,
    }
    return {**given, **change}


def as_numpy(x: torch.Tensor) -> np.ndarray:
    return x.contiguous().view(getattr(torch, f"int{8 * x.itemsize}")).numpy()


def check(name: str, given: dict[str, Any], payloads: dict[str, np.ndarray], stored=SLOTS) -> None:
    """Compare the bits of both caches after the call with what the definition makes of them."""
    want = {}
    for side, rows in payloads.items():
        before = as_numpy(given[f"{side}_cache"])
        hnd = reference.store_single(
            hnd_of(name, before).copy(), rows, SlotMapping(stored.astype(np.int64))
        )
        want[side] = keys_from(name, hnd, before)
    assert STORES[name](**given) is None
    for side in payloads:
        np.testing.assert_array_equal(as_numpy(given[f"{side}_cache"]), want[side], err_msg=side)


@pytest.mark.parametrize("slot_dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32"])
@pytest.mark.parametrize("name", STORES)
def test_c10_c12_c14_c16_auto_moves_the_bits(name, dtype, slot_dtype):
    given = call(name, dtype, slot_mapping=torch.from_numpy(SLOTS).to(slot_dtype))
    check(name, given, {side: as_numpy(given[side]) for side in ("key", "value")})


@pytest.mark.parametrize("scale", ["one", "of each head"])
@pytest.mark.parametrize("cache_dtype", ["uint8", "float8"])
@pytest.mark.parametrize("kind", ["fp8", "fp8_e4m3", "fp8_e5m2"])
@pytest.mark.parametrize("name", STORES)
def test_q1_q4_fp8_is_what_the_codec_encodes(name, kind, cache_dtype, scale):
    codec = codecs.FP8_E5M2 if kind.endswith("e5m2") else codecs.FP8_E4M3
    short = "f8e5m2" if kind.endswith("e5m2") else "f8e4m3fn"
    given = call(name, "bf16", kv_cache_dtype=kind)
    for side in ("key_cache", "value_cache"):
        cache = tensor(filled(tuple(given[side].shape), short, 6))
        given[side] = cache.view(torch.uint8) if cache_dtype == "uint8" else cache
    payloads = {}
    for side, first in (("key", 0.5), ("value", 3.0)):
        scales = first + np.arange(1 if scale == "one" else H, dtype=np.float32)
        given[f"{side[0]}_scale"] = torch.from_numpy(scales)
        states = as_numpy(given[side]).view(ml_dtypes.bfloat16)
        payload, _ = codec.encode(states, scales[:, None])
        payloads[side] = payload.view(np.int8)
    check(name, given, payloads)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
@pytest.mark.parametrize("side", ["k_scale", "v_scale"])
@pytest.mark.parametrize("name", STORES)
def test_q6_a_bad_scale_of_either_side_stores_nothing(name, side, bad):
    given = call(name, "bf16", kv_cache_dtype="fp8", **{side: torch.tensor([1.0, bad, 1.0])})
    for cache in ("key_cache", "value_cache"):
        given[cache] = torch.full(given[cache].shape, 7, dtype=torch.uint8)
    STORES[name](**given)
    assert given["key_cache"].unique().tolist() == given["value_cache"].unique().tolist() == [7]


def test_c20_keys_and_values_of_one_buffer():
    buffer = filled((2, N, S, H, D), "bf16", 7)
    expected = buffer.copy()
    given = call("flash", "bf16", value=tensor(filled((T, H, D), "bf16", 3)))
    for at, side in enumerate(("key", "value")):
        rows = as_numpy(given[side]).view(DTYPES["bf16"])
        view = np.moveaxis(expected[at], 1, 2)
        view[...] = reference.store_single(view.copy(), rows, SlotMapping(SLOTS))
    given["key_cache"], given["value_cache"] = tensor(buffer).unbind(0)
    vllm.reshape_and_cache_flash(**given)
    np.testing.assert_array_equal(as_bits(buffer), as_bits(expected))


def test_c18_keys_without_a_head_and_c20_a_head_of_one_piece_with_any_stride():
    given = call("paged", "bf16", key_cache=torch.zeros(N, H, 2, S, D).bfloat16()[:, :, :1])
    vllm.reshape_and_cache(**given)
    np.testing.assert_array_equal(
        as_numpy(given["key_cache"][0, :, 0, 3]), as_numpy(given["key"][2])
    )
    none = {"key": torch.zeros(T, 0, D), "key_cache": torch.zeros(N, 0, D // X, S, X)}
    none |= {"value": torch.zeros(T, 0, V), "value_cache": torch.zeros(N, 0, V, S)}
    vllm.reshape_and_cache(**call("paged", "bf16", **none))


BAD = {
    "another dtype": (
        "paged",
        {"kv_cache_dtype": "int4"},
        "C2: kv_cache_dtype must be one of auto, fp8, fp8_e4m3, fp8_e5m2, got 'int4'",
    ),
    "fp8 into bfloat16": (
        "flash",
        {"kv_cache_dtype": "fp8"},
        "C2: states.dtype must equal cache.dtype = bfloat16, got float8_e4m3fn; a store never "
        "casts, in leaf cache['key']",
    ),
    "rank": (
        "flash",
        {"value_cache": torch.zeros(N, S, H)},
        "C1: value_cache must be (num_blocks, block_size, kv_heads, head_dim), got (5, 4, 3)",
    ),
    "kind": (
        "flash",
        {"key_cache": np.zeros((N, S, H, D))},
        "C3: key_cache must be a torch tensor for bridges.store_single_, got numpy.ndarray",
    ),
    "head_dim of keys": (
        "paged",
        {"key": torch.zeros(T, H, D - 1).bfloat16()},
        "C1: key must be (num_tokens, 3, 16), got (7, 3, 15)",
    ),
    "head_dim of values": (
        "paged",
        {"value": torch.zeros(T, H, V - 1).bfloat16()},
        "C1: states.shape[2] = 7 must equal head_dim = 8 of cache, in leaf cache['value']",
    ),
    "num_blocks": (
        "paged",
        {"value_cache": torch.zeros(N - 1, H, V, S).bfloat16()},
        "C1: num_blocks = 4 of cache must equal 5, which the plan was made for, "
        "in leaf cache['value']",
    ),
    "slots": (
        "flash",
        {"slot_mapping": torch.from_numpy(SLOTS).float()},
        "C4: slots must be int32 or int64, got float32",
    ),
    "scale": (
        "flash",
        {"kv_cache_dtype": "fp8", "k_scale": torch.ones(2)},
        "Q1: scale must have a shape that broadcasts to (3, 1), got (2, 1)",
    ),
    "dtype of the scale": (
        "paged",
        {"kv_cache_dtype": "fp8", "v_scale": torch.ones(1).double()},
        "Q2: scale must be float32, got float64",
    ),
    "a scale that is no tensor": (
        "paged",
        {"kv_cache_dtype": "fp8", "v_scale": 1.0},
        "C1: v_scale must be an array, got float",
    ),
    "several dtypes": (
        "flash",
        {"kv_cache_dtype": ["fp8"]},
        "C2: kv_cache_dtype must be one of auto, fp8, fp8_e4m3, fp8_e5m2, got ['fp8']",
    ),
    "no slots": (
        "flash",
        {"kv_cache_dtype": "fp8", "slot_mapping": None},
        "C4: slots must be an int32 array, got NoneType",
    ),
    "slots elsewhere": (
        "flash",
        {"kv_cache_dtype": "fp8", "slot_mapping": torch.from_numpy(SLOTS).to("meta")},
        "C3: slots must be on the device of key = cpu, got meta",
    ),
    "sparse cache": (
        "paged",
        {"key_cache": torch.zeros(N, H, D // X, S, X).to_sparse()},
        "C20: key_cache must be strided, got layout torch.sparse_coo",
    ),
    "sparse states": (
        "flash",
        {"kv_cache_dtype": "fp8", "value": torch.ones(T, H, V).to_sparse()},
        "C20: value must be strided, got layout torch.sparse_coo",
    ),
    "grad": (
        "flash",
        {"kv_cache_dtype": "fp8", "value": torch.ones(T, H, V, requires_grad=True)},
        "C22: value must not require grad, since a store in place has no derivative; call it under "
        "torch.no_grad() or with value.detach(), or differentiate functional_paged.store_single",
    ),
    "heads apart": (
        "paged",
        {"key_cache": torch.zeros(N, H, 2 * (D // X), S, X).bfloat16()[:, :, : D // X]},
        "C20: key_cache must have heads of head_dim / x pieces one after the other, got strides "
        "(384, 128, 32, 8, 1)",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_and_nothing_is_written(case):
    name, change, message = BAD[case]
    given = call(name, "bf16", **change)
    before = {
        side: given[side].copy() if isinstance(given[side], np.ndarray) else given[side].clone()
        for side in ("key_cache", "value_cache")
    }
    with pytest.raises(SpecError) as error:
        STORES[name](**given)
    assert str(error.value) == message
    for side, old in before.items():
        if isinstance(old, torch.Tensor) and not old.is_sparse:
            np.testing.assert_array_equal(as_numpy(given[side]), as_numpy(old))


@pytest.mark.usefixtures("traceable")
@pytest.mark.parametrize("name", STORES)
def test_compiled_whole(name):
    given = call(name, "bf16", kv_cache_dtype="fp8")
    for side in ("key_cache", "value_cache"):
        given[side] = torch.zeros(given[side].shape, dtype=torch.uint8)
    twin = {name: x.clone() if isinstance(x, torch.Tensor) else x for name, x in given.items()}
    torch.compile(STORES[name], fullgraph=True, backend="aot_eager")(**given)
    STORES[name](**twin)
    for side in ("key_cache", "value_cache"):
        assert given[side].any()
        assert torch.equal(given[side], twin[side])


def test_the_pattern_has_what_an_encoder_can_get_wrong():
    rows = pattern(T * H * D, DTYPES["bf16"], 2, payloads=True).astype(np.float32)
    assert np.isnan(rows).any()
    assert (np.abs(rows[np.isfinite(rows)]) > 448).any()
