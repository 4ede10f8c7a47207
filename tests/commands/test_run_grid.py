"""A run with nothing to do is quick, and leaves everything as it is."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from harness.grid.folders import cell_folder
from harness.grid.loader import find_grid
from harness.grid.resolver import resolve_grid
from harness.grid.schema import expand
from harness.records.results import write_result
from tests.grid.test_status import scored
from tests.records.test_results import RESULT

CODE = """
import sys
from pathlib import Path
from harness.commands.run_grid import run_grid_command
from harness.grid.workspace import open_grid
grid = open_grid("g.yaml", Path("runs"), None, None)
code = run_grid_command(grid, tracking_uri=None, device="cpu", workers=1, as_json=False)
print(code, [name for name in ("torch", "transformers", "mlflow", "pandas") if name in sys.modules])
"""


def test_nothing_to_do_imports_nothing_heavy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow itself sets it in a process
    raw = yaml.safe_load(find_grid("demo").read_text())
    raw |= {"world": None, "blocks": [{"methods": ["lora"], "fractions": [0.1]}]}
    raw["models"]["tiny-llama"]["source"] = "somebody/tiny"
    raw["data"] = {"source": "somebody/rows", "path": None, "num_rows": 600}
    (tmp_path / "g.yaml").write_text(yaml.safe_dump(raw))
    (cell,) = expand(resolve_grid(raw, place="g.yaml"))
    write_result(cell_folder(tmp_path / "runs", cell), replace(RESULT, scores=scored(cell)))
    (tmp_path / "runs" / "mlflow.db").write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "1 cells: 1 done, 0 to do" in done.stdout
    assert done.stdout.splitlines()[-1] == "0 []"
    assert sorted(tmp_path.rglob("*")) == before
