"""The command lines of `init` and `schema`, for those who begin a grid or a site file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.commands.arguments import DebugOption, expanded_path, known_methods


def known_kinds(incomplete: str) -> list[str]:
    """What a shell offers for the kind of a schema."""
    return [kind for kind in ("grid", "site") if kind.startswith(incomplete)]


NewFile = Annotated[
    Path, typer.Argument(metavar="[FILE]", callback=expanded_path, help="A new grid file.")
]
KindArgument = Annotated[
    str,
    typer.Argument(metavar="[grid|site]", help="Which kind of file.", autocompletion=known_kinds),
]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", help="A checkpoint folder, owner/name of the hub, or a shipped one."),
]
TrainingDataOption = Annotated[
    str | None, typer.Option("--data", help="A file of yours, or owner/name of the hub.")
]
MethodsOption = Annotated[
    str | None,
    typer.Option("--methods", help="Such as lora,dora.", autocompletion=known_methods),
]
BenchmarksOption = Annotated[
    str | None, typer.Option("--benchmarks", help="Such as arc_easy,gsm8k.")
]
FractionsOption = Annotated[str | None, typer.Option("--fractions", help="Such as 0.1,1.0.")]
SeedsOption = Annotated[str | None, typer.Option("--seeds", help="Such as 0,1,2.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Ask nothing: defaults for the rest.")]


def init_command(
    file: NewFile = Path("grid.yaml"),
    model: ModelOption = None,
    data: TrainingDataOption = None,
    methods: MethodsOption = None,
    benchmarks: BenchmarksOption = None,
    fractions: FractionsOption = None,
    seeds: SeedsOption = None,
    yes: YesOption = False,
    debug: DebugOption = False,
) -> int:
    """Write a first grid file, from a few questions or from flags; overwrites nothing."""
    from harness.commands import init

    return init.init_command(
        file,
        model=model,
        data=data,
        methods=methods,
        benchmarks=benchmarks,
        fractions=fractions,
        seeds=seeds,
        yes=yes,
    )


def schema_command(kind: KindArgument = "grid", debug: DebugOption = False) -> int:
    """Print the JSON schema of grid files or of site files, for editors."""
    from harness.prepare.schema import schema_text

    print(schema_text(kind), end="")
    return 0
