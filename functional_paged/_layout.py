"""Which axis of a cache is which: the order of the definition, and the other one of the field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from ._errors import SpecError

LayoutName: TypeAlias = Literal["HND", "NHD"]


class Layout(NamedTuple):
    """An order of a cache's axes; `num_blocks` is the first and `head_dim` the last in any."""

    axes: str  # their names in order
    kv_heads: int  # number of the axis, as the next
    block_size: int

    def sizes(self, shape: Sequence[Any]) -> tuple[Any, Any, Any, Any]:
        """The sizes of a cache in the order of the definition."""
        return shape[0], shape[self.kv_heads], shape[self.block_size], shape[3]


HND = Layout("num_blocks, kv_heads, block_size, head_dim", 1, 2)
NHD = Layout("num_blocks, block_size, kv_heads, head_dim", 2, 1)


def layout_of(name: LayoutName) -> Layout:
    """The layout with a name: C1 where there is none."""
    if name == "HND":
        return HND
    if name == "NHD":
        return NHD
    raise SpecError("C1", f"layout must be 'HND' ({HND.axes}) or 'NHD' ({NHD.axes}), got {name!r}")
