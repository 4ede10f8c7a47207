"""Where it is kept which test items the training rows hold: one file per data set and benchmark."""

from __future__ import annotations

from pathlib import Path

FOLDER = "overlap"
"""Under the runs folder."""
DIGITS = 16


def overlap_file(runs_dir: Path, benchmark: str, items_sha256: str, rows_sha256: str) -> Path:
    """The file of a benchmark's items and a data set's rows, both known by their content."""
    name = f"{benchmark}-{items_sha256[:DIGITS]}-{rows_sha256[:DIGITS]}.parquet"
    return runs_dir / FOLDER / name
