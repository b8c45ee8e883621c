"""Explanations of index specs as data, for every way to draw them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .._spec import Form
from .cells import Line
from .fates import Fate


@dataclass(frozen=True)
class Token:
    """One token of `states`, as one row of the spec names it.

    Attributes:
      token: its row of `states`.
      position: its place in the sequence of its table row (C5); `None` in other forms and in rows
        without positions.
      column: logical block of the table row; `None` where there is none.
      block: physical block, as the spec has it: negative for a hole; `None` where it has none.
      offset: position in the block; `None` where there is no block.
      slot: where the token is stored; `None` if it is not.
      fate: what becomes of it.
      why: the entry of the spec that decides.
    """

    token: int
    fate: Fate
    why: str
    position: int | None = None
    column: int | None = None
    block: int | None = None
    offset: int | None = None
    slot: int | None = None

    @property
    def clause(self) -> str | None:
        """The clause that decides; `None` for a token that is simply stored."""
        return self.fate.clause


@dataclass(frozen=True)
class Beyond:
    """Token numbers past `states` that the spec names; nothing is stored for them.

    Attributes:
      first: the first of them.
      last: the last of them.
      fate: `Fate.MISSING` (C11), or the padding that makes them allowed.
      why: the entry of the spec that decides.
    """

    first: int
    last: int
    fate: Fate
    why: str


@dataclass(frozen=True)
class Source:
    """One row of a table, one row of a plan, a slot mapping, or what none of them names.

    Attributes:
      title: such as `row 0`.
      detail: what the spec says of it.
      note: what is special about it as a whole, with the clause; empty if nothing is.
      fate: what the whole of it comes to, if that is one thing; `None` if its tokens decide.
      tokens: the tokens that it names and that `states` has, in order.
      beyond: the token numbers that it names and that `states` lacks.
    """

    title: str
    detail: str
    note: str = ""
    fate: Fate | None = None
    tokens: tuple[Token, ...] = ()
    beyond: tuple[Beyond, ...] = ()


@dataclass(frozen=True)
class Explanation:
    """Which token goes to which block and slot, and why the others go nowhere.

    Attributes:
      form: the form of the spec.
      num_blocks: of the cache.
      block_size: of the cache.
      num_tokens: rows of `states`.
      problem: what `check_spec` says of the spec; `None` if it is valid.
      sources: the rows of the spec in order, then the tokens that it does not name.
    """

    form: Form
    num_blocks: int
    block_size: int
    num_tokens: int
    problem: str | None
    sources: tuple[Source, ...]

    def to_svg(self) -> str:
        """The drawing as the text of an SVG file."""
        from .svg import to_svg

        return to_svg(self)

    @property
    def tokens(self) -> tuple[Token, ...]:
        """Every naming of a token; a token in several chunks occurs once for each."""
        return tuple(token for source in self.sources for token in source.tokens)

    @property
    def fates(self) -> tuple[Fate, ...]:
        """The fates that occur, in the order of the clauses."""
        occurring = {token.fate for token in self.tokens}
        for source in self.sources:
            occurring |= {source.fate, *(beyond.fate for beyond in source.beyond)} - {None}
        return tuple(fate for fate in Fate if fate in occurring)

    @property
    def cells(self) -> dict[tuple[int, int], tuple[Token, ...]]:
        """The tokens of each touched `(block, offset)`, in order of place; several contest it."""
        cells: defaultdict[tuple[int, int], list[Token]] = defaultdict(list)
        for token in self.tokens:
            if token.slot is not None and token.block is not None and token.offset is not None:
                cells[token.block, token.offset].append(token)
        return {place: tuple(tokens) for place, tokens in sorted(cells.items())}

    def tokens_in(self, lines: Iterable[Line]) -> list[list[tuple[Token, ...]]]:
        """The tokens of each position of some lines of the cache, as in `cells`."""
        cells = self.cells
        return [
            [cells.get((line.block, offset), ()) for offset in range(line.start, line.stop)]
            for line in lines
        ]

    @property
    def summary(self) -> str:
        """How many tokens there are of each fate, in one line."""
        # A token in two chunks is one token: stored if either stores it.
        best: dict[int, Fate] = {}
        for token in self.tokens:
            if token.slot is not None or token.token not in best:
                best[token.token] = token.fate
        counts = Counter(best.values())
        parts = [f"{counts[fate]} {fate.label}" for fate in Fate if counts[fate]]
        return ": ".join([count(self.num_tokens, "token"), ", ".join(parts)][: 1 + bool(parts)])


def count(number: int, noun: str) -> str:
    """A number with its noun: `1 token`, `2 tokens`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def span(first: int, last: int) -> str:
    """A range of numbers: `3` or `3..5`."""
    return f"{first}" if first == last else f"{first}..{last}"


def cell_text(tokens: Sequence[Token]) -> str:
    """What a position says: its token, or its contenders; empty where nothing changes."""
    numbers = [str(token.token) for token in tokens]
    if len(numbers) > 2:
        numbers = [numbers[0], f"+{len(numbers) - 1}"]
    return "|".join(numbers)


def runs(tokens: Iterable[Token]) -> list[tuple[Token, ...]]:
    """Group neighbours that go to neighbouring places, or nowhere for one and the same reason."""
    grouped: list[list[Token]] = []
    for token in tokens:
        if grouped and _continues(grouped[-1][-1], token):
            grouped[-1].append(token)
        else:
            grouped.append([token])
    return [tuple(run) for run in grouped]


def _continues(last: Token, token: Token) -> bool:
    if last.offset is not None and token.offset != last.offset + 1:
        return False
    same = ("fate", "why", "column", "block")
    return token.token == last.token + 1 and all(
        getattr(last, name) == getattr(token, name) for name in same
    )
