"""The registered operator around the library, so that torch.compile knows what it writes."""

from __future__ import annotations

import torch

from .proofs import Prover

_provers: list[Prover] = []


def register(prover: Prover) -> int:
    """Make a prover known to the operator; returns the number that the operator takes for it."""
    _provers.append(prover)
    return len(_provers) - 1


def _store_rows(
    cache: torch.Tensor,
    states: torch.Tensor,
    table: torch.Tensor,
    contexts: torch.Tensor,
    prover: int,
) -> None:
    _provers[prover].write(cache, states, table, contexts)


def _store_prefill(
    cache: torch.Tensor,
    states: torch.Tensor,
    table: torch.Tensor,
    contexts: torch.Tensor,
    native_table: torch.Tensor,
    native_cu_q_lens: torch.Tensor,
    native_contexts: torch.Tensor,
    prover: int,
) -> None:
    native = (native_table, native_cu_q_lens, native_contexts)
    _provers[prover].write(cache, states, table, contexts, native)


# A fragment of the namespace of the portable backend, whose comments say why it is done this way.
_library = torch.library.Library("functional_paged", "FRAGMENT")
_ROWS = "(Tensor(a!) cache, Tensor states, Tensor table, Tensor contexts"
_library.define(f"ixformer_rows{_ROWS}, int prover) -> ()")
_library.define(
    f"ixformer_prefill{_ROWS}, Tensor native_table, Tensor native_cu_q_lens, "
    "Tensor native_contexts, int prover) -> ()"
)
for _name, _run in {"ixformer_rows": _store_rows, "ixformer_prefill": _store_prefill}.items():
    _library.impl(_name, _run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"functional_paged::{_name}", lambda *_: None, lib=_library)
store_rows = torch.ops.functional_paged.ixformer_rows.default
store_prefill = torch.ops.functional_paged.ixformer_prefill.default
