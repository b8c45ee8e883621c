"""Which calls a library was seen to get right: nothing is written that no trial has shown."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import torch

from functional_paged.internal import INT32_MAX

from .._backend import BackendUnsupported
from .._overlap import share_memory
from .library import CALL_FORMS, PAIR_FORM, Store, copying, in_form, require_device
from .trials import specs
from .trials.canvas import ALIGNMENT
from .trials.finding import Finding
from .trials.trial import TensorKind, Trial, try_store

MAX_ROWS = 2**14 - 1
MAX_ELEMENTS = 2**26
"""Tokens and elements of one kernel call; more are stored in several. That bounds a trial."""

MAX_TABLE_ENTRIES = 2**22
"""Of a block table that takes the native route. That bounds a trial too."""

_log = logging.getLogger("bridges.ixformer")


class Call(NamedTuple):
    """The facts about a call that are read off its tensors: equal calls are stored alike.

    Attributes:
      kind: of the tensors, which a trial tries in a cache of few blocks.
      num_blocks: of the cache.
      row_bits: of the number of rows; the trials have the most rows of that many bits.
      device: index of the device; -1 for the CPU.
    """

    kind: TensorKind
    num_blocks: int
    row_bits: int
    device: int


class Proof(NamedTuple):
    """A call that trials have shown to be right.

    Attributes:
      store: the call; it copies the states where only contiguous and aligned ones are proven.
      form: which of `CALL_FORMS`, or `PAIR_FORM`.
      tried: the call that the trials made.
    """

    store: Store
    form: str
    tried: Call


class Prover:
    """Stores through one library, each kind of call only after a trial of that kind.

    What trials find is remembered, unless it tells nothing of the kernel: a trial that was not
    made, for want of memory say, is made at the next call that needs it.
    """

    def __init__(self, functions: Any, device_check: bool, name: str = "ixformer"):
        self._functions, self._name = functions, name
        self._device_check = device_check
        self._findings: dict[tuple[str, TensorKind, str, int], Finding] = {}
        # What they come to, so that a call looks up one thing.
        self._proofs: dict[Call, Proof] = {}
        self._pairs: dict[Call, Proof | None] = {}
        self._native: dict[tuple[Any, ...], bool] = {}

    def write(
        self,
        caches: Sequence[torch.Tensor],
        states: Sequence[torch.Tensor],
        table: torch.Tensor,
        contexts: torch.Tensor,
        native: Sequence[torch.Tensor] | None = None,
    ) -> None:
        """Store one row of each states a row of `table`, or refuse before anything is written.

        Two neighbours of one kind go into one call where that is proven.
        """
        rows, device = contexts.shape[0], contexts.get_device()
        if rows == 0:
            return
        if device >= 0 and device != torch.cuda.current_device():
            with torch.cuda.device(device):  # where a kernel is launched
                return self.write(caches, states, table, contexts, native)
        pairs = [
            (cache, given if given.shape[0] == rows else given[:rows])
            for cache, given in zip(caches, states, strict=True)
            if cache.numel()
        ]
        # Each is proven before one is written.
        calls = [(cache, given, self.parts(cache, rows, given)) for cache, given in pairs]
        while calls:
            (cache, given, parts), *calls = calls
            proof = self._pair_proof((cache, given), calls[0][:2]) if calls else None
            if proof is not None:
                other, more, _ = calls.pop(0)
                cache, given, parts = (cache, other), (given, more), [(slice(rows), proof)]
            if len(parts) > 1:
                # The safe way alone: a table of prefill cannot be cut where parts of states begin.
                for part, proof in parts:
                    proof.store(given[part], cache, table[part], None, contexts[part])
            elif native is not None and self.native_is_proven(parts[0][1], native[0].shape):
                parts[0][1].store(given, cache, *native)
            else:
                parts[0][1].store(given, cache, table, None, contexts)

    def _pair_proof(self, *pairs: tuple[torch.Tensor, torch.Tensor]) -> Proof | None:
        """What is proven of one call for two caches of one kind, by a trial if it is the first."""
        rows, elements = pairs[0][1].shape[0], pairs[0][1].numel()
        if rows > MAX_ROWS or elements > MAX_ELEMENTS:
            return None
        call, other = (_facts(cache, rows, states) for cache, states in pairs)
        if call != other or share_memory(pairs[0][0], pairs[1][0]):
            return None
        if call not in self._pairs:
            most = 2**call.row_bits - 1
            trial = partial(specs.decode_rows, most, call.kind.block_size)
            try:
                name = f"decode of {most} rows"
                finding = self._find(PAIR_FORM, call.kind, name, trial, call.device)
            except BackendUnsupported:  # in a capture; what stores one is proven
                return None
            if finding.status == "not tried":
                return None
            proof = Proof(in_form(self._functions, PAIR_FORM), PAIR_FORM, call)
            self._pairs[call] = proof if finding.status == "proven" else None
        return self._pairs[call]

    def parts(
        self, cache: torch.Tensor, rows: int, states: torch.Tensor | None = None
    ) -> list[tuple[slice, Proof]]:
        """The calls that store so many rows; without states, of contiguous and aligned ones."""
        if cache.numel() == 0:
            return []
        most = max(1, min(MAX_ROWS, MAX_ELEMENTS // (cache.shape[1] * cache.shape[3])))
        most = most - most % ALIGNMENT or most  # so that every part is aligned as the first is
        proven = []
        for start in range(0, rows, most):
            part = slice(start, min(start + most, rows))
            given = None if states is None else states[part]
            proven.append((part, self._proof(cache, part.stop - start, given)))
        return proven

    def _proof(self, cache: torch.Tensor, rows: int, states: torch.Tensor | None) -> Proof:
        """What is proven of a call, by trials if it is the first of its kind, or a refusal."""
        call = _facts(cache, rows, states)
        return self._proofs.get(call) or self._prove(call)

    def native_is_proven(self, proof: Proof, table_shape: tuple[int, ...]) -> bool:
        """Whether the same call has every edge of prefill proven, for a table of that size."""
        batch, width = table_shape
        key = (proof.form, proof.tried, batch.bit_length(), width.bit_length())
        if key in self._native:
            return self._native[key]
        kind, _, row_bits, device = proof.tried
        sizes = [2**bits - 1 for bits in (row_bits, *key[-2:])]
        if sizes[1] * sizes[2] > MAX_TABLE_ENTRIES:
            _log.debug("native route not used: a table of %d x %d is too large to try", *sizes[1:])
            return False
        for name, trial in specs.prefill_trials(kind.block_size, *sizes).items():
            finding = self._find(proof.form, kind, name, trial, device)
            if finding.status != "proven":
                _log.debug("%s: native route not used, %s: %s", kind, name, finding)
                if finding.status == "disproven":
                    self._native[key] = False
                return False
        self._native[key] = True
        return True

    def _prove(self, call: Call) -> Proof:
        """Try the safe route, the best call form first."""
        kind, rows = call.kind, 2**call.row_bits - 1
        shape, strides = (call.num_blocks, *kind[1:4]), kind.cache_strides
        if max(math.prod(shape), shape[0] * (strides or (0,))[0]) > INT32_MAX:
            raise BackendUnsupported(
                f"no {self._name} was seen to reach past 2**31 elements (C19), which cache of "
                f"shape {shape} and strides {strides or 'of a contiguous one'} needs; "
                "use smaller caches or backend='torch'"
            )
        name, trial = f"decode of {rows} rows", partial(specs.decode_rows, rows, kind.block_size)
        plain = kind._replace(states_strides=None, states_shift=0)  # as those of a copy are
        found: dict[str, Finding] = {}  # each text once: two kinds may fail alike
        for tried, form in product(dict.fromkeys((kind, plain)), CALL_FORMS):
            finding = self._find(form, tried, name, trial, call.device)
            if finding.status == "proven":
                store = in_form(self._functions, form)
                store = store if tried == kind else copying(store)
                proof = Proof(store, form, call._replace(kind=tried))
                if all(finding.status == "disproven" for finding in found.values()):
                    self._proofs[call] = proof
                return proof
            found[f"{form}: {finding}"] = finding
        raise BackendUnsupported(
            f"this {self._name} was not seen to store {kind} as the specification asks; trials "
            f"found: {'; '.join(found)}. Use contiguous tensors, a kind that `functional-paged "
            "probe` reports as proven of ixformer, or backend='torch', and send the vendor what "
            "the probe says. What was not tried is tried again at the next call"
        )

    def _find(
        self, form: str, kind: TensorKind, name: str, trial: Callable[[], Trial], index: int
    ) -> Finding:
        """The outcome of the trial of that name, which is made once if it tells of the kernel."""
        key = (form, kind, name, index)
        if key not in self._findings:
            device = torch.device("cpu") if index < 0 else torch.device("cuda", index)
            _require_no_capture(device)
            if self._device_check:
                require_device(device)
            store, sides = in_form(self._functions, form), 2 if form == PAIR_FORM else 1
            finding = try_store(store, kind, trial(), device, sides)
            _log.debug("%s: %s, %s: %s: %s", kind, form, name, *finding)
            if finding.status == "not tried":
                return finding
            self._findings[key] = finding
        return self._findings[key]


def _facts(cache: torch.Tensor, rows: int, states: torch.Tensor | None) -> Call:
    num_blocks, kv_heads, block_size, head_dim = cache.shape
    kind = TensorKind(
        cache.dtype,
        kv_heads,
        block_size,
        head_dim,
        None if cache.is_contiguous() else cache.stride(),
        None if states is None or states.is_contiguous() else states.stride(),
        cache.data_ptr() % ALIGNMENT,
        0 if states is None else states.data_ptr() % ALIGNMENT,
    )
    return Call(kind, num_blocks, (rows | 4).bit_length(), cache.get_device())


def _require_no_capture(device: torch.device) -> None:
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise BackendUnsupported(
            "a first store of its kind waits for the device, which a graph capture does not "
            "allow; run the step once before capturing it"
        )
