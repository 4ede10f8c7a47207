"""The recipes of docs/cloud: valid as their engines read them, and true to zbench."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from harness import __version__
from harness.execution.local import STOP_SECONDS
from harness.execution.scheduling import devices_needed
from harness.grid.loader import load_grid, shipped_grids
from harness.grid.schema import expand
from harness.grid.workspace import open_grid
from tests.test_cli import zbench

ROOT = Path(__file__).parent.parent
RECIPES = ROOT / "docs" / "cloud"
PAGE = (ROOT / "docs" / "cloud.md").read_text(encoding="utf-8")
KUBERNETES = sorted(RECIPES.glob("k8s-*.yaml"))
SKY = sorted(RECIPES.glob("sky-*.yaml"))
SKY_PYTHON = ROOT / ".venv-sky" / "bin" / "python"
needs_sky = pytest.mark.skipif(
    not SKY_PYTHON.is_file(),
    reason="no SkyPilot: `make test-cloud` puts it into .venv-sky where it can be had",
)


def documents(file: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(file.read_text(encoding="utf-8")))


def job() -> dict[str, Any]:
    (found,) = documents(RECIPES / "k8s-job.yaml")
    return found


@pytest.mark.parametrize("file", KUBERNETES, ids=lambda file: file.name)
def test_kubernetes_takes_the_files_and_no_key_that_it_does_not_know(file: Path) -> None:
    for document in documents(file):
        assert kubernetes_validate.validate(document, "1.37", strict=True)
        wrong = document | {"spec": document["spec"] | {"complettions": 1}}
        with pytest.raises(kubernetes_validate.ValidationError, match="complettions"):
            kubernetes_validate.validate(wrong, "1.37", strict=True)


def test_the_job_has_an_index_for_each_cell_of_one_gpu() -> None:
    spec, (cell,) = job()["spec"], job()["spec"]["template"]["spec"]["containers"]
    states = open_grid("paper-7b", Path("nowhere"), None, None).states
    alone = [state for state in states if devices_needed(state) == 1]
    assert spec["completions"] == spec["maxFailedIndexes"] == len(alone)
    assert cell["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] >= STOP_SECONDS + 30


def test_plan_lists_cells_for_a_scheduler_the_base_model_first(tmp_path: Path) -> None:
    done = zbench("plan", "paper-7b", "--ids", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    cells = {cell.id: cell for cell in expand(load_grid("paper-7b"))}
    assert {cell_id for cell_id, _, _ in lines} == cells.keys()
    assert lines[0][2] == "llama-7b/base"
    assert [gpus for _, gpus, label in lines if "/full/" in label] == ["4"]
    assert all(cells[cell_id].label == label for cell_id, _, label in lines)


def test_each_index_runs_the_cell_of_its_line(tmp_path: Path) -> None:
    """The shell's part alone: what it would call is shown in the place of being run."""
    ids = [cell.id for cell in expand(load_grid("paper-7b"))]
    (tmp_path / "cells.txt").write_text("".join(f"{cell_id}\n" for cell_id in ids))
    shown = tmp_path / "zbench"
    shown.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    shown.chmod(0o755)
    (container,) = job()["spec"]["template"]["spec"]["containers"]
    script = container["args"][0].replace("/cells/", f"{tmp_path}/")
    environment = {one["name"]: one["value"] for one in container["env"]}
    for index in (0, 5, len(ids) - 1):
        done = subprocess.run(
            [*container["command"], script],
            env={
                **environment,
                "PATH": f"{tmp_path}:{os.environ['PATH']}",
                "JOB_COMPLETION_INDEX": str(index),
            },
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == [
            *("run-cell", "paper-7b", ids[index]),
            *("--runs-dir", "/zbench/runs", "--data-root", "/data"),
        ]


def test_recipes_name_this_versions_image_and_grids_that_ship() -> None:
    for file in (*KUBERNETES, *SKY):
        images = re.findall(r"image(?:_id)?: (?:docker:)?(\S+)", file.read_text(encoding="utf-8"))
        assert set(images) == {f"ghcr.io/example/zbench:{__version__}"}
    grids = [yaml.safe_load(file.read_text(encoding="utf-8"))["envs"]["GRID"] for file in SKY]
    assert set(grids) <= shipped_grids().keys()


def test_the_page_names_every_recipe_and_its_figures_are_those_of_plan(tmp_path: Path) -> None:
    assert [file.name for file in (*KUBERNETES, *SKY) if file.name not in PAGE] == []
    (command,) = re.findall(r"^zbench (plan paper-7b --hardware a100-80 .*)$", PAGE, re.M)
    shown = PAGE.split(command)[1].split("```text\n")[1].split("```")[0].splitlines()
    done = zbench(*command.split(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(shown) > 4
    assert [line for line in shown if line != "..." and line not in done.stdout.splitlines()] == []


READ_BY_SKY = """
import json, sys
import sky
found = {}
for file in sys.argv[1:]:
    task = sky.Task.from_yaml(file)
    kinds = [list(one.accelerators.items()) for one in task.resources]
    spot = all(one.use_spot for one in task.resources)
    modes = {path: store.mode.value for path, store in task.storage_mounts.items()}
    found[file] = {"kinds": kinds, "spot": spot, "modes": modes, "envs": task.envs}
print(json.dumps(found))
"""


def read_by_sky(*files: Path, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SKY_PYTHON, "-c", READ_BY_SKY, *map(str, files)],
        env={**os.environ, "HOME": str(home), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@needs_sky
@pytest.mark.slow
def test_skypilot_reads_the_recipes(tmp_path: Path) -> None:
    done = read_by_sky(*SKY, home=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    kinds = {Path(file).stem: sorted(sum(one["kinds"], [])) for file, one in found.items()}
    assert kinds == {"sky-a100": [["A100-80GB", 8]], "sky-h100": [["H100", 8], ["H200", 8]]}
    assert all(one["spot"] and one["modes"] == {"/runs": "MOUNT_CACHED"} for one in found.values())
    assert all(one["envs"]["MLFLOW_TRACKING_URI"] == "none" for one in found.values())


@needs_sky
@pytest.mark.slow
def test_skypilot_refuses_a_misspelt_key(tmp_path: Path) -> None:
    wrong = tmp_path / "sky.yaml"
    wrong.write_text(SKY[0].read_text(encoding="utf-8").replace("use_spot", "use_spott"))
    done = read_by_sky(wrong, home=tmp_path)
    assert done.returncode != 0
    assert "use_spott" in done.stderr
