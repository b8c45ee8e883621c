"""An explanation for the terminal: plain ASCII in 80 columns, colour only as an extra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .cells import lines_of
from .model import Explanation, Fate, Run, Source, Token, cell_text, count, left_out

MOST = 24
"""Rows of the spec, lines of one row and lines of the cache shown before the rest is counted."""

LINE_WIDTH = 80
"""Characters that a line of the map may take."""

_UNCHANGED = "."
_STYLES = {"stored": "green", "skipped": "yellow", "wrong": "red"}


def render(explanation: Explanation) -> RenderableType:
    """A line for each run of tokens, a map of the touched blocks, a legend; needs no colour."""
    columns = _columns(explanation)
    parts: list[RenderableType] = [_validity(explanation), Text(explanation.summary)]
    headed = False
    for source in explanation.sources[:MOST]:
        parts += [Text(""), _heading(source)]
        if source.tokens or source.beyond:
            parts.append(_tokens(source, columns, show_header=not headed))
            headed = True
    hidden = explanation.sources[MOST:]
    tokens = sum(len(source.tokens) for source in hidden)
    parts += [Text(f"\n{line}") for line in left_out(hidden, "row", tokens)]
    return Group(*parts, Text(""), *_cache_map(explanation), Text(""), _legend(explanation))


def _validity(explanation: Explanation) -> Text:
    size = f" for a cache of {count(explanation.num_blocks, 'block')} of {explanation.block_size}"
    if explanation.problem is None:
        return Text.assemble(("valid", "bold green"), size)
    return Text.assemble(("INVALID", "bold red"), f"{size}\n  {explanation.problem}")


def _heading(source: Source) -> Text:
    detail = f": {source.detail}" if source.detail else ""
    note = f" - {source.note}" if source.note else ""
    return Text.assemble((source.title, "bold"), detail, note)


def _tokens(source: Source, columns: Mapping[str, int], *, show_header: bool) -> Table:
    table = Table(box=None, pad_edge=False, show_header=show_header)
    table.add_column("", width=1)
    for name, width in columns.items():
        table.add_column(name, width=width, justify="right", no_wrap=True)
    table.add_column("what happens", overflow="fold")
    runs, more = source.runs(MOST)
    for run in runs:
        fate, why = run.first.fate, run.first.why
        label = (f"{fate.symbol} ", "bold"), (str(fate), _STYLES[fate.kind])
        what = Text.assemble(*label, f": {why}" if why else "")
        table.add_row("", *(_cell(run, name) for name in columns), what)
    if more:
        table.add_row("", "...", *["-"] * (len(columns) - 1), count(more, "more token"))
    return table


def _columns(explanation: Explanation) -> dict[str, int]:
    """Columns and their widths, one for the whole explanation, so that all rows line up."""
    runs = [run for source in explanation.sources[:MOST] for run in source.runs(MOST)[0]]
    names = ["token", "position", "block:offset", "slot"]
    if explanation.form != "block_table":
        names.remove("position")
    return {name: max(map(len, [name, *(_cell(run, name) for run in runs)])) for name in names}


def _cell(run: Run, name: str) -> str:
    if name == "block:offset":
        return "-" if run.first.slot is None else f"{run.first.block}:{run.span('offset')}"
    return run.span(name) or "-"


def _cache_map(explanation: Explanation) -> list[RenderableType]:
    cells, block_size = explanation.cells, explanation.block_size
    if not cells:
        return [Text("no block of the cache changes")]
    width = max(len(_mark(tokens)) for tokens in cells.values()) + 1
    room = LINE_WIDTH - len(f"  block {max(cells)[0]}:{block_size - 1} | |")
    fitting = [n for n in (block_size, 16, 8, 4, 2) if n * width <= room]
    lines = lines_of(cells, block_size, fitting[0] if fitting else 1)
    others = explanation.num_blocks - len({line.block for line in lines})
    parts: list[RenderableType] = [
        Text(f"the cache, from the offset given ({count(others, 'other block')} unchanged)")
    ]
    labels = [f"block {line.block}:{line.start}" for line in lines]
    longest = max(map(len, labels))
    shown = explanation.tokens_in(lines)
    for label, line in zip(labels[:MOST], shown, strict=False):
        text = Text(f"  {label:<{longest}} |")
        for tokens in line:
            style = _STYLES[tokens[0].fate.kind] if tokens else ""
            text.append(f"{_mark(tokens) or _UNCHANGED:>{width}}", style)
        parts.append(text.append(" |"))
    hidden = sum(len(tokens) for line in shown[MOST:] for tokens in line)
    return parts + [Text(f"  {line}") for line in left_out(lines[MOST:], "line", hidden)]


def _mark(tokens: Sequence[Token]) -> str:
    return (Fate.CONTESTED.symbol if len(tokens) > 1 else "") + cell_text(tokens)


def _legend(explanation: Explanation) -> Text:
    lines = [f"{fate.symbol}  {fate.label:<18} {fate.clause or ''}" for fate in explanation.fates]
    if explanation.cells:
        lines.append(f"{_UNCHANGED}  unchanged")
    return Text("\n".join(f"  {line}".rstrip() for line in lines))
