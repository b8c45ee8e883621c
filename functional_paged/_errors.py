"""The one error class of the project."""

from __future__ import annotations


class SpecError(ValueError):
    """A call that the specification does not allow.

    The text names the clause, what must hold, then the actual value and where it is.

    Attributes:
      clause: id of the clause in `docs/spec.md`, such as `"C12"`.

    Example:
      >>> error = SpecError("C12", "slots[3] = 96 must be < num_blocks * block_size = 96")
      >>> error.clause
      'C12'
      >>> str(error)
      'C12: slots[3] = 96 must be < num_blocks * block_size = 96'
    """

    def __init__(self, clause: str, message: str):
        super().__init__(clause, message)
        self.clause = clause
        self.message = message

    def __str__(self) -> str:
        return f"{self.clause}: {self.message}"


SpecError.__module__ = "functional_paged"  # where callers import it from
