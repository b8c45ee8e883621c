"""Moves of rows that keep every bit (C16) on every platform and stay linear to JAX (C22).

On CPU, XLA's `float-normalization` passes widen a small-float cache to float32 around a scatter or
a gather and back, which costs time by the size of the cache and changes NaN payloads in cells that
nobody wrote. Moving the bits as unsigned integers keeps them; so does a compilation without those
passes (`functional_paged.jit`), which saves the copy that the bitcast of a whole cache costs.

A bitcast has no derivative, so the move is a primitive: plain to whoever differentiates, transposes
or batches it, integers only in the program for CPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from .._types import Array

Move: TypeAlias = Callable[..., Array]
"""Arrays of one dtype, then places, to an array of that dtype; linear in all but the places."""

# Part of JAX's trace-cache key, so that a function traced under `passes_off` is traced again
# elsewhere. A JAX without it always moves unsigned integers: the same bits.
_passes_off: Any = jax.make_user_context(False) if hasattr(jax, "make_user_context") else None

_move_p = Primitive("move_bits")


@contextlib.contextmanager
def passes_off() -> Iterator[None]:
    """Trace for a compilation in which the float-normalization passes are off."""
    # Under disable_jit nothing is compiled, so no option is on.
    compiled = not jax.config.jax_disable_jit  # pyright: ignore[reportAttributeAccessIssue]
    with _passes_off(True) if compiled and _passes_off is not None else contextlib.nullcontext():
        yield


def widened_dtypes() -> list[str]:
    """The names of all dtypes that JAX has and XLA on CPU emulates in a wider one."""
    scalars = [
        x for x in vars(jnp).values() if hasattr(x, "dtype") and isinstance(x.dtype, np.dtype)
    ]
    return sorted({scalar.dtype.name for scalar in scalars if is_widened(scalar.dtype)})


def is_widened(dtype: Any) -> bool:
    """Whether XLA on CPU emulates a dtype in a wider one."""
    return (
        jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits <= 16 and dtype != jnp.float16
    )


def move(plain: Move, *arrays: Array) -> Array:
    """The result of `plain` on `arrays`, the last of them places, bit for bit."""
    if not is_widened(arrays[0].dtype):
        return plain(*arrays)
    in_place = _passes_off is not None and _passes_off.value
    return _move_p.bind(*arrays, plain=plain, in_place=in_place)


def _as_integers(*arrays: Array, plain: Move, in_place: bool = False) -> Array:
    *floats, places = arrays
    dtype = floats[0].dtype
    unsigned = f"uint{jnp.finfo(dtype).bits}"
    moved = plain(*(jax.lax.bitcast_convert_type(x, unsigned) for x in floats), places)
    return jax.lax.bitcast_convert_type(moved, dtype)


def _plainly(*arrays: Array, plain: Move, in_place: bool) -> Array:
    return plain(*arrays)


def _lower_on_cpu(context: Any, *arrays: Any, plain: Move, in_place: bool) -> Any:
    # Who runs an exported program compiles it with options of his own.
    in_place = in_place and not context.module_context.lowering_parameters.for_export
    way = _plainly if in_place else _as_integers
    return mlir.lower_fun(way, multiple_results=False)(
        context, *arrays, plain=plain, in_place=in_place
    )


def _aval(*arrays: Any, plain: Move, in_place: bool) -> Any:
    return jax.make_jaxpr(plain)(*arrays).out_avals[0]


def _jvp(primals: Any, tangents: Any, **params: Any) -> Any:
    *d_arrays, _ = map(ad.instantiate_zeros, tangents)
    return _move_p.bind(*primals, **params), _move_p.bind(*d_arrays, primals[-1], **params)


def _transpose(cotangent: Any, *arrays: Any, plain: Move, in_place: bool) -> list[Any]:
    linear = [ad.is_undefined_primal(array) for array in arrays]

    def of_linear(*given: Array) -> Array:
        rest = iter(given)
        pairs = zip(arrays, linear, strict=True)
        return plain(*(next(rest) if is_linear else array for array, is_linear in pairs))

    avals = [array.aval for array, is_linear in zip(arrays, linear, strict=True) if is_linear]
    pulled = iter(jax.linear_transpose(of_linear, *avals)(cotangent))
    return [next(pulled) if is_linear else None for is_linear in linear]


def _batch(arrays: Any, axes: Any, *, plain: Move, in_place: bool) -> Any:
    return _move_p.bind(*arrays, plain=jax.vmap(plain, tuple(axes)), in_place=in_place), 0


_move_p.def_impl(_as_integers)
_move_p.def_abstract_eval(_aval)
ad.primitive_jvps[_move_p] = _jvp
ad.primitive_transposes[_move_p] = _transpose
batching.primitive_batchers[_move_p] = _batch
mlir.register_lowering(_move_p, mlir.lower_fun(_plainly, multiple_results=False))
mlir.register_lowering(_move_p, _lower_on_cpu, platform="cpu")
