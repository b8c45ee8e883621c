"""An explanation for the terminal: plain ASCII in 80 columns, colour only as an extra."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ._explain_cache import CacheLine, cache_lines, cell_text
from ._explain_fates import Fate
from ._explain_model import Beyond, Explanation, Source, Token, count, runs, span

MOST = 24
"""Sources, lines of one source and lines of the cache that are shown before the rest is counted."""

_INDENT = "  "


def render(explanation: Explanation) -> RenderableType:
    """Draw an explanation: a line for each run of tokens, a map of the touched blocks, a legend.

    Args:
      explanation: what `explain` returns.

    Returns:
      A rich renderable. It needs no colour: every fate has a symbol and a label.

    Example:
      >>> import numpy as np
      >>> from rich.console import Console
      >>> from functional_paged import SlotMapping
      >>> from functional_paged._explain import explain
      >>> spec = SlotMapping(np.int32([3, -1]))
      >>> explanation = explain(spec, cache_shape=(6, 1, 2, 1), num_tokens=2)
      >>> Console().print(render(explanation))  # doctest: +SKIP
    """
    shown = explanation.sources[:MOST]
    parts: list[RenderableType] = [_verdict(explanation), Text(explanation.summary)]
    for source in shown:
        parts += [Text(""), _heading(source), *_token_table(source, explanation)]
    hidden = explanation.sources[MOST:]
    if hidden:
        tokens = sum(len(source.tokens) for source in hidden)
        parts.append(Text(f"\n... {count(len(hidden), 'more row')} with {count(tokens, 'token')}"))
    parts += [Text(""), *_cache_map(explanation), Text(""), _legend(explanation.fates)]
    return Group(*parts)


def _verdict(explanation: Explanation) -> Text:
    size = f"{explanation.num_blocks} blocks of {explanation.block_size}"
    if explanation.problem is None:
        return Text.assemble(("valid", "bold green"), f" for a cache of {size}")
    return Text.assemble(
        ("INVALID", "bold red"), f" for a cache of {size}\n{_INDENT}{explanation.problem}"
    )


def _heading(source: Source) -> Text:
    note = f"  [{source.note}]" if source.note else ""
    return Text.assemble(
        (source.title, "bold"), f": {source.detail}" if source.detail else "", note
    )


def _token_table(source: Source, explanation: Explanation) -> list[RenderableType]:
    grouped = runs(source.tokens)
    if not grouped and not source.beyond:
        return []
    table = Table(box=None, pad_edge=False, show_edge=False, expand=False)
    table.add_column("", width=1)
    # Widths for the whole explanation, so that the tables of all rows line up.
    for heading, width in _columns(explanation):
        table.add_column(heading, width=width, justify="right", no_wrap=True)
    table.add_column("what happens", overflow="fold")
    for run in grouped[:MOST]:
        table.add_row("", *_places(run, explanation), _what(run[0].fate, run[0].why))
    if len(grouped) > MOST:
        tokens = sum(len(run) for run in grouped[MOST:])
        blanks = [""] * (len(_columns(explanation)) - 1)
        table.add_row("", "...", *blanks, f"{count(tokens, 'more token')}")
    for beyond in source.beyond[:MOST]:
        blanks = ["-"] * (len(_columns(explanation)) - 1)
        table.add_row("", span(beyond.first, beyond.last), *blanks, _what_beyond(beyond))
    return [table]


def _columns(explanation: Explanation) -> list[tuple[str, int]]:
    rows = [
        _places(run, explanation) for source in explanation.sources for run in runs(source.tokens)
    ]
    rows += [
        (span(beyond.first, beyond.last),)
        for source in explanation.sources
        for beyond in source.beyond
    ]
    names = ["token", "position", "block:offset", "slot"]
    if explanation.form != "block_table":
        names.remove("position")
    return [
        (name, max(len(name), *(len(row[i]) for row in rows if i < len(row)), 0))
        for i, name in enumerate(names)
    ]


def _places(run: Sequence[Token], explanation: Explanation) -> tuple[str, ...]:
    first, last = run[0], run[-1]
    place = "-"
    if first.slot is not None and first.offset is not None and last.offset is not None:
        place = f"{first.block}:{span(first.offset, last.offset)}"
    cells = [
        span(first.token, last.token),
        _span_or_dash(first.position, last.position),
        place,
        _span_or_dash(first.slot, last.slot),
    ]
    if explanation.form != "block_table":
        del cells[1]
    return tuple(cells)


def _span_or_dash(first: int | None, last: int | None) -> str:
    return "-" if first is None or last is None else span(first, last)


def _what(fate: Fate, why: str) -> Text:
    reason = "" if fate.clause is None else f"{fate.clause} "
    label = f"{fate.label}: {why}" if why else fate.label
    return Text.assemble((f"{fate.symbol} ", "bold"), (f"{reason}{label}", _style(fate)))


def _what_beyond(beyond: Beyond) -> Text:
    return _what(beyond.fate, beyond.why)


def _style(fate: Fate) -> str:
    if fate.breaks:
        return "red"
    return "green" if fate is Fate.STORED else "yellow"


def _cache_map(explanation: Explanation) -> list[RenderableType]:
    every = cache_lines(explanation, per_line=1)
    if not every:
        return [Text("no block of the cache changes")]
    width = max(len(cell_text(line.cells[0])) for line in every) + 1
    lines = cache_lines(explanation, per_line=max(1, min(16, 60 // (width + 1))))
    touched = len({line.block for line in every})
    untouched = explanation.num_blocks - touched
    parts: list[RenderableType] = [
        Text(f"the cache after the store ({count(untouched, 'other block')} unchanged)")
    ]
    labels = [f"block {line.block}" for line in lines]
    label_width = max(map(len, labels))
    for line, label in list(zip(lines, labels, strict=True))[:MOST]:
        parts.append(_map_line(line, label.rjust(label_width), width, explanation.block_size))
    if len(lines) > MOST:
        parts.append(Text(f"{_INDENT}... {count(len(lines) - MOST, 'more line')}"))
    return parts


def _map_line(line: CacheLine, label: str, width: int, block_size: int) -> Text:
    text = Text(f"{_INDENT}{label} ")
    if len(line.cells) < block_size:
        text.append(f"from offset {line.first_offset} ")
    text.append("|")
    for cell in line.cells:
        mark = cell_text(cell)
        if len(cell) > 1:
            mark = f"!{mark}"
        text.append(f" {mark or '.':>{width}}", _style(cell[0].fate) if cell else "dim")
    return text.append(" |")


def _legend(fates: Sequence[Fate]) -> Text:
    lines = [
        f"{_INDENT}{fate.symbol}  {fate.label:<18} {fate.clause or ''}".rstrip() for fate in fates
    ]
    return Text("\n".join(["legend", *lines, f"{_INDENT}.  in the map: unchanged"]))
