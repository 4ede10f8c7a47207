"""What the steps of a training add up to."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from harness.training.progress import Progress, StepRecord
from harness.training.step import BatchTotals


def test_sums_survive_json() -> None:
    progress = Progress.begin(1)
    for step in range(1, 26):
        loss = 1 / (2 + step)
        record = StepRecord(step, 0, loss, 1e-3 * step, 8, 0.5 * step, 16.0, 1000 * step)
        progress.add(record, BatchTotals(4 * loss, 4, 8, 1.0))
    progress.peak_memory_bytes = 5
    found = Progress.from_json(json.loads(json.dumps(asdict(progress))))
    assert found == progress
    assert (found.step, found.tokens, found.seconds) == (25, 200, 12.5)
    assert found.labels == [100]
    assert found.highest_rate == pytest.approx(0.025)
