"""Which calls a library was seen to get right: nothing is written that no trial has shown."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from functional_paged.internal import INT32_MAX

from .._backend import BackendUnsupported
from . import trial_specs as specs
from .call import FORMS, Store
from .canvas import ALIGNMENT
from .load import require_device
from .trial import Kind, Trial, difference

MAX_ROWS = 2**14 - 1
MAX_ELEMENTS = 2**26
"""Tokens and elements of one kernel call; more are stored in several. That bounds a trial."""

_log = logging.getLogger("bridges.ixformer")


class Proven(NamedTuple):
    """What trials have shown for one kind of tensors.

    Attributes:
      store: the call to make.
      copies_states: whether it was shown for contiguous and aligned states only.
    """

    store: Store
    copies_states: bool


class Prover:
    """Stores through one library, each kind of call only after a trial of that kind.

    Attributes:
      functions: the library.
      device_check: whether to refuse tensors on other devices than Iluvatar's.
    """

    def __init__(self, functions: Any, device_check: bool):
        self.functions = functions
        self.device_check = device_check
        self._proven: dict[tuple, Proven | str] = {}
        self._native: dict[tuple, bool] = {}

    def write(
        self,
        cache: torch.Tensor,
        states: torch.Tensor,
        table: torch.Tensor,
        contexts: torch.Tensor,
        native: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None,
    ) -> None:
        """Store one row of `states` a row of `table`; see `op`."""
        rows, size, device = contexts.shape[0], cache.numel(), cache.get_device()
        if rows == 0 or size == 0:
            return
        if device >= 0 and device != torch.cuda.current_device():
            with torch.cuda.device(device):  # where a kernel is launched
                return self.write(cache, states, table, contexts, native)
        if states.shape[0] != rows:
            states = states[:rows]
        shape = cache.shape
        if rows > MAX_ROWS or rows * shape[1] * shape[3] > MAX_ELEMENTS:
            step = _rows_per_call(shape)
            if rows > step:
                for start in range(0, rows, step):
                    part = slice(start, start + step)
                    self.write(cache, states[part], table[part], contexts[part])
                return
        states_strides = None if states.is_contiguous() else states.stride()
        states_shift = states.data_ptr() % ALIGNMENT
        key = _key(cache, shape, size, states_strides, states_shift, rows, device)
        proven = self._proven.get(key)
        if proven is None:
            proven = self.prove(key, cache.device)
        if isinstance(proven, str):
            raise BackendUnsupported(proven)
        if proven.copies_states:
            states = states.clone(memory_format=torch.contiguous_format)
        if native is not None and self.native_is_proven(key, native[0].shape, cache.device):
            proven.store(states, cache, *native)
        else:
            proven.store(states, cache, table, None, contexts)

    def try_ahead(
        self, cache: torch.Tensor, rows: int, native_shape: tuple[int, ...] | None
    ) -> bool:
        """Have the trials for contiguous states now; returns whether the native route is proven."""
        if rows == 0 or cache.numel() == 0:
            return False
        step = _rows_per_call(cache.shape)
        rows_of_call = min(rows, step)
        key = _key(cache, cache.shape, cache.numel(), None, 0, rows_of_call, cache.get_device())
        proven = self._proven.get(key) or self.prove(key, cache.device)
        if isinstance(proven, str):
            raise BackendUnsupported(proven)
        if native_shape is None or rows > step:
            return False
        return self.native_is_proven(key, native_shape, cache.device)

    def prove(self, key: tuple, device: torch.device) -> Proven | str:
        """Try the safe route for one kind of tensors and number of rows; remember the outcome."""
        _require_no_capture(device)
        if self.device_check:
            require_device(device)
        *fields, row_bits, _ = key
        kind = Kind(*fields)
        trial = specs.decode_rows(2**row_bits - 1, kind.block_size)
        found: dict[str, None] = {}
        outcome: Proven | str | None = None
        plain = kind._replace(states_strides=None, states_shift=0)
        for tried in dict.fromkeys((kind, plain)):
            for form, bind in FORMS.items():
                store = bind(self.functions)
                why_not = difference(store, tried, trial, device)
                if why_not is None:
                    outcome = Proven(store, copies_states=tried != kind)
                    _log.debug("%s: %s is proven", tried, form)
                    break
                found[f"{form}: {why_not}"] = None
            if outcome is not None:
                break
        if outcome is None:
            outcome = (
                f"this ixformer was not seen to store {kind} as the specification asks; trials "
                f"found: {'; '.join(found)}. Send the vendor the output of `functional-paged "
                "probe`, and use contiguous tensors of a kind that it reports as proven, or "
                "backend='torch'"
            )
        self._proven[key] = outcome
        return outcome

    def native_is_proven(
        self, key: tuple, table_shape: tuple[int, ...], device: torch.device
    ) -> bool:
        """Whether every edge of prefill is proven, at this size, for one kind of tensors."""
        native_key = (key, *(n.bit_length() for n in table_shape))
        if native_key not in self._native:
            _require_no_capture(device)
            proven = self._proven[key]
            assert isinstance(proven, Proven)
            *fields, row_bits, _ = key
            kind = Kind(*fields)
            if proven.copies_states:
                kind = kind._replace(states_strides=None, states_shift=0)
            self._native[native_key] = self._try_native(
                proven.store, kind, (row_bits, *native_key[1:]), device
            )
        return self._native[native_key]

    def _try_native(
        self, store: Store, kind: Kind, size_bits: tuple[int, ...], device: torch.device
    ) -> bool:
        trials = specs.prefill_trials(kind.block_size, *(2**bits - 1 for bits in size_bits))
        for name, trial in trials.items():
            why_not = _too_large(trial) or difference(store, kind, trial, device)
            if why_not is not None:
                _log.debug("%s: native route not used, %s: %s", kind, name, why_not)
                return False
        return True


def _key(
    cache: torch.Tensor,
    shape: Sequence[int],
    size: int,
    states_strides: tuple[int, ...] | None,
    states_shift: int,
    rows: int,
    device: int,
) -> tuple:
    """The fields of `Kind`, the bits of the number of rows, and the device.

    Runs once a layer and tensor, so it takes what its callers have asked the tensors already.
    """
    strides = None if cache.is_contiguous() else cache.stride()
    if size > INT32_MAX or (strides and shape[0] * strides[0] > INT32_MAX):
        raise BackendUnsupported(
            "no ixformer was seen to reach past 2**31 elements (C19), which cache of shape "
            f"{tuple(shape)} and strides {cache.stride()} needs; use smaller caches or "
            "backend='torch'"
        )
    return (
        cache.dtype,
        shape[1],
        shape[2],
        shape[3],
        strides,
        states_strides,
        cache.data_ptr() % ALIGNMENT,
        states_shift,
        (rows | 4).bit_length(),
        device,
    )


def _too_large(trial: Trial) -> str | None:
    entries = math.prod(trial.spec.block_table.shape)
    return f"not tried: {entries} table entries" if entries > 2**22 else None


def _rows_per_call(cache_shape: Sequence[int]) -> int:
    _, kv_heads, _, head_dim = cache_shape
    return max(1, min(MAX_ROWS, MAX_ELEMENTS // (kv_heads * head_dim)))


def _require_no_capture(device: torch.device) -> None:
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise BackendUnsupported(
            "a first store of its kind waits for the device, which a graph capture does not "
            "allow; run the step once before capturing it"
        )
