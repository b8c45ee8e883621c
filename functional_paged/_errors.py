"""The one error class of the project."""

from __future__ import annotations


class SpecError(ValueError):
    """A call that the specification does not allow.

    The text names the clause, what must hold, then the actual value and where it is.

    Attributes:
      clause: id of the clause in `docs/spec.md`, such as `"C12"`.
      message: the text without the clause.

    Example:
      >>> error = SpecError("C12", "slots[3] = 96 must be < num_blocks * block_size = 96")
      >>> error.clause
      'C12'
      >>> str(error)
      'C12: slots[3] = 96 must be < num_blocks * block_size = 96'
    """

    # Both are read from `args`: torch.compile cannot trace an exception's __init__.
    @property
    def clause(self) -> str:
        return self.args[0]

    @property
    def message(self) -> str:
        return self.args[1]

    def __str__(self) -> str:
        return f"{self.clause}: {self.message}"


SpecError.__module__ = "functional_paged"  # where callers import it from
