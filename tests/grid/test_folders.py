"""A cell's folder is held by one process, seen by all, and found by its id."""

from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import StorageError
from harness.grid.folders import LOCK_FILE, CellBusy, cell_folders, is_running, locked

HOLD = """
import sys, time
from pathlib import Path
from harness.grid.folders import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_lock_is_seen_while_its_process_lives_and_free_when_it_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert is_running(tmp_path)
        with pytest.raises(CellBusy), locked(tmp_path):
            pass
        process.kill()
    assert not is_running(tmp_path)
    with locked(tmp_path):
        assert is_running(tmp_path)


def test_two_readers_do_not_see_each_other(tmp_path: Path) -> None:
    with locked(tmp_path):
        pass
    with (tmp_path / LOCK_FILE).open("r+") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert not is_running(tmp_path)


def test_a_disk_without_locks_is_not_a_cell_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with locked(tmp_path):
        pass

    def refuse(file: object, kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert not is_running(tmp_path)
    with pytest.raises(StorageError, match="No locks available") as caught, locked(tmp_path):
        pass
    assert not isinstance(caught.value, CellBusy)


def test_folders_are_found_by_the_ids_they_carry(tmp_path: Path) -> None:
    assert cell_folders(tmp_path) == {}
    for name in ("a--b--0123", "b--0123", "c--4567", "no-id"):
        (tmp_path / "cells" / name).mkdir(parents=True)
    found = {cell_id: path.name for cell_id, path in cell_folders(tmp_path).items()}
    assert found == {"0123": "a--b--0123", "4567": "c--4567"}
