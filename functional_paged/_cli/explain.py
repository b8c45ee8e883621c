"""`functional-paged explain`: draw what an index spec in a JSON file does."""

from __future__ import annotations

from pathlib import Path

from .._errors import SpecError
from .._explain import Explanation, explain
from .._explain.spec_json import JsonSpecError, SizedSpec, parse_spec
from .._explain.svg import to_svg
from .._explain.text import render
from .outputs import Outputs, Refused, refuse, shown

MOST_TOKENS = 100_000
"""More tokens than this are for a machine to check: nobody can look at a drawing of them."""


def explain_command(spec_file: Path, svg: Path | None) -> int:
    """Print a drawing of the spec in a file, with what `check_spec` says of it at the top.

    Args:
      spec_file: JSON, as `parse_spec` reads it.
      svg: where to write the drawing as SVG too.

    Returns:
      Exit status: 0 if the spec was drawn, whether it is valid or not; 2 if there is nothing to
      draw, or something could not be written.
    """
    try:
        with Outputs({"--svg": svg}, inputs=(spec_file,)) as outputs:
            explanation = _explained(spec_file)
            outputs.write("--svg", lambda: to_svg(explanation))
    except Refused as error:
        return refuse(str(error))
    return shown(0, lambda console: console.print(render(explanation)), outputs)


def _explained(spec_file: Path) -> Explanation:
    try:
        sized = _read(spec_file)
        return explain(sized.index_spec, cache_shape=sized.cache_shape, num_tokens=sized.num_tokens)
    except OSError as error:
        raise Refused(f"{spec_file}: {error.strerror}") from None
    except (JsonSpecError, SpecError) as error:
        raise Refused(f"{spec_file}: {error}") from None


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
