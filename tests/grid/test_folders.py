"""A cell's folder is found by its id."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from harness.errors import StorageError
from harness.grid.folders import cell_folders


def test_a_folder_that_cannot_be_listed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> list[str]:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(StorageError, match="cells: cannot be read .*see that its disk"):
        cell_folders(tmp_path)


def test_folders_are_found_by_the_ids_they_carry(tmp_path: Path) -> None:
    assert cell_folders(tmp_path) == {}
    for name in ("a--b--0123", "b--0123", "c--4567", "no-id"):
        (tmp_path / "cells" / name).mkdir(parents=True)
    found = {cell_id: path.name for cell_id, path in cell_folders(tmp_path).items()}
    assert found == {"0123": "a--b--0123", "4567": "c--4567"}
