"""The tokens of a cell's rows, in the template of its data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.cell.settings import CellContext
from harness.data.instructions import Example, tokenize
from harness.data.sets import Instructions, read_instructions
from harness.grid.names import data_place

if TYPE_CHECKING:
    from harness.models.loading import Base


def examples_of(context: CellContext, base: Base, data: Instructions) -> list[Example]:
    """The tokens of rows of a cell's data, as it trains on them.

    Raises:
        ZbenchError: a row cannot be put into the template; the line has its number in the set.
    """
    cell, root = context.cell, context.settings.data_root
    assert cell.train is not None

    def number_of(index: int) -> int:
        rows, row = read_instructions(cell.data, data_root=root).rows, data.rows[index]
        return rows.index(row) if row in rows else index  # of another file: a validation set's

    return tokenize(
        data.rows,
        base.tokenizer,
        cell.train.max_length,
        template=cell.data.template,
        system=cell.data.system,
        number_of=number_of,
        place=data_place(cell.data_name),
    )
