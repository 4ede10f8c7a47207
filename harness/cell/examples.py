"""The rows of a cell, put into the template of its data and tokenised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.data.instructions import DROPPED, Example, tokenize
from harness.data.rows import Row
from harness.data.sets import read_instructions
from harness.data.spec import DataSpec
from harness.errors import DataError
from harness.grid.names import data_place
from harness.grid.schema import Cell
from harness.methods.zero_init.options import image_encoder_of

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

    Rows that are cut at the maximal length are trained on as far as they go, unless `on_bad_rows`
    of the data is `drop`: nothing of them is in the loss then. Pictures are left out where the
    cell's method looks at none.

    Raises:
        ZbenchError: a row cannot be put into the template, or is cut where `on_bad_rows` is `fail`;
            the line has its number in the set.
    """
    assert cell.train is not None

    def number_of(index: int) -> int:
        return read_instructions(of or cell.data, data_root=data_root).rows.index(rows[index])

    place, policy = data_place(cell.data_name) + cell.data.numbering, cell.data.on_bad_rows
    examples = tokenize(
        rows,
        tokenizer,
        cell.train.max_length,
        template=cell.data.template,
        system=cell.data.system,
        all_in_loss=cell.data.all_in_loss,
        number_of=number_of,
        place=place,
    )
    if image_encoder_of(cell.options) is None:
        examples = [replace(one, picture=None) if one.picture else one for one in examples]
    cut = [index for index, example in enumerate(examples) if example.is_cut]
    if cut and policy == "fail":
        named = ", ".join(str(number_of(index)) for index in cut[:3])
        more = ", ..." if len(cut) > 3 else ""
        raise DataError(
            f"{place}: {len(cut)} of {len(rows)} rows are cut at max_length "
            f"{cell.train.max_length} (rows {named}{more}; the first is 0); raise it, leave long "
            "rows out by `where`, or say `on_bad_rows: drop`"
        )
    if cut and policy == "drop":
        return [DROPPED if one.is_cut else one for one in examples]
    return examples
