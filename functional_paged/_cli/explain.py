"""`functional-paged explain`: draw what an index spec in a JSON file does."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from .._errors import SpecError
from .._explain import explain
from .._explain.spec_json import JsonSpecError, SizedSpec, parse_spec
from .._explain.svg import to_svg
from .._explain.text import render

MOST_TOKENS = 100_000
"""More tokens than this are for a machine to check; a drawing of them takes minutes."""


def explain_command(spec_file: Path, svg: Path | None) -> int:
    """Print a drawing of the spec in a file, with what `check_spec` says of it at the top.

    Args:
      spec_file: JSON, as `parse_spec` reads it.
      svg: where to write the drawing as SVG too.

    Returns:
      Exit status: 0 if the spec was drawn, whether it is valid or not; 2 if there is nothing to
      draw or the SVG could not be written.
    """
    try:
        sized = _read(spec_file)
        explanation = explain(
            sized.index_spec, cache_shape=sized.cache_shape, num_tokens=sized.num_tokens
        )
    except OSError as error:
        return _refuse(f"{spec_file}: {error.strerror}")
    except (JsonSpecError, SpecError) as error:
        return _refuse(f"{spec_file}: {error}")
    Console().print(render(explanation))
    if svg is not None:
        try:
            svg.write_text(to_svg(explanation), encoding="utf-8")
        except OSError as error:
            return _refuse(f"{svg}: {error.strerror}")
    return 0


def _read(spec_file: Path) -> SizedSpec:
    try:
        text = spec_file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise JsonSpecError(f"must be UTF-8 text, byte {error.start} is not") from None
    sized = parse_spec(text)
    if sized.num_tokens > MOST_TOKENS:
        raise JsonSpecError(
            f"num_tokens must be <= {MOST_TOKENS} to be drawn, got {sized.num_tokens}"
        )
    return sized


def _refuse(message: str) -> int:
    print(message, file=sys.stderr)
    return 2
