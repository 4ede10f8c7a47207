"""The rows of a cell, put into the template of its data and tokenised."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.data.instructions import Example, tokenize
from harness.data.rows import Row
from harness.data.sets import read_instructions
from harness.data.spec import DataSpec
from harness.grid.names import data_place
from harness.grid.schema import Cell

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def cell_examples(
    cell: Cell,
    rows: Sequence[Row],
    tokenizer: PreTrainedTokenizerBase,
    data_root: Path | None,
    *,
    of: DataSpec | None = None,
) -> list[Example]:
    """The tokens of rows of a cell's data, or of another set, in the template of its data.

    Raises:
        ZbenchError: a row cannot be put into the template; the line has its number in the set.
    """
    assert cell.train is not None

    def number_of(index: int) -> int:
        return read_instructions(of or cell.data, data_root=data_root).rows.index(rows[index])

    return tokenize(
        rows,
        tokenizer,
        cell.train.max_length,
        template=cell.data.template,
        system=cell.data.system,
        number_of=number_of,
        place=data_place(cell.data_name),
    )
