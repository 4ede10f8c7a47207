"""A cell has one holder, also where locks are not seen: two mounts, other machines, no locks."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.grid.lease import (
    CLAIM,
    LEASE_VARIABLE,
    LOCK_FILE,
    CellBusy,
    Holder,
    holder_of,
    lease_seconds,
)
from harness.grid.locks import any_silent, is_running, locked
from harness.grid.shared_folder import keep_reach
from harness.grid.upkeep import leftovers
from harness.records.files import write_text
from harness.records.process import process_identity
from tests.fixtures.machines import HOLD, as_machine

LEASE = 3.0
TAKE = """
import sys, time
from pathlib import Path
from harness.grid.locks import CellBusy, locked
folder, begin = Path(sys.argv[1]), float(sys.argv[2])
time.sleep(max(0.0, begin - time.time()))
try:
    with locked(folder):
        print("held", flush=True)
        sys.stdin.read()
except CellBusy as fault:
    print("busy", flush=True)
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a process that takes a cell; it is killed at the end."""
    processes = []

    def begin(
        code: str, *arguments: object, environment: dict[str, str] | None = None
    ) -> subprocess.Popen[str]:
        package = str(Path(__file__).parents[2])
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": package, LEASE_VARIABLE: str(LEASE),
                 **(environment or {})},
        )  # fmt: skip
        processes.append(process)
        return process

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def write(process: subprocess.Popen[str], text: str) -> str:
    """Has a holder write a file; returns what it says of it."""
    assert process.stdin is not None
    process.stdin.write(f"{text}\n")
    process.stdin.flush()
    return line_of(process)


@pytest.fixture(autouse=True)
def _short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LEASE_VARIABLE, str(LEASE))


def unseen(folder: Path) -> Path:
    """The folder of a cell in a runs folder of whose locks nothing is known."""
    (folder / "cells").mkdir(parents=True)
    keep_reach(folder, "unknown")
    return folder / "cells" / "a--0123"


def test_through_two_mounts_one_process_holds_a_cell(
    mounts: tuple[Path, Path], start: Start
) -> None:
    one, other = (place / "runs" / "cells" / "a--0123" for place in mounts)
    process = start(HOLD, one)
    assert line_of(process) == "held"
    assert is_running(other)
    with pytest.raises(CellBusy, match=rf"\({process.pid} on"), locked(other):
        pass
    time.sleep(LEASE * 1.2)  # its heartbeat goes on
    assert is_running(other)
    process.kill()
    process.wait()
    assert not is_running(other)  # at once: its process is known to have ended
    with locked(other):
        assert is_running(one)


def test_of_processes_that_begin_together_one_gets_the_cell(
    mounts: tuple[Path, Path], start: Start, without_locks: dict[str, str]
) -> None:
    for environment in ({}, without_locks):
        cell = f"runs/cells/a--{len(environment)}"
        begin = time.time() + 1.5
        takers = [
            start(TAKE, mounts[number % 2] / cell, begin, environment=environment)
            for number in range(4)
        ]
        assert sorted(map(line_of, takers)) == ["busy", "busy", "busy", "held"]


@pytest.mark.long
def test_what_a_machine_left_is_free_once_its_lease_is_over(tmp_path: Path, start: Start) -> None:
    folder = unseen(tmp_path / "runs")
    process = start(HOLD, folder, environment=as_machine(tmp_path, "node7"))
    assert line_of(process) == "held"
    time.sleep(LEASE * 1.2)
    assert holder_of(folder).identity.startswith("node7:")
    assert is_running(folder)
    process.kill()
    process.wait()
    began = time.monotonic()
    assert is_running(folder)  # nobody knows yet
    with pytest.raises(CellBusy, match=r"on node7\)"), locked(folder):
        pass
    assert any_silent([folder])
    assert time.monotonic() - began < LEASE * 2
    with locked(folder):
        assert is_running(folder)


def test_a_clock_that_was_set_back_holds_nobody_up(tmp_path: Path, start: Start) -> None:
    """The last heartbeat of a machine that is lost lies in the future, for hours."""
    folder = unseen(tmp_path / "runs")
    process = start(HOLD, folder, environment=as_machine(tmp_path, "node7", locks_seen=False))
    assert line_of(process) == "held"
    process.kill()
    process.wait()
    os.utime(folder / ".lock", (time.time() + 7200,) * 2)
    began = time.monotonic()
    assert not any_silent([folder])
    assert LEASE <= time.monotonic() - began < LEASE * 3


def test_where_locks_reach_machines_it_is_free_at_once(tmp_path: Path, start: Start) -> None:
    folder = unseen(tmp_path / "runs")
    keep_reach(tmp_path / "runs", "machines")
    process = start(HOLD, folder, environment=as_machine(tmp_path, "node7"))
    assert line_of(process) == "held"
    assert is_running(folder)
    process.kill()
    process.wait()
    assert not is_running(folder)
    with locked(folder):
        assert is_running(folder)


def test_a_holder_that_lives_is_not_waited_for_longer_than_a_beat(
    tmp_path: Path, start: Start
) -> None:
    folder = unseen(tmp_path / "runs")
    process = start(
        HOLD, folder,
        environment=as_machine(tmp_path, "node7", locks_seen=False),
    )  # fmt: skip
    assert line_of(process) == "held"
    began = time.monotonic()
    assert not any_silent([folder])
    assert time.monotonic() - began < LEASE
    assert is_running(folder)


def test_who_was_suspended_past_its_lease_writes_nothing_more(tmp_path: Path, start: Start) -> None:
    folder = unseen(tmp_path / "runs")
    process = start(HOLD, folder, environment=as_machine(tmp_path, "node7", locks_seen=False))
    assert line_of(process) == "held"
    assert write(process, "first") == "wrote"
    process.send_signal(signal.SIGSTOP)
    assert is_running(folder)
    assert any_silent([folder])
    with locked(folder) as lease:
        write_text(folder / "file", "second")
        process.send_signal(signal.SIGCONT)
        assert write(process, "third").startswith(f"busy: {folder}: this process was silent")
        assert (folder / "file").read_text() == "second"
        lease.check()
        assert holder_of(folder).identity == process_identity()
    assert not is_running(folder)


def test_what_was_left_in_the_middle_of_taking_a_cell_is_passed(tmp_path: Path) -> None:
    folder = unseen(tmp_path / "runs")
    folder.mkdir()
    dead = process_identity().replace(f":{os.getpid()}:", f":{2**22 + 1}:")
    (folder / f"{CLAIM}1").write_text(dead)
    assert leftovers(folder) == [folder / f"{CLAIM}1"]
    with locked(folder):
        assert holder_of(folder).number == 2
    assert [path.name for path in folder.iterdir()] == [LOCK_FILE]
    (folder / f"{CLAIM}3").write_text(process_identity())
    with pytest.raises(CellBusy, match="takes this cell now"), locked(folder):
        pass


def test_who_sees_what_the_lock_file_said_before_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network's cache: it read the lock file before another process took the cell."""
    folder = unseen(tmp_path / "runs")
    monkeypatch.setattr(fcntl, "flock", lambda file, kind: None)
    with locked(folder):
        pass
    for number in (0, 1):  # the next number is given out already; the next but one is held
        with locked(folder), monkeypatch.context() as patch:
            patch.setattr("harness.grid.locks.read_holder", lambda handle, n=number: Holder("", n))
            with pytest.raises(CellBusy, match="takes this cell now"), locked(folder):
                pass
        assert [path.name for path in folder.iterdir()] == [LOCK_FILE]


def test_the_record_of_an_older_version_is_read(tmp_path: Path) -> None:
    folder = unseen(tmp_path / "runs")
    folder.mkdir()
    (folder / LOCK_FILE).write_text(process_identity().replace(f":{os.getpid()}:", ":1:"))
    assert holder_of(folder).number == 0
    elsewhere = process_identity().rpartition(":")[2]
    (folder / LOCK_FILE).write_text(f"node7:4711:12:boot:ns:{elsewhere}")
    assert not is_running(folder)  # it has no heartbeat: its lock alone counted
    with locked(folder):
        assert holder_of(folder).number == 1


@pytest.mark.parametrize("text", ["", "soon", "0", "nan", "-3", "1e9"])
def test_no_number_of_seconds_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(LEASE_VARIABLE, text)
    with pytest.raises(UsageError, match=f"{LEASE_VARIABLE}={text}: is no number"):
        lease_seconds()
