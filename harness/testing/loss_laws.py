"""The laws of executors on what happens to a training: its node is lost, its command is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import ClassVar

import pytest

from harness.grid.locks import is_running
from harness.grid.upkeep import leftovers
from harness.records.events import StepDone
from harness.records.results import read_result
from harness.testing.engines import (
    CellAtWork,
    Engine,
    Trial,
    events_of,
    finish,
    measured,
    processes_in,
    wait_until,
)

LONG = "tiny-llama-zero-init-linear-50pct-seed0"


class LossLaws:
    """The slow part of `ExecutorLaws`, which has its fixtures."""

    timeout_seconds: ClassVar[float] = 600.0
    """How long a command may take, on a machine that may be busy."""

    def hook(self, engine: Engine, name: str) -> Callable[[CellAtWork], None]:
        """A hook of the engine; the law is skipped where there is none."""
        found: Callable[[CellAtWork], None] | None = getattr(engine, name)
        if found is None:
            pytest.skip(engine.absent.get(name, f"this executor has no `{name}`"))
        return found

    @pytest.mark.slow
    def test_the_loss_of_a_node_costs_the_steps_since_the_checkpoint_alone(
        self, engine: Engine, long_reference: Trial, trial: Trial
    ) -> None:
        kill = self.hook(engine, "kill_node_of")
        command = trial.start_grid("long.yaml")
        cell = trial.wait_for_cell(command, self.timeout_seconds)
        assert (checkpoint := cell.checkpoint) > 0
        kill(cell)
        self.check_resumed(trial, command, long_reference, at_least=checkpoint)

    @pytest.mark.slow
    def test_preemption_leaves_a_checkpoint_and_fails_nothing(
        self, engine: Engine, long_reference: Trial, trial: Trial
    ) -> None:
        preempt = self.hook(engine, "preempt")
        command = trial.start_grid("seldom.yaml")  # no checkpoint but that of the preemption
        cell = trial.wait_for_cell(command, self.timeout_seconds)
        assert cell.checkpoint == 0
        preempt(cell)
        self.check_resumed(trial, command, long_reference, at_least=30)

    def check_resumed(
        self, trial: Trial, command: subprocess.Popen[str], reference: Trial, *, at_least: int
    ) -> None:
        """Checks that a disturbed run ends as an undisturbed one, and took few steps twice.

        Where the command ended with its cell, the same command goes on.
        """
        done = finish(command, self.timeout_seconds)
        if not trial.engine.command_outlives_node:
            assert done.returncode != 0
            grid = str(command.args[4])  # type: ignore[index]  # it is a list
            done = trial.run_grid(grid, timeout=self.timeout_seconds)
        assert done.returncode == 0, done.stdout + done.stderr
        self.check_whole(trial, reference)
        events = events_of(trial.cells()[LONG])
        restored = [event for event in events if isinstance(event, StepDone) and event.restored]
        assert len(restored) >= at_least

    def check_whole(self, trial: Trial, reference: Trial) -> None:
        """Checks that the long cell is what it is undisturbed, with every step told once."""
        folder = trial.cells()[LONG]
        assert measured(folder) == measured(reference.cells()[LONG])
        steps = [event.step for event in events_of(folder) if isinstance(event, StepDone)]
        total = measured(folder)["train"]["steps"]
        assert steps == list(range(1, total + 1))
        assert not (folder / "checkpoints").exists()
        assert leftovers(folder) == []
        if (queue := trial.engine.queue) is not None:
            wait_until(lambda: not queue(), queue)

    @pytest.mark.slow
    def test_a_killed_process_is_told_with_its_reason(self, trial: Trial) -> None:
        command = trial.start_grid("seldom.yaml")
        cell = trial.wait_for_cell(command, self.timeout_seconds)
        killed: set[int] = set()
        while command.poll() is None:  # whoever tries again is killed again
            process = cell.process
            if process is not None and process not in killed and is_running(cell.folder):
                killed.add(process)
                os.kill(process, signal.SIGKILL)
            assert len(killed) < 20, "it is tried without end"
            time.sleep(0.1)
        done = finish(command, self.timeout_seconds)
        assert done.returncode == 1, done.stdout + done.stderr
        result = read_result(cell.folder)
        assert result is not None
        assert result.error is not None
        assert " ".join(result.error.message.split()) in " ".join(done.stdout.split())

    @pytest.mark.slow
    def test_a_killed_command_leaves_what_the_same_command_takes_up(
        self, engine: Engine, long_reference: Trial, trial: Trial
    ) -> None:
        command = trial.start_grid("long.yaml")
        cell = trial.wait_for_cell(command, self.timeout_seconds)
        command.kill()
        command.communicate()
        if not engine.outlives_command:
            wait_until(lambda: not processes_in(trial.folder), lambda: processes_in(trial.folder))
            assert not is_running(cell.folder)
        done = trial.run_grid("long.yaml", timeout=self.timeout_seconds)
        assert done.returncode == 0, done.stdout + done.stderr
        self.check_whole(trial, long_reference)
        events = events_of(cell.folder)
        restored = [event for event in events if isinstance(event, StepDone) and event.restored]
        assert bool(restored) != engine.outlives_command  # a job went on, and nothing was begun

    @pytest.mark.slow
    def test_an_interrupted_command_leaves_a_checkpoint_or_its_jobs(
        self, engine: Engine, trial: Trial
    ) -> None:
        command = trial.start_grid("seldom.yaml")
        cell = trial.wait_for_cell(command, self.timeout_seconds)
        command.send_signal(signal.SIGTERM)
        done = finish(command, self.timeout_seconds)
        assert done.returncode == 130, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        if engine.outlives_command:
            assert engine.queue is not None
            assert engine.queue()
            return
        assert cell.checkpoint >= 30
        wait_until(lambda: not processes_in(trial.folder), lambda: processes_in(trial.folder))
        said = trial.zbench("status", "seldom.yaml", timeout=self.timeout_seconds).stdout
        assert f"resumes from step {cell.checkpoint}" in said

    @pytest.mark.slow
    def test_what_its_user_cancelled_is_not_brought_back(
        self, engine: Engine, trial: Trial
    ) -> None:
        cancel = self.hook(engine, "cancel")
        command = trial.start_grid("seldom.yaml")
        cell = trial.wait_for_cell(command, self.timeout_seconds)
        cancel(cell)
        done = finish(command, self.timeout_seconds)
        assert done.returncode == 1, done.stdout + done.stderr
        wait_until(lambda: not is_running(cell.folder), lambda: cell.folder)
        if (queue := engine.queue) is not None:
            wait_until(lambda: not queue(), queue)
            time.sleep(5)
            assert not queue()

    @pytest.mark.slow
    def test_what_is_queued_is_not_submitted_again(
        self, engine: Engine, long_reference: Trial, trial: Trial
    ) -> None:
        if engine.submit is None or (queue := engine.queue) is None:
            pytest.skip(engine.absent.get("submit", "this executor's command waits for its cells"))
        submit = ("run-grid", "long.yaml", *engine.submit)
        for _ in range(2):
            done = trial.zbench(*submit, timeout=self.timeout_seconds)
            assert done.returncode == 0, done.stdout + done.stderr
            assert len(queue()) == 1
        done = trial.run_grid("long.yaml", timeout=self.timeout_seconds)
        assert done.returncode == 0, done.stdout + done.stderr
        self.check_whole(trial, long_reference)
