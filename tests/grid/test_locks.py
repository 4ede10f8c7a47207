"""A cell's folder is held by one process, and seen by all; an error says nothing of it."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import StorageError
from harness.grid.folders import check_writable
from harness.grid.lease import LEASE_SECONDS, LOCK_FILE, RECORD_BYTES, CellBusy, Holder, holder_of
from harness.grid.locks import WITHOUT_LOCKS, holder, is_running, locked
from harness.grid.shared_folder import file_system, keep_reach, lock_reach
from harness.records.process import process_identity

HOLD = """
import sys, time
from pathlib import Path
from harness.grid.locks import locked
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
        held = rf"another process \({process.pid} on .*\) is running this cell; wait for it"
        with pytest.raises(CellBusy, match=held), locked(tmp_path):
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


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> int:
    """A file system that answers a request for a lock with an error, whose number is given."""

    def refuse(file: object, kind: int) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)
    return int(request.param)


@pytest.mark.parametrize("refusing", WITHOUT_LOCKS, indirect=True)
def test_where_there_are_no_locks_the_lease_guards(tmp_path: Path, refusing: int) -> None:
    cells = tmp_path / "cells"
    said = check_writable(tmp_path)
    assert said is not None
    assert f"{cells}: {file_system(cells)} has no file locks" in said
    assert lock_reach(tmp_path) == "none"
    folder = cells / "a--0123"
    with locked(folder):
        assert is_running(folder)
        with pytest.raises(CellBusy, match=rf"\({os.getpid()} on"), locked(folder):
            pass
    assert not is_running(folder)
    assert [path.name for path in folder.iterdir()] == [LOCK_FILE]


def test_a_folder_that_was_mounted_with_locks_since_has_them(tmp_path: Path) -> None:
    check_writable(tmp_path)
    before = lock_reach(tmp_path)
    keep_reach(tmp_path, "none")
    assert lock_reach(tmp_path) == "none"
    assert check_writable(tmp_path) is None
    assert lock_reach(tmp_path) == before


@pytest.mark.parametrize("refusing", [errno.EIO, errno.EACCES, errno.EPERM], indirect=True)
def test_another_error_is_no_lock_either(tmp_path: Path, refusing: int) -> None:
    (tmp_path / LOCK_FILE).touch()
    said = os.strerror(refusing)
    with pytest.raises(StorageError, match=said) as caught, locked(tmp_path):
        pass
    assert not isinstance(caught.value, CellBusy)
    with pytest.raises(StorageError, match=said):
        is_running(tmp_path)


def test_a_lock_that_cannot_be_opened_says_nothing(tmp_path: Path) -> None:
    assert not is_running(tmp_path)
    assert not is_running(tmp_path / "missing")
    os.mkfifo(tmp_path / LOCK_FILE)
    with pytest.raises(StorageError, match=r"\.lock: cannot be read .*nobody knows whether"):
        is_running(tmp_path)
    with pytest.raises(StorageError, match=r"\.lock: is no regular file; remove"), locked(tmp_path):
        pass


def test_a_lock_names_its_holder_and_counts_them(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        with locked(tmp_path) as lease:
            assert holder_of(tmp_path) == Holder(process_identity(), number, LEASE_SECONDS)
            assert lease.holder == holder_of(tmp_path)
        assert holder_of(tmp_path) == Holder("", number, 0.0)
        assert holder(tmp_path) == "another process"
        assert (tmp_path / LOCK_FILE).stat().st_size == RECORD_BYTES


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"a:b:c:d:e:f:g", b"x" * 10**6])
def test_any_content_of_a_lock_is_a_lock(tmp_path: Path, content: bytes) -> None:
    (tmp_path / LOCK_FILE).write_bytes(content)
    assert not is_running(tmp_path)
    assert len(holder(tmp_path)) < 300
    with locked(tmp_path):
        assert is_running(tmp_path)
