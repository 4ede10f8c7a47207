"""The command line of `judge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.commands.answering import (
    InstructionsOption,
    MaxTokensOption,
    SeedOption,
    TemperatureOption,
    TopPOption,
)
from harness.commands.arguments import (
    DataOption,
    DebugOption,
    GridArgument,
    JsonOption,
    OnlyOption,
    ReportsOption,
    RunsOption,
)


def judge_command(
    grid: GridArgument,
    against: Annotated[
        str,
        typer.Option("--against", help="A method, a cell, or a file of AlpacaEval's outputs."),
    ],
    model: Annotated[
        str, typer.Option("--judge-model", help="The judge, as its endpoint names it.")
    ],
    url: Annotated[
        str | None,
        typer.Option(
            "--judge-url", help="OpenAI-compatible; its key: ZBENCH_JUDGE_API_KEY, OPENAI_API_KEY."
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--judge-max-tokens", min=1, help="That the judge may write per verdict; default 2048."
        ),
    ] = None,
    instructions: InstructionsOption = None,
    temperature: TemperatureOption = 0.0,
    top_p: TopPOption = 1.0,
    max_new_tokens: MaxTokensOption = 512,
    seed: SeedOption = 0,
    only: OnlyOption = None,
    parallel: Annotated[
        int, typer.Option("--parallel", min=1, max=64, help="Requests at a time.")
    ] = 4,
    yes: Annotated[bool, typer.Option("--yes", help="Send the requests without asking.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")
    ] = False,
    runs_dir: RunsOption = Path("runs"),
    data_root: DataOption = None,
    reports_dir: ReportsOption = Path("reports"),
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> int:
    """Have a judge model compare answers of `generate` with others, and print win rates."""
    from harness.commands import judge
    from harness.errors import UsageError
    from harness.evaluation.benchmarks import Decoding
    from harness.grid.workspace import open_grid

    if yes and dry_run:
        raise UsageError("--yes, --dry-run: give one of them")
    options = judge.JudgeOptions(
        against=against,
        model=model,
        url=url,
        max_tokens=max_tokens,
        instructions=instructions,
        seeds_root=data_root,
        decoding=Decoding(temperature, top_p, max_new_tokens, seed),
        only=only,
        parallel=parallel,
        yes=yes,
        dry_run=dry_run,
    )
    opened = open_grid(grid, runs_dir, data_root, None, results_alone=True)
    return judge.judge_command(opened, options, reports_dir=reports_dir, as_json=as_json)
