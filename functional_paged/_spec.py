"""The index spec: where each new token goes, in one of three forms."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import numpy as np

from ._errors import SpecError
from ._sizes import INT32_MAX
from ._types import Array, Int32, Integer

if TYPE_CHECKING:
    from typing_extensions import Self

Form: TypeAlias = Literal["block_table", "chunks", "slots"]
"""The forms of an index spec by name."""

PAD = -1
"""Marks what is not stored: a hole in a block table, a padded row, an unused slot."""


class _Spec:
    """Base of the three forms, each a JAX pytree as soon as JAX is loaded.

    Attributes:
      form: the name of the form.
    """

    form: ClassVar[Form]

    def __post_init__(self) -> None:
        register_pytrees()

    def arrays(self) -> dict[str, Array]:
        """The arrays by field name; a field that is `None` is left out."""
        return {name: array for name, array in vars(self).items() if array is not None}

    def map(self, function: Callable[[Array], Array]) -> Self:
        """The spec with `function` applied to each array."""
        return type(self)(**{name: function(array) for name, array in self.arrays().items()})


@dataclass(frozen=True, eq=False)
class BlockTable(_Spec):
    """Where each row's tokens go, as a serving engine keeps it.

    Attributes:
      block_table: physical block of each logical block, `PAD` where none.
        int32[batch, max_blocks_per_seq]
      context_kv_lens: tokens already stored in each row; negative marks a padded row. int32[batch]
      cu_q_lens: running total of new tokens, from 0. int32[batch + 1]; `None` is decode, one new
        token a row.

    Example:
      >>> import numpy as np
      >>> from functional_paged import to_slots
      >>> spec = BlockTable(np.int32([[4, 2], [7, PAD]]), np.int32([15, 3]), np.int32([0, 3, 4]))
      >>> to_slots(spec, cache_shape=(8, 2, 16, 64), num_tokens=4).slots
      array([ 79,  32,  33, 115], dtype=int32)
    """

    form: ClassVar[Form] = "block_table"
    block_table: Int32[Array, "batch max_blocks_per_seq"]
    context_kv_lens: Int32[Array, " batch"]
    cu_q_lens: Int32[Array, " batch+1"] | None = None


@dataclass(frozen=True, eq=False)
class ChunkPlan(_Spec):
    """Runs of tokens, each run inside one block.

    Attributes:
      chunks: one row a run: `src_token_start`, `dst_block_id`, `dst_block_offset`, `chunk_len`;
        a row of `chunk_len` 0 is padding. int32[num_chunks, 4]

    Example:
      >>> import numpy as np
      >>> from functional_paged import to_slots
      >>> spec = ChunkPlan(np.int32([[0, 4, 15, 1], [1, 2, 0, 2]]))
      >>> to_slots(spec, cache_shape=(8, 2, 16, 64), num_tokens=3).slots
      array([79, 32, 33], dtype=int32)
    """

    form: ClassVar[Form] = "chunks"
    chunks: Int32[Array, "num_chunks 4"]


@dataclass(frozen=True, eq=False)
class SlotMapping(_Spec):
    """One slot a token: `block_id * block_size + offset`, negative where it is not stored.

    Attributes:
      slots: int32 or int64[num_slots]; may name fewer tokens than `states` has rows.

    Example:
      >>> import numpy as np
      >>> SlotMapping(np.int32([79, PAD, 33])).slots.shape
      (3,)
    """

    form: ClassVar[Form] = "slots"
    slots: Integer[Array, " num_slots"]


IndexSpec: TypeAlias = BlockTable | ChunkPlan | SlotMapping

FORMS = (BlockTable, ChunkPlan, SlotMapping)

_pytrees_registered = False


def register_pytrees() -> None:
    """Make the forms JAX pytrees if JAX is loaded; loads nothing itself."""
    global _pytrees_registered
    # A module is in sys.modules before it has finished loading.
    tree_util = getattr(sys.modules.get("jax"), "tree_util", None)
    if _pytrees_registered or not hasattr(tree_util, "register_pytree_with_keys"):
        return
    _pytrees_registered = True
    for form in FORMS:
        _register(tree_util, form)


def _register(tree_util: Any, form: type) -> None:
    names = [field.name for field in fields(form)]
    keys = [tree_util.GetAttrKey(name) for name in names]

    def flatten(spec: Any) -> tuple[list[Any], None]:
        return [_leaf(name, getattr(spec, name)) for name in names], None

    def flatten_with_keys(spec: Any) -> tuple[list[Any], None]:
        return list(zip(keys, flatten(spec)[0], strict=True)), None

    tree_util.register_pytree_with_keys(
        form, flatten_with_keys, lambda _, children: form(*children), flatten
    )


def _leaf(name: str, array: Any) -> Any:
    """The leaf that JAX gets for a field: a NumPy array is copied, all else is handed on.

    JAX may read NumPy memory after the call that took it has returned. It wraps int64 where its
    64-bit integers are off, and cannot be told from a caller who maps over the leaves, so what
    would wrap is refused (C5).
    """
    if not isinstance(array, np.ndarray):
        return array
    if array.dtype == np.int64 and not _jax_has_int64():
        for position in np.argwhere(array.astype(np.int32) != array):
            where = ", ".join(map(str, position))
            raise SpecError(
                "C5",
                f"{name}[{where}] = {array[tuple(position)]} must fit int32 in a JAX pytree where "
                "64-bit integers are off (jax_enable_x64); an eager functional_paged call takes "
                "it, and so does `map` of the spec",
            )
    return array.copy()


def narrowed(index_spec: IndexSpec) -> IndexSpec:
    """The spec with NumPy int64 slots in 32 bits where JAX has no others, for a JAX store.

    What is cut off is not stored, before as after (C12, C14): without 64-bit integers no cache has
    a slot past 2**31.
    """
    slots = getattr(index_spec, "slots", None)
    if not isinstance(slots, np.ndarray) or slots.dtype != np.int64 or _jax_has_int64():
        return index_spec
    return SlotMapping(np.clip(slots, PAD, INT32_MAX).astype(np.int32))


def _jax_has_int64() -> bool:
    return sys.modules["jax"].dtypes.canonicalize_dtype(np.int64) == np.int64
