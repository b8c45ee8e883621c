"""Cases of codecs: each puts one clause of `docs/quantised.md` to the test, in a dtype of states.

Before each stands a case of exact quotients, scales that are powers of two, and one absmax for all
tokens, so that a fault of one clause does not show in the cases of another.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import replace

import ml_dtypes
import numpy as np

from functional_paged import SlotMapping, codecs
from functional_paged.codecs import Codec

from ..bits import DTYPES
from .case import Case
from .controls import subject_of
from .problem import Problem

CODECS: dict[str, Codec] = {
    name.lower(): getattr(codecs, name) for name in codecs.__all__ if name != "Codec"
}
"""The shipped codecs, by the name that an adapter gets."""

HEADS, HEAD_DIM, ATTEMPTS = 8, 64, 1 << 14
_CASES = {
    "q1_exact": ("numbers of the payload by powers of two", ""),
    "q1_decode": ("products, which are rounded to float32 first", ""),
    "q2_division": ("quotients of which other ways miss some", "q3_half_to_even"),
    "q3_half_to_even": ("quotients that are ties", "q1_exact"),
    "q4_saturates": ("quotients past the bounds, and infinities", "q1_exact"),
    "q5_nan": ("a NaN of each sign among numbers", "q1_exact"),
    "q7_absmax": ("groups of zeros, below the floor and above", "q2_division"),
    "q8_tokens_apart": ("tokens that each have another absmax", "q1_exact"),
    "q10_round_trip": ("what another store has decoded", "q2_division"),
}
"""What it is about, and the case before it."""


def codec_cases() -> Iterator[Case]:
    """Every clause for every codec; those of an absmax where the codec makes one."""
    for codec, dtype, name in itertools.product(CODECS, ("bf16", "f16", "f32"), _CASES):
        clause, (about, control) = subject_of(name), _CASES[name]
        makes_scale = CODECS[codec].scale == "absmax"
        if clause == "Q4" and makes_scale:  # whose infinities are one thing that no absmax has
            control = "q5_nan"
        if makes_scale or clause not in ("Q7", "Q8"):
            yield Case(
                f"{name}/{codec}/{dtype}",
                (clause,),
                about,
                functools.partial(_problem, name, codec, dtype),
                kind="decode" if name == "q1_decode" else "encode",
                quick=dtype == "bf16",
                controls=(f"{control}/{codec}/{dtype}",) if control else (),
            )


def _problem(name: str, codec_name: str, dtype_name: str) -> Problem:
    codec, dtype = CODECS[codec_name], DTYPES[dtype_name]
    with np.errstate(all="ignore"):
        is_any = name in ("q1_decode", "q2_division")
        states, scale = _quotients(codec, dtype) if is_any else _numbers(codec, name)
        states = states.astype(dtype)
    wide = np.broadcast_to(scale, states.shape[1:]) if codec.group == "channel" else scale
    tokens, heads, head_dim = states.shape
    return Problem(
        (tokens, heads, 1, head_dim),
        dtype,
        states,
        SlotMapping(np.arange(tokens, dtype=np.int32)),
        codec=codec_name,
        scale=wide.copy() if codec.scale == "static" else None,
    )


def _numbers(codec: Codec, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the payload, in each head by a power of two, and what a case has of its own."""
    numbers, high = _payload_numbers(codec), codec.high
    numbers = _ties(codec) if name == "q3_half_to_even" else numbers
    scale = np.float32(0.5) ** (np.arange(HEADS, dtype=np.float32) % 4)[:, None]
    if name == "q10_round_trip":
        scale = np.random.default_rng(3).uniform(0.25, 1, (HEADS, 1)).astype(np.float32)
    states = np.resize(numbers, (3, HEADS, HEAD_DIM))
    states[..., 0] = high
    states *= scale
    if name == "q4_saturates":
        past = [np.inf, -np.inf, *[2 * high, 2 * codec.low, 100 * high] * (codec.scale == "static")]
        states[..., 1 : 1 + len(past)] = past
    elif name == "q5_nan":
        states[..., 1:3] = np.nan, -np.nan
    elif name == "q7_absmax":
        absmax = np.random.default_rng(2).lognormal(0, 3, (HEADS, 1))
        absmax[:2] = [0], [high * codec.floor / 2]
        states = absmax * np.resize([-1.0, 0, 1], (1, HEADS, HEAD_DIM))
    elif name == "q8_tokens_apart":
        states *= np.array([1, 0.5, 2])[:, None, None]
    return states, scale


def _quotients(codec: Codec, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Any scales, and in each head a quotient near a tie, which the reciprocal gets wrong."""
    random, ties = np.random.default_rng(1), _ties(codec)
    tie = random.choice(ties[ties > ties.max() / 8], ATTEMPTS).astype(np.float32)
    number = random.lognormal(0, 1, ATTEMPTS).astype(dtype).astype(np.float32)
    largest = (number / tie * np.float32(codec.high)).astype(dtype).astype(np.float32)
    scale = largest / np.float32(codec.high) if codec.scale == "absmax" else number / tie
    static, one = replace(codec, scale="static", group="token_head"), np.float32(1)
    right, wrong = (
        static.encode(quotient[:, None, None], one)[0].astype(np.float32).ravel()
        for quotient in (number / scale, number * (one / scale))
    )
    found = np.flatnonzero((right != wrong) & (number <= largest))[:HEADS]
    states = random.uniform(-1, 1, (1, HEADS, HEAD_DIM)) * largest[found, None]
    states[0, :, :2] = np.stack([largest, number], axis=1)[found]
    return states, scale[found, None]


def _payload_numbers(codec: Codec) -> np.ndarray:
    """The numbers between a codec's bounds, ascending; a zero has a sign."""
    payload = np.int8 if codec.payload == "int8" else getattr(ml_dtypes, codec.payload)
    numbers = np.arange(256, dtype=np.uint8).view(payload).astype(np.float64)
    return np.sort(numbers[(numbers >= codec.low) & (numbers <= codec.high)])


def _ties(codec: Codec) -> np.ndarray:
    numbers = np.unique(_payload_numbers(codec))
    return (numbers[1:] + numbers[:-1]) / 2
