"""The probe: what one ixformer does on one device, capability by capability."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from .call import BLOCK_TABLE_KERNEL, CALL_FORMS, CHUNK_KERNEL, Store, in_form, with_chunks
from .load import identity
from .report import Capability, ProbeReport
from .trials import specs
from .trials.sides import written_sides
from .trials.trial import TensorKind, Trial, try_store

ATTESTED = TensorKind(torch.bfloat16, kv_heads=2, block_size=16, head_dim=128)
"""What the vendor's own tests cover; the edges are tried with this kind of tensors."""

_DTYPES = ("float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int8", "uint8")
_HEAD_DIMS = (1, 3, 46, 63, 64, 80, 96, 128, 192, 256, 576)
_BLOCK_SIZES = (1, 7, 8, 16, 32, 64, 128, 256, 2048)
_KV_HEADS = (1, 2, 3, 8, 24)
_ROWS = (7, 1023, 8191)


def probe(functions: Any, device: torch.device | str) -> ProbeReport:
    """Find out what a library's store kernels do, by tiny stores that harm nothing.

    Each store goes into memory full of canaries and is compared bit for bit with the reference,
    also around the cache and behind the tables. A kernel that raises is a finding. A kernel that
    breaks the device (reading -1 as an unsigned number, say) ends the process's use of it: run the
    probe in a process of its own, as `functional-paged probe` does.

    Args:
      functions: an object with the kernel functions, such as the module `ixformer.functions`.
      device: where to try them.

    Returns:
      One `Capability` for each thing that was tried or could not be.

    Example:
      >>> from bridges.ixformer.model import KernelSemantics, ModelFunctions
      >>> report = probe(ModelFunctions(KernelSemantics(hole="stop")), "cpu")
      >>> report["prefill, hole in the table"].status
      'disproven'
    """
    device = torch.device(device)
    return ProbeReport(*identity(functions, device), tuple(_capabilities(functions, device)))


def _capabilities(functions: Any, device: torch.device) -> Iterator[Capability]:
    for symbol in (BLOCK_TABLE_KERNEL, CHUNK_KERNEL):
        there = hasattr(functions, symbol)
        status, evidence = ("proven", "found") if there else ("disproven", "missing")
        yield Capability(symbol, status, evidence)
    if not hasattr(functions, BLOCK_TABLE_KERNEL):
        return
    sides = written_sides(functions, ATTESTED, device)
    yield Capability("store_mode=1: the sides that it writes", *sides)
    decode = _decode(ATTESTED)
    best = None
    for form in CALL_FORMS:
        store = in_form(functions, form)
        found = try_store(store, ATTESTED, decode, device)
        if found.status == "proven" and best is None:
            best = store
        yield Capability(form, *found)
    chunks = with_chunks(functions) if hasattr(functions, CHUNK_KERNEL) else None
    yield _try("chunk metadata, key and value one tensor", chunks, ATTESTED, decode, device)
    for name, kind, trial in _trials():
        yield _try(name, best, kind, trial, device)
    yield _returned(best, device)


def _trials() -> Iterator[tuple[str, TensorKind, Trial]]:
    size, dim = ATTESTED.block_size, ATTESTED.head_dim
    row = ATTESTED.kv_heads * dim
    yield "decode, hole in the table", ATTESTED, specs.decode_hole(size)
    yield "decode, negative context", ATTESTED, specs.decode_negative(size)
    for name, edge in specs.PREFILL.items():
        yield name, ATTESTED, edge(size)
    strides = {
        "strided states: a slice of fused q, k and v": ("states_strides", (4 * row, dim, 1)),
        "strided states: heads before tokens": ("states_strides", (dim, 8 * dim, 1)),
        "strided cache: key and value packed": (
            "cache_strides",
            (2 * row * size, dim * size, dim, 1),
        ),
        "strided cache: positions before heads": ("cache_strides", (row * size, dim, row, 1)),
        "unaligned states": ("states_shift", ATTESTED.dtype.itemsize),
        "unaligned cache": ("cache_shift", ATTESTED.dtype.itemsize),
    }
    for name, (field, value) in strides.items():
        kind = ATTESTED._replace(**{field: value})
        yield name, kind, _decode(kind)
    sweeps = {
        "dtype": [getattr(torch, name) for name in _DTYPES],
        "head_dim": _HEAD_DIMS,
        "block_size": _BLOCK_SIZES,
        "kv_heads": _KV_HEADS,
    }
    for field, values in sweeps.items():
        for value in values:
            kind = ATTESTED._replace(**{field: value})
            yield f"{field} {value}".replace("torch.", ""), kind, _decode(kind)
    for rows in _ROWS:
        yield f"{rows} rows in decode", ATTESTED, specs.decode_rows(rows, size)
        trial = specs.prefill_of_size(rows, 1, rows // size + 2, size, spread=False)
        yield f"{rows} tokens of one row in prefill", ATTESTED, trial
        trial = specs.prefill_of_size(rows, rows // 4, 31, size, spread=True)
        yield f"{rows} tokens of {rows // 4} rows in prefill", ATTESTED, trial
    yield "int64 indices", ATTESTED, _decode(ATTESTED)._replace(index_dtype=torch.int64)


def _decode(kind: TensorKind) -> Trial:
    return specs.decode_rows(7, kind.block_size)


def _try(
    name: str, store: Store | None, kind: TensorKind, trial: Trial, device: torch.device
) -> Capability:
    if store is None:
        return Capability(name, "not tried", "no kernel or no call form for it")
    return Capability(name, *try_store(store, kind, trial, device))


def _returned(store: Store | None, device: torch.device) -> Capability:
    """What the kernel returns; nothing here uses it."""
    name, values = "return value", []
    if store is None:
        return Capability(name, "not tried", "no call form is proven")

    def kept(*call: Any) -> None:
        values.append(store(*call))

    found = try_store(kept, ATTESTED, _decode(ATTESTED), device)
    if found.status != "proven":
        return Capability(name, *found)
    evidence = "nothing" if values[-1] is None else f"a {type(values[-1]).__name__}, not used"
    return Capability(name, "proven", evidence)
