"""Every small spec of each form, and proof that the search can find something."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from functional_paged import PAD, SlotMapping
from functional_paged.conformance.cases.small_scopes import SCOPES, Stack
from tests import exhaust

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("form", SCOPES)
def test_every_small_spec(form: str) -> None:
    count = sum(exhaust.exhaust(stack) for stack in SCOPES[form]())
    print(f"{form}: {count:,} specs")
    text = (ROOT / "docs" / "conformance.md").read_text()
    stated = re.search(rf"\| `{form}` \| ([\d,]+) \|", text)
    assert stated is not None
    assert stated[1] == f"{count:,}"


def stack_of_slots() -> Stack:
    slots = np.array([[0, PAD], [3, 1], [2, 2], [4, -3]], np.int32)
    return Stack(SlotMapping(slots), (2, 1, 2, 1), 2)


def test_the_search_passes_what_is_right() -> None:
    assert exhaust.exhaust(stack_of_slots()) == 4


@pytest.mark.parametrize("name", ["to_slots", "plan_chunks", "store_single"])
def test_the_search_finds_a_planted_bug(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = getattr(exhaust, name)

    def wrong(*args: Any, **kwargs: Any) -> Any:
        *args, spec = args
        spec = SlotMapping(spec.slots ^ 1)  # the neighbour's slot
        return right(*args, spec, **kwargs)

    monkeypatch.setattr(exhaust, name, wrong)
    with pytest.raises(AssertionError, match=f"{name} of SlotMapping"):
        exhaust.exhaust(stack_of_slots())


def test_the_search_finds_a_planted_bug_in_the_torch_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import bridges

    right = bridges.store_single_

    def wrong(cache: Any, states: Any, spec: Any, **options: Any) -> Any:
        return right(cache, states.flip(0), spec, **options)

    monkeypatch.setattr(bridges, "store_single_", wrong)
    with pytest.raises(AssertionError, match="store_single_ of SlotMapping"):
        exhaust.exhaust(stack_of_slots())
