"""vLLM's `reshape_and_cache_flash` and `reshape_and_cache`, by their signatures, as the store."""

from __future__ import annotations

import torch

from functional_paged import SlotMapping, SpecError, internal
from functional_paged.codecs import FP8_E4M3, FP8_E5M2, Codec
from functional_paged.internal import Integer, Shaped

from ._encode import encoded
from ._fit import check_axes
from ._store import store_single_

_CODECS: dict[str, Codec | None] = {
    "auto": None,
    "fp8": FP8_E4M3,
    "fp8_e4m3": FP8_E4M3,
    "fp8_e5m2": FP8_E5M2,
}


def reshape_and_cache_flash(
    key: Shaped[torch.Tensor, "num_tokens kv_heads head_dim"],
    value: Shaped[torch.Tensor, "num_tokens kv_heads head_dim"],
    key_cache: Shaped[torch.Tensor, "num_blocks block_size kv_heads head_dim"],
    value_cache: Shaped[torch.Tensor, "num_blocks block_size kv_heads head_dim"],
    slot_mapping: Integer[torch.Tensor, " num_slots"],
    kv_cache_dtype: str,
    k_scale: torch.Tensor,
    v_scale: torch.Tensor,
) -> None:
    """Store of keys and values into token-major caches, in place.

    Args:
      key: `(num_tokens, kv_heads, head_dim)`. Left alone; rows past `num_slots` too.
      value: the same; its head_dim may differ.
      key_cache: `(num_blocks, block_size, kv_heads, head_dim)`, any strides that do not overlap.
      value_cache: the same.
      slot_mapping: see `SlotMapping`; -1 is not stored. int32 or int64[num_slots]
      kv_cache_dtype: `"auto"`: the caches are of the states' dtype. `"fp8"`, `"fp8_e4m3"`,
        `"fp8_e5m2"`: they hold float8, as such or as uint8, which `codecs.FP8_E4M3` or
        `codecs.FP8_E5M2` encodes.
      k_scale: what a stored key is multiplied by to decode it, one or one a head; unused with
        `"auto"`. float32. Where a value is not positive and finite, nothing is stored (Q6).
      v_scale: the same of the values.

    Raises:
      SpecError: as `store_single_`; Q1, Q2 for scales; C2 for another `kv_cache_dtype`. Nothing is
        written then.
      BackendUnsupported: no backend can serve this call.

    Example:
      >>> cache, rows, one = torch.zeros(2, 2, 2, 1, 1), torch.ones(1, 1, 1), torch.ones(1)
      >>> reshape_and_cache_flash(rows, rows * 2, *cache, torch.tensor([3]), "auto", one, one)
      >>> cache.flatten().tolist()
      [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 2.0]
    """
    axes = ("num_blocks", "block_size", "kv_heads", "head_dim")
    check_axes(axes, key_cache=key_cache, value_cache=value_cache)
    _store(
        slot_mapping,
        kv_cache_dtype,
        key=(key, key_cache.transpose(1, 2), k_scale),
        value=(value, value_cache.transpose(1, 2), v_scale),
    )


def reshape_and_cache(
    key: Shaped[torch.Tensor, "num_tokens kv_heads head_dim"],
    value: Shaped[torch.Tensor, "num_tokens kv_heads head_dim"],
    key_cache: Shaped[torch.Tensor, "num_blocks kv_heads head_dim/x block_size x"],
    value_cache: Shaped[torch.Tensor, "num_blocks kv_heads head_dim block_size"],
    slot_mapping: Integer[torch.Tensor, " num_slots"],
    kv_cache_dtype: str,
    k_scale: torch.Tensor,
    v_scale: torch.Tensor,
) -> None:
    """Store of keys and values into the caches of the first paged attention, in place.

    As `reshape_and_cache_flash`, into caches that keep the tokens of a block next to each other.

    Args:
      key: `(num_tokens, kv_heads, head_dim)`. Left alone.
      value: the same; its head_dim may differ.
      key_cache: `(num_blocks, kv_heads, head_dim / x, block_size, x)`, contiguous in its two axes
        of a head, where x elements are read at once.
      value_cache: `(num_blocks, kv_heads, head_dim, block_size)`.
      slot_mapping: as there.
      kv_cache_dtype: as there.
      k_scale: as there.
      v_scale: as there.

    Raises:
      SpecError, BackendUnsupported: as there; C20 for keys whose axes of a head lie apart.
    """
    check_axes(("num_blocks", "kv_heads", "head_dim / x", "block_size", "x"), key_cache=key_cache)
    check_axes(("num_blocks", "kv_heads", "head_dim", "block_size"), value_cache=value_cache)
    num_blocks, kv_heads, pieces, block_size, x = key_cache.shape
    check_axes(("num_tokens", kv_heads, pieces * x), key=key)
    if min(kv_heads, pieces) > 1 and key_cache.stride(1) != pieces * key_cache.stride(2):
        raise SpecError(
            "C20",
            "key_cache must have heads of head_dim / x pieces one after the other, got strides "
            f"{key_cache.stride()}",
        )
    # A piece of a head is a head of its own, of x elements.
    keys = key.reshape(len(key), kv_heads * pieces, x)
    blocks = key_cache.view(num_blocks, kv_heads * pieces, block_size, x)
    if isinstance(k_scale, torch.Tensor) and k_scale.numel() != 1:
        k_scale = k_scale.repeat_interleave(pieces)
    _store(
        slot_mapping,
        kv_cache_dtype,
        key=(keys, blocks, k_scale),
        value=(value, value_cache.transpose(2, 3), v_scale),
    )


def _store(
    slots: torch.Tensor,
    kv_cache_dtype: str,
    **sides: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    """Store each side's states in its cache, by its scale."""
    if kv_cache_dtype not in list(_CODECS):
        raise SpecError(
            "C2", f"kv_cache_dtype must be one of {', '.join(_CODECS)}, got {kv_cache_dtype!r}"
        )
    caches = {name: cache for name, (_, cache, _) in sides.items()}
    states = {name: rows for name, (rows, _, _) in sides.items()}
    spec, codec = SlotMapping(slots), _CODECS[kv_cache_dtype]
    if codec is not None:
        for name, (_, _, scale) in sides.items():
            internal.check_kind(internal.TORCH_STORE, f"{name[0]}_scale", scale)
        given = {name: (rows, scale.reshape(-1, 1)) for name, (rows, _, scale) in sides.items()}
        payloads, spec = encoded(codec, spec, **given)
        for (name, cache), payload in zip(caches.items(), payloads, strict=True):
            states[name] = payload.view(torch.uint8) if cache.dtype == torch.uint8 else payload
    store_single_(caches, states, spec)
