"""The backend for Iluvatar devices: the vendor's in-place kernels, each use proven by a trial."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from functional_paged import PAD, BlockTable
from functional_paged.internal import INT32_MAX, Integer, Shaped

from .. import _registry
from .._backend import BackendUnsupported
from .._compiler import is_traced
from .._operator import register_operator
from . import library
from .proofs import Prover

if TYPE_CHECKING:
    from functional_paged import IndexSpec

SAFE = "safe"
"""One decode row a token; serves every index spec."""
NATIVE = "native"
"""The block table as it is; serves prefill whose values were checked."""

_log = logging.getLogger("bridges.ixformer")


@dataclass(frozen=True)
class TableWrites:
    """An index spec in the words of the block-table kernel: row i is token i.

    Attributes:
      backend: the name under which the operator finds the library.
      table: the block of each token, `PAD` where it is not stored. int32[num_tokens, 1]
      contexts: its offset in that block, `PAD` where it is not stored. int32[num_tokens]
      native: `block_table`, `cu_q_lens`, `context_kv_lens` for the native route, or `None`.
    """

    backend: str
    table: torch.Tensor
    contexts: torch.Tensor
    native: list[torch.Tensor] | None

    @property
    def route(self) -> str:
        """The native route, or the safe one."""
        return SAFE if self.native is None else NATIVE

    def write_(self, caches: Sequence[torch.Tensor], states: Sequence[torch.Tensor]) -> None:
        """Write by the route; a kind not proven for the native one goes the safe way."""
        _store_op(caches, states, self.table, self.contexts, self.native, self.backend)


class IxformerBackend:
    """Stores through ixformer's `paged_store_kv_cache_with_block_table`.

    A kind of call (dtype, heads, sizes, strides, alignment, number of rows) is used only after a
    trial on the device has shown that the library does it bit for bit; see `docs/ixformer.md`.
    The first call of a kind therefore waits for the device, the later ones do not.

    Attributes:
      name: the backend's name.
      prover: the library, and what is proven of it.

    Args:
      functions: an object with the kernel functions; `None` for the installed library's.
      device_check: whether to refuse to load, or to store, where there is no Iluvatar device.
      name: what graphs and exported programs call it. With `functions`, the object is known by
        that name from now on, with a number behind it where another one is.

    Raises:
      BackendUnsupported: the library, its kernel or the device is missing; the text says which.

    Example:
      >>> from bridges.ixformer.model import ModelFunctions
      >>> from bridges import store_single_
      >>> from functional_paged import SlotMapping
      >>> backend = IxformerBackend(ModelFunctions(), device_check=False)
      >>> cache, slots = torch.zeros(2, 1, 2, 1), SlotMapping(torch.tensor([3]))
      >>> store_single_(cache, torch.ones(1, 1, 1), slots, backend=backend).flatten().tolist()
      [0.0, 0.0, 0.0, 1.0]
    """

    in_order = False

    def __init__(self, functions: Any = None, device_check: bool = True, name: str = "ixformer"):
        found = library.load_functions() if functions is None else functions
        kernel = library.BLOCK_TABLE_KERNEL
        if not hasattr(found, kernel):
            raise BackendUnsupported(f"functions must have {kernel}, got {found!r} without it")
        if device_check:
            library.require_device()
        self.prover = Prover(found, device_check)
        self._device_check = device_check
        self.name = name
        if functions is not None:
            self.name = _registry.name_of(self)

    def serves(self, device: torch.device) -> str | None:
        """Iluvatar devices alone, unless that is not to be checked."""
        return library.why_not(device) if self._device_check else None

    def lower(
        self,
        index_spec: IndexSpec,
        slots: Integer[torch.Tensor, " num_tokens"],
        cache: Shaped[torch.Tensor, "num_blocks kv_heads block_size head_dim"],
        *,
        checked: bool,
    ) -> TableWrites:
        """Lower to one decode row a token and, where it is proven, to the native prefill too."""
        name = _registry.name_of(self)
        if is_traced(cache):
            return lower_by_trials(name, self.prover, slots, cache)
        native = _native(index_spec, slots.shape[0], cache) if checked else None
        lowered = lower_by_trials(name, self.prover, slots, cache, native)
        _log.debug("route %s for %s", lowered.route, type(index_spec).__name__)
        return lowered


def lower_by_trials(
    name: str,
    prover: Prover,
    slots: torch.Tensor,
    cache: torch.Tensor,
    native: list[torch.Tensor] | None = None,
) -> TableWrites:
    """The writes of kernels that are tried before each first use, by the native route if proven."""
    stored, block_size = slots >= 0, cache.shape[2]
    table = torch.where(stored, slots // block_size, PAD).to(torch.int32)[:, None]
    contexts = torch.where(stored, slots % block_size, PAD).to(torch.int32)
    if not is_traced(cache):
        # Now, so that a store that is captured finds the trials done.
        calls = prover.parts(cache, slots.shape[0])
        if native is not None and not (
            len(calls) == 1 and prover.native_is_proven(calls[0][1], native[0].shape)
        ):
            native = None
    return TableWrites(name, table, contexts, native)


def _native(
    index_spec: IndexSpec, num_tokens: int, cache: torch.Tensor
) -> list[torch.Tensor] | None:
    """What the native route passes, for a spec that `check_spec` accepted; `None` if it can't.

    Values that no trial can cover are taken out: a context at the end of the table or past it
    stores nothing (C9), however near 2**31 it is, and a padded row may name any tokens (C6).
    """
    if not isinstance(index_spec, BlockTable) or index_spec.cu_q_lens is None:
        return None
    batch, width = index_spec.block_table.shape
    capacity = width * cache.shape[2]
    if 0 in (batch, width) or capacity + num_tokens > INT32_MAX:
        return None
    contexts = index_spec.context_kv_lens
    contexts = torch.where((contexts >= 0) & (contexts < capacity), contexts, PAD)
    # Copies: a plan keeps what the spec said when it was made.
    table = index_spec.block_table.clone(memory_format=torch.contiguous_format)
    cu_q_lens = index_spec.cu_q_lens.clamp(max=num_tokens)
    return [table, cu_q_lens, contexts]


def _store(
    caches: Sequence[torch.Tensor],
    states: Sequence[torch.Tensor],
    table: torch.Tensor,
    contexts: torch.Tensor,
    native: list[torch.Tensor] | None,
    backend: str,
) -> None:
    # A graph or an exported program names the backend, which is looked up where it runs.
    found: Any = _registry.find(backend)
    found.prover.write(caches, states, table, contexts, native)


_store_op = register_operator(
    "ixformer_store(Tensor(a!)[] cache, Tensor[] states, Tensor table, Tensor contexts, "
    "Tensor[]? native, str backend) -> ()",
    _store,
)
