"""What a report is made from, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Report:
    """A rendered report."""

    page: Path
    files: tuple[Path, ...]
    """Every file that was written, the page among them."""
    terminal: str
    """The tables as plain text, at most 120 columns wide."""
