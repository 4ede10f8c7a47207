"""The laws of executors, on a real Ray cluster of this machine."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
import time

import pytest

from harness.testing import CellAtWork, Engine, ExecutorLaws
from harness.testing.engines import Trial, finish, open_runs, processes_in
from tests.fixtures.ray_nodes import RayNodes

pytest.importorskip("ray", reason="Ray is not installed: pip install 'zbench[ray]'")
pytestmark = pytest.mark.ray


class TestRay(ExecutorLaws):
    """On two nodes of two cores."""

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, ray_cluster: RayNodes) -> Engine:
        def kill_node_of(cell: CellAtWork) -> None:
            assert cell.process is not None
            ray_cluster.kill(ray_cluster.raylet_of(cell.process))

        return Engine(
            arguments=("--executor", "ray", "--device", "cpu"),
            environment={"RAY_ADDRESS": ray_cluster.address},
            kill_node_of=kill_node_of,
            repair=ray_cluster.repair,
            absent={
                "preempt": "Ray takes a node away without telling its tasks: as its loss",
                "cancel": "without a queue nothing is cancelled but the command itself",
            },
        )

    def check_resumed(
        self, trial: Trial, command: subprocess.Popen[str], reference: Trial, *, at_least: int
    ) -> None:
        """Checks MLflow too: a run that was killed, and one with all of the steps."""
        super().check_resumed(trial, command, reference, at_least=at_least)
        query = (
            "select status, count(distinct step) from runs join metrics using (run_uuid) "
            "where key = 'train/loss' group by run_uuid order by start_time"
        )
        with contextlib.closing(sqlite3.connect(trial.runs_dir / "mlflow.db")) as database:
            (first, some), (second, steps) = database.execute(query).fetchall()
        assert (first, second) == ("KILLED", "FINISHED")
        assert 0 < some < steps == 456

    @pytest.mark.slow
    def test_a_raylet_that_dies_alone_leaves_orphans_that_the_next_task_outwaits(
        self, ray_cluster: RayNodes, long_reference: Trial, trial: Trial
    ) -> None:
        command = trial.start_grid("long.yaml")
        cell = trial.wait_for_cell(command, self.timeout_seconds)
        checkpoint = cell.checkpoint
        assert cell.process is not None
        ray_cluster.kill(ray_cluster.raylet_of(cell.process), orphans=True)
        self.check_resumed(trial, command, long_reference, at_least=checkpoint)

    @pytest.mark.slow
    def test_sigterm_to_the_driver_leaves_a_checkpoint_and_no_process(
        self, long_reference: Trial, trial: Trial
    ) -> None:
        command = trial.start_grid("seldom.yaml")  # no checkpoint but that of the end
        cell = trial.wait_for_cell(command, self.timeout_seconds)
        assert cell.checkpoint == 0
        command.send_signal(signal.SIGTERM)
        done = finish(command, self.timeout_seconds)
        assert done.returncode == 130, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        assert cell.checkpoint >= 30
        assert open_runs(trial) == []
        self.check_gone(trial, seconds=30)
        again = trial.start_grid("seldom.yaml")
        ExecutorLaws.check_resumed(self, trial, again, long_reference, at_least=cell.checkpoint)

    @pytest.mark.slow
    def test_tasks_end_with_a_driver_that_is_killed(
        self, long_reference: Trial, trial: Trial
    ) -> None:
        command = trial.start_grid("long.yaml")
        cell = trial.wait_for_cell(command, self.timeout_seconds)
        command.kill()
        command.communicate()
        self.check_gone(trial, seconds=30)
        assert 0 < (checkpoint := cell.checkpoint) < 456
        told = trial.zbench("status", "long.yaml", "--json", timeout=self.timeout_seconds)
        [record] = json.loads(told.stdout)["cells"]
        assert record["status"] == "to do"
        again = trial.start_grid("long.yaml")
        ExecutorLaws.check_resumed(self, trial, again, long_reference, at_least=checkpoint)

    def check_gone(self, trial: Trial, seconds: float) -> None:
        """Checks that no process works in the folder any more."""
        end = time.monotonic() + seconds
        while left := processes_in(trial.folder):
            assert time.monotonic() < end, left
            time.sleep(0.1)
