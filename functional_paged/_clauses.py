"""The clauses by id, for tables and tests. Their text is `docs/spec.md` and `docs/quantised.md`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

SPEC_VERSION = 1
"""Grows with any change of what a clause means."""

Status: TypeAlias = Literal["defined", "required", "unspecified"]


@dataclass(frozen=True)
class Clause:
    """One clause of the specification.

    Attributes:
      id: `C1` to `C22` of a store, `Q1` to `Q10` of a codec.
      status: `defined`: what the store does. `required`: what a caller must see to. `unspecified`:
        required too, and where it does not hold the outcome is one of several.
      title: what must hold, in a few words.
    """

    id: str
    status: Status
    title: str


CLAUSES: tuple[Clause, ...] = (
    Clause("C1", "required", "ranks and shapes agree"),
    Clause("C2", "required", "states and cache have one dtype"),
    Clause("C3", "required", "all arrays live on one device"),
    Clause("C4", "required", "index arrays are int32; slots may be int64"),
    Clause("C5", "defined", "a token's slot, in unbounded integers"),
    Clause("C6", "defined", "a negative context marks a padded row"),
    Clause("C7", "defined", "a row without a query token stores nothing"),
    Clause("C8", "defined", "a hole skips its own tokens only"),
    Clause("C9", "defined", "past the table nothing is stored"),
    Clause("C10", "defined", "states may have more rows"),
    Clause("C11", "required", "tokens that the spec names exist"),
    Clause("C12", "required", "block ids and slots are in the cache"),
    Clause("C13", "required", "chunks stay inside a block, tokens in one chunk"),
    Clause("C14", "defined", "a negative slot is not stored"),
    Clause("C15", "unspecified", "no two tokens share a slot"),
    Clause("C16", "defined", "stored rows and all else keep their bits"),
    Clause("C17", "defined", "inputs are kept; in place returns its cache"),
    Clause("C18", "defined", "empty inputs store nothing"),
    Clause("C19", "defined", "caches may pass 2**31 elements"),
    Clause("C20", "defined", "any strides, but no overlap"),
    Clause("C21", "required", "cu_q_lens starts at 0 and never decreases"),
    Clause("C22", "defined", "the derivative is linear"),
    Clause("Q1", "defined", "a scale is the multiplier that decodes"),
    Clause("Q2", "defined", "the quotient is one float32 division"),
    Clause("Q3", "defined", "round half to even"),
    Clause("Q4", "defined", "past the range comes the nearest bound"),
    Clause("Q5", "defined", "NaN stays NaN, or is 0; no absmax has it"),
    Clause("Q6", "required", "a static scale is finite and at least the floor"),
    Clause("Q7", "defined", "an absmax scale is max(absmax / bound, floor)"),
    Clause("Q8", "required", "payload and scale of a slot are of one token"),
    Clause("Q9", "defined", "states are left alone"),
    Clause("Q10", "defined", "what was decoded encodes to itself"),
)


def clause_order(clause: str) -> tuple[str, int]:
    """A key that sorts the ids of clauses."""
    return clause[0], int(clause[1:])
