"""One table of bad calls, one text for each, whoever is asked to store."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import bridges
from bridges.ixformer import IxformerBackend, model
from bridges.ixformer.model import ModelFunctions
from functional_paged import IndexSpec, SpecError, reference, store_single
from tests.bad_calls import BAD_CALLS, GOOD_CALL


def to_torch(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    return value.map(to_torch) if isinstance(value, IndexSpec) else value


def by_torch(backend: Any) -> Any:
    def store(cache, states, index_spec):
        return bridges.store_single_(
            to_torch(cache), to_torch(states), to_torch(index_spec), backend=backend
        )

    return store


STORES = {
    "reference": reference.store_single,
    "jax": store_single,
    "torch": by_torch("torch"),
    "ixformer-model": by_torch(model.backend()),
    "ixformer": by_torch(IxformerBackend(ModelFunctions(), device_check=False)),
}


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("name", BAD_CALLS)
def test_a_bad_call_has_one_text(name, store):
    change, text = BAD_CALLS[name]
    if name == "cache_type" and store != "reference":
        return  # a list of caches is a tree, which the other stores take
    if store not in ("reference", "jax"):
        text = text.replace("numpy.ndarray", "torch.Tensor")
    with pytest.raises(SpecError) as error:
        STORES[store](**{**GOOD_CALL, **change})
    assert str(error.value) == text
    assert error.value.clause == text.partition(":")[0]


@pytest.mark.parametrize("store", STORES)
def test_the_valid_twin_is_stored(store):
    cache = np.zeros_like(GOOD_CALL["cache"])
    STORES[store](**{**GOOD_CALL, "cache": cache})


@pytest.mark.parametrize("backend", ["torch", model.backend()])
def test_c3_tensors_on_two_devices_have_one_text(backend):
    good = {name: to_torch(value) for name, value in GOOD_CALL.items()}
    for name in ("cache", "states"):
        with pytest.raises(SpecError, match=r"C3: .* must be on the device of"):
            bridges.store_single_(
                **_renamed({**good, name: good[name].to("meta")}), backend=backend
            )


def _renamed(call: dict[str, Any]) -> dict[str, Any]:
    return {("index_spec_or_plan" if k == "index_spec" else k): v for k, v in call.items()}


@pytest.mark.parametrize("backend", ["torch", model.backend()])
def test_what_a_plan_does_not_fit_has_one_text(backend):
    good = {name: to_torch(value) for name, value in GOOD_CALL.items()}
    plan = bridges.plan(good["index_spec"], cache=good["cache"], num_tokens=2, backend=backend)
    for cache, states, text in (
        (torch.zeros(7, 3, 4, 5), torch.zeros(2, 3, 5), "C1: num_blocks = 7 of cache must equal 6"),
        (torch.zeros(6, 3, 8, 5), torch.zeros(2, 3, 5), "C1: block_size = 8 of cache must equal 4"),
        (torch.zeros(6, 3, 4, 5), torch.zeros(1, 3, 5), "C11: states.shape[0] = 1 must be >= num"),
        (torch.zeros(6, 3, 4, 5), torch.zeros(2, 3, 5).half(), "C2: states.dtype must equal cache"),
        (torch.zeros(6, 3, 4, 1).expand(6, 3, 4, 5), torch.zeros(2, 3, 5), "C20: cache must not"),
    ):
        with pytest.raises(SpecError) as error:
            bridges.store_single_(cache, states, plan)
        assert str(error.value).startswith(text)
