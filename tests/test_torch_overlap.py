"""C20: whether a cache overlaps itself is told from shape and strides, whatever their size."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import bridges
from bridges import _overlap
from bridges._overlap import may_meet, overlaps_itself
from functional_paged import SlotMapping, SpecError

AXES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), min_size=1, max_size=4)


def by_counting(axes: list[tuple[int, int]]) -> bool:
    places = [
        sum(index * stride for index, (_, stride) in zip(at, axes, strict=True))
        for at in itertools.product(*(range(size) for size, _ in axes))
    ]
    return len(set(places)) < len(places)


def told(axes: list[tuple[int, int]]) -> bool:
    return overlaps_itself([size for size, _ in axes], [stride for _, stride in axes])


@settings(max_examples=2000)
@given(AXES)
@example([(3, 3), (1, 99), (3, 2), (1, 99)])  # interleaved, and apart
@example([(3, 3), (1, 1), (4, 2), (1, 1)])  # interleaved, and meeting
@example([(5, 12), (2, 15), (2, 20)])  # only three axes together meet
@example([(2, 37), (4, 34), (4, 5), (2, 28)])  # apart, but for one step more of an axis
def test_c20_overlap_is_as_counting_finds_it(axes):
    assert told(axes) == by_counting(axes)


@settings(max_examples=500)
@given(st.permutations([(4, 6), (3, 10), (5, 15), (2, 31)]))
def test_c20_the_order_of_the_axes_does_not_matter(axes):
    assert told(list(axes)) == by_counting(list(axes))


LARGE = {
    # name: shape, strides, whether they overlap; interleaved, and of up to 2**42 elements
    "blocks among tokens": ((2**20, 8, 128, 128), (129, 2**44, 2**30, 1), False),
    "tokens meet blocks": ((2**20, 8, 128, 128), (128, 2**44, 2**26, 1), True),
    "coprime": ((2**20, 128, 256, 2**10), (2**38 + 1, 3, 35_000_105, 22_000_033), False),
    "four long axes": ((200,) * 4, (2_000_003, 2_000_029, 2_000_039, 2_000_081), True),
}


@pytest.mark.parametrize("name", LARGE)
def test_c20_the_cost_is_not_that_of_the_elements(name):
    shape, strides, overlap = LARGE[name]
    assert overlaps_itself(shape, strides) is overlap


def test_c20_a_huge_interleaved_cache_is_stored_into_or_refused():
    spec = SlotMapping(torch.zeros(1, dtype=torch.int32, device="meta"))
    for shape, strides, overlap in LARGE.values():
        if shape[0] != 2**20:
            continue
        cache = torch.empty(1, device="meta").as_strided(shape, strides)
        states = torch.empty(1, shape[1], shape[3], device="meta")
        if not overlap:
            bridges.store_single_(cache, states, spec, backend="torch")
            continue
        with pytest.raises(SpecError, match=r"^C20: cache must not overlap itself, got shape "):
            bridges.store_single_(cache, states, spec, backend="torch")


PLANTED = {
    "never": lambda axes: False,
    "two axes of all": lambda axes, meet=_overlap._meet: meet(axes[-2:]),
    "multiples": lambda axes: any(b % a == 0 for (a, _), (b, _) in itertools.pairwise(axes)),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_wrong_answer_would_be_found(planted, monkeypatch):
    monkeypatch.setattr(_overlap, "_meet", PLANTED[planted])
    wrong = 0
    for sizes in itertools.product((2, 3, 4), repeat=3):
        for strides in itertools.product((2, 3, 5, 6), repeat=3):
            axes = list(zip(sizes, strides, strict=True))
            wrong += told(axes) != by_counting(axes)
    assert wrong


VIEWS = st.tuples(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 9)), min_size=1, max_size=3),
    st.integers(0, 60),
)


@given(VIEWS, VIEWS)
def test_tensors_meet_where_one_ends_past_the_beginning_of_another(first, second):
    memory = torch.arange(200, dtype=torch.int16)
    one, other = [memory.as_strided(*zip(*axes, strict=True), at) for axes, at in (first, second)]
    want = one.min() <= other.max() and other.min() <= one.max()
    assert may_meet(one, other) == may_meet(other, one) == want
    assert not may_meet(memory.clone(), other)
