from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.commands.doctor import _tell
from harness.prepare.doctor.finding import Finding

ROOT = Path(__file__).parents[2]


def test_an_error_is_exit_code_1_and_a_warning_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    findings = [
        Finding("disk", "ok", "room"),
        Finding("clock", "warning", "it is late", "wait"),
        Finding("GPUs", "unknown", "[red]nobody knows[/red]"),
    ]
    assert _tell(findings, "node1", None, as_json=False) == 0
    shown = capsys.readouterr().out
    assert "1 ok, 1 warning, 1 unknown" in shown
    assert "[red]nobody knows[/red]" in shown
    _tell([*findings, findings[1]], "node1", None, as_json=False)
    assert "1 ok, 2 warnings, 1 unknown" in capsys.readouterr().out
    findings.append(Finding("hub", "error", "no"))
    assert _tell(findings, "node1", "Slurm 3", as_json=True) == 1
    record = json.loads(capsys.readouterr().out)
    assert (record["host"], record["job"], record["counts"]["error"]) == ("node1", "Slurm 3", 1)
    assert record["checks"][1] == {
        "name": "clock",
        "status": "warning",
        "said": "it is late",
        "advice": "wait",
    }


@pytest.mark.slow
def test_the_command_looks_at_this_machine_and_a_grid_with_faults(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("name: bad\n")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", "doctor", "bad.yaml", "--json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    record = json.loads(done.stdout)
    by_name = {one["name"]: one for one in record["checks"]}
    assert done.returncode == 1
    assert "bad.yaml" in by_name["grid"]["said"]
    assert by_name["packages"]["status"] == "ok"
    assert by_name["hub"]["said"].startswith("not asked")
    assert list(tmp_path.iterdir()) == [tmp_path / "bad.yaml"]


@pytest.mark.slow
def test_an_embedded_world_that_is_not_written_yet_is_no_fault(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", "doctor", "demo", "--json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    by_name = {one["name"]: one for one in json.loads(done.stdout)["checks"]}
    assert by_name["data root"]["status"] == "ok"
    assert by_name["models and data"]["said"] == "all that the grid reads is here"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("sbatch") is None, reason="no Slurm is installed")
def test_without_a_slurm_that_answers_a_job_is_refused_in_one_line(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SLURM_CONF": str(tmp_path / "none.conf")}
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", "doctor", "--as-job"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == "zbench: --as-job: sbatch is here, and no Slurm answers; see `sinfo`\n"
    assert not (tmp_path / "runs").exists()
