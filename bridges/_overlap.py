"""Whether a strided tensor overlaps itself (C20), or another one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch

from ._compiler import constant_in_graphs


def overlaps_itself(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether two elements of a strided tensor share memory. Strides are not negative.

    Two elements meet where steps `d`, not all zero and each shorter than its axis, give
    `sum(stride * d) == 0`. Layouts whose axes nest are told at once; for others the two shortest
    axes are walked, and the rest is solved.
    """
    if 0 in shape:
        return False
    axes = [(stride, size - 1) for size, stride in zip(shape, strides, strict=True) if size > 1]
    if math.prod(shape) > 1 + sum(stride * steps for stride, steps in axes):
        return True  # more elements than memory
    # Each axis steps over all smaller ones. Not sorted, which torch.compile cannot trace.
    if all(
        stride > sum(s * n for j, (s, n) in enumerate(axes) if j != i and s <= stride)
        for i, (stride, _) in enumerate(axes)
    ):
        return False
    return _meet(tuple(axes))


def may_meet(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether the memory from first to last element of two tensors has a byte in common."""
    (start, end), (other_start, other_end) = span_of(one), span_of(other)
    return start < other_end and other_start < end


def span_of(tensor: torch.Tensor) -> tuple[int, int]:
    """The addresses of a tensor's first byte and behind its last, whatever lies between."""
    dense, start = tensor.is_contiguous(), tensor.data_ptr()
    elements = tensor.numel() if dense else reach(tensor.shape, tensor.stride())
    return start, start + elements * tensor.itemsize


def share_memory(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether an element of one tensor shares memory with one of another.

    Exact for tensors that differ only in where they begin, as the keys and values of one buffer do;
    others are taken to share what lies between their first and last elements.
    """
    if not may_meet(one, other):
        return False
    kinds = [(tensor.shape, tensor.stride(), tensor.dtype) for tensor in (one, other)]
    step, rest = divmod(abs(other.data_ptr() - one.data_ptr()), one.itemsize)
    if kinds[0] != kinds[1] or rest:
        return True
    return overlaps_itself((2, *one.shape), (step, *one.stride()))


def reach(shape: Sequence[int], strides: Sequence[int]) -> int:
    """How many elements of memory a strided tensor spans, from its first element to its last."""
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


@constant_in_graphs
@lru_cache(maxsize=256)
def _meet(axes: tuple[tuple[int, int], ...]) -> bool:
    """Whether steps that are not all zero lead back to where they began."""
    if any(stride == 0 for stride, _ in axes):
        return True
    *short, (a, a_steps), (b, b_steps) = sorted(axes, key=lambda axis: axis[1])
    # What the two longest axes alone can reach: a * i + b * j == target has one i in each `period`.
    gcd = math.gcd(a, b)
    period, inverse = b // gcd, pow(a // gcd, -1, b // gcd)
    if period <= a_steps and a // gcd <= b_steps:
        return True
    for target in _sums(short):
        if target % gcd:
            continue
        least = max(-a_steps, -((b * b_steps - target) // a))
        most = min(a_steps, (target + b * b_steps) // a)
        if least + (target // gcd * inverse - least) % period <= most:
            return True
    return False


def _sums(axes: list[tuple[int, int]]) -> list[int]:
    """What steps along the axes add up to, but for steps of zero; one of each two opposites."""
    sums = [0]
    half: list[int] = []
    for stride, steps in axes:
        half += [total + stride * step for total in sums for step in range(1, steps + 1)]
        sums = [total + stride * step for total in sums for step in range(-steps, steps + 1)]
    return half
