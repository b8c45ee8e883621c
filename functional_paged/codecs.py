"""Codecs: how states become the payload and the scale of a quantised cache, and states again.

A store never casts (C2), so a quantised store is an encode, then a store of payload and scale by
one index spec. `docs/quantised.md` has the clauses Q1-Q10 that encode and decode hold to. NumPy,
JAX and torch give the same bits, under `jax.jit` and `torch.compile(fullgraph=True)` too.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from array_api_compat import is_jax_namespace, is_numpy_namespace

from ._arrays import dtype_name, namespace_of, to_numpy
from ._errors import SpecError
from ._spec import PAD, IndexSpec
from ._static_checks import check_devices
from ._types import Array, Shaped

States: TypeAlias = Shaped[Array, "num_tokens kv_heads head_dim"]

_STATES = ("bfloat16", "float16", "float32")
"""Dtypes of states: those of which each number is a float32, too."""
_FLOATS = {
    "float8_e4m3fn": (3, -6, "int8", 0x7F),
    "float8_e5m2": (2, -14, "int8", 0x7E),
    "float16": (10, -14, "int16", 0x7E00),
    "bfloat16": (7, -126, "int16", 0x7FC0),
    "float32": (23, -126, "int32", 0x7FC00000),
}
"""Bits of the fraction, least exponent, and the quiet NaN as an integer: casts of a NaN differ."""
_SHARED = {"tensor": (0, 1, 2), "head": (0, 2), "channel": (0,), "token_head": (2,)}
"""The axes of states along which a group has one scale."""


@dataclass(frozen=True)
class Codec:
    """A codec by its declaration; one encode and one decode serve all.

    Attributes:
      payload: dtype of the payload.
      scale: `"static"`: given to `encode`, in a shape that broadcasts to the group's. `"absmax"`:
        made from the states.
      group: what shares a scale, and the shape of that: `"tensor"` (1, 1), `"head"` (kv_heads, 1),
        `"channel"` (kv_heads, head_dim), `"token_head"` (num_tokens, kv_heads, 1).
      low: least number of the payload that is used.
      high: the greatest; what an absmax is divided by.
      floor: least scale: an absmax scale is raised to it, a smaller static one is invalid (Q6).

    Example:
      >>> payload, scale = INT8_PER_TOKEN_HEAD.encode(np.float32([[[254, -5, 3]]]))
      >>> payload.tolist(), scale.tolist()
      ([[[127, -2, 2]]], [[[2.0]]])
      >>> INT8_PER_TOKEN_HEAD.decode(payload, scale, "float16").tolist()
      [[[254.0, -4.0, 4.0]]]
    """

    payload: Literal["int8", "float8_e4m3fn", "float8_e5m2"]
    scale: Literal["static", "absmax"]
    group: Literal["tensor", "head", "channel", "token_head"]
    low: float
    high: float
    floor: float

    def encode(self, states: States, scale: Array | None = None) -> tuple[States, Array]:
        """Payload and scale of states, which are left alone.

        Nothing waits for a device, so the values of a static scale are not looked at (Q6).

        Args:
          states: bfloat16, float16 or float32, in NumPy, JAX or torch.
          scale: float32; for a static codec only.

        Returns:
          The payload, in the shape of the states; the scale, the very object where it is given.

        Raises:
          SpecError: Q1 (shapes, a scale missing or too much), Q2 (dtypes), C3 (one device).
        """
        if (scale is None) == (self.scale == "static"):
            must = "be given" if scale is None else "not be given: it is made from the states"
            raise SpecError("Q1", f"scale of a codec of {self.scale} scale must {must}")
        xp = self._checked(_STATES, scale, states=states)
        with _quiet(xp):
            number = xp.astype(_owned(xp, states), xp.float32)
            is_nan = xp.isnan(number)
            scale = self._absmax_scale(xp, number) if scale is None else scale
            # Q2: each element is chosen, since XLA makes a division by a broadcast a multiplication
            # by the reciprocal, and the division of a quotient a single one.
            quotient = xp.where(is_nan, 0.0, number) / xp.where(is_nan, 1.0, _owned(xp, scale))
            rounded = self._rounded(xp, xp.clip(quotient, self.low, self.high))  # Q4
            return _cast(xp, rounded, self.payload, is_nan), scale

    def decode(self, payload: States, scale: Array, dtype: Any) -> States:
        """States of a payload: its product with the scale in float32, then rounded to `dtype`.

        Args:
          payload: of this codec's dtype.
          scale: float32, as given to `encode`, or made by it.
          dtype: bfloat16, float16 or float32: the framework's, or its name.

        Raises:
          SpecError: Q1 (shapes), Q2 (dtypes), C3 (one device).
        """
        name = getattr(dtype, "__name__", str(dtype)).removeprefix("torch.")
        if name not in _STATES:
            raise SpecError("Q2", f"dtype must be {' or '.join(_STATES)}, got {name}")
        xp = self._checked((self.payload,), scale, payload=payload)
        with _quiet(xp):
            product = xp.astype(_owned(xp, payload), xp.float32) * _owned(xp, scale)
            return _cast(xp, product, name, xp.isnan(product))

    def check_scale(self, scale: Array) -> None:
        """Check a static scale by value. Waits for its device.

        Raises:
          SpecError: Q6, with the first position.

        Example:
          >>> FP8_E4M3.check_scale(np.float32([[-1]]))
          Traceback (most recent call last):
          ...
          functional_paged.SpecError: Q6: scale[0, 0] = -1.0 must be finite and >= 7.88861e-31
        """
        host = to_numpy(scale)
        for position in map(tuple, np.argwhere(~self._is_good(np, host)).tolist()):
            must = f"must be finite and >= {self.floor:g}"
            raise SpecError("Q6", f"scale{list(position)} = {host[position]} {must}")

    def guarded(self, index_spec: IndexSpec, scale: Array) -> IndexSpec:
        """The index spec where all of a static scale is good, else padding alone (Q6).

        For a store with a scale that nobody has checked. Nothing waits for a device.

        Example:
          >>> from functional_paged import SlotMapping
          >>> FP8_E4M3.guarded(SlotMapping(np.int32([7, 5])), np.float32(0)).slots.tolist()
          [-1, -1]
        """
        arrays = index_spec.arrays()
        xp = namespace_of(scale=scale, **arrays)
        good = xp.all(self._is_good(xp, _owned(xp, scale)))
        pads = {"cu_q_lens": 0, "chunks": 0}  # C7, C13; for the others C6, C8, C14
        kept = {k: xp.where(good, _owned(xp, a), pads.get(k, PAD)) for k, a in arrays.items()}
        return type(index_spec)(**kept)

    def _checked(self, dtypes: tuple[str, ...], scale: Array | None, **named: Array) -> Any:
        """The namespace of the named array and the scale, once they are checked."""
        given = named if scale is None else {**named, "scale": scale}
        xp = namespace_of(**given)
        check_devices(given)
        for name, array in given.items():
            must, got = ("float32",) if name == "scale" else dtypes, dtype_name(array)
            if got not in must:
                raise SpecError("Q2", f"{name} must be {' or '.join(must)}, got {got}")
        ((name, array),) = named.items()
        if len(array.shape) != 3:
            axes = "3 axes (num_tokens, kv_heads, head_dim)"
            raise SpecError("Q1", f"{name} must have {axes}, got {tuple(array.shape)}")
        shape, got = self._scale_shape(array.shape), () if scale is None else tuple(scale.shape)
        fits = len(got) == len(shape) and all(n in (1, m) for n, m in zip(got, shape, strict=True))
        if got and not fits:
            raise SpecError("Q1", f"scale must have a shape that broadcasts to {shape}, got {got}")
        return xp

    def _scale_shape(self, states_shape: tuple[int, ...]) -> tuple[int, ...]:
        shared = _SHARED[self.group]
        shape = tuple(1 if axis in shared else n for axis, n in enumerate(states_shape))
        return shape if self.group == "token_head" else shape[1:]

    def _absmax_scale(self, xp: Any, number: Array) -> Array:
        """The scale of each group, from its finite numbers (Q5, Q7)."""
        sizes = xp.where(xp.isfinite(number), xp.abs(number), 0.0)
        shared = _SHARED[self.group]
        reduce = xp.sum if any(number.shape[axis] == 0 for axis in shared) else xp.max  # none: 0
        absmax = reduce(sizes, axis=shared, keepdims=True)
        # A division by something that is chosen, as in `encode`.
        scale = absmax / xp.where(absmax > 0, self.high, xp.ones_like(absmax))
        scale = xp.where(scale > self.floor, scale, self.floor)
        return xp.reshape(scale, self._scale_shape(number.shape))

    def _rounded(self, xp: Any, number: Array) -> Array:
        """The nearest numbers of the payload, half to even (Q3), for numbers in its range."""
        if self.payload not in _FLOATS:
            return xp.round(number)
        # A float format is evenly spaced between two powers of two; dividing by that is exact.
        fraction_bits, least_exponent, *_ = _FLOATS[self.payload]
        least, exponent = (least_exponent + 127) << 23, number.view(xp.int32) & 0x7F800000
        exponent = xp.where(exponent > least, exponent, least)
        spacing = (exponent - (fraction_bits << 23)).view(xp.float32)
        return xp.round(number / spacing) * spacing

    def _is_good(self, xp: Any, scale: Array) -> Array:
        return xp.isfinite(scale) & (scale >= self.floor)


def _cast(xp: Any, number: Array, name: str, is_nan: Array) -> Array:
    """The numbers in another dtype; where they are none, its quiet NaN, or 0 of an integer (Q5)."""
    cast = xp.astype(number, _dtype(xp, name))
    if name not in _FLOATS:
        return cast
    *_, integer, nan = _FLOATS[name]
    return xp.where(is_nan, nan, cast.view(getattr(xp, integer))).view(cast.dtype)


def _dtype(xp: Any, name: str) -> Any:
    if hasattr(xp, name):
        return getattr(xp, name)
    try:
        import ml_dtypes
    except ModuleNotFoundError as error:
        text = f"NumPy has no {name} without the package ml_dtypes"
        raise ModuleNotFoundError(text, name="ml_dtypes") from error
    return getattr(ml_dtypes, name)


def _owned(xp: Any, array: Array) -> Array:
    """The array; a copy of NumPy's for JAX, which may read it after the call has returned."""
    return array.copy() if is_jax_namespace(xp) and isinstance(array, np.ndarray) else array


def _quiet(xp: Any) -> AbstractContextManager[Any]:
    """NumPy would warn of the NaNs and overflows that the clauses speak of."""
    return np.errstate(all="ignore") if is_numpy_namespace(xp) else nullcontext()


_LEAST = 2.0**-100
"""So that no product and no quotient is subnormal: XLA flushes those to zero on a CPU."""

INT8_PER_CHANNEL = Codec("int8", "static", "channel", -128, 127, _LEAST)
INT8_PER_TOKEN_HEAD = Codec("int8", "absmax", "token_head", -127, 127, 1e-6)
FP8_E4M3 = Codec("float8_e4m3fn", "static", "head", -448, 448, _LEAST)
FP8_E5M2 = Codec("float8_e5m2", "static", "head", -57344, 57344, _LEAST)
FP8_E4M3_PER_TOKEN_HEAD = Codec("float8_e4m3fn", "absmax", "token_head", -448, 448, 1e-6)

__all__ = [
    "FP8_E4M3",
    "FP8_E4M3_PER_TOKEN_HEAD",
    "FP8_E5M2",
    "INT8_PER_CHANNEL",
    "INT8_PER_TOKEN_HEAD",
    "Codec",
]
