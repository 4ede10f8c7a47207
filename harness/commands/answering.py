"""The command line of `generate`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from harness.commands.arguments import (
    DataOption,
    DebugOption,
    DeviceOption,
    GridArgument,
    JsonOption,
    OnlyOption,
    ReportsOption,
    RunsOption,
    expanded_path,
)

SET_ENDINGS = (".json", ".jsonl", ".csv", ".tsv", ".parquet")


def known_sets(incomplete: str) -> list[str]:
    """What a shell offers for --instructions: sets by name, files of rows, and folders to them."""
    found = ["vicuna", "seeds"]
    folder = incomplete[: incomplete.rfind("/") + 1]
    with contextlib.suppress(OSError):
        for path in sorted(Path(folder).expanduser().iterdir()):
            if path.is_dir() and not path.name.startswith("."):
                found.append(f"{folder}{path.name}/")
            elif path.suffix in SET_ENDINGS:
                found.append(f"{folder}{path.name}")
    return [name for name in found if name.startswith(incomplete)]


def expanded_paths(param: typer.CallbackParam, value: list[Path]) -> list[Path]:
    """Paths of an option that may be repeated, with `~` expanded."""
    return [path for path in (expanded_path(param, one) for one in value) if path is not None]


InstructionsOption = Annotated[
    str | None,
    typer.Option(
        "--instructions",
        help="A file of instructions, or seeds; default vicuna, its 80 questions.",
        autocompletion=known_sets,
    ),
]
BesideOption = Annotated[
    list[Path],
    typer.Option(
        "--beside",
        callback=expanded_paths,
        help="Published outputs (AlpacaEval's JSON) for the page; repeat it for several.",
    ),
]
TemperatureOption = Annotated[
    float, typer.Option("--temperature", min=0, help="0 takes the likeliest token.")
]
TopPOption = Annotated[float, typer.Option("--top-p", min=0, max=1, help="With a temperature.")]
MaxTokensOption = Annotated[
    int, typer.Option("--max-new-tokens", min=1, help="Tokens at which an answer is cut.")
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Of what a temperature draws.")]


def generate_command(
    grid: GridArgument = "demo",
    instructions: InstructionsOption = None,
    beside: BesideOption = [],  # noqa: B006  # typer's way to say none; it is not changed
    temperature: TemperatureOption = 0.0,
    top_p: TopPOption = 1.0,
    max_new_tokens: MaxTokensOption = 512,
    seed: SeedOption = 0,
    runs_dir: RunsOption = Path("runs"),
    data_root: DataOption = None,
    reports_dir: ReportsOption = Path("reports"),
    only: OnlyOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> int:
    """Write every finished cell's answers to a set of instructions, and a page of all of them."""
    from harness.commands import generate
    from harness.evaluation.benchmarks import Decoding
    from harness.grid.workspace import open_grid

    if temperature > 0 and not top_p > 0:
        from harness.errors import UsageError

        raise UsageError("--top-p: must be greater than 0: no token would be left")
    return generate.generate_command(
        open_grid(grid, runs_dir, data_root, only, results_alone=True),
        instructions=instructions,
        seeds_root=data_root,
        beside=beside,
        decoding=Decoding(temperature, top_p, max_new_tokens, seed),
        reports_dir=reports_dir,
        device=device,
        as_json=as_json,
    )
