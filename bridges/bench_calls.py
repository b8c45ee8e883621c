"""The benchmark of what surrounds a kernel: a call on the host, and first use in a process."""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch

import bridges
from bridges.ixformer import IxformerBackend
from bridges.ixformer.model import ModelFunctions
from functional_paged import SlotMapping
from functional_paged.internal import bench

DIRECT = "a kernel that does nothing"
NUMPY, TORCH = "import numpy", "import torch"
FIRST_STORE = """
import torch, bridges
from functional_paged import SlotMapping
cache, states = torch.zeros(8, 2, 16, 64), torch.ones(2, 2, 64)
bridges.store_single_(cache, states, SlotMapping(torch.tensor([3, 40])))
"""

_cache, _states = torch.zeros(64, 8, 16, 128), torch.zeros(32, 8, 128)
_slots = torch.arange(32, dtype=torch.int32)


def _kernel(*args: Any, **options: Any) -> None:
    """Nothing, called as ixformer's is."""


def _direct(
    cache: torch.Tensor, states: torch.Tensor, table: torch.Tensor, slots: torch.Tensor
) -> None:
    _kernel(states, states, cache, cache, table, None, slots, store_mode=1)


class Nothing:
    """A backend that writes nothing, and its own lowered form."""

    name = route = "nothing"
    in_order = True

    def serves(self, device: torch.device) -> None:
        """Any device."""

    def lower(self, *_: Any, **options: Any) -> Nothing:
        """Itself, for any spec."""
        return self

    def write_(self, caches: tuple[torch.Tensor, ...], states: tuple[torch.Tensor, ...]) -> None:
        """Nothing."""


def _planned(backend: bridges.Backend) -> Callable[[], object]:
    """A store with a plan, once it was made."""
    plan = bridges.plan(SlotMapping(_slots), cache=_cache, num_tokens=32, backend=backend)
    bridges.store_single_(_cache, _states, plan)
    return lambda: bridges.store_single_(_cache, _states, plan)


def _ixformer() -> Callable[[], object]:
    """The same with ixformer's operator, around a kernel that does nothing after its trials."""
    kernels: list[Callable[..., Any]] = [ModelFunctions().paged_store_kv_cache_with_block_table]

    def kernel(*args: Any, **options: Any) -> None:
        kernels[-1](*args, **options)

    functions = SimpleNamespace(paged_store_kv_cache_with_block_table=kernel)
    call = _planned(IxformerBackend(functions, device_check=False))
    kernels.append(_kernel)
    return call


def _custom_op() -> Callable[[], object]:
    operator = torch.library.custom_op(
        "functional_paged_bench::nothing", _direct, mutates_args={"cache"}
    )
    return partial(operator, _cache, _states, _slots[:, None], _slots)


def _first_store(folder: str) -> float:
    """Seconds to the end of a first store with compiled code in a folder."""
    return bench.in_processes(FIRST_STORE, NUMBA_CACHE_DIR=folder)()


def _cold() -> float:
    with tempfile.TemporaryDirectory() as empty:
        return _first_store(empty)


def _warm() -> bench.Timer:
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    _first_store(folder.name)
    return partial(_first_store, folder.name)


def _call(name: str, make: Callable[[], Callable[[], object]]) -> bench.Way:
    return bench.Way(name, ("call",), lambda _: bench.timed(make()), DIRECT)


def _use(name: str, baseline: str, make: Callable[[], bench.Timer] | None = None) -> bench.Way:
    """First use: what `make` times, or else the code that the name is."""
    return bench.Way(
        name, ("first-use",), lambda _: make() if make else bench.in_processes(name), baseline
    )


ways = [
    _call(DIRECT, lambda: partial(_direct, _cache, _states, _slots[:, None], _slots)),
    _call("ours: store_single_ with a plan", lambda: _planned(Nothing())),
    _call("ours: the same by ixformer's operator", _ixformer),
    _call("torch.library.custom_op", _custom_op),
    _use(NUMPY, NUMPY),
    _use("import functional_paged", NUMPY),
    _use(TORCH, TORCH),
    _use("import bridges", TORCH),
    _use("ours: first store, compiled before", TORCH, _warm),
    _use("ours: first store, nothing compiled", TORCH, lambda: _cold),
]
