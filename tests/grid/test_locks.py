"""A cell's folder is held by one process, and seen by all; an error says nothing of it."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import StorageError, UsageError
from harness.grid import locks
from harness.grid.folders import check_writable
from harness.grid.locks import (
    LOCK_FILE,
    WITHOUT_LOCKS,
    CellBusy,
    holder,
    is_running,
    locked,
)
from harness.grid.shared_folder import file_system
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
def test_a_file_system_without_locks_is_named_before_any_work(
    tmp_path: Path, refusing: int
) -> None:
    (tmp_path / LOCK_FILE).touch()
    said = rf"{os.strerror(refusing)}.*{file_system(tmp_path)} has no file locks"
    with pytest.raises(UsageError, match=said):
        check_writable(tmp_path)
    with pytest.raises(StorageError, match=said) as caught, locked(tmp_path):
        pass
    assert not isinstance(caught.value, CellBusy)
    with pytest.raises(StorageError, match=said):
        is_running(tmp_path)


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


def test_a_holder_that_lives_is_believed_where_its_lock_is_not_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One folder seen through two mounts: each knows its own locks alone."""
    with subprocess.Popen(["sleep", "600"]) as process:
        identity = process_identity().replace(f":{os.getpid()}:", f":{process.pid}:")
        start = locks.process_identity().rsplit(":", 4)[1]
        monkeypatch.setattr("harness.records.process._start", lambda number: start)
        (tmp_path / LOCK_FILE).write_text(identity)
        assert is_running(tmp_path)
        with pytest.raises(CellBusy, match=rf"\({process.pid} on"), locked(tmp_path):
            pass
        process.kill()
    assert not is_running(tmp_path)
    with locked(tmp_path):
        assert (tmp_path / LOCK_FILE).read_text() == process_identity()
    assert (tmp_path / LOCK_FILE).read_text() == ""
    assert holder(tmp_path) == "another process"


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"a:b:c:d:e:f:g", b"x" * 10**6])
def test_any_content_of_a_lock_is_a_lock(tmp_path: Path, content: bytes) -> None:
    (tmp_path / LOCK_FILE).write_bytes(content)
    assert not is_running(tmp_path)
    assert len(holder(tmp_path)) < 300
    with locked(tmp_path):
        assert is_running(tmp_path)
