"""The laws of executors, on the one that runs cells on this machine."""

from __future__ import annotations

import os
import signal

import pytest

from harness.testing import CellAtWork, Engine, ExecutorLaws


def kill_all(cell: CellAtWork) -> None:
    """Kills the command with its workers, as the loss of the machine does."""
    children = f"/proc/{cell.command.pid}/task/{cell.command.pid}/children"
    with open(children, encoding="ascii") as file:
        workers = file.read().split()
    for process in (cell.command.pid, *map(int, workers)):
        os.kill(process, signal.SIGKILL)


def stop(cell: CellAtWork) -> None:
    cell.command.send_signal(signal.SIGTERM)


ENGINE = Engine(
    arguments=("--executor", "local", "--device", "cpu", "--workers", "2"),
    kill_node_of=kill_all,
    preempt=stop,
    command_outlives_node=False,
    absent={"cancel": "without a queue nothing is cancelled but the command itself"},
)


@pytest.mark.slow
class TestLocal(ExecutorLaws):
    """Real runs: a minute."""

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> Engine:
        return ENGINE


class TestRefusals:
    """What takes seconds of it."""

    timeout_seconds = ExecutorLaws.timeout_seconds
    trial = ExecutorLaws.trial
    check_refused = ExecutorLaws.check_refused
    test_a_folder_is_refused = ExecutorLaws.test_a_runs_folder_that_cannot_be_written_is_refused
    test_a_grid_is_refused = ExecutorLaws.test_what_cannot_run_is_refused_before

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> Engine:
        return ENGINE
