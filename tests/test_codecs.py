"""Codecs against `docs/quantised.md`: an oracle of tables, and the same bits in every framework."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from functional_paged import PAD, SlotMapping, SpecError, check_spec, reference, store_single
from functional_paged.codecs import (
    FP8_E4M3,
    FP8_E4M3_PER_TOKEN_HEAD,
    FP8_E5M2,
    INT8_PER_CHANNEL,
    INT8_PER_TOKEN_HEAD,
    Codec,
)
from functional_paged.conformance.adapters.torch_memory import tensor_over
from functional_paged.conformance.bits import as_bits
from tests.helpers import FORMS, SHAPE, filled, loaded_by, needs_compiler, run, without

CODECS = {
    "int8_per_channel": INT8_PER_CHANNEL,
    "int8_per_token_head": INT8_PER_TOKEN_HEAD,
    "fp8_e4m3": FP8_E4M3,
    "fp8_e5m2": FP8_E5M2,
    "fp8_e4m3_per_token_head": FP8_E4M3_PER_TOKEN_HEAD,
}
EACH_CODEC = pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
DTYPES = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16, "float32": np.float32}
NAN = {"int8": 0, "float8_e4m3fn": 0x7F, "float8_e5m2": 0x7E}
H, D = 4, 64


def f32(*values: float) -> np.ndarray:
    return np.float32(values).reshape(1, 1, -1)


@cache
def numbers_of(payload: str) -> np.ndarray:
    """The finite numbers of a payload that are not negative, by their bits."""
    if payload == "int8":
        return np.arange(128.0)
    numbers = np.arange(128, dtype=np.uint8).view(getattr(ml_dtypes, payload)).astype(np.float64)
    return numbers[np.isfinite(numbers)]


@cache
def states_of(dtype: str) -> np.ndarray:
    """Every pattern of 16 bits; of float32 ordinary numbers, ties and their neighbours, and any."""
    if dtype != "float32":
        return np.arange(2**16, dtype=np.uint16).view(DTYPES[dtype]).reshape(-1, H, D)
    random = np.random.default_rng(1)
    ties = [
        (numbers[1:] + numbers[:-1]) / 2
        for numbers in map(numbers_of, ("int8", "float8_e4m3fn", "float8_e5m2"))
    ]
    tie = np.float32(np.concatenate(ties)).view(np.int32)
    near = np.concatenate([tie - 1, tie, tie + 1]).view(np.float32)
    special = np.float32([0, 2**-149, 2**-126, 2**-127, 3e38, np.inf, np.nan])
    parts = [near, -near, special, -special, np.float32(random.normal(0, 30, 2**15))]
    size = -sum(map(len, parts)) % (H * D) + 2**16
    parts.append(random.integers(0, 2**32, size, np.uint64).astype(np.uint32).view(np.float32))
    return np.concatenate(parts).reshape(-1, H, D)


def scales_of(codec: Codec) -> list[np.ndarray | None]:
    if codec.scale == "absmax":
        return [None]
    random = np.random.default_rng(2)
    shape = (H, D) if codec.group == "channel" else (H, 1)
    several = np.exp(random.normal(0, 3, shape)).astype(np.float32)
    return [np.float32([[1]]), np.array(0.0123, np.float32), np.float32([[2**-100]]), several]


def oracle(codec: Codec, states: np.ndarray, scale: np.ndarray | None) -> tuple[Any, np.ndarray]:
    """Payload bits and scale in float64, by tables. Shares no line with the codecs.

    A quotient of two float32 in float64, rounded to float32, is the correctly rounded one.
    """
    with np.errstate(all="ignore"):
        wide = states.astype(np.float64)
        if scale is None:
            absmax = np.where(np.isfinite(wide), abs(wide), 0).max(axis=2, keepdims=True)
            scale = np.maximum(np.float32(absmax / codec.high), np.float32(codec.floor))
        quotient = np.float32(wide / scale).astype(np.float64)
    numbers = numbers_of(codec.payload)
    size = np.where(np.isnan(quotient), 0, abs(np.clip(quotient, codec.low, codec.high)))
    above = np.minimum(np.searchsorted(numbers, size), len(numbers) - 1)
    below = np.maximum(above - 1, 0)
    down, up = size - numbers[below], numbers[above] - size
    code = np.where((down < up) | ((down == up) & (below % 2 == 0)), below, above)
    negative = np.signbit(quotient)
    if codec.payload == "int8":
        code = np.where(negative & (quotient <= -127.5), -codec.low, code)  # 128 has no code
        code = np.where(negative, -code, code)
    else:
        code = code + np.where(negative, 128, 0)
    return np.where(np.isnan(quotient), NAN[codec.payload], code).astype(np.uint8), scale


def jax_of(array: np.ndarray | None) -> Any:
    return None if array is None else jnp.asarray(array)


def torch_of(array: np.ndarray | None) -> Any:
    return None if array is None else tensor_over(array.copy())


def bits_of(array: Any) -> np.ndarray:
    if isinstance(array, torch.Tensor):
        return array.view(getattr(torch, f"uint{8 * array.element_size()}")).numpy()
    return as_bits(np.asarray(array))


def by_jax(codec: Codec, states: np.ndarray, scale: np.ndarray | None) -> Any:
    return codec.encode(jax_of(states), jax_of(scale))


def by_jit(codec: Codec, states: np.ndarray, scale: np.ndarray | None) -> Any:
    return jax.jit(codec.encode)(states, scale)


def by_jit_of_a_constant(codec: Codec, states: np.ndarray, scale: np.ndarray | None) -> Any:
    return jax.jit(lambda states: codec.encode(states, scale))(states)


def by_jit_of_a_quotient(codec: Codec, states: np.ndarray, scale: np.ndarray | None) -> Any:
    """(states / 1) / scale, of which XLA would make one division."""
    ones = jnp.ones_like(states)
    return jax.jit(lambda states, one: codec.encode(states / one, scale))(states, ones)


def by_torch(codec: Codec, states: np.ndarray, scale: np.ndarray | None) -> Any:
    return codec.encode(torch_of(states), torch_of(scale))


WAYS = [by_jax, by_jit, by_jit_of_a_constant, by_jit_of_a_quotient, by_torch]


@EACH_CODEC
@pytest.mark.parametrize("dtype", DTYPES)
def test_q2_q3_q4_q5_every_bit_is_the_oracle_s(codec: Codec, dtype: str) -> None:
    states = states_of(dtype)
    for scale in scales_of(codec):
        payload, used = codec.encode(states, scale)
        bits, expected_scale = oracle(codec, states, scale)
        assert payload.dtype.name == codec.payload
        np.testing.assert_array_equal(used, expected_scale)
        np.testing.assert_array_equal(bits_of(payload), bits)


@EACH_CODEC
@pytest.mark.parametrize("way", WAYS)
def test_every_framework_encodes_to_the_same_bits(
    codec: Codec, way: Callable[..., tuple[Any, Any]]
) -> None:
    of_quotient = way is by_jit_of_a_quotient
    for dtype in ("bfloat16",) if way is by_jax else ("float32",) if of_quotient else DTYPES:
        states = states_of(dtype)
        if of_quotient:
            states = np.nan_to_num(states, posinf=1, neginf=1)
            states[abs(states) < 2**-126] = 0  # which XLA flushes before a codec gets them
        for scale in scales_of(codec)[-2:]:
            got, expected = way(codec, states, scale), codec.encode(states, scale)
            for one, other in zip(got, expected, strict=True):
                np.testing.assert_array_equal(bits_of(one), bits_of(other))


@EACH_CODEC
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_framework_decodes_to_the_same_bits(codec: Codec, dtype: str) -> None:
    every = np.resize(np.arange(256, dtype=np.uint8), (2 * H, H, D))
    payload = every.view(DTYPES.get(codec.payload, getattr(ml_dtypes, codec.payload, np.int8)))
    scales = np.random.default_rng(3).lognormal(0, 5, (len(payload), H, 1)).astype(np.float32)
    for scale in scales_of(codec) if codec.scale == "static" else [scales]:
        assert scale is not None
        expected = bits_of(codec.decode(payload, scale, dtype))
        for got in (
            codec.decode(jax_of(payload), jax_of(scale), getattr(jnp, dtype)),
            jax.jit(codec.decode, static_argnums=2)(payload, scale, dtype),
            codec.decode(torch_of(payload), torch_of(scale), getattr(torch, dtype)),
        ):
            np.testing.assert_array_equal(bits_of(got), expected)


@needs_compiler
@pytest.mark.filterwarnings("ignore:Dynamo detected a call")
def test_compiled_by_torch_the_bits_are_the_same() -> None:
    torch.compiler.reset()
    dtypes = ("float32", "bfloat16", "float16", "bfloat16", "float32")
    states = [torch_of(states_of(dtype)) for dtype in dtypes]
    scales = [torch_of(scales_of(codec)[-1]) for codec in CODECS.values()]

    def every(states: list[torch.Tensor], scales: list[torch.Tensor | None]) -> list[Any]:
        made = []
        for codec, one, scale in zip(CODECS.values(), states, scales, strict=True):
            payload, used = codec.encode(one, scale)
            made += [payload, used, codec.decode(payload, used, one.dtype)]
        return made

    compiled = torch.compile(every, fullgraph=True)
    for got, expected in zip(compiled(states, scales), every(states, scales), strict=True):
        np.testing.assert_array_equal(bits_of(got), bits_of(expected))
    torch.compiler.reset()


def test_q1_a_scale_multiplies() -> None:
    payload = np.int8([[[3, -2]]])
    assert INT8_PER_CHANNEL.decode(payload, np.float32([[0.5, 4]]), "float32").tolist() == [
        [[1.5, -8.0]]
    ]
    # Rounded to float32 first: 100 * 0.68359375 (1 + 2**-23) is just above a tie of bfloat16.
    scale = np.float32(0.68359375) * np.float32(1 + 2**-23)
    product = np.float32(100) * scale
    for dtype in DTYPES:
        decoded = INT8_PER_CHANNEL.decode(np.int8([[[100]]]), scale, dtype)
        assert decoded.dtype.name == dtype
        assert decoded[0, 0, 0] == product.astype(DTYPES[dtype])
    for dtype in (np.float16, np.dtype(np.float16), "float16", jnp.float16):
        assert INT8_PER_CHANNEL.decode(payload, scale, dtype).dtype == np.float16
    static, made = np.ones((1, 1), np.float32), INT8_PER_TOKEN_HEAD.encode(f32(1, 127))
    assert FP8_E4M3.encode(f32(1), static)[1] is static
    assert (made[1].shape, made[1].dtype) == ((1, 1, 1), np.float32)


@pytest.mark.parametrize("scale", [(), (1, 1), (H, 1), (1, D), (H, D)], ids=str)
def test_q1_a_static_scale_broadcasts_to_its_group(scale: tuple[int, ...]) -> None:
    states = states_of("bfloat16")[:8]
    given = np.full(scale, 0.5, np.float32)
    payload, _ = INT8_PER_CHANNEL.encode(states, given)
    full = INT8_PER_CHANNEL.encode(states, np.full((H, D), 0.5, np.float32))
    np.testing.assert_array_equal(payload, full[0])
    if scale[1:] == (D,):
        with pytest.raises(SpecError, match=r"^Q1: scale must have a shape that .* \(4, 1\), got "):
            FP8_E4M3.encode(states, given)


WRONG: dict[str, tuple[str, Callable[[], Any], Callable[[], Any]]] = {
    "no scale": (
        "Q1: scale of a codec of static scale must be given",
        lambda: FP8_E4M3.encode(f32(1)),
        lambda: FP8_E4M3.encode(f32(1), np.float32(1)),
    ),
    "a scale too much": (
        "Q1: scale of a codec of absmax scale must not be given: it is made from the states",
        lambda: INT8_PER_TOKEN_HEAD.encode(f32(1), np.float32(1)),
        lambda: INT8_PER_TOKEN_HEAD.encode(f32(1)),
    ),
    "states of two axes": (
        "Q1: states must have 3 axes (num_tokens, kv_heads, head_dim), got (1, 1)",
        lambda: INT8_PER_TOKEN_HEAD.encode(f32(1)[0]),
        lambda: INT8_PER_TOKEN_HEAD.encode(f32(1)),
    ),
    "a scale of another head": (
        "Q1: scale must have a shape that broadcasts to (1, 1), got (2, 1)",
        lambda: FP8_E4M3.encode(f32(1), np.ones((2, 1), np.float32)),
        lambda: FP8_E4M3.encode(f32(1), np.ones((1, 1), np.float32)),
    ),
    "a scale of one token": (
        "Q1: scale must have a shape that broadcasts to (1, 1), got (1,)",
        lambda: FP8_E4M3.decode(
            FP8_E4M3.encode(f32(1), np.float32(1))[0], np.float32([1]), "float32"
        ),
        lambda: FP8_E4M3.decode(*FP8_E4M3.encode(f32(1), np.float32(1)), "float32"),
    ),
    "states of float64": (
        "Q2: states must be bfloat16 or float16 or float32, got float64",
        lambda: FP8_E4M3.encode(np.ones((1, 1, 1)), np.float32(1)),
        lambda: FP8_E4M3.encode(np.ones((1, 1, 1), np.float32), np.float32(1)),
    ),
    "a scale of float64": (
        "Q2: scale must be float32, got float64",
        lambda: FP8_E4M3.encode(f32(1), np.float64(1)),
        lambda: FP8_E4M3.encode(f32(1), np.float32(1)),
    ),
    "a payload of another codec": (
        "Q2: payload must be float8_e4m3fn, got int8",
        lambda: FP8_E4M3.decode(np.int8([[[1]]]), np.float32(1), "float32"),
        lambda: INT8_PER_CHANNEL.decode(np.int8([[[1]]]), np.float32(1), "float32"),
    ),
    "decoded to an integer": (
        "Q2: dtype must be bfloat16 or float16 or float32, got int32",
        lambda: INT8_PER_CHANNEL.decode(np.int8([[[1]]]), np.float32(1), torch.int32),
        lambda: INT8_PER_CHANNEL.decode(np.int8([[[1]]]), np.float32(1), torch.float32),
    ),
    "two frameworks": (
        "C3: all arrays must be of one framework, got states of torch, scale of numpy",
        lambda: FP8_E4M3.encode(torch.ones(1, 1, 1), np.float32(1)),
        lambda: FP8_E4M3.encode(torch.ones(1, 1, 1), torch.tensor(1.0)),
    ),
    "two devices": (
        "C3: scale must be on the device of states = cpu, got meta",
        lambda: FP8_E4M3.encode(torch.ones(1, 1, 1), torch.tensor(1.0, device="meta")),
        lambda: FP8_E4M3.encode(torch.ones(1, 1, 1), torch.tensor(1.0)),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_q1_q2_what_does_not_fit_is_refused_in_words(name: str) -> None:
    text, wrong, twin = WRONG[name]
    with pytest.raises(SpecError) as refused:
        wrong()
    assert str(refused.value) == text
    twin()


def test_q2_a_float32_division() -> None:
    scale = np.float32(41)
    assert INT8_PER_CHANNEL.encode(f32(20.5, 61.5), scale)[0].tolist() == [[[0, 2]]]
    # Each of these ways to compute the quotient is wrong somewhere in what is tested above.
    with np.errstate(all="ignore"):
        states, scale = states_of("bfloat16"), np.float32(0.0123)
        number, right = states.astype(np.float32), INT8_PER_CHANNEL.encode(states, scale)[0]
        reciprocal = number * (np.float32(1) / scale)
        in_bfloat16 = (states / scale.astype(ml_dtypes.bfloat16)).astype(np.float32)
        scale_in_bfloat16 = number / scale.astype(ml_dtypes.bfloat16).astype(np.float32)
        for quotient in (in_bfloat16, scale_in_bfloat16):
            wrong = np.clip(np.nan_to_num(np.round(quotient)), -128, 127).astype(np.int8)
            assert (wrong != right)[abs(number) < 1].any()
        assert (reciprocal != number / scale)[np.isfinite(reciprocal)].any()


def test_q3_half_to_even() -> None:
    halves = np.arange(-20, 20) + 0.5
    payload, _ = INT8_PER_CHANNEL.encode(f32(*halves), np.float32(1))
    assert (payload % 2 == 0).all()
    for codec in (FP8_E4M3, FP8_E5M2):
        numbers = numbers_of(codec.payload)
        ties = (numbers[1:] + numbers[:-1]) / 2
        payload, _ = codec.encode(f32(*ties, *-ties), np.float32(1))
        assert (payload.view(np.uint8) % 2 == 0).all()


@EACH_CODEC
def test_q4_saturates(codec: Codec) -> None:
    static = replace(codec, scale="static", group="tensor")
    past = f32(codec.high * 1.01, 3e38, np.inf, codec.low * 1.01, -3e38, -np.inf)
    for scale in (1.0, 2**-100):
        payload, _ = static.encode(past * np.float32(scale), np.float32(scale))
        assert payload.astype(np.float64).ravel().tolist() == [codec.high] * 3 + [codec.low] * 3


@EACH_CODEC
@pytest.mark.parametrize("dtype", DTYPES)
def test_q5_nan(codec: Codec, dtype: str) -> None:
    patterns = {
        "bfloat16": np.uint16([0x7FC0, 0xFFC0, 0x7F81, 0xFFFF]),
        "float16": np.uint16([0x7E00, 0xFE00, 0x7C01, 0xFFFF]),
        "float32": np.uint32([0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF]),
    }
    nan = patterns[dtype].view(DTYPES[dtype]).reshape(1, 1, -1)
    scale = None if codec.scale == "absmax" else np.float32(1)
    assert set(bits_of(codec.encode(nan, scale)[0]).ravel()) == {NAN[codec.payload]}
    among = f32(5, -3, 2, 1)
    spoiled = np.where([True, False, True, False], f32(np.nan, 0, np.inf, 0), among)
    payload, made = codec.encode(spoiled, scale)
    expected, alone = codec.encode(f32(0, -3, 0, 1), scale)
    np.testing.assert_array_equal(made, alone)
    np.testing.assert_array_equal(bits_of(payload)[..., 1::2], bits_of(expected)[..., 1::2])
    if codec.payload != "int8":
        decoded = codec.decode(codec.encode(nan, scale)[0], made, dtype)
        assert set(bits_of(decoded).ravel()) == {patterns[dtype][0]}


BAD_SCALES = [0.0, -1.0, np.nan, np.inf, -np.inf, 2.0**-101, -0.0]


@pytest.mark.parametrize("bad", BAD_SCALES)
@pytest.mark.parametrize("form", FORMS)
def test_q6_a_bad_scale_stores_nothing(bad: float, form: str) -> None:
    spec, scale = FORMS[form], np.ones((SHAPE[1], SHAPE[3]), np.float32)
    cache, states = filled(SHAPE, "i8", 1), filled((12, SHAPE[1], SHAPE[3]), "i8", 2)
    stored = reference.store_single(cache, states, spec)
    for position, expected in (((0, 0), cache), ((-1, -1), cache), ((), stored)):
        given = scale.copy()
        if position:
            given[position] = bad
        for kept in (
            INT8_PER_CHANNEL.guarded(spec, given),
            jax.jit(INT8_PER_CHANNEL.guarded)(spec.map(jnp.asarray), given).map(np.asarray),
            INT8_PER_CHANNEL.guarded(spec.map(torch.from_numpy), torch.from_numpy(given)).map(
                lambda tensor: tensor.numpy()
            ),
        ):
            np.testing.assert_array_equal(reference.store_single(cache, states, kept), expected)
            if position:
                check_spec(kept, cache_shape=SHAPE, num_tokens=12)  # padding is valid
    with pytest.raises(SpecError, match=r"^Q6: scale\[1, 2\] = .* must be finite and >= 7.88861e-"):
        INT8_PER_CHANNEL.check_scale(np.where(np.arange(14).reshape(2, 7) == 9, bad, scale))
    INT8_PER_CHANNEL.check_scale(scale)


@pytest.mark.parametrize("scale", [2.0**-100, 1.0, 3e38])
def test_q6_a_good_scale_changes_no_spec(scale: float) -> None:
    FP8_E4M3.check_scale(np.array(scale, np.float32))
    for spec in FORMS.values():
        kept = FP8_E4M3.guarded(spec, np.array(scale, np.float32))
        for name, array in spec.arrays().items():
            assert kept.arrays()[name].dtype == array.dtype
            np.testing.assert_array_equal(kept.arrays()[name], array)


def test_nothing_waits_for_a_device() -> None:
    on_meta = partial(torch.ones, device="meta")
    for codec in CODECS.values():
        scale = None if codec.scale == "absmax" else on_meta(1, 1)
        payload, used = codec.encode(on_meta(3, 2, 8), scale)
        assert codec.decode(payload, used, torch.bfloat16).shape == (3, 2, 8)
    spec = SlotMapping(torch.ones(3, dtype=torch.int32, device="meta"))
    assert FP8_E4M3.guarded(spec, on_meta(1, 1)).slots.is_meta


@pytest.mark.parametrize("codec", [INT8_PER_TOKEN_HEAD, FP8_E4M3_PER_TOKEN_HEAD], ids=str)
def test_q7_the_absmax_of_nothing_is_zero(codec: Codec) -> None:
    for to in (np.asarray, jnp.asarray, torch.from_numpy):
        payload, scale = codec.encode(to(np.zeros((3, 2, 0), np.float32)))
        assert payload.shape == (3, 2, 0)
        np.testing.assert_array_equal(np.asarray(scale), np.full((3, 2, 1), codec.floor, "f4"))


@pytest.mark.parametrize("codec", [INT8_PER_TOKEN_HEAD, FP8_E4M3_PER_TOKEN_HEAD], ids=str)
def test_q7_absmax(codec: Codec) -> None:
    floor = np.float32(codec.floor)
    for absmax in (0, 1e-30, codec.high * floor, np.float32(0.7), 3e38):
        states = f32(0, -absmax, absmax / 2)
        payload, scale = codec.encode(states)
        assert scale == max(np.float32(np.float64(np.float32(absmax)) / codec.high), floor)
        if absmax > codec.high * floor:
            assert payload.astype(np.float32).tolist()[0][0][1] == -codec.high
    zeros, scale = codec.encode(np.zeros((2, 1, 3), np.float32))
    assert not bits_of(zeros).any()
    assert (scale == floor).all()


@pytest.mark.parametrize("group", ["tensor", "head", "channel"])
def test_q7_a_static_scale_can_be_made_of_states(group: Any) -> None:
    states = states_of("float16")
    _, scale = replace(INT8_PER_CHANNEL, scale="absmax", group=group).encode(states)
    axes = {"tensor": (0, 1, 2), "head": (0, 2), "channel": (0,)}[group]
    wide = np.where(np.isfinite(states), abs(states.astype(np.float32)), 0)
    np.testing.assert_array_equal(scale, wide.max(axis=axes, keepdims=True)[0] / np.float32(127))
    INT8_PER_CHANNEL.encode(states, scale)


def test_q8_payload_and_scale_come_together() -> None:
    slots = np.int32([5, PAD, 0, 7])
    tokens = np.arange(1.0, 5.0, dtype=np.float32).reshape(4, 1, 1)
    states = tokens * f32(127, -64, 3)  # the scale of token t is t + 1
    caches = jnp.zeros((4, 1, 2, 3), jnp.int8), jnp.zeros((4, 1, 2, 1), jnp.float32)
    encoded = INT8_PER_TOKEN_HEAD.encode(jnp.asarray(states))
    payload, scale = store_single(caches, encoded, SlotMapping(jnp.asarray(slots)))
    for token, slot in enumerate(slots.tolist()):
        if slot >= 0:
            assert scale[slot // 2, 0, slot % 2, 0] == token + 1
            assert payload[slot // 2, 0, slot % 2].tolist() == [127, -64, 3]
    assert np.count_nonzero(scale) == 3
    for token in range(4):
        alone = INT8_PER_TOKEN_HEAD.encode(states[token : token + 1])
        for one, all_of_them in zip(alone, encoded, strict=True):
            np.testing.assert_array_equal(one[0], all_of_them[token])


@EACH_CODEC
def test_q9_states_are_left_alone(codec: Codec) -> None:
    states = states_of("float32").copy()
    states.flags.writeable = False
    scale = None if codec.scale == "absmax" else np.ones((1, 1), np.float32)
    for to in (np.asarray, jax_of, torch_of):
        given = to(states)
        payload, used = codec.encode(given, None if scale is None else to(scale))
        bits = bits_of(payload).copy()
        codec.decode(payload, used, "float16")
        np.testing.assert_array_equal(bits_of(given), as_bits(states))
        np.testing.assert_array_equal(bits_of(payload), bits)


def test_q9_a_result_depends_on_the_inputs_at_the_call() -> None:
    expected = INT8_PER_CHANNEL.encode(np.full((512, 8, 512), 3, np.float32), np.float32([[2]]))[0]
    for _ in range(3):
        states, scale = np.full((512, 8, 512), 3, np.float32), np.full((8, 512), 2, np.float32)
        first = INT8_PER_CHANNEL.encode(states, jnp.asarray([[2.0]], jnp.float32))[0]
        states[:] = 99
        second = INT8_PER_CHANNEL.encode(jnp.full((512, 8, 512), 3, jnp.float32), scale)[0]
        scale[:] = 99
        np.testing.assert_array_equal(first, expected)
        np.testing.assert_array_equal(second, expected)


@EACH_CODEC
@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=60)
@given(scale=st.floats(2.0**-100, 2.0**100, width=32))
def test_q10_a_round_trip(codec: Codec, dtype: str, scale: float) -> None:
    static = replace(codec, scale="static", group="tensor")
    kind = np.int8 if codec.payload == "int8" else getattr(ml_dtypes, codec.payload)
    every = np.arange(256, dtype=np.uint8).view(kind)
    number = every.astype(np.float64)
    within = np.isfinite(number) & (number >= codec.low) & (number <= codec.high)
    product = abs(number * np.float64(np.float32(scale)))
    info = ml_dtypes.finfo(DTYPES[dtype])
    within &= (product == 0) | ((product >= info.smallest_normal) & (product <= float(info.max)))
    payload = every[within].reshape(1, 1, -1)
    given = np.float32(scale)
    again, _ = static.encode(static.decode(payload, given, dtype), given)
    np.testing.assert_array_equal(bits_of(again), bits_of(payload))


@pytest.mark.parametrize("codec", [INT8_PER_TOKEN_HEAD, FP8_E4M3_PER_TOKEN_HEAD], ids=str)
def test_q10_an_absmax_codec_comes_back_to_its_own_payload(codec: Codec) -> None:
    random = np.random.default_rng(4)
    spread = random.lognormal(0, 8, (4096, 1, 1))
    states = np.float32(random.normal(0, 1, (4096, 2, 16)) * spread)
    payload, scale = codec.encode(states)
    again, near = codec.encode(codec.decode(payload, scale, "float32"))
    np.testing.assert_array_equal(bits_of(again), bits_of(payload))
    assert abs(near.view(np.int32) - scale.view(np.int32)).max() <= 1


@pytest.mark.parametrize("to", [np.asarray, jax_of, torch_of])
def test_no_token_is_encoded_to_none(to: Callable[[np.ndarray], Any]) -> None:
    for codec in CODECS.values():
        scale = None if codec.scale == "absmax" else to(np.ones((1, 1), np.float32))
        payload, used = codec.encode(to(np.ones((0, 2, 3), np.float32)), scale)
        assert payload.shape == (0, 2, 3)
        assert codec.decode(payload, used, "float16").shape == (0, 2, 3)


def test_codecs_load_no_framework_in_use() -> None:
    use = """
import numpy as np
from functional_paged import codecs
payload, scale = codecs.INT8_PER_TOKEN_HEAD.encode(np.ones((2, 1, 4), np.float16))
assert payload.tolist() == [[[127] * 4]] * 2
assert codecs.INT8_PER_TOKEN_HEAD.decode(payload, scale, np.float16).dtype == np.float16
"""
    assert loaded_by(use) == set()
    assert loaded_by("import functional_paged", ("functional_paged.codecs",)) == set()
    float8 = "codecs.FP8_E4M3.encode(np.ones((1, 1, 1), np.float32), np.float32(1))"
    done = run(f"{without('ml_dtypes')}{use}\n{float8}")
    assert done.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: NumPy has no float8_e4m3fn without the package ml_dtypes"
    )
