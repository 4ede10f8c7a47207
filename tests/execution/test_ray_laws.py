"""The laws of executors, on a real Ray cluster of this machine."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess

import pytest

from harness.testing import CellAtWork, Engine, ExecutorLaws, Trial
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
        assert at_least <= some < steps == 456
