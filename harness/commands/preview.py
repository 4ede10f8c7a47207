"""`zbench preview`: training rows and items exactly as a model is given them, without weights."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.commands.display import console, print_json, print_line, print_warnings
from harness.demo.world import DATA, world_folder
from harness.errors import ZbenchError, printable
from harness.grid.schema import Cell
from harness.grid.selection import find_cell
from harness.grid.workspace import OpenGrid
from harness.records.prompts import Prompt, agreement

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from harness.data.shown import ShownPicture


ROWS = 3
"""Training rows that are shown: the first that the cell draws."""
OPEN, CLOSE = "⟦", "⟧"
"""Around what is in the loss, where there is no colour."""
COLOUR, PLAIN = "\x1b[1;32m", "\x1b[0m"


@dataclass(frozen=True)
class Item:
    """The first item of a benchmark: one prompt per option, or one of a generation."""

    benchmark: str
    prompts: tuple[Prompt, ...]
    agreement: str | None
    """Whether training uses the same template, in one sentence; None without training."""
    fault: str | None = None
    """Why it cannot be shown."""
    picture: ShownPicture | None = None


@dataclass(frozen=True)
class CellPreview:
    """What a cell's model is given."""

    cell: Cell
    rows: tuple[Prompt, ...]
    pictures: tuple[ShownPicture | None, ...]
    """Of each of `rows`."""
    items: tuple[Item, ...]


def preview_command(grid: OpenGrid, name: str | None, *, as_json: bool) -> int:
    """Shows what the model of a cell is given, or of the first of each data set and tokenizer."""
    world = world_folder(grid.runs_dir)
    if grid.data_root == world and not world.is_dir():
        grid = replace(grid, data_root=DATA)  # what the world will hold once it is written
    cells = [find_cell(grid.cells, name, grid=grid.argument)] if name else chosen_cells(grid.cells)
    print_warnings(console(quiet=as_json), grid.notices)
    shown = [preview_cell(cell, grid) for cell in cells]
    if as_json:
        print_json({"cells": [_record(one) for one in shown]})
    else:
        for one in shown:
            _print_cell(one)
    return 1 if any(item.fault for one in shown for item in one.items) else 0


def chosen_cells(cells: Sequence[Cell]) -> list[Cell]:
    """The first trained cell of each data set, with its template, and model; else of each model."""
    found: dict[tuple[str | None, str], Cell] = {}
    for cell in [cell for cell in cells if cell.train is not None] or cells:
        found.setdefault((cell.data_name, cell.model_name), cell)
    return list(found.values())


def preview_cell(cell: Cell, grid: OpenGrid) -> CellPreview:
    """The first rows and items of a cell, by the functions that training and scoring use.

    Raises:
        ZbenchError: its tokenizer or its training data cannot be read.
    """
    from harness.models.checkpoint import find_checkpoint
    from harness.models.tokenizer_files import load_tokenizer

    folder = find_checkpoint(cell.model, grid.data_root)
    tokenizer = load_tokenizer(folder, cell.model.shape.vocab_size)
    rows: tuple[Prompt, ...] = ()
    pictures: tuple[ShownPicture | None, ...] = ()
    if cell.train is not None:
        rows, pictures = _training_prompts(cell, grid, tokenizer)
    return CellPreview(cell, rows, pictures, tuple(_items(cell, grid, tokenizer, rows)))


def _training_prompts(
    cell: Cell, grid: OpenGrid, tokenizer: PreTrainedTokenizerBase
) -> tuple[tuple[Prompt, ...], tuple[ShownPicture | None, ...]]:
    """The first rows that a cell draws, and what is told of their pictures."""
    from harness.cell.examples import cell_examples
    from harness.data.rows import picture_of
    from harness.data.shown import shown_picture, training_prompt
    from harness.data.validation import read_training

    assert cell.train is not None
    assert cell.fraction is not None
    seed = cell.seed_of("subset")
    rows = read_training(cell.data, cell.fraction, seed, grid.data_root).rows[:ROWS]
    examples = cell_examples(cell, rows, tokenizer, grid.data_root)
    prompts = tuple(
        training_prompt(row, example, cell.data, tokenizer)
        for row, example in zip(rows, examples, strict=True)
    )
    return prompts, tuple(shown_picture(picture_of(row)) for row in rows)


def _items(
    cell: Cell, grid: OpenGrid, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Prompt]
) -> Iterator[Item]:
    from harness.data.shown import shown_picture
    from harness.evaluation.loading import load_benchmark
    from harness.evaluation.prompts import first_item, first_picture

    for task in cell.tasks:
        try:
            loaded = load_benchmark(task.model_copy(update={"limit": 1}), grid.data_root)
            prompts = first_item(loaded, tokenizer)
            picture = shown_picture(first_picture(loaded))
        except ZbenchError as fault:  # the other benchmarks are shown
            yield Item(task.name, (), None, str(fault))
            continue
        same = agreement(rows[0].template, prompts[0].template, task.name) if rows else None
        yield Item(task.name, tuple(prompts), same, picture=picture)


def _record(shown: CellPreview) -> dict[str, Any]:
    def prompt(one: Prompt) -> dict[str, Any]:
        pieces = [{"text": text, "marked": marked} for text, marked in one.pieces]
        return {"template": one.template, "pieces": pieces}

    return {
        "cell": shown.cell.label,
        "id": shown.cell.id,
        "training": [
            prompt(one) | ({} if picture is None else {"picture": asdict(picture)})
            for one, picture in zip(shown.rows, shown.pictures, strict=True)
        ],
        "benchmarks": [
            {
                "name": item.benchmark,
                "requests": [prompt(one) for one in item.prompts],
                "agreement": item.agreement,
                "error": item.fault,
                **({} if item.picture is None else {"picture": asdict(item.picture)}),
            }
            for item in shown.items
        ],
    }


def marked_text(prompt: Prompt, *, colour: bool) -> str:
    """A prompt for a terminal: what is marked in colour or brackets, nothing else steers it."""
    before, after = (COLOUR, PLAIN) if colour else (OPEN, CLOSE)
    return "".join(
        f"{before}{printable(text)}{after}" if marked else printable(text)
        for text, marked in prompt.pieces
    )


def _print_cell(shown: CellPreview) -> None:
    screen = console()
    colour = screen.is_terminal and not os.environ.get("NO_COLOR")
    how = "in green" if colour else f"within {OPEN} {CLOSE}"
    print_line(screen, f"{shown.cell.label}", "bold")
    takes = getattr(shown.cell.options, "image_encoder", None) is not None
    rows = zip(shown.rows, shown.pictures, strict=True)
    for number, (prompt, picture) in enumerate(rows, start=1):
        head = f"Training row {number} of {ROWS} (template {prompt.template}; {how}: in the loss)"
        print_line(screen, f"\n{head}", "dim")
        _print_picture(picture, takes=takes)
        sys.stdout.write(f"{marked_text(prompt, colour=colour)}\n")
    for item in shown.items:
        if item.fault is not None:
            print_line(screen, f"\n{item.benchmark}: {item.fault}", "red")
            continue
        _print_item(item, how, colour, takes=takes)
    print()


def _print_picture(picture: ShownPicture | None, *, takes: bool) -> None:
    if picture is not None:
        ignored = "" if takes else " (this method takes no pictures)"
        print_line(console(), f"Picture: {picture}{ignored}", "dim")


def _print_item(item: Item, how: str, colour: bool, *, takes: bool) -> None:
    screen = console()
    first, *others = item.prompts
    scored = f"{how}: scored" if any(marked for _, marked in first.pieces) else "generates"
    print_line(
        screen, f"\n{item.benchmark}, first item (template {first.template}; {scored})", "dim"
    )
    _print_picture(item.picture, takes=takes)
    sys.stdout.write(f"{marked_text(first, colour=colour)}\n")
    contexts = {prompt.pieces[:-1] for prompt in item.prompts}
    for number, prompt in enumerate(others, start=2):
        # Options that follow one context are shown without it.
        pieces = prompt.pieces[-1:] if len(contexts) == 1 else prompt.pieces
        text = marked_text(Prompt(prompt.template, pieces), colour=colour)
        sys.stdout.write(f"option {number}: {text}\n")
    if item.agreement is not None:
        print_line(screen, item.agreement, "yellow" if "in another" in item.agreement else None)
