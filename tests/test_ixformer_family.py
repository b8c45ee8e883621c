"""Whatever ixformer turns out to do, a store is right to the last bit, or it is refused."""

from __future__ import annotations

import itertools

import pytest
import torch

from bridges import BackendUnsupported
from bridges.ixformer import IxformerBackend
from bridges.ixformer import proofs as prover_module
from bridges.ixformer.model import KernelSemantics, ModelFunctions
from bridges.ixformer.trials.finding import Finding
from tests.guarded import ODD, PLAIN, Guarded, a_states, kit_steps, store
from tests.plausible import PLAUSIBLE


def serves(wheel, shape, dtype):
    """Whether a wheel can do all that the safe route asks of it, for contiguous tensors."""
    return (
        wheel.block_table_kernel
        and (wheel.store_mode in ("key", "value") or wheel.aliased == "safe")
        and (wheel.negative_decode == "skip" or wheel.hole in ("skip", "stop"))
        and (wheel.dtypes is None or dtype in wheel.dtypes)
        and (wheel.head_dims is None or shape[3] in wheel.head_dims)
        and (wheel.block_sizes is None or shape[2] in wheel.block_sizes)
        and wheel.max_rows is None
        and wheel.nan == "kept"
    )


def check_wheel(wheel, make_backend=IxformerBackend, kinds=(PLAIN, ODD)):
    """Right or refused, on everything; and refused only where the wheel is to blame."""
    try:
        backend = make_backend(ModelFunctions(wheel), device_check=False)
    except BackendUnsupported:
        assert not wheel.block_table_kernel
        return
    assert wheel.block_table_kernel
    for shape, dtype in kinds:
        outcomes = set()
        for step in kit_steps(shape).values():
            states = a_states(step.num_tokens, shape, dtype)
            for check in (False, True):
                route = store(backend, Guarded(shape, dtype), states, step.index_spec, check=check)
                outcomes |= {route} if step.num_tokens else set()
        for step in kit_steps(shape, valid=False).values():
            states = a_states(step.num_tokens, shape, dtype)
            outcomes.add(store(backend, Guarded(shape, dtype), states, step.index_spec))
        assert (None not in outcomes) == serves(wheel, shape, dtype)
    check_layouts(backend, wheel)


def check_layouts(backend, wheel):
    shape, dtype = PLAIN
    _, h, s, d = shape
    step = kit_steps(shape)["c5_prefill"]
    spec, num_tokens = step.index_spec, step.num_tokens
    states = a_states(num_tokens, shape, dtype)
    layouts = {
        "packed": Guarded(shape, dtype, (2 * h * s * d, s * d, d, 1)),
        "permuted": Guarded(shape, dtype, (h * s * d, d, h * d, 1)),
        "unaligned": Guarded(shape, dtype, shift=1),
        "float32": Guarded(shape, torch.float32),
    }
    of_dtype = {torch.float32: a_states(num_tokens, shape, torch.float32), dtype: states}
    served = {
        name: store(backend, cache, of_dtype[cache.tensor.dtype], spec)
        for name, cache in layouts.items()
    }
    fused = torch.zeros(num_tokens, 3, h, d, dtype=dtype)[:, 1].copy_(states)
    shifted = torch.empty(states.numel() + 1, dtype=dtype)[1:].view(states.shape).copy_(states)
    for given in (fused, shifted, states[:1].expand(states.shape)):
        served[str(given.stride())] = store(backend, Guarded(shape, dtype), given, spec)
    plainly = serves(wheel, shape, dtype)
    assert (served["float32"] is not None) == serves(wheel, shape, torch.float32)
    assert (served["packed"] is not None) == (plainly and wheel.strided_cache == "honoured")
    assert (served["permuted"] is not None) == (plainly and wheel.strided_cache == "honoured")
    assert (served["unaligned"] is not None) == (plainly and wheel.unaligned == "accepted")
    for given in (fused, shifted):
        assert (served[str(given.stride())] is not None) == plainly


SINGLES = [
    pytest.param(value, id="-".join(v if isinstance(v, str) else k for k, v in value.items()))
    for values in PLAUSIBLE.values()
    for value in values
]
PAIRS = list(itertools.combinations(PLAUSIBLE, 2))


def test_the_default_wheel_is_served():
    check_wheel(KernelSemantics())


@pytest.mark.parametrize("deviation", SINGLES)
def test_every_value_of_every_unknown(deviation):
    check_wheel(KernelSemantics(**deviation))


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_every_pair_of_unknowns(first, second):
    odd = {"head_dims", "block_sizes", "unaligned"} & {first, second}
    for a, b in itertools.product(PLAUSIBLE[first], PLAUSIBLE[second]):
        check_wheel(KernelSemantics(**a, **b), kinds=(ODD,) if odd else (PLAIN,))


@pytest.mark.parametrize(
    "wheel",
    [
        {"store_mode": "neither"},
        {"store_mode": "both", "aliased": "torn"},
        {"hole": "stop"},
        {"short_table": "next"},
        {"negative_prefill": "zero"},
        {"negative_decode": "zero", "hole": "last"},
        {"empty_row": "one"},
        {"spare_states": "append"},
        {"strided_states": "ignored"},
        {"strided_cache": "ignored"},
        {"unaligned": "rounded"},
        {"dtypes": frozenset({torch.float32}), "other_dtypes": "rounded"},
        {"head_dims": frozenset({128}), "other_head_dims": "cut"},
        {"block_sizes": frozenset({128}), "other_block_sizes": "shifted"},
        {"max_rows": 4, "more_rows": "dropped"},
        {"nan": "quieted"},
    ],
    ids=lambda wheel: next(iter(wheel)),
)
def test_a_backend_that_trusts_without_a_trial_is_caught(wheel, monkeypatch):
    monkeypatch.setattr(prover_module, "try_store", lambda *_: Finding("proven", ""))
    with pytest.raises(AssertionError):
        check_wheel(KernelSemantics(**wheel))


def test_a_backend_that_refuses_everything_is_caught(monkeypatch):
    monkeypatch.setattr(prover_module, "try_store", lambda *_: Finding("disproven", "no"))
    with pytest.raises(AssertionError):
        check_wheel(KernelSemantics())


def test_c12_a_native_route_for_unchecked_values_is_caught():
    class Trusting(IxformerBackend):
        def lower(self, index_spec, slots, cache, *, checked):
            return super().lower(index_spec, slots, cache, checked=True)

    with pytest.raises(AssertionError):
        check_wheel(KernelSemantics(), Trusting)
