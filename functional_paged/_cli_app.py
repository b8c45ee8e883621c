"""The commands. Each command's work is in a module of its own; here are its arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

app = typer.Typer(
    help="Check that a paged-KV store does what the specification says, bit for bit.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def _commands() -> None:
    """Make `check` a command of its own, also where it is the only one."""


@app.command()
def check(
    backend: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="A shipped backend or package.module:attribute; repeatable."),
    ] = None,
    json: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Write the results to this file."),
    ] = None,
) -> None:
    """Run every case against backends; exit 1 on any failure, 2 where nothing can run."""
    from ._cli_check import check_command

    raise typer.Exit(check_command(backend or [], json))
