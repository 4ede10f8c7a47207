"""What each cell of a run is expected to take, as it stands beside what was measured then.

From the last probe of this machine where there is one for the model and method, else from the
GPU's data sheet where it is a known one; nothing where neither is.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.errors import ZbenchError
from harness.estimate.costs import estimate_cell
from harness.estimate.forecast import forecast_cell, read_probe
from harness.estimate.gpus import gpu_of_device
from harness.estimate.hardware import token_counter
from harness.grid.status import CellState
from harness.records.environment import processor


def expected_seconds(
    states: Sequence[CellState], devices: Sequence[str], runs_dir: Path, num_rows: int | None
) -> dict[str, dict[str, Any]]:
    """Returns training_seconds, scoring_seconds and their source, by cell id, where known.

    Counts nothing that takes time: sizes of data are known ones.

    Args:
        states: the cells that are to do.
        devices: one worker each.
        runs_dir: where a probe is kept.
        num_rows: of the training data.
    """
    found = _from_probe(states, devices, runs_dir, num_rows)
    left = [state for state in states if state.cell.id not in found]
    if left and devices and devices[0] != "cpu":
        found |= _from_gpu(left, runs_dir, num_rows)
    return found


def _from_probe(
    states: Sequence[CellState], devices: Sequence[str], runs_dir: Path, num_rows: int | None
) -> dict[str, dict[str, Any]]:
    probe = read_probe(runs_dir)
    if probe is None or not devices:
        return {}
    here = device_name(devices[0])
    if here is None or here != probe.device:
        return {}  # another machine's
    forecasts = [forecast_cell(state, probe, num_rows) for state in states]
    return {
        one.cell_id: {
            "source": "probe",
            "training_seconds": one.training_seconds,
            "scoring_seconds": one.scoring_seconds,
        }
        for one in forecasts
        if one is not None
    }


def _from_gpu(
    states: Sequence[CellState], runs_dir: Path, num_rows: int | None
) -> dict[str, dict[str, Any]]:
    name = device_name("cuda:0")
    known = gpu_of_device(name) if name else None
    if known is None:
        return {}
    label, gpu = known
    tokens_of = token_counter(runs_dir=runs_dir, data_root=None, num_rows=num_rows)
    found = {}
    for state in states:
        try:
            one = estimate_cell(state, gpu, tokens_of)
        except ZbenchError:
            continue  # an estimate is no reason to stop a run
        if one.training_seconds is not None and one.scoring_seconds is not None:
            found[state.cell.id] = {
                "source": label,
                "training_seconds": one.training_seconds,
                "scoring_seconds": one.scoring_seconds,
            }
    return found


def device_name(device: str) -> str | None:
    """Returns the name of the processor or GPU, without torch; None where nothing tells."""
    if device == "cpu":
        return processor()
    index = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader", "-i", index]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else None
