"""The registered operator around the library, so that torch.compile knows what it writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .. import _registry
from .._operator import register_operator
from .proofs import Prover


def prover_of(backend: str) -> Prover:
    """The prover of the backend of that name in this process, loaded if need be."""
    found: Any = _registry.find(backend)
    return found.prover


def _store(
    caches: Sequence[torch.Tensor],
    states: Sequence[torch.Tensor],
    table: torch.Tensor,
    contexts: torch.Tensor,
    native: list[torch.Tensor] | None,
    backend: str,
) -> None:
    prover_of(backend).write(caches, states, table, contexts, native)


# A graph or an exported program names the backend, which is looked up where it runs.
store = register_operator(
    "ixformer_store(Tensor(a!)[] cache, Tensor[] states, Tensor table, Tensor contexts, "
    "Tensor[]? native, str backend) -> ()",
    _store,
)
