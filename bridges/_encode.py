"""The encoding of states that are stored quantised, which refuses what their store would refuse."""

from __future__ import annotations

import torch

from functional_paged import IndexSpec, internal
from functional_paged.codecs import Codec

from ._transforms import check_underived


def encoded(
    codec: Codec, index_spec: IndexSpec, **sides: tuple[torch.Tensor, torch.Tensor]
) -> tuple[list[torch.Tensor], IndexSpec]:
    """The payloads of states by a static codec, each with its scale, and where they are stored.

    That is nowhere if a scale is invalid by value (Q6).
    """
    internal.check_index_spec(internal.TORCH_STORE, index_spec)
    payloads = []
    for name, (states, scale) in sides.items():
        internal.check_kind(internal.TORCH_STORE, name, states)
        check_underived(**{name: states})  # which the payload does not show any more
        internal.check_devices({name: states, **index_spec.arrays()})
        payload, scale = codec.encode(states, scale)
        index_spec = codec.guarded(index_spec, scale)
        payloads.append(payload)
    return payloads, index_spec
