from __future__ import annotations

import subprocess
import sys

import pytest
from lm_eval.tasks import TaskManager
from lm_eval.tasks.manager import load_yaml

from harness.evaluation.benchmarks import BENCHMARKS
from harness.evaluation.task_files import find_task, folder_of


def index_of(place: str) -> dict[str, object]:
    return TaskManager(include_defaults=False, include_path=str(folder_of(place))).task_index


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_task_file_is_read_as_lm_eval_reads_it(name: str) -> None:
    place = BENCHMARKS[name].task_folder
    folder = folder_of(place)
    own = folder / f"{name}.yaml"
    is_group = not own.is_file()
    path = sorted(folder.glob(f"{name}_*.yaml"))[0] if is_group else own
    expected, found = load_yaml(path), find_task(place, name)
    assert found is not None
    if is_group:
        assert found.pop("dataset_name") is None
        expected.pop("dataset_name")
    assert set(found) == set(expected) - {"include"}
    for key, value in found.items():
        if not callable(expected[key]):
            assert value == expected[key]
    assert name in index_of(place) or is_group


def test_an_absent_task_is_none() -> None:
    assert find_task("harness:demo/tasks", "demo_winogrande") is None


def test_reading_imports_no_lm_eval() -> None:
    code = (
        "import sys; import harness.evaluation.tasks; "
        "print(*{'torch', 'transformers', 'lm_eval', 'datasets', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
