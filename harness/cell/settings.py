"""TODO: say what this is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.training.process_group import GroupMember


@dataclass(frozen=True)
class RunSettings:
    """Where a cell is run; nothing here changes what is measured."""

    runs_dir: Path
    data_root: Path | None
    """Folder of local data sets and checkpoints; None to read from the hub."""
    device: str = "cpu"
    """A torch device of this process, `cpu` or `cuda`."""
    threads: int = 1
    """CPU threads; on the CPU another number moves the low bits of every result."""
    member: GroupMember | None = None
    """This process' place where several train the cell; rank 0 runs it, the others follow."""
    token_budget: int | None = None
    """Tokens of a forward pass in training, instead of the grid's; what has held goes before it."""
    estimates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What a cell is expected to take, by its id; kept with its result."""
