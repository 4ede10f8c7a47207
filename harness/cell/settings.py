"""Where a cell is run, on which device, and its event callback."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.grid.schema import Cell
from harness.records.events import Emit, Warned
from harness.training.process_group import RankInfo


@dataclass(frozen=True)
class RunSettings:
    """Execution settings. None is part of the cell id.

    `device` resolves `precision: auto`; `threads` and `token_budget` may change low-order bits.
    """

    runs_dir: Path
    data_root: Path | None
    """Folder of local data sets and checkpoints; None to read from the hub."""
    device: str = "cpu"
    """A torch device, `cpu` or `cuda`; each worker sees one GPU, so no index."""
    threads: int = 1
    """CPU threads; on the CPU another number moves the low bits of every result."""
    rank_info: RankInfo = RankInfo()
    """This process' rank where several train the cell; rank 0 runs it, the others follow."""
    token_budget: int | None = None
    """Tokens of a forward pass in training, instead of the grid's; a smaller budget stored after an
    out-of-memory error takes precedence."""
    estimates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Expected costs of cells by their ids; kept with their results."""
    pauses: Mapping[str, int] = field(default_factory=dict)
    """By cell id: after how many epochs its training stops with a checkpoint, to be resumed."""
    data_contents: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the rows that the grid's cells were trained on so far, by the hub's
    `source@revision`: a branch may have moved since."""


@dataclass(frozen=True)
class CellContext:
    """A cell to run in this process, with its settings, folder and event callback."""

    cell: Cell
    settings: RunSettings
    folder: Path
    """The cell's folder; rank 0 writes in it."""
    emit: Emit

    def warn(self, message: str | None) -> None:
        """Emits a warning, if there is one."""
        if message is not None:
            self.emit(Warned(self.cell.id, message))
