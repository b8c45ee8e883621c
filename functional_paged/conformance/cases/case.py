"""A case: a problem with a name, the clauses that it tests, and what is asked of a backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from .problem import Problem

_StoreKind: TypeAlias = Literal[
    "store", "refuse", "apart", "check", "accept", "load", "transfer", "vjp", "large", "small"
]
CaseKind: TypeAlias = Literal[_StoreKind, "encode", "decode"]
"""The question that a case asks of a backend.

`store`: the whole cache must be the reference's. `refuse`: the store must raise for the case's
clause and write nothing. `apart`: the same, with the arrays on two devices. `check`:
the value check must raise for the case's clause; `accept`: it must not raise. `load`: the rows read
back must be the reference's. `transfer`: as `store`, of rows that another cache holds, or the same
one elsewhere. `vjp`: the cotangents must be the reference's. `large`: as `store`, in a cache of
zeros too large for a pattern and a copy. `small`: as `store`, once for each of the problem's specs.
`encode`, `decode`: payload and scale, or the states of them, must be the codec's.
"""


@dataclass(frozen=True, eq=False)
class Case:
    """A named problem.

    Attributes:
      id: stable and readable, `c8_hole/block_table/bf16/n7_h3_s16_d46`.
      clauses: the subject, then what a store needs besides to pass.
      about: one sentence.
      kind: what is asked of the backend.
      build: makes the problem; cheap until called.
      link: where this went wrong in public, if it did.
      quick: whether a quick run has it.
      twin: whether it is valid and one change away from an invalid case.
      controls: ids of more basic cases; where one of them fails, so does this one, and a failure
        says nothing of its subject.
    """

    id: str
    clauses: tuple[str, ...]
    about: str
    build: Callable[[], Problem]
    kind: CaseKind = "store"
    link: str | None = None
    quick: bool = False
    twin: bool = False
    controls: tuple[str, ...] = ()
