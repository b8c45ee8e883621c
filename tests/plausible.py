"""What is plausible of ixformer's store kernels, beside the defaults of the software model."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

import torch

from bridges.ixformer.model import KernelSemantics

_POWERS = frozenset({16, 32, 64, 128})
_LIMITS: dict[str, tuple[str, Any]] = {
    "dtypes": ("other_dtypes", frozenset({torch.bfloat16, torch.float16})),
    "head_dims": ("other_head_dims", _POWERS),
    "block_sizes": ("other_block_sizes", _POWERS),
    "max_rows": ("more_rows", 4),
}
_VALUES = {name: get_args(hint) for name, hint in get_type_hints(KernelSemantics).items()}

PLAUSIBLE: dict[str, tuple[dict[str, Any], ...]] = {
    name: tuple({name: v} for v in values if v != getattr(KernelSemantics, name))
    for name, values in _VALUES.items()
}
"""Each unknown's plausible values other than the default, as arguments of `KernelSemantics`."""
for _name, (_other, _limit) in _LIMITS.items():
    del PLAUSIBLE[_other]  # says nothing without a limit
    PLAUSIBLE[_name] = tuple({_name: _limit, _other: value} for value in _VALUES[_other])
