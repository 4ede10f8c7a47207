"""A run with nothing to do is quick; exit code 0 means that every chosen cell is done."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from harness.commands.run_grid import run_grid_command
from harness.execution.plan import Place
from harness.grid.folders import cell_folder, write_cell_file
from harness.grid.loader import find_grid
from harness.grid.locks import locked
from harness.grid.resolver import resolve_grid
from harness.grid.schema import expand
from harness.grid.workspace import open_grid
from harness.records.results import write_result
from harness.tracking.metrics import content_hash
from tests.grid.test_status import scored
from tests.records.test_results import RESULT

CODE = """
import sys
from pathlib import Path
from harness.commands.run_grid import run_grid_command
from harness.execution.plan import Place
from harness.grid.workspace import open_grid
grid = open_grid("g.yaml", Path("runs"), None, None)
code = run_grid_command(grid, Place(device="cpu", workers=1), tracking_uri=None, as_json=False)
print(code, [name for name in ("torch", "transformers", "mlflow", "pandas") if name in sys.modules])
"""


GRID = """
name: small
world: demo
models:
  tiny:
    path: model
    shape: {num_hidden_layers: 5, hidden_size: 128, intermediate_size: 344, num_attention_heads: 4,
            vocab_size: 1688, tie_word_embeddings: true}
data: {source: null, path: alpaca/train.parquet, num_rows: 600}
tasks: [demo_arc_easy]
blocks: [{methods: [lora], fractions: [0.1], seeds: [0]}]
"""


def test_a_cell_that_another_process_holds_is_not_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("g.yaml").write_text(GRID)
    grid = open_grid("g.yaml", Path("runs"), None, None)
    Path("runs").mkdir()
    Path("runs/mlflow.db").touch()
    with locked(cell_folder(grid.runs_dir, grid.cells[0])):
        code = run_grid_command(
            grid, Place(device="cpu", workers=1), tracking_uri=None, as_json=False
        )
    assert code == 1
    said = capsys.readouterr().out
    assert "0 of 1 cells done" in said
    who = f"another process ({os.getpid()} on {platform.node()}) runs it"
    assert f"not done here: tiny/lora/10%/seed0: {who}" in said


def test_nothing_to_do_imports_nothing_heavy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow itself sets it in a process
    raw = yaml.safe_load(find_grid("demo").read_text())
    raw |= {"world": None, "claims": [], "blocks": [{"methods": ["lora"], "fractions": [0.1]}]}
    raw["models"]["tiny-llama"]["source"] = "somebody/tiny"
    raw["data"] = {"source": "somebody/rows", "path": None, "num_rows": 600}
    raw["tasks"].remove("demo_forgetting")  # its items ship, and are not those of the result
    (tmp_path / "g.yaml").write_text(yaml.safe_dump(raw))
    (cell,) = expand(resolve_grid(raw, place="g.yaml"))
    write_result(
        cell_folder(tmp_path / "runs", cell), replace(RESULT, cell_id=cell.id, scores=scored(cell))
    )
    write_cell_file(cell_folder(tmp_path / "runs", cell), cell)
    database = closing(sqlite3.connect(tmp_path / "runs" / "mlflow.db"))
    with database as opened, opened:
        opened.execute("create table runs (run_uuid, status, lifecycle_stage)")
        opened.execute("create table tags (run_uuid, key, value)")
        logged = content_hash(cell_folder(tmp_path / "runs", cell))
        opened.execute("insert into tags values ('1', 'zbench.content', ?)", (logged,))
    before = sorted(tmp_path.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "1 cells: 1 done, 0 to do" in done.stdout
    assert done.stdout.splitlines()[-1] == "0 []"
    assert sorted(tmp_path.rglob("*")) == before
