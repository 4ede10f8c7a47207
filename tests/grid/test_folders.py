"""A cell's folder is found by its id."""

from __future__ import annotations

from pathlib import Path

from harness.grid.folders import cell_folders


def test_folders_are_found_by_the_ids_they_carry(tmp_path: Path) -> None:
    assert cell_folders(tmp_path) == {}
    for name in ("a--b--0123", "b--0123", "c--4567", "no-id"):
        (tmp_path / "cells" / name).mkdir(parents=True)
    found = {cell_id: path.name for cell_id, path in cell_folders(tmp_path).items()}
    assert found == {"0123": "a--b--0123", "4567": "c--4567"}
