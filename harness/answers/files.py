"""What a grid's answers are written to: the page, one table of all, and AlpacaEval's files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.answers.columns import Column, method_columns, shown_cell
from harness.answers.page import PageInput, answers_page
from harness.answers.store import (
    ALL_RESPONSES_FILE,
    COLUMNS,
    OUTPUTS_FILE,
    InstructionSet,
    outputs_of,
    write_outputs,
)
from harness.evaluation.benchmarks import Decoding
from harness.grid.schema import Cell
from harness.records.files import write_frame, write_text

if TYPE_CHECKING:
    import pandas as pd

PAGE_FILE = "answers.html"
CELL_COLUMNS = ("cell_id", "label", "model", "method", "data", "fraction", "seed")
"""What says whose answer a row of `responses.parquet` is, before the columns of a cell's own."""


@dataclass(frozen=True)
class Answered:
    """A cell with its answers."""

    cell: Cell
    template: str
    """What its prompts were put into."""
    frame: pd.DataFrame


@dataclass(frozen=True)
class AnswerFiles:
    """What was written."""

    page: Path
    responses: Path
    outputs: tuple[Path, ...]
    """`model_outputs.json` of each cell."""
    columns: tuple[Column, ...]
    """Of the page."""


def write_answers(
    folder: Path,
    grid_name: str,
    answered: Sequence[Answered],
    instructions: InstructionSet,
    decoding: Decoding,
    beside: Sequence[Column],
    notes: Sequence[str],
) -> AnswerFiles:
    """Writes page, table and AlpacaEval's files of a grid's answers to a set.

    Args:
        folder: of the set: see `set_folder`.
        beside: columns of files from outside.
        notes: what a reader of the page must know.

    Raises:
        StorageError: a file cannot be written.
    """
    import pandas as pd

    outputs = []
    for one in answered:
        label = shown_cell(one.cell).label
        path = folder / shown_cell(one.cell).slug / OUTPUTS_FILE
        write_outputs(path, outputs_of(one.frame, label))
        outputs.append(path)
    frames = [one.frame[list(COLUMNS)].assign(**_identity(one.cell)) for one in answered]
    whole = pd.concat(frames, ignore_index=True)[[*CELL_COLUMNS, *COLUMNS]]
    whole = whole.astype({"fraction": "Float64", "seed": "Int64"})
    write_frame(folder / ALL_RESPONSES_FILE, whole)
    columns = [
        *method_columns([(one.cell, one.template, one.frame) for one in answered]),
        *beside,
    ]
    page = answers_page(PageInput(grid_name, instructions, columns, decoding, notes))
    write_text(folder / PAGE_FILE, page)
    return AnswerFiles(
        page=folder / PAGE_FILE,
        responses=folder / ALL_RESPONSES_FILE,
        outputs=tuple(outputs),
        columns=tuple(columns),
    )


def _identity(cell: Cell) -> dict[str, object]:
    """A cell's values of CELL_COLUMNS."""
    shown = shown_cell(cell)
    return {
        "cell_id": cell.id,
        "label": shown.label,
        "model": cell.model_name,
        "method": shown.method_label,
        "data": cell.data_name or "",
        "fraction": cell.fraction,
        "seed": cell.seed,
    }
