"""The probe: what one ixformer does on one device, capability by capability."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from . import library
from .report import Capability, ProbeReport
from .trials import specs
from .trials.canvas import Canvas
from .trials.finding import Finding, attempt, kernel_errors
from .trials.trial import TensorKind, Trial, canvases, expected, index_arrays, try_store

ATTESTED = TensorKind(torch.bfloat16, kv_heads=2, block_size=16, head_dim=128)
"""What the vendor's own tests cover; the edges are tried with this kind of tensors."""

_DTYPES = ("float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int8", "uint8")
_HEAD_DIMS = (1, 3, 46, 63, 64, 80, 96, 128, 192, 256, 576)
_BLOCK_SIZES = (1, 7, 8, 16, 32, 64, 128, 256, 2048)
_KV_HEADS = (1, 2, 3, 8, 24)
_ROWS = (7, 1023, 8191)


def probe(functions: Any = None, device: torch.device | str = "cpu") -> ProbeReport:
    """Find out what a library's store kernels do, by tiny stores that harm nothing.

    Each store goes into memory full of canaries and is compared bit for bit with the reference,
    also around the cache and behind the tables. A kernel that raises is a finding. A kernel that
    breaks the device (reading -1 as an unsigned number, say) ends the probe, which keeps what it
    found, and the process's use of the device: run it in a process of its own, as
    `functional-paged probe` does.

    Args:
      functions: an object with the kernel functions, such as the module `ixformer.functions`;
        `None` for the installed library's, on torch's current device.
      device: where to try them.

    Returns:
      One `Capability` for each thing that was tried or could not be.

    Raises:
      BackendUnsupported: the library or its device is missing.

    Example:
      >>> from bridges.ixformer.model import KernelSemantics, ModelFunctions
      >>> report = probe(ModelFunctions(KernelSemantics(hole="stop")), "cpu")
      >>> report["prefill, hole in the table"].status
      'disproven'
    """
    functions, device = _installed() if functions is None else (functions, torch.device(device))
    who, found = library.identity(functions, device), []
    try:
        for capability in _capabilities(functions, device):
            found.append(capability)
    except RuntimeError as error:
        found.append(Capability("all else", "not tried", f"{type(error).__name__}: {error}"))
    return ProbeReport(*who, tuple(found))


def _installed() -> tuple[Any, torch.device]:
    functions = library.load_functions()
    library.require_device()
    return functions, torch.device("cuda", torch.cuda.current_device())


def _capabilities(functions: Any, device: torch.device) -> Iterator[Capability]:
    kernel = library.BLOCK_TABLE_KERNEL
    if not hasattr(functions, kernel):
        yield Capability(kernel, "disproven", "missing")
        return
    yield Capability(kernel, "proven", "found")

    def tried(
        name: str,
        store: library.Store | None,
        kind: TensorKind = ATTESTED,
        trial: Trial | None = None,
    ) -> Capability:
        if store is None:
            return Capability(name, "not tried", "no call form for it")
        trial = trial or specs.decode_rows(7, kind.block_size)
        return Capability(name, *try_store(store, kind, trial, device))

    sides = _written_sides(functions, device)
    yield Capability("store_mode=1: the sides that it writes", *sides)
    best, returned = None, []
    for form in library.CALL_FORMS:
        store = library.in_form(functions, form)
        found = tried(form, store)
        if found.status == "proven" and best is None:
            best = store
        yield found
    for name, kind, trial in _trials():
        yield tried(name, best, kind, trial)
    found = tried("return value", best and (lambda *call: returned.append(best(*call))))
    if found.status == "proven":
        last = returned[-1]
        evidence = "nothing" if last is None else f"a {type(last).__name__}, not used"
        found = replace(found, evidence=evidence)
    yield found


def _trials() -> Iterator[tuple[str, TensorKind, Trial | None]]:
    size, dim = ATTESTED.block_size, ATTESTED.head_dim
    row = ATTESTED.kv_heads * dim
    block = row * size
    for name, edge in (specs.DECODE | specs.PREFILL).items():
        yield name, ATTESTED, edge(size)
    one = ATTESTED.dtype.itemsize
    kinds: dict[str, dict[str, Any]] = {
        "strided states: a slice of fused q, k and v": {"states_strides": (4 * row, dim, 1)},
        "strided states: heads before tokens": {"states_strides": (dim, 8 * dim, 1)},
        "strided cache: key and value packed": {"cache_strides": (2 * block, dim * size, dim, 1)},
        "strided cache: positions before heads": {"cache_strides": (block, dim, row, 1)},
        "unaligned states": {"states_shift": one},
        "unaligned cache": {"cache_shift": one},
        **{f"dtype {name}": {"dtype": getattr(torch, name)} for name in _DTYPES},
        **{f"head_dim {value}": {"head_dim": value} for value in _HEAD_DIMS},
        **{f"block_size {value}": {"block_size": value} for value in _BLOCK_SIZES},
        **{f"kv_heads {value}": {"kv_heads": value} for value in _KV_HEADS},
    }
    for name, fields in kinds.items():
        yield name, ATTESTED._replace(**fields), None
    for rows in _ROWS:
        yield f"{rows} rows in decode", ATTESTED, specs.decode_rows(rows, size)
        trial = specs.prefill_of_size(rows, 1, rows // size + 2, size, spread=False)
        yield f"{rows} tokens of one row in prefill", ATTESTED, trial
        trial = specs.prefill_of_size(rows, rows // 4, 31, size, spread=True)
        yield f"{rows} tokens of {rows // 4} rows in prefill", ATTESTED, trial
    yield "int64 indices", ATTESTED, specs.decode_rows(7, size)._replace(index_dtype=torch.int64)


def _written_sides(functions: Any, device: torch.device) -> Finding:
    """Tell the sides; disproven where the keyword is unknown or a side is neither old nor new."""
    kernel = getattr(functions, library.BLOCK_TABLE_KERNEL)
    trial = specs.decode_rows(7, ATTESTED.block_size)

    def once() -> Finding:
        keys, key_states = canvases(ATTESTED, trial, device)
        values, value_states = canvases(ATTESTED, trial, device)
        # The canaries of both sides are alike; this tells a key's row from a value's.
        value_states.fill_(value_states.host ^ 1)
        tensors = [c.tensor for c in (key_states, value_states, keys, values)]
        indices = index_arrays(trial, device)
        with kernel_errors():
            kernel(*tensors, *indices, store_mode=1)
            written = [cache.memory.cpu().numpy() for cache in (keys, values)]
        key = _change(written[0], keys, expected(keys, key_states, trial))
        value = _change(written[1], values, expected(values, value_states, trial))
        known = "written" in (key, value) and "wrong" not in (key, value)
        text = f"the key side is {key}, the value side is {value}"
        return Finding("proven" if known else "disproven", text)

    return attempt(once)


def _change(memory: np.ndarray, cache: Canvas, stored: np.ndarray) -> str:
    if (memory == stored).all():
        return "written"
    return "untouched" if (memory == cache.host).all() else "wrong"
