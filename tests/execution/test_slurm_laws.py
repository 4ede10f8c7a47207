"""The laws of executors, on a real Slurm of this machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.testing import Engine, ExecutorLaws
from tests.fixtures.slurm import needs_slurm, slurm_cluster, slurm_engine

pytestmark = [pytest.mark.slurm, needs_slurm]


class TestSlurm(ExecutorLaws):
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> Iterator[Engine]:
        with slurm_cluster() as cluster:
            yield slurm_engine(cluster)
