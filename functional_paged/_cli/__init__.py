"""The command line: `functional-paged`."""

from __future__ import annotations

import os
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
    if not os.environ.get("COLUMNS", "80").strip("0"):
        del os.environ["COLUMNS"]  # rich prints nothing on a terminal of no width
    app()
