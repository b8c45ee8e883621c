"""The triton backend: one kernel for every strided tensor, a pair of tensors in one launch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import torch

from . import _registry
from ._backend import BITS, BackendUnsupported
from ._compiler import constant_in_graphs
from ._operator import register_operator
from ._overlap import share_memory
from .ixformer import library
from .ixformer.backend import TableWrites, lower_by_trials
from .ixformer.proofs import Prover

if TYPE_CHECKING:
    from functional_paged import IndexSpec


@dataclass(frozen=True)
class SlotWrites:
    """The slot of each token, as the kernel reads it on the device.

    Attributes:
      slots: `PAD` where a token is not stored, no slot twice. int32 or int64[num_tokens]
    """

    slots: torch.Tensor

    @property
    def route(self) -> str:
        """The one there is."""
        return "triton"

    def write_(self, caches: Sequence[torch.Tensor], states: Sequence[torch.Tensor]) -> None:
        """Write through the registered operator."""
        for cache in caches:
            if cache.dtype.itemsize not in BITS:
                raise BackendUnsupported(
                    f"the triton backend moves elements of 1, 2, 4 or 8 bytes, got {cache.dtype}"
                )
        _store_op(caches, states, self.slots)


class TritonBackend:
    """Stores by a kernel of our own, on CUDA and on what calls itself so.

    On an Iluvatar device, whose triton nobody has seen at work, a kind of call is used only after
    a trial on the device, as ixformer's are; see `docs/ixformer.md`.

    Attributes:
      name: the backend's name.
      prover: what trials have shown of the kernel.

    Raises:
      ImportError: there is no triton.
    """

    name = "triton"
    in_order = False

    def __init__(self):
        from ._triton_kernel import INTERPRETED

        self._interpreted = INTERPRETED
        self.prover = Prover(_DecodeRows(), device_check=True, name=self.name)

    def serves(self, device: torch.device) -> str | None:
        """CUDA; where triton interprets the kernel, the CPU too."""
        if device.type == "cuda" or (self._interpreted and device.type == "cpu"):
            return None
        return (
            f"tensors must be on a GPU that torch calls cuda, got {device}; move them, or try it "
            "on the CPU, slowly, with TRITON_INTERPRET=1 set before triton is imported"
        )

    def lower(
        self, index_spec: IndexSpec, slots: torch.Tensor, cache: torch.Tensor, *, checked: bool
    ) -> SlotWrites | TableWrites:
        """The slots as they are; on an Iluvatar device, rows of a kind that trials have shown."""
        del index_spec, checked
        if _needs_trials(cache.device):
            return lower_by_trials(_registry.name_of(self), self.prover, slots, cache)
        return SlotWrites(slots)


@constant_in_graphs
def _needs_trials(device: torch.device) -> bool:
    return library.why_not(device) is None


class _DecodeRows:
    """The kernel in the words of ixformer's, as far as the safe route of the trials uses them."""

    def paged_store_kv_cache_with_block_table(
        self, key, value, key_cache, value_cache, block_table, cu_q_lens, contexts, **mode
    ) -> None:
        """Store one decode row a token; key and value may be one tensor."""
        assert cu_q_lens is None
        slots = block_table[:, 0].to(torch.int64) * key_cache.shape[2] + contexts
        sides = slice(1 if key_cache is value_cache else 2)
        slots = torch.where(contexts < 0, contexts, slots)
        _store([key_cache, value_cache][sides], [key, value][sides], slots)


def _store(
    caches: Sequence[torch.Tensor], states: Sequence[torch.Tensor], slots: torch.Tensor
) -> None:
    from ._triton_kernel import launch  # only now: where a program is exported there may be none

    # Writers of one launch race, and of two caches in one memory the later one's row stays.
    step = 1 if any(share_memory(*two) for two in combinations(caches, 2)) else 2
    for i in range(0, len(caches), step):
        launch(caches[i : i + step], states[i : i + step], slots)


_store_op = register_operator(
    "triton_store(Tensor(a!)[] cache, Tensor[] states, Tensor slots) -> ()", _store
)
