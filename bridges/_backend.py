"""What a backend is, and the error of one that cannot serve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch

if TYPE_CHECKING:
    from functional_paged import IndexSpec

    from ._plan import StorePlan


class BackendUnsupported(RuntimeError):
    """A backend that cannot load, or cannot serve this call; the text says why and what to do."""


class Backend(Protocol):
    """Writes rows in place. Calls come checked: a backend only lowers and writes."""

    name: str

    def lower(
        self, index_spec: IndexSpec, slots: torch.Tensor, cache: torch.Tensor, *, checked: bool
    ) -> tuple[str, Any]:
        """Prepare one step, for all layers and tensors, without a host sync.

        Args:
          index_spec: what the caller gave, checked (C1, C3, C4).
          slots: the same, lowered: int32 or int64[num_tokens], `PAD` where a token is not stored,
            no slot twice.
          cache: one of the caches of the step; others may differ in kv_heads, head_dim and dtype.
          checked: whether the values of `index_spec` were checked too, and are valid.

        Returns:
          The name of the route taken, and whatever `store_` wants to find in `plan.lowered`.
        """
        ...

    def store_(self, cache: torch.Tensor, states: torch.Tensor, plan: StorePlan) -> None:
        """Write the rows that `plan` stores into `cache`, and nothing else."""
        ...
