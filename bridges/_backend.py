"""What a backend is, what it gives back, and the error of one that cannot serve.

A leaf: it imports no other module of this package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch

from functional_paged.internal import Integer, Shaped

if TYPE_CHECKING:
    from functional_paged import IndexSpec

BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""The integer dtype that holds an element, by its bytes."""


class BackendUnsupported(NotImplementedError):
    """A backend that cannot load, or cannot serve this call; the text says why and what to do."""


class Lowered(Protocol):
    """The writes of one index spec, ready for every cache that the plan fits.

    Holds tensors, numbers and names, so that it can be copied and pickled.

    Attributes:
      route: how it writes, in the backend's words.
    """

    @property
    def route(self) -> str: ...

    def write_(self, caches: Sequence[torch.Tensor], states: Sequence[torch.Tensor]) -> None:
        """Write the stored rows of each of `states` into its cache, and nothing else.

        As if one after the other, all states being read before the first write, which the operator
        around it sees to.

        Args:
          caches: each `(num_blocks, kv_heads, block_size, head_dim)`, checked.
          states: as many, each `(num_tokens or more, kv_heads, head_dim)` of its cache's dtype.

        Raises:
          BackendUnsupported: a tensor that the backend cannot serve. Nothing is written then.
        """
        ...


class Backend(Protocol):
    """A way to write rows in place. Calls come checked: a backend only lowers and writes.

    Attributes:
      name: the backend's name.
      in_order: whether, of two tokens with one slot, the later one's row is what stays, whole.
    """

    name: str
    in_order: bool

    def serves(self, device: torch.device) -> str | None:
        """The reason why tensors of a device cannot be served, `None` if they can."""
        ...

    def lower(
        self,
        index_spec: IndexSpec,
        slots: Integer[torch.Tensor, " num_tokens"],
        cache: Shaped[torch.Tensor, "num_blocks kv_heads block_size head_dim"],
        *,
        checked: bool,
    ) -> Lowered:
        """Prepare one index spec, for all layers and tensors, without a host sync.

        Args:
          index_spec: what the caller gave, checked (C1, C3, C4).
          slots: the same, lowered: int32 or int64[num_tokens], `PAD` where a token is not stored,
            no slot twice unless the backend is `in_order`.
          cache: one of the caches to be written; others may differ in kv_heads, head_dim and
            dtype.
          checked: whether the values of `index_spec` were checked too, and are valid.

        Returns:
          The writes. They hold what the spec says now, whatever becomes of its tensors.

        Raises:
          BackendUnsupported: this cannot be served. A call that names no backend gets the next.
        """
        ...


@dataclass(frozen=True, eq=False)
class TokenSlots:
    """The slot of each token, for every cache of some sizes.

    Attributes:
      num_blocks: of every cache.
      block_size: of every cache.
      num_tokens: rows of states; states may have more (C10).
      device: of every tensor.
      slots: `PAD` where a token is not stored. int32 or int64[num_tokens]
    """

    num_blocks: int
    block_size: int
    num_tokens: int
    device: torch.device
    slots: Integer[torch.Tensor, " num_tokens"] = field(repr=False)


@dataclass(frozen=True, eq=False)
class StorePlan(TokenSlots):
    """An index spec, checked and lowered, for every layer and tensor that shares it.

    A plan can be copied and pickled. In another process its backend is found by name.

    Attributes:
      backend: the name of what writes.
      lowered: the backend's own.
    """

    backend: str
    lowered: Lowered = field(repr=False)

    @property
    def route(self) -> str:
        """How the plan writes, in the backend's words."""
        return self.lowered.route
