"""The laws that every executor keeps, as tests for an executor of any package. In a test file:

    from harness.testing import Engine, ExecutorLaws

    class TestMine(ExecutorLaws):
        @pytest.fixture(scope="class")
        @classmethod
        def engine(cls):
            yield Engine(arguments=("--executor", "mine"), kill_node_of=..., preempt=...)

They run `zbench run-grid` in processes of its own on the embedded world, and compare what comes of
it with an undisturbed run on this machine. Laws that wait for a training are marked slow.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.grid.folders import LOG_FILE
from harness.grid.locks import is_running
from harness.grid.upkeep import leftovers
from harness.records.events import CellEnded, CellStarted, StepDone, Warned
from harness.testing.engines import (
    SHORT_GRID,
    Engine,
    Trial,
    events_of,
    finish,
    logged_metrics,
    measured,
    open_runs,
    processes_in,
    two_mounts,
    wait_until,
)
from harness.testing.loss_laws import LossLaws

LOCAL = Engine(arguments=("--device", "cpu", "--workers", "2"))
BASE, TRAINED, BROKEN, PAIR = (
    "tiny-llama-base",
    "tiny-llama-zero-init-linear-10pct-seed0",
    "tiny-llama-broken-10pct-seed0",
    "tiny-llama-lora-10pct-seed0",
)


def reference_run(tmp_path_factory: pytest.TempPathFactory, name: str) -> Trial:
    """A folder in which this machine has run a grid undisturbed, once per session of tests."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # one for all of its processes
        root = root.parent
    trial = Trial(root / f"reference-{name}", LOCAL)
    with (trial.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (trial.folder / "whole").exists():
            done = trial.run_grid(f"{name}.yaml", timeout=900)
            assert done.returncode == (1 if name == "short" else 0), done.stdout + done.stderr
            (trial.folder / "whole").touch()
    return trial


@pytest.mark.timeout(1800)
class ExecutorLaws(LossLaws):
    """Subclass it as `Test...` and give it an `engine`; pytest then runs every law on it."""

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> Any:
        """The executor, for all laws of the class: an `Engine`."""
        raise NotImplementedError("a class of executor laws needs a fixture `engine`")

    @pytest.fixture(scope="class")
    @classmethod
    def reference(cls, tmp_path_factory: pytest.TempPathFactory) -> Trial:
        """The short grid as this machine runs it."""
        return reference_run(tmp_path_factory, "short")

    @pytest.fixture(scope="class")
    @classmethod
    def long_reference(cls, tmp_path_factory: pytest.TempPathFactory) -> Trial:
        """The long cell as this machine trains it."""
        return reference_run(tmp_path_factory, "long")

    @pytest.fixture(scope="class")
    @classmethod
    def finished(
        cls, engine: Engine, tmp_path_factory: pytest.TempPathFactory
    ) -> tuple[Trial, subprocess.CompletedProcess[str]]:
        """The short grid as the executor ran it, and what the command said."""
        trial = Trial(tmp_path_factory.mktemp("finished"), engine)
        return trial, trial.run_grid("short.yaml", timeout=cls.timeout_seconds)

    @pytest.fixture
    def trial(self, engine: Engine, tmp_path: Path) -> Iterator[Trial]:
        """An empty folder for a run that something happens to; no process of it stays."""
        trial = Trial(tmp_path / "trial", engine)
        yield trial
        for process in processes_in(trial.folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        engine.repair()

    # What a run leaves.

    def test_cells_are_those_of_a_local_run(self, reference: Trial, finished: Any) -> None:
        trial, _ = finished
        assert trial.cells().keys() == reference.cells().keys()
        for name, folder in reference.cells().items():
            assert measured(trial.cells()[name]) == measured(folder), name
            cell = (trial.cells()[name] / "cell.json").read_bytes()
            assert cell == (folder / "cell.json").read_bytes(), name

    def test_a_failing_cell_fails_alone_with_its_reason(self, finished: Any) -> None:
        trial, done = finished
        assert done.returncode == 1, done.stdout + done.stderr
        error = measured(trial.cells()[BROKEN])["error"]
        assert "lower the learning rate" in error["message"]
        said = " ".join(done.stdout.split())
        assert error["message"] in said
        assert str(trial.cells()[BROKEN].relative_to(trial.folder) / error["log"]) in said
        assert "3 of 4 cells done, 1 failed" in said
        assert "Traceback" not in done.stdout + done.stderr

    def test_each_cell_tells_its_start_its_steps_in_order_and_one_end(self, finished: Any) -> None:
        trial, _ = finished
        for name, folder in trial.cells().items():
            events = events_of(folder)
            assert isinstance(events[0], CellStarted | Warned), name
            assert [type(event) for event in events].count(CellStarted) == 1, name
            ends = [event for event in events if isinstance(event, CellEnded)]
            assert ends == events[-1:], name
            assert (ends[0].error is not None) == (name == BROKEN)
            steps = [event.step for event in events if isinstance(event, StepDone)]
            known = {BASE: 0, BROKEN: 2}.get(name, 16)
            assert steps == list(range(1, known + 1)), name

    def test_a_cell_of_two_devices_has_them_on_one_machine(self, finished: Any) -> None:
        trial, _ = finished
        environment = _result(trial.cells()[PAIR])["environment"]
        assert environment["num_devices"] == "2"
        assert "num_devices" not in _result(trial.cells()[TRAINED])["environment"]

    def test_mlflow_holds_what_a_local_run_logs(self, reference: Trial, finished: Any) -> None:
        trial, _ = finished
        done = trial.zbench("sync", "short.yaml", timeout=self.timeout_seconds)  # of unlogged jobs
        assert done.returncode == 0, done.stderr
        assert logged_metrics(trial) == logged_metrics(reference)
        assert open_runs(trial) == []

    def test_nothing_is_left_of_it(self, engine: Engine, finished: Any) -> None:
        trial, _ = finished
        wait_until(lambda: not processes_in(trial.folder), lambda: processes_in(trial.folder))
        for folder in trial.cells().values():
            assert not is_running(folder)
            assert leftovers(folder) == []
        if (queue := engine.queue) is not None:
            wait_until(lambda: not queue(), queue)
        hidden = {path.name for path in trial.runs_dir.glob(".*")}
        assert hidden <= {".mlflow.lock", ".locks.json"}

    def test_the_same_command_again_does_nothing_that_is_done(self, finished: Any) -> None:
        trial, _ = finished
        files = trial.cells()[TRAINED] / "result.json", trial.cells()[BASE] / "result.json"
        before = [path.stat().st_mtime_ns for path in files]
        for only in ("base", "zero-init"):
            done = trial.run_grid("short.yaml", "--only", only, timeout=self.timeout_seconds)
            assert done.returncode == 0, done.stdout + done.stderr
        assert [path.stat().st_mtime_ns for path in files] == before

    def test_two_commands_at_once_run_each_cell_once(self, reference: Trial, trial: Trial) -> None:
        self.check_once([trial, trial], reference)

    @pytest.mark.slow
    def test_two_commands_that_see_no_lock_of_each_other_run_each_cell_once(
        self, engine: Engine, reference: Trial, tmp_path: Path
    ) -> None:
        with two_mounts(tmp_path) as mounts:
            self.check_once([Trial(mount / "trial", engine) for mount in mounts], reference)

    def check_once(self, trials: Sequence[Trial], reference: Trial) -> None:
        """Checks that commands which begin together train and score each cell once."""
        commands = [trial.start_grid("short.yaml") for trial in trials]
        for command in commands:
            done = finish(command, self.timeout_seconds)
            assert "Traceback" not in done.stdout + done.stderr
        cells = trials[0].cells()
        for name in (BASE, TRAINED, PAIR):
            assert measured(cells[name]) == measured(reference.cells()[name]), name
            log = (cells[name] / LOG_FILE).read_text(encoding="utf-8")
            assert log.count("48 of 48 requests") == 1, log

    # What is refused before anything runs.

    @pytest.mark.parametrize(
        ("old", "new"),
        [("gpus_per_cell: 2", "gpus_per_cell: 64"), ("train.parquet", "nothing.parquet")],
    )
    def test_what_cannot_run_is_refused_before(self, trial: Trial, old: str, new: str) -> None:
        (trial.folder / "short.yaml").write_text(SHORT_GRID.replace(old, new), encoding="utf-8")
        done = trial.run_grid("short.yaml", timeout=self.timeout_seconds)
        self.check_refused(trial, done)

    def test_a_runs_folder_that_cannot_be_written_is_refused(self, trial: Trial) -> None:
        (trial.folder / "file").touch()
        done = trial.run_grid("short.yaml", "--runs-dir", "file/runs", timeout=self.timeout_seconds)
        self.check_refused(trial, done)
        assert "--runs-dir" in done.stderr

    def check_refused(self, trial: Trial, done: subprocess.CompletedProcess[str]) -> None:
        """Checks that a command was refused in one line, and that nothing was begun."""
        assert done.returncode == 2, done.stdout + done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert trial.cells() == {}
        if trial.engine.queue is not None:
            assert not trial.engine.queue()


def _result(folder: Path) -> dict[str, Any]:
    from harness.readers.json_files import read_json_object

    return dict(read_json_object(folder / "result.json"))
