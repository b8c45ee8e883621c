"""`functional-paged explain`: draw what an index spec in a JSON file does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import _explain
from .._errors import SpecError
from .._explain.spec_json import JsonSpecError, parse_spec
from .._explain.text import render
from .outputs import Outputs, Refused

MOST_TOKENS = 100_000
"""More tokens than this are for a machine to check: nobody can look at a drawing of them."""


def explain(
    spec: Annotated[
        Path,
        typer.Argument(
            help="JSON: form (block_table, chunks or slots), the fields of that form, num_blocks, "
            "block_size, num_tokens."
        ),
    ],
    svg: Annotated[Path | None, typer.Option(help="Write the drawing to this file too.")] = None,
) -> int:
    """Draw which token goes to which block and slot.

    Exit status: 0 if the spec is drawn, valid or not, 2 if the file has no spec to draw or
    something cannot be written.
    """
    outputs = Outputs({"--svg": svg}, inputs=[spec])
    try:
        sized = parse_spec(spec.read_text(encoding="utf-8"))
        if sized.num_tokens > MOST_TOKENS:
            must = f"must be <= {MOST_TOKENS} to be drawn"
            raise JsonSpecError(f"num_tokens {must}, got {sized.num_tokens}")
        told = _explain.explain(
            sized.index_spec, cache_shape=sized.cache_shape, num_tokens=sized.num_tokens
        )
    except OSError as error:
        raise Refused(f"{spec}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise Refused(f"{spec}: must be UTF-8 text, byte {error.start} is not") from None
    except (JsonSpecError, SpecError) as error:
        raise Refused(f"{spec}: {error}") from None
    outputs.write("--svg", told.to_svg)
    return outputs.end(0, lambda console: console.print(render(told)))
