"""The command line: `functional-paged`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, or say how to install what it needs."""
    try:
        from .app import app
    except ModuleNotFoundError as error:
        print(
            f"functional-paged needs {error.name}: pip install 'functional-paged[cli]'",
            file=sys.stderr,
        )
        sys.exit(2)
    app()
