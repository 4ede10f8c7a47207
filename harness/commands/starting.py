"""The command lines of `schema`, for those who begin a grid or a site file."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.commands.arguments import DebugOption

KindArgument = Annotated[str, typer.Argument(metavar="[grid|site]", help="Which kind of file.")]


def schema_command(kind: KindArgument = "grid", debug: DebugOption = False) -> int:
    """Print the JSON schema of grid files or of site files, for editors."""
    from harness.prepare.schema import schema_text

    print(schema_text(kind), end="")
    return 0
