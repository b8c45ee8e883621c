"""The move of tokens from one paged cache to another, or to another place in the same one."""

from __future__ import annotations

from typing import SupportsIndex

from .._errors import SpecError
from .._layout import LayoutName
from .._spec import IndexSpec
from .store import load_single, store_single
from .trees import Caches


def transfer(
    dst: Caches,
    dst_spec: IndexSpec,
    src: Caches,
    src_spec: IndexSpec,
    num_tokens: SupportsIndex,
    *,
    layout: LayoutName = "HND",
    src_layout: LayoutName | None = None,
) -> Caches:
    """Return `dst` with each token's row at its slot of `dst_spec`, from its slot of `src`.

    Equals `store_single(dst, load_single(src, src_spec, num_tokens), dst_spec)`, so the caches may
    differ in `num_blocks`, `block_size` and layout. All rows are read before one is written: within
    one cache (`src` is `dst`) blocks may be copied on a write, swapped or shifted.

    Args:
      dst: as `cache` in `store_single`. Left alone.
      dst_spec: any of the three forms; a token that it does not store is not written.
      src: caches of the dtype, `kv_heads` and `head_dim` of `dst`, leaf by leaf. Left alone.
      src_spec: any of the three forms; a token that it does not store is written as zeros.
      num_tokens: tokens that the two specs are about; any integer.
      layout: of `dst`, as in `store_single`.
      src_layout: of `src`; that of `dst` where it is `None`.

    Returns:
      New caches.

    Raises:
      SpecError: as `load_single`, for `src`; then as `store_single`, whose states those rows are.

    Example:
      >>> import jax.numpy as jnp
      >>> from functional_paged import SlotMapping
      >>> cache = jnp.arange(4.0).reshape(2, 1, 2, 1)
      >>> swap = SlotMapping(jnp.array([0, 3])), SlotMapping(jnp.array([3, 0]))
      >>> transfer(cache, swap[0], cache, swap[1], 2).ravel()
      Array([3., 1., 2., 0.], dtype=float32)
    """
    src_layout = layout if src_layout is None else src_layout
    try:
        rows = load_single(src, src_spec, num_tokens, layout=src_layout)
    except SpecError as error:
        raise SpecError(error.clause, f"src: {error.message}") from None
    return store_single(dst, rows, dst_spec, layout=layout)
