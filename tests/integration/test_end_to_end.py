"""The whole path on the embedded world, as a user walks it: run, report, kill, resume."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2]
NO_NETWORK = """
import socket
def refuse(self, address, *rest):
    if self.family != socket.AF_UNIX:
        raise OSError(f"network is blocked: {address}")
    return real(self, address, *rest)
real, socket.socket.connect = socket.socket.connect, refuse
"""
GRID = """
name: slice
world: demo
models:
  tiny-llama:
    path: model
    shape: {num_hidden_layers: 5, hidden_size: 128, intermediate_size: 344,
            num_attention_heads: 4, vocab_size: %(vocabulary)d, tie_word_embeddings: true}
data: {source: null, path: alpaca/train.parquet}
tasks: [{name: demo_arc_easy, limit: 12}, {name: demo_mmlu, limit: 2}]
train: {epochs: 2, batch_size: 8}
methods:
  zero-init-linear: {num_layers: 5, train: {learning_rate: 1e-2}}
  broken: {method: full, train: {learning_rate: 1e30}}
blocks:
  - methods: [base, zero-init-linear]
    fractions: [0.1]
"""


def shape() -> dict[str, int]:
    config = json.loads((PACKAGE / "harness/demo/data/model/config.json").read_text())
    return {"vocabulary": config["vocab_size"]}


def grid_text() -> str:
    return GRID % shape()


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "harness.cli", *arguments]


def environment(folder: Path) -> dict[str, str]:
    """Returns an environment in which no process reaches a network."""
    (folder / "blocked").mkdir(exist_ok=True)
    (folder / "blocked" / "sitecustomize.py").write_text(NO_NETWORK)
    # MLflow leaves its last address in the environment of a process that has used it.
    own = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return {
        **own,
        "PYTHONPATH": f"{folder / 'blocked'}:{PACKAGE}",
        "HF_HOME": str(folder / "hf"),
    }


def zbench(folder: Path, *arguments: str, timeout: int = 300) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=folder, env=environment(folder), capture_output=True, text=True,
        check=False, timeout=timeout,
    )  # fmt: skip


def results(folder: Path) -> dict[str, dict]:
    """Returns the results in the runs folder by method."""
    found = {}
    for path in sorted(folder.glob("runs/cells/*/result.json")):
        result = json.loads(path.read_text())
        found[result["cell"]["method"]] = result
    return found


def numbers(result: dict) -> object:
    """Returns all that is measured, but for times and memory."""
    train = result["train"]
    scores = [(score["task"], score["metric"], score["value"]) for score in result["scores"]]
    return (train and train["epoch_losses"], sorted(scores))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder in which the grid has been run and reported."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "slice.yaml").write_text(grid_text())
    ran = zbench(folder, "run-grid", "slice.yaml")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return folder


def test_both_cells_are_trained_and_scored_without_a_network(finished: Path) -> None:
    found = results(finished)
    assert set(found) == {"base", "zero-init-linear"}
    assert found["base"]["train"] is None
    losses = found["zero-init-linear"]["train"]["epoch_losses"]
    assert len(losses) == 2
    assert losses[1] < losses[0]
    for result in found.values():
        by_task = {score["task"]: score["n"] for score in result["scores"]}
        assert by_task["demo_arc_easy"] == 12
        assert result["base"]["weights_sha256"]
        assert result["environment"]["torch"]


def test_a_second_run_does_nothing(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.glob("runs/cells/*/*.json")}
    again = zbench(finished, "run-grid", "slice.yaml", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["outcome"]["done"] == []
    after = {path: path.stat().st_mtime_ns for path in finished.glob("runs/cells/*/*.json")}
    assert after == before


def test_mlflow_holds_the_grid_and_its_cells_live(finished: Path) -> None:
    database = sqlite3.connect(finished / "runs" / "mlflow.db")
    runs = dict(database.execute("select name, status from runs"))
    assert runs == {
        "slice": "FINISHED",
        "tiny-llama/base": "FINISHED",
        "tiny-llama/zero-init-linear/10%/seed0": "FINISHED",
    }
    steps = results(finished)["zero-init-linear"]["train"]["steps"]
    for key in ("train/loss", "gate/max_abs"):
        query = "select count(distinct step) from metrics where key = ?"
        assert database.execute(query, (key,)).fetchone()[0] >= 2, key
    query = "select count(*) from metrics where key = 'train/loss'"
    assert database.execute(query).fetchone()[0] == steps


def test_the_report_is_made_from_it_and_writes_nothing_there(finished: Path) -> None:
    files = [path for path in (finished / "runs").rglob("*") if "artifacts" not in path.parts]
    before = {path: path.stat().st_mtime_ns for path in files}
    done = zbench(finished, "report", "slice.yaml")
    files = [path for path in (finished / "runs").rglob("*") if "artifacts" not in path.parts]
    assert {path: path.stat().st_mtime_ns for path in files} == before
    assert done.returncode == 0, done.stdout + done.stderr
    page = finished / "reports" / "slice" / "index.html"
    assert "zero-init" in page.read_text().lower()
    assert (finished / "reports" / "slice" / "table1.md").is_file()


def test_the_report_is_the_same_without_mlflow(finished: Path) -> None:
    done = zbench(
        finished, "report", "slice.yaml", "--tracking-uri", "http://127.0.0.1:9",
        "--reports-dir", "plain",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stdout  # nothing is asked of it: all cells are done here
    table = Path("slice") / "table1.csv"
    with_mlflow = finished / "reports" / table
    if not with_mlflow.is_file():
        assert zbench(finished, "report", "slice.yaml").returncode == 0
    assert (finished / "plain" / table).read_text() == with_mlflow.read_text()


def test_two_cells_are_compared_by_label_and_by_run(finished: Path) -> None:
    base, trained = "tiny-llama/base", "tiny-llama/zero-init-linear/10%/seed0"
    done = zbench(finished, "compare", base, f"slice.yaml:{trained}", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    named = [(each["part"], each["what"]) for each in found["differences"]]
    assert named == [("cell", "fraction"), ("cell", "method"), ("cell", "seed")]
    assert found["not_recorded_by_either"] == []
    assert {row["benchmark"] for row in found["scores"]} == {"demo_arc_easy", "demo_mmlu"}
    assert all(row["interval"] and row["items"] == 12 for row in found["scores"])
    with sqlite3.connect(finished / "runs" / "mlflow.db") as database:
        query = "select run_uuid from runs where name = ?"
        ((run_id,),) = database.execute(query, (base,)).fetchall()
    same = zbench(finished, "compare", run_id, base)
    assert same.returncode == 0, same.stdout + same.stderr
    assert "No difference that can move a score." in same.stdout
    unknown = zbench(finished, "compare", "tiny-llama/bse", base)
    assert unknown.returncode == 2
    assert "did you mean 'tiny-llama/base'?" in unknown.stderr
    assert len(unknown.stderr.splitlines()) == 1


def test_an_added_benchmark_re_uses_the_trained_cell(finished: Path) -> None:
    text = grid_text().replace("tasks: [", "tasks: [{name: demo_hellaswag, limit: 4}, ")
    (finished / "more.yaml").write_text(text.replace("name: slice\n", "name: more\n"))
    files = "runs/cells/*/adapter/adapter_*"  # beside them is the card, which tells the new score
    adapter = {path: path.stat().st_mtime_ns for path in finished.glob(files)}
    assert len(adapter) == 2
    done = zbench(finished, "run-grid", "more.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path: path.stat().st_mtime_ns for path in finished.glob(files)} == adapter
    scored = {score["task"] for score in results(finished)["zero-init-linear"]["scores"]}
    assert {"demo_arc_easy", "demo_hellaswag"} <= scored


def _take_ctrl_c() -> None:
    """A shell that runs the tests in its background has it ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """Yields a run of the trained cell that is in the middle of its training or scoring."""
    (tmp_path / "slice.yaml").write_text(grid_text())
    process = subprocess.Popen(
        command("run-grid", "slice.yaml", "--only", "linear"), cwd=tmp_path,
        env=environment(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=_take_ctrl_c,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("runs/cells/*/cell.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    yield tmp_path, process
    process.kill()
    process.wait()


def wait_until_free(folder: Path) -> None:
    """Waits until the workers of a killed run have left."""
    from harness.grid.locks import is_running

    deadline = time.monotonic() + 30
    while any(is_running(path) for path in folder.glob("runs/cells/*")):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.long
def test_a_killed_run_goes_on_to_the_same_numbers(
    started: tuple[Path, subprocess.Popen[str]], finished: Path
) -> None:
    folder, process = started
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until_free(folder)
    assert (
        "failed" not in zbench(folder, "status", "slice.yaml", "--only", "linear", "--json").stdout
    )
    done = zbench(folder, "run-grid", "slice.yaml", "--only", "linear")
    assert done.returncode == 0, done.stdout + done.stderr
    mine = {score["task"] for score in results(folder)["zero-init-linear"]["scores"]}
    reference = results(finished)["zero-init-linear"]
    reference["scores"] = [score for score in reference["scores"] if score["task"] in mine]
    assert numbers(results(folder)["zero-init-linear"]) == numbers(reference)


def test_ctrl_c_is_exit_code_130_and_no_failure(
    started: tuple[Path, subprocess.Popen[str]],
) -> None:
    folder, process = started
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.strip() == "zbench: interrupted; run the same command again to resume"
    status = json.loads(zbench(folder, "status", "slice.yaml", "--only", "linear", "--json").stdout)
    assert status["cells"][0]["status"] == "to do"


def test_a_failing_cell_stops_no_other_and_nothing_is_logged_to_none(finished: Path) -> None:
    text = grid_text().replace("[base, zero-init-linear]", "[broken, base]")
    (finished / "broken.yaml").write_text(text.replace("name: slice\n", "name: broken\n"))
    where = ("broken.yaml", "--runs-dir", "other", "--tracking-uri", "none")
    done = zbench(finished, "run-grid", *where)
    assert done.returncode == 1
    assert "MLflow: not logged (none)" in done.stdout
    synced = zbench(finished, "sync", *where)
    assert (synced.returncode, synced.stdout[:18]) == (0, "nothing is logged:")
    assert not [*finished.glob("other/*mlflow*"), *finished.glob("other/artifacts")]
    assert "Traceback" not in done.stdout + done.stderr
    status = zbench(finished, "status", "broken.yaml", "--runs-dir", "other", "--json")
    cells = {cell["label"]: cell for cell in json.loads(status.stdout)["cells"]}
    assert cells["tiny-llama/base"]["status"] == "done"
    failed = cells["tiny-llama/broken/10%/seed0"]
    assert failed["status"] == "failed"
    assert "step" in failed["error"]
    assert Path(finished / failed["folder"] / "log.txt").is_file()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_whole_demo_shows_what_its_page_says_without_a_network(tmp_path: Path) -> None:
    ran = subprocess.run(
        command("run-grid", "demo"), cwd=tmp_path, env=environment(tmp_path), text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    status = json.loads(zbench(tmp_path, "status", "demo", "--json").stdout)
    cells = {cell["label"]: cell for cell in status["cells"]}
    assert {cell["status"] for cell in cells.values()} == {"done"}
    base = cells["tiny-llama/base"]["scores"]["demo_arc_easy"]
    assert base < 0.4  # 400 items of four answers: chance is .25, its standard error .02
    for method in ("full", "lora", "random-init", "zero-init-linear", "zero-init-nonlinear"):
        tuned = cells[f"tiny-llama/{method}/100%/seed0"]["scores"]["demo_arc_easy"]
        little = cells[f"tiny-llama/{method}/1%/seed0"]["scores"]["demo_arc_easy"]
        assert tuned > max(base, little) + 0.08, method
    assert zbench(tmp_path, "report", "demo").returncode == 0
    assert (tmp_path / "reports" / "demo" / "table2.tex").is_file()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_cells_that_begin_together_in_a_new_folder_are_all_logged(tmp_path: Path) -> None:
    """Four commands make the runs folder, its copy of the world and its database at once."""
    text = grid_text().replace("fractions: [0.1]", "fractions: [0.05]\n    seeds: [0, 1, 2]")
    (tmp_path / "slice.yaml").write_text(text)
    names = ["tiny-llama/base"] + [
        f"tiny-llama/zero-init-linear/5%/seed{seed}" for seed in range(3)
    ]
    processes = [
        subprocess.Popen(
            command("run-cell", "slice.yaml", name), cwd=tmp_path, env=environment(tmp_path),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for name in names
    ]  # fmt: skip
    for process in processes:
        said, _ = process.communicate(timeout=600)
        assert process.returncode == 0, said
        assert "MLflow" not in said or "not logged" not in said, said
    with sqlite3.connect(tmp_path / "runs" / "mlflow.db") as database:
        runs = database.execute("select name, status from runs order by name").fetchall()
    assert runs == sorted([("slice", "FINISHED"), *((name, "FINISHED") for name in names)])
    for folder in tmp_path.glob("runs/cells/*"):
        assert (folder / "log.txt").stat().st_size > 0
        assert (folder / "events.jsonl").stat().st_size > 0
