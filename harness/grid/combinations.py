"""Faults of a grid that show only when models, methods and data meet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from harness.data.instructions import num_examples
from harness.errors import MethodError
from harness.grid.schema import Cell, GridSpec, expand
from harness.methods import METHODS, check_options

if TYPE_CHECKING:
    from harness.methods.method import Method


def combination_faults(grid: GridSpec) -> Iterator[str]:
    """Yields one line per fault: twins, options that do not fit a model, labels used twice."""
    yield from _twins(grid)
    labels: dict[str, Cell] = {}
    for cell in expand(grid):
        method = METHODS[cell.method]
        try:
            check_options(method, cell.options, cell.model.shape)
            _check_quantization(method, cell)
        except MethodError as misfit:
            yield f"{cell.model_name} with {cell.method_label}: {misfit}"
        if labels.setdefault(cell.label, cell).id != cell.id:
            yield (
                f"two different cells are called '{cell.label}'; give one of the methods a `label`"
            )
        if (fault := fraction_fault(cell, grid.data.num_rows)) is not None:
            yield fault


def fraction_fault(cell: Cell, num_rows: int | None) -> str | None:
    """Returns why a cell's fraction selects no example, as far as the data's size is known."""
    if num_rows is None or cell.fraction is None or num_examples(cell.fraction, num_rows) > 0:
        return None
    return (
        f"fraction {cell.fraction:g} of {num_rows} rows selects no example; it must be more than "
        f"{0.5 / num_rows:.2g}"
    )


def _twins(grid: GridSpec) -> Iterator[str]:
    """Yields a fault for every pair of labels that stand for the same cells."""
    labels: dict[str, str] = {}
    for block in grid.blocks:
        for choice in block.methods:
            meaning = choice.model_dump_json(exclude={"label"}, serialize_as_any=True)
            other = labels.setdefault(meaning, choice.label)
            if other != choice.label:
                yield f"methods '{other}' and '{choice.label}' have the same settings; keep one"


def _check_quantization(method: Method, cell: Cell) -> None:
    """Checks that there is something frozen to quantise, without loading anything.

    Raises:
        MethodError: every parameter is trained.
    """
    if cell.train is None or cell.train.base_quantization is None:
        return
    if method.count_parameters(cell.model.shape, cell.options) == cell.model.shape.num_parameters:
        raise MethodError(
            f"train.base_quantization: nothing is frozen in '{method.name}'; leave it out"
        )
