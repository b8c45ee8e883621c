"""Explanations of index specs as data, for every way to draw them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import groupby

from .._spec import Form
from .cells import Line


class Fate(Enum):
    """What becomes of a token, and how a drawing shows it.

    Each fate has a symbol and a label of its own, so that no drawing depends on colour.

    Attributes:
      symbol: one ASCII character.
      label: a few words, for legends.
      clause: the clause that decides; `None` for a token that is simply stored.
      breaks: whether the spec breaks that clause, so that `check_spec` refuses it.
    """

    STORED = ("+", "stored", None, False)
    PADDED = ("p", "padded row", "C6", False)
    HOLE = ("o", "hole in the table", "C8", False)
    PAST_TABLE = (">", "past the table", "C9", False)
    NOT_NAMED = ("~", "not named", "C10", False)
    MISSING = ("?", "not in states", "C11", True)
    PAST_CACHE = ("]", "past the cache", "C12", True)
    NO_BLOCK = ("x", "negative block", "C13", False)
    BROKEN_CHUNK = ("/", "broken chunk", "C13", True)
    NAMED_TWICE = ("&", "in several chunks", "C13", True)
    NEGATIVE_SLOT = ("-", "negative slot", "C14", False)
    CONTESTED = ("!", "contested slot", "C15", True)
    BROKEN_TOTAL = ("%", "broken cu_q_lens", "C21", True)

    def __init__(self, symbol: str, label: str, clause: str | None, breaks: bool):
        self.symbol = symbol
        self.label = label
        self.clause = clause
        self.breaks = breaks

    def __str__(self) -> str:
        return f"{self.clause} {self.label}" if self.clause else self.label

    @property
    def kind(self) -> str:
        """Stored, left out as the spec allows, or wrong; for its colour."""
        return "wrong" if self.breaks else "stored" if self is Fate.STORED else "skipped"


@dataclass(frozen=True)
class Token:
    """One token of `states`, as one row of the spec names it.

    Attributes:
      token: its row of `states`.
      fate: what becomes of it.
      why: the entry of the spec that decides.
      position: its place in the sequence of its table row (C5); `None` in other forms and in rows
        without positions.
      column: logical block of the table row; `None` where there is none.
      block: physical block, as the spec has it: negative for a hole; `None` where it has none.
      offset: position in the block; `None` where there is no block.
      slot: where the token is stored; `None` if it is not.
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
class Run:
    """Neighbours that go to neighbouring places, or nowhere for one and the same reason."""

    first: Token
    length: int

    def __getitem__(self, index: int) -> Token:
        """One of the tokens; from one to the next, each number that moves moves by one."""
        moving = ("token", "position", "offset", "slot")
        numbers = {name: getattr(self.first, name) for name in moving}
        moved = {name: number + index for name, number in numbers.items() if number is not None}
        return replace(self.first, **moved)

    def span(self, name: str) -> str:
        """The range of one of the numbers, such as `slot`: `3` or `3..5`; empty without one."""
        first = getattr(self.first, name)
        if first is None:
            return ""
        return f"{first}" if self.length == 1 else f"{first}..{first + self.length - 1}"


@dataclass(frozen=True)
class Source:
    """One row of a table, one row of a plan, a slot mapping, or what none of them names.

    Attributes:
      title: such as `row 0`.
      detail: what the spec says of it.
      note: what is special about it as a whole, with the clause; empty if nothing is.
      fate: what the whole of it comes to, if that is one thing; `None` if its tokens decide.
      tokens: the tokens that it names and that `states` has, in order.
      beyond: the token numbers past `states` that it names: missing (C11), or padding.
    """

    title: str
    detail: str
    note: str = ""
    fate: Fate | None = None
    tokens: tuple[Token, ...] = ()
    beyond: tuple[Run, ...] = ()

    def runs(self, most: int) -> tuple[list[Run], int]:
        """At most so many runs of its tokens and as many beyond, and how many tokens are left."""
        runs = runs_of(self.tokens)
        left_out = (*runs[most:], *self.beyond[most:])
        return [*runs[:most], *self.beyond[:most]], sum(run.length for run in left_out)


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
        """The drawing as the text of a complete SVG file.

        It is the same for the same explanation; long runs, rows and blocks past a size that can be
        looked at are counted instead of drawn. Every fate has a symbol beside its colour, and the
        colours follow the reader's light or dark mode.
        """
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
            occurring |= {source.fate, *(run.first.fate for run in source.beyond)} - {None}
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


def left_out(items: Sequence[object], noun: str, tokens: int) -> list[str]:
    """A line on what a drawing leaves out; none where it leaves out nothing."""
    more = count(len(items), f"more {noun}")
    return [f"... {more} with {count(tokens, 'token')}"] if items else []


def cell_text(tokens: Sequence[Token]) -> str:
    """What a position says: its token, or its contenders; empty where nothing changes."""
    numbers = [str(token.token) for token in tokens]
    if len(numbers) > 2:
        numbers = [numbers[0], f"+{len(numbers) - 1}"]
    return "|".join(numbers)


def runs_of(tokens: Iterable[Token]) -> list[Run]:
    """The runs of some tokens, in order."""

    def start(numbered: tuple[int, Token]) -> tuple[object, ...]:
        index, token = numbered
        offset = None if token.offset is None else token.offset - index
        return token.token - index, offset, token.fate, token.why, token.column, token.block

    grouped = [[token for _, token in run] for _, run in groupby(enumerate(tokens), start)]
    return [Run(tokens[0], len(tokens)) for tokens in grouped]
