"""The results as data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ._adapter import Adapter
from ._run import Result


def report(adapters: Sequence[Adapter], results: Mapping[str, Sequence[Result]]) -> dict[str, Any]:
    """The results of a run, ready for JSON: counts and every case, by backend."""
    return {"backends": [_backend(adapter, results[adapter.name]) for adapter in adapters]}


def _backend(adapter: Any, results: Sequence[Result]) -> dict[str, Any]:
    return {
        "name": adapter.name,
        "info": adapter.info() if hasattr(adapter, "info") else {},
        "counts": dict(Counter(result.status for result in results)),
        "cases": [
            {
                "id": result.case.id,
                "clauses": list(result.case.clauses),
                "status": result.status,
                "reason": result.reason,
                "mismatch": None if result.mismatch is None else asdict(result.mismatch),
            }
            for result in results
        ],
    }
