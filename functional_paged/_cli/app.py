"""The application: its commands, each in a module of its own, and how they end."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import typer

from ..conformance import BackendNotFound
from ..conformance.run.ledger import LedgerError
from .bench import bench
from .check import check
from .explain import explain
from .outputs import Refused, refuse
from .probe import probe

app = typer.Typer(
    help="Check that a paged-KV store does what the specification says, bit for bit.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _ending(command: Callable[..., int]) -> Callable[..., None]:
    """The command, ending with the status that it returns, or refused."""

    @wraps(command)
    def run(**arguments: Any) -> None:
        try:
            status = command(**arguments)
        except (BackendNotFound, LedgerError, Refused) as error:
            status = refuse(str(error))
        raise typer.Exit(status)

    return run


for _command in (check, explain, bench, probe):
    app.command()(_ending(_command))
