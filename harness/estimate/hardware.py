"""A grid's estimate on a GPU: tokens, hours, money, memory, what is missing; loads no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.data.instructions import DataSpec
from harness.estimate.costs import CellEstimate, estimate_cell
from harness.estimate.gpus import Gpu, find_gpu
from harness.estimate.lengths import RowLengths, local_lengths
from harness.estimate.needs import DiskNeeds, Need, disk_needs, find_needs, model_cache
from harness.estimate.tokens import (
    TrainingTokens,
    known_training_tokens,
    tokens_of_characters,
    training_tokens,
)
from harness.grid.schema import Cell
from harness.grid.status import CellState


@dataclass(frozen=True)
class HardwareEstimate:
    """What is left to do of a grid, on one kind of GPU."""

    name: str
    gpu: Gpu
    price_per_hour: float | None
    cells: tuple[CellEstimate, ...]
    """Those that are to do."""
    done_cells: int
    done_seconds: float
    """Measured, of what is done already: training and scoring."""
    needs: tuple[Need, ...]
    disk: DiskNeeds

    @property
    def gpu_hours(self) -> float | None:
        """Of all cells; None where one of them cannot be estimated."""
        hours = [cell.gpu_hours for cell in self.cells]
        return None if None in hours else sum(hour for hour in hours if hour is not None)

    def money(self, hours: float | None) -> float | None:
        """Returns the price of so many GPU hours; None where no price was given."""
        return None if hours is None or self.price_per_hour is None else hours * self.price_per_hour

    def record(self) -> dict[str, Any]:
        """Returns all of it as plain values."""
        cells = [
            asdict(cell)
            | {"gpu_hours": cell.gpu_hours, "seconds": cell.seconds}
            | {"cost": self.money(cell.gpu_hours)}
            for cell in self.cells
        ]
        return {
            "hardware": {"name": self.name, **self.gpu.model_dump()},
            "price_per_hour": self.price_per_hour,
            "gpu_hours": self.gpu_hours,
            "cost": self.money(self.gpu_hours),
            "done": {"cells": self.done_cells, "seconds": self.done_seconds},
            "cells": cells,
            "needs": [asdict(need) for need in self.needs],
            "disk": asdict(self.disk) | {"suffices": self.disk.suffices},
        }


def estimate_on_gpu(
    states: Sequence[CellState],
    hardware: str,
    *,
    price_per_hour: float | None,
    runs_dir: Path,
    data_root: Path | None,
    num_rows: int | None,
) -> HardwareEstimate:
    """Returns what is left to do of a grid's cells on a GPU; loads no model, asks no network.

    Args:
        states: the cells.
        hardware: the GPU's name.
        price_per_hour: of one GPU, in any currency.
        runs_dir: where results go, and where counted lengths are kept.
        data_root: of local data.
        num_rows: of the training data.

    Raises:
        UsageError: the GPU is not known.
        DataError: local data cannot be read.
    """
    gpu = find_gpu(hardware)
    if price_per_hour is None:
        price_per_hour = gpu.price_per_hour
    tokens_of = token_counter(runs_dir=runs_dir, data_root=data_root, num_rows=num_rows)
    work = [state for state in states if state.status != "done"]
    needs = find_needs(work, data_root)
    return HardwareEstimate(
        name=hardware.lower(),
        gpu=gpu,
        price_per_hour=price_per_hour,
        cells=tuple(estimate_cell(state, gpu, tokens_of) for state in work),
        done_cells=len(states) - len(work),
        done_seconds=sum(measured_seconds(state) for state in states),
        needs=tuple(needs),
        disk=disk_needs(work, needs, runs_dir),
    )


def measured_seconds(state: CellState) -> float:
    """Returns the seconds that what is done of a cell took."""
    if state.result is None:
        return 0.0
    train = state.result.train.seconds if state.result.train is not None else 0.0
    return train + sum(state.result.evaluation_seconds.values())


def token_counter(
    *, runs_dir: Path, data_root: Path | None, num_rows: int | None
) -> Callable[[Cell], TrainingTokens | None]:
    """Returns what tells the tokens of one epoch of a cell that trains.

    Counted where the data and the model's tokenizer lie on this machine; else from constants, where
    the data set is known; else from the characters of local data.
    """
    from harness.data.instructions import num_examples, shuffled

    orders: dict[int, list[int]] = {}
    lengths: dict[tuple[DataSpec, Path], RowLengths] = {}

    def count(cell: Cell) -> TrainingTokens | None:
        assert cell.train is not None
        assert cell.fraction is not None
        place = _local_tokenizer(cell, data_root)
        if place is not None and _data_is_local(cell.data, data_root):
            key = (cell.data, place)
            if key not in lengths:
                lengths[key] = local_lengths(
                    cell.data, place, data_root=data_root, runs_dir=runs_dir
                )
            total, seed = len(lengths[key].whole), cell.seed or 0
            if seed not in orders or len(orders[seed]) != total:
                orders[seed] = shuffled(total, f"fraction/{seed}")  # as `choose` draws
            rows = orders[seed][: num_examples(cell.fraction, total)]
            return training_tokens(lengths[key], rows, cell.train.max_length)
        if num_rows is None:
            return None
        wanted, limit = num_examples(cell.fraction, num_rows), cell.train.max_length
        known = known_training_tokens(cell.data.source, cell.model.shape, wanted, limit)
        if known is not None or not _data_is_local(cell.data, data_root):
            return known
        return tokens_of_characters(wanted, _mean_characters(cell.data, data_root), limit)

    return count


def _local_tokenizer(cell: Cell, data_root: Path | None) -> Path | None:
    from harness.models.checkpoint import local_folder

    folder = local_folder(cell.model, data_root)
    if folder is None and cell.model.source is not None:
        folder = model_cache(cell.model.source, cell.model.revision)
    return folder if folder is not None and (folder / "tokenizer.json").is_file() else None


def _data_is_local(data: DataSpec, data_root: Path | None) -> bool:
    if data.path is None:
        return False
    path = Path(data.path) if data_root is None else data_root / data.path
    return (data_root is not None or path.is_absolute()) and path.is_file()


def _mean_characters(data: DataSpec, data_root: Path | None) -> float:
    from harness.data.instructions import read_instructions

    rows = read_instructions(data, data_root=data_root).rows
    return sum(len(row.instruction + row.input + row.output) for row in rows) / len(rows)
