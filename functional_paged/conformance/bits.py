"""Bits to start from and to compare: distinct, ordinary numbers or with NaN payloads."""

from __future__ import annotations

import ml_dtypes
import numpy as np

DTYPES: dict[str, np.dtype] = {
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "f8e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "f8e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "i8": np.dtype(np.int8),
    "u8": np.dtype(np.uint8),
    "i32": np.dtype(np.int32),
}
"""The dtypes of the cases by the short name in their ids."""

_FRACTION_BITS = {"f32": 23, "f16": 10, "bf16": 7, "f8e4m3fn": 3, "f8e5m2": 2}
_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio spreads neighbours apart


def short_name(dtype: np.dtype) -> str:
    """The name of a dtype in case ids."""
    return next(name for name, known in DTYPES.items() if known == dtype)


def as_bits(array: np.ndarray) -> np.ndarray:
    """The elements' bits as unsigned integers, in the array's shape."""
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


def overwrite(array: np.ndarray) -> None:
    """Invert every bit of a contiguous array in place."""
    bits = array.reshape(-1).view(np.uint8)
    np.invert(bits, out=bits)


def pattern(size: int, dtype: np.dtype, salt: int, *, payloads: bool = False) -> np.ndarray:
    """`size` elements of bits that differ from their neighbours and are never zero.

    Those of a float dtype are normal numbers, which arithmetic in a wider dtype keeps; with
    `payloads`, any bits instead (C16): every third is a NaN with a payload of its own, others are
    subnormal or infinite. The cache and the states of a case have different salts.
    """
    width = 8 * dtype.itemsize
    index = np.arange(size, dtype=np.uint64) + np.uint64(salt * 1_000_003 + 1)
    spread = index * _ODD
    fraction = _FRACTION_BITS.get(short_name(dtype))
    if fraction is None or payloads:
        bits = np.maximum(spread >> np.uint64(64 - width), np.uint64(1))
    else:
        normal = (1 << (width - 1)) - (2 << fraction)  # without the lowest and highest exponent
        number = (spread >> np.uint64(32)) * np.uint64(2 * normal) >> np.uint64(32)
        sign, magnitude = np.divmod(number, np.uint64(normal))
        bits = sign << np.uint64(width - 1) | magnitude + np.uint64(1 << fraction)
    if fraction is not None and payloads:
        exponent = ((1 << (width - 1 - fraction)) - 1) << fraction
        payload = index % np.uint64((1 << fraction) - 1) + np.uint64(1)
        if dtype == ml_dtypes.float8_e4m3fn:
            payload = np.uint64(7)  # its one NaN has all bits set
        sign = (index & np.uint64(1)) << np.uint64(width - 1)
        bits = np.where(index % 3 == 0, sign | np.uint64(exponent) | payload, bits)
    return bits.astype(f"u{dtype.itemsize}").view(dtype)
