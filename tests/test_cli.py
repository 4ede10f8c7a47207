"""The command line: exit codes, one-line faults, and the frozen list of flags."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import app
from harness.errors import UsageError, ZbenchError
from harness.execution.devices import available_cores
from tests.grid.test_loader import GRID
from tests.integration.test_end_to_end import grid_text

COMMON = {"--runs-dir", "--data-root", "--debug", "--help"}
FLAGS = {
    "run-grid": COMMON
    | {"--tracking-uri", "--only", "--device", "--workers", "--allow-data-mismatch", "--json"}
    | {"--executor", "--cluster", "--sbatch", "--follow", "--dry-run"},
    "report": COMMON | {"--reports-dir", "--tracking-uri", "--only", "--json"},
    "plan": COMMON
    | {"--hardware", "--probe", "--price-per-hour", "--ids", "--only", "--device", "--workers"}
    | {"--allow-data-mismatch", "--json"},
    "status": COMMON | {"--only", "--watch", "--every", "--json"},
    "run-cell": COMMON | {"--tracking-uri", "--device", "--allow-data-mismatch", "--json"},
    "judge": COMMON
    | {"--against", "--judge-model", "--judge-url", "--judge-max-tokens", "--parallel"}
    | {"--instructions", "--only"}
    | {"--temperature", "--top-p", "--max-new-tokens", "--seed"}
    | {"--yes", "--dry-run", "--reports-dir", "--json"},
    "compare": COMMON | {"--items", "--tracking-uri", "--json"},
    "drift": {"--only", "--runs-dir", "--tracking-uri", "--json", "--debug", "--help"},
    "preview": COMMON | {"--json"},
    "generate": COMMON
    | {"--instructions", "--beside", "--temperature", "--top-p", "--max-new-tokens", "--seed"}
    | {"--reports-dir", "--only", "--device", "--json"},
    "sync": COMMON | {"--tracking-uri"},
    "theory": {"--quick", "--full", "--runs-dir", "--reports-dir", "--tracking-uri"}
    | {"--json", "--debug", "--help"},
    "verify": COMMON | {"--json"},
    "init": {"--model", "--data", "--methods", "--benchmarks", "--fractions", "--seeds", "--yes"}
    | {"--debug", "--help"},
    "schema": {"--debug", "--help"},
    "doctor": COMMON
    | {"--tracking-uri", "--executor", "--cluster", "--sbatch", "--as-job", "--json"},
    "prefetch": {"--to", "--data-root", "--update", "--json", "--debug", "--help"},
    "merge": {"--grid", "--dry-run", "--data-root", "--json", "--debug", "--help"},
    "clean": COMMON | {"--yes", "--json"},
    "export-adapter": COMMON | {"--json"},
    "import-adapter": {"--model", "--output", "--method", "--option"}
    | {"--json", "--debug", "--help"},
}


def zbench(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    package = str(Path(__file__).parent.parent)
    return subprocess.run(
        [sys.executable, "-m", "harness.cli", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": package, "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def fault_of(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    """Returns stderr of a refused command, which shows neither traceback nor a partial start."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_the_flags_are_frozen() -> None:
    import typer.main

    command = typer.main.get_command(__import__("harness.cli").cli.app)
    listed = {
        name: {flag for option in sub.params for flag in option.opts if flag.startswith("--")}
        | {"--help"}
        for name, sub in command.commands.items()  # type: ignore[attr-defined]  # it is a group
    }
    assert listed == FLAGS


def test_help_names_every_command(tmp_path: Path) -> None:
    done = zbench("--help", cwd=tmp_path)
    assert done.returncode == 0
    assert all(name in done.stdout for name in FLAGS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plan", "rehersal"], "zbench: rehersal: no such grid; did you mean 'rehearsal'?"),
        (["plan", "none.yaml"], "zbench: none.yaml: no such grid file"),
        (["plan"], "Missing argument"),
        (["plan", "paper", "--onyl", "x"], "No such option"),
        (["plan", "paper", "--only", "llama-70b"], "matches no cell"),
        (["plan", "paper", "--data-root", "nowhere"], "--data-root nowhere: no such folder"),
        (["plan", "paper-7b", "--hardware", "a100"], "has several sizes; give a100-80 or a100-40"),
        (["plan", "paper-7b", "--hardware", "h200", "--probe"], "give one of them"),
        (["plan", "paper-7b", "--price-per-hour", "2"], "needs --hardware or --probe"),
        (["plan", "paper-7b", "--ids", "--json"], "--ids: lists cells in this form alone"),
        (["plan", "rehearsal", "--probe"], "--data-root names the folder of local data"),
        (["run-cell", "paper", "llama-7b/bse"], "did you mean 'llama-7b/base'?"),
        (["run-grid", "rehearsal"], "--data-root names the folder of local data"),
        (["run-grid", "paper", "--device", "gpu"], "'gpu' is no device"),
        (["run-grid", "paper", "--executor", "locl"], "no such executor; did you mean 'local'?"),
        (["generate", "demo", "--temperature", "1", "--top-p", "0"], "--top-p: must be greater"),
        (["generate", "demo", "--max-new-tokens", "0"], "--max-new-tokens"),
        (["clean"], "Missing argument"),
        (["clean", "demo", "papr", "--yes"], "papr: no such grid; did you mean 'paper'?"),
        (["verify"], "runs: no such folder; name the one to look at with --runs-dir"),
        (
            ["run-grid", "paper", "--device", "cuda:99"],
            "cuda:99: this machine shows no CUDA device",
        ),
    ],
)
def test_wrong_use_is_exit_code_2_and_one_line(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    assert said in fault_of(zbench(*arguments, cwd=tmp_path))
    assert not list((tmp_path / "runs").glob("cells/*"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--instructions", "no.json"], "zbench: no.json: no such file; correct the path"),
        (["--instructions", "seeds"], "no instructions/alpaca_seed_tasks.jsonl"),
        (["--beside", "no.json"], "zbench: no.json: no such file; correct the path"),
        ([], "demo: no finished cell to ask in runs; run `zbench run-grid demo` first"),
    ],
)
def test_what_generate_lacks_is_one_line(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = zbench("generate", "demo", *arguments, cwd=tmp_path)
    assert said in fault_of(done, code=1).splitlines()[-1]
    assert not (tmp_path / "reports").exists()


def test_faults_of_names_and_of_places_are_told_together(tmp_path: Path) -> None:
    bad = GRID.replace("rank: 4", "rank: 0").replace("arc_easy", "arc_esy")
    (tmp_path / "g.yaml").write_text(bad)
    lines = fault_of(zbench("plan", "g.yaml", cwd=tmp_path)).splitlines()
    places = ["g.yaml: tasks[0]", "g.yaml: blocks[0].methods[2].rank", "models.a.path", "data.path"]
    assert len(lines) == len(places)
    assert all(
        line.startswith(f"zbench: {place}: ") for line, place in zip(lines, places, strict=True)
    )


def test_missing_local_files_are_told_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text(GRID)
    (tmp_path / "root" / "aa").mkdir(parents=True)
    done = zbench("run-grid", "g.yaml", "--data-root", "root", cwd=tmp_path)
    said = fault_of(done)
    assert "models.a.path: no folder" in said
    assert "did you mean 'aa'?" in said
    assert "data.path: no file" in said
    assert "arc_easy" in said
    assert "mmlu" in said


def test_a_runs_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    assert "choose another folder with --runs-dir" in fault_of(
        zbench("run-grid", "demo", cwd=tmp_path)
    )


def test_plan_tells_steps_rates_and_parameters(tmp_path: Path) -> None:
    done = zbench("plan", "paper-7b", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    cells = {cell["label"]: cell for cell in json.loads(done.stdout)["cells"]}
    linear = cells["llama-7b/zero-init-linear/100%/seed0"]
    assert linear["trainable_parameters"] == 1_229_760
    assert linear["learning_rate"] == pytest.approx(2.25e-3)
    assert linear["examples"] == 52_002
    assert linear["steps"] == 5 * 813
    assert linear["status"] == "to do"
    assert cells["llama-7b/base"]["steps"] is None


def test_a_report_of_nothing_says_what_to_run(tmp_path: Path) -> None:
    said = fault_of(zbench("report", "paper-7b", cwd=tmp_path), code=1)
    assert "run `zbench run-grid paper-7b` first" in said
    assert not (tmp_path / "reports").exists()


def test_status_of_a_fresh_folder_lists_what_is_to_do(tmp_path: Path) -> None:
    done = zbench("status", "paper-13b", cwd=tmp_path)
    assert done.returncode == 0
    assert "16 cells: 0 done, 0 running, 0 failed, 16 to do" in done.stdout
    assert not (tmp_path / "runs").exists()


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = zbench("plan", "rehersal", "--debug", cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("command", ["run-grid", "run-cell"])
def test_more_devices_than_the_machine_has_are_refused_before_anything_runs(
    command: str, tmp_path: Path
) -> None:
    (tmp_path / "g.yaml").write_text(
        grid_text().replace("    fractions", "    gpus_per_cell: 999\n    fractions")
    )
    cell = ["tiny-llama/zero-init-linear/10%/seed0"] if command == "run-cell" else []
    done = zbench(command, "g.yaml", *cell, "--device", "cpu", cwd=tmp_path)
    (line,) = fault_of(done).strip().splitlines()
    assert "tiny-llama/zero-init-linear/10%/seed0: gpus_per_cell is 999, but --device cpu" in line
    assert not list(tmp_path.glob("runs/cells/*"))
    assert not (tmp_path / "runs" / "mlflow.db").exists()


@pytest.mark.long
def test_a_cell_of_two_processes_is_run_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text(
        grid_text().replace("    fractions", "    gpus_per_cell: 2\n    fractions")
    )
    done = zbench("run-cell", "g.yaml", "tiny-llama/zero-init-linear/10%/seed0", "--device", "cpu",
                  "--json", cwd=tmp_path)  # fmt: skip
    if available_cores() < 2:
        assert "gpus_per_cell is 2, but --device cpu" in fault_of(done)
        return
    assert done.returncode == 0, done.stderr
    (cell,) = json.loads(done.stdout)["cells"]
    assert cell["status"] == "done"
    (log,) = tmp_path.glob("runs/cells/*/log.txt")
    assert "rank 0: " in log.read_text()


def test_a_terminal_of_any_encoding_gets_the_plan(tmp_path: Path) -> None:
    done = zbench("plan", "demo", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert "56 cells, 56 to do" in done.stdout


NOWHERE = "~no-such-user/x"


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (["status", "paper-7b", "--runs-dir", NOWHERE], "--runs-dir"),
        (["status", "paper-7b", "--data-root", NOWHERE], "--data-root"),
        (["report", "paper-7b", "--reports-dir", NOWHERE], "--reports-dir"),
        (["export-adapter", "x", NOWHERE], "output"),
        (["import-adapter", NOWHERE, "--model", "x", "--output", "y"], "file"),
        (["import-adapter", "x", "--model", "x", "--output", NOWHERE], "--output"),
        (["plan", NOWHERE], NOWHERE),
    ],
)
def test_a_path_that_cannot_be_is_told_with_its_place(arguments: list[str], place: str) -> None:
    with pytest.raises(UsageError) as caught:
        app(arguments, standalone_mode=False)
    assert str(caught.value).startswith(f"{place}: ")
    assert "there is no user ~no-such-user; write the whole path" in str(caught.value)


def test_the_home_folder_stands_for_its_sign_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "g.yaml").write_text(GRID)
    (home / "train.parquet").write_bytes(b"known by its content")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    told = []
    for settings, options in [
        ({"ZBENCH_RUNS_DIR": "~/r", "ZBENCH_DATA_ROOT": "~"}, []),
        ({}, ["--runs-dir", "~/r", "--data-root=~"]),
    ]:
        with monkeypatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(name, value)
            assert app(["status", "~/g.yaml", "--json", *options], standalone_mode=False) == 0
        told.append(json.loads(capsys.readouterr().out)["cells"][0]["folder"])
    assert [Path(folder).parent for folder in told] == [home / "r" / "cells"] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.mark.long
def test_odd_words_of_the_command_line_are_one_short_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for word in ("[/x]", "\x1b[31m", "a\udcff", "x" * 5000, "zzq\nb", "%s", "~no-such-user", "{}"):
        for arguments in (
            ["plan", word],
            ["plan", "demo", "--only", word],
            ["plan", "demo", "--hardware", word],
            ["run-cell", "demo", word],
            ["export-adapter", word, "out"],
            ["compare", word, word],
            ["import-adapter", "x.pth", "--model", word, "--output", "out"],
            ["import-adapter", "x.pth", "--model", "llama-7b", "--output", "out", "--option", word],
        ):
            with pytest.raises(ZbenchError) as caught:
                app(arguments, standalone_mode=False)
            assert len(str(caught.value)) < 800, arguments[0]
    assert list(tmp_path.iterdir()) == []
