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
    """Make every command one of several, however many there are."""


@app.command()
def check(
    backend: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="A shipped backend, package.module:attribute or FILE.py:attribute; repeatable."
        ),
    ] = None,
    cases: Annotated[str, typer.Option(help="Only the cases whose id matches this glob.")] = "*",
    quick: Annotated[bool, typer.Option("--quick", help="One size and dtype a scenario.")] = False,
    large: Annotated[
        bool, typer.Option("--large", help="Also caches of more than 2**31 elements (C19).")
    ] = False,
    small: Annotated[
        bool, typer.Option("--small", help="Also every index spec up to a small size: minutes.")
    ] = False,
    list_: Annotated[bool, typer.Option("--list", help="Print the ids and run nothing.")] = False,
    json: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Write the results to this file."),
    ] = None,
    html: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Write the results to this file, as one page with drawings."),
    ] = None,
    ledger: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(help="Known failures of a backend, TOML; repeatable."),
    ] = None,
    write_ledger: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="The first backend's ledger with its new failures added, as a draft."),
    ] = None,
    seconds: Annotated[
        float, typer.Option(help="After which a case counts as hung.", min=0.1)
    ] = 60.0,
    jobs: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Processes at a time; two where there are two cores.", min=1),
    ] = None,
) -> None:
    """Run cases against backends.

    Exit status: 0 if cases ran and each passed or is in a ledger; 1 on a failure; else 2 where a
    backend cannot load or supports no case, or something cannot be written, 141 where nobody reads
    the output.
    """
    from .check import CheckOptions, check_command

    options = CheckOptions(
        backends=backend or (),
        pattern=cases,
        quick=quick,
        large=large,
        small=small,
        list_only=list_,
        json_file=json,
        html_file=html,
        ledgers=ledger or (),
        ledger_draft=write_ledger,
        seconds_per_case=seconds,
        jobs=jobs,
    )
    raise typer.Exit(check_command(options))


@app.command()
def explain(
    spec: Annotated[
        Path,
        typer.Argument(
            help="JSON: form (block_table, chunks or slots), the fields of that form, num_blocks, "
            "block_size, num_tokens."
        ),
    ],
    svg: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Write the drawing to this file too."),
    ] = None,
) -> None:
    """Draw which token goes to which block and slot.

    Exit status: 0 if the spec is drawn, valid or not, 2 if the file has no spec to draw or
    something cannot be written, 141 where nobody reads the output.
    """
    from .explain import explain_command

    raise typer.Exit(explain_command(spec, svg))


@app.command()
def probe(
    json: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Also write the findings to this file."),
    ] = None,
) -> None:
    """Find out what the installed ixformer really does, for a bug report to the vendor.

    Exit status: 0 if a way to store one tensor is proven, 1 if none is, 2 without the library or
    if something cannot be written, 141 where nobody reads the output.
    """
    from .probe import probe_command

    raise typer.Exit(probe_command(json))
