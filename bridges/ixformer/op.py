"""The registered operator around the library, so that torch.compile knows what it writes."""

from __future__ import annotations

from typing import Any

import torch

from .. import _registry
from .proofs import Prover


def prover_of(backend: str) -> Prover:
    """The prover of the backend of that name in this process, loaded if need be."""
    # A store asks every time, and `find` takes a lock.
    found: Any = _registry._named.get(backend) or _registry.find(backend)
    return found.prover


def _store(
    cache: torch.Tensor,
    states: torch.Tensor,
    table: torch.Tensor,
    contexts: torch.Tensor,
    native: list[torch.Tensor] | None,
    backend: str,
) -> None:
    prover_of(backend).write(cache, states, table, contexts, native)


# `torch_inplace` says why it is done this way. A graph or an exported program names the backend,
# which is looked up where it runs. A module that is loaded again finds the operator defined.
_NAME = "functional_paged::ixformer_store"
if not hasattr(torch.ops.functional_paged, "ixformer_store"):
    torch.library.define(
        _NAME,
        "(Tensor(a!) cache, Tensor states, Tensor table, Tensor contexts, Tensor[]? native, "
        "str backend) -> ()",
    )
    torch.library.impl(_NAME, "default", _store)
    torch.library.register_fake(_NAME, lambda *_: None)
store = torch.ops.functional_paged.ixformer_store.default
