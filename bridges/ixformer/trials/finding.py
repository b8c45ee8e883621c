"""What a trial found, and which errors tell nothing of the kernel that raised them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple, TypeAlias

Status: TypeAlias = Literal["proven", "disproven", "not tried"]


class Finding(NamedTuple):
    """The outcome of a trial.

    Attributes:
      status: "proven": every bit was right. "disproven": some were not, or the kernel raised
        twice. "not tried": nothing was learnt of the kernel.
      evidence: what was seen, or why nothing was tried.
    """

    status: Status
    evidence: str

    def __str__(self) -> str:
        return f"not tried: {self.evidence}" if self.status == "not tried" else self.evidence


_AGAIN = "; at a second try: "


class KernelRaised(Exception):
    """An error that a kernel raised; the text has its type."""


@contextmanager
def kernel_errors() -> Iterator[None]:
    """A block in which a kernel runs: whatever it raises becomes `KernelRaised`."""
    try:
        yield
    except Exception as error:
        raise KernelRaised(f"{type(error).__name__}: {' '.join(str(error).split())}") from error


def attempt(trial: Callable[[], Finding]) -> Finding:
    """The finding of a trial whose kernel gets a second try if it raises.

    Wrong bits get none: a kernel that writes them now and then is no kernel to trust. Want of
    memory, wherever it strikes, is no finding about the kernel.
    """
    raised: list[str] = []
    handled = sys.exc_info()[1]
    for _ in range(2):
        try:
            status, evidence = trial()
        except Exception as error:
            if wants_memory(error, handled):
                return Finding("not tried", f"want of memory: {error}")
            if not isinstance(error, KernelRaised):
                raise
            raised.append(str(error))
        else:
            return Finding(status, _AGAIN.join([*raised, evidence]))
    return Finding("disproven", _AGAIN.join(raised))


def wants_memory(error: BaseException | None, handled: BaseException | None = None) -> bool:
    """Whether an error, or one that it came from, tells of too little memory.

    Errors that are raised while another one is `handled` seem to come from that one.
    """
    while error is not None and error is not handled:
        classes = " ".join(base.__name__ for base in type(error).__mro__)
        if _WANT_OF_MEMORY.search(f"{classes}: {error}"):
            return True
        error = error.__cause__ or error.__context__
    return False


# Classes and texts of torch, CUDA, NumPy, the C and C++ libraries and vendors. One that is missing
# costs a second try; one too many costs a trial at every call. Neither costs a bit.
_WANT_OF_MEMORY = re.compile(
    r"MemoryError|out[ _-]?of[ _-]?(\w+[ _-])?memory|\boom\b|bad_?alloc|enomem"
    r"|(not enough|insufficient|too little|no|exhausted) (\w+ )*memory"
    r"|memory (\w+ )*(exhausted|insufficient)|(memory_?|resources?_?) ?exhausted"
    r"|(cannot|can't|can not|could not|couldn't|unable to|fail\w* to|fail\w*:?) (\w+ )?alloc"
    r"|alloc\w*[ _](\w+[ _])?fail|memory ?allocation|[内显]存(不足|不够|耗尽)",
    re.IGNORECASE,
)
