"""docs/adding-a-method.md, as written: an outside package with an entry point, and its laws."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(
    r"```(\w+)\n(.*?)```", (ROOT / "docs/adding-a-method.md").read_text(encoding="utf-8"), re.S
)
CODE, LAWS = (text for language, text in BLOCKS if language == "python")
ENTRY = next(text for language, text in BLOCKS if language == "toml")
METHODS_OF_A_GRID = next(text for language, text in BLOCKS if language == "yaml")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder of installed packages that holds the document's."""
    (tmp_path / "mymethods").mkdir()
    (tmp_path / "mymethods/__init__.py").touch()
    (tmp_path / "mymethods/shift.py").write_text(CODE, encoding="utf-8")
    information = tmp_path / "mymethods-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: mymethods\nVersion: 1.0\n")
    (entry,) = re.findall(r'^(\S+) = "(.*)"$', ENTRY, re.M)
    (information / "entry_points.txt").write_text(f"[zbench.methods]\n{entry[0]} = {entry[1]}\n")
    return tmp_path


def run(package: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(package), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        cwd=package,
        check=False,
    )


def write_grid(package: Path, methods: str) -> Path:
    demo = (ROOT / "harness/grids/demo.yaml").read_text(encoding="utf-8")
    file = package / "mine.yaml"
    file.write_text(demo[: demo.index("blocks:")] + methods, encoding="utf-8")
    return file


def test_the_method_is_short() -> None:
    code = [line for line in CODE.splitlines() if line.strip() and not line.startswith('"""')]
    # Options and `apply`, as the document says: without the imports and the entry in a registry.
    body = "\n".join(code)
    assert len(code) < 50
    assert len(body[body.index("class ShiftOptions") : body.index("SHIFT = ")].splitlines()) < 40


def test_a_grid_has_the_method_of_the_other_package(package: Path) -> None:
    grid = write_grid(package, METHODS_OF_A_GRID)
    done = run(package, "-m", "harness.cli", "plan", str(grid))
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if "attention-shift" in line)
    assert line.split()[-1] == "256"  # 2 layers of 128


def test_its_options_are_checked_in_the_grid(package: Path) -> None:
    grid = write_grid(package, METHODS_OF_A_GRID.replace("num_layers: 2", "num_layers: 6"))
    done = run(package, "-m", "harness.cli", "plan", str(grid))
    assert done.returncode == 2
    assert "num_layers: must be at most 5 (got 6)" in done.stderr


def test_the_laws_run_on_it_with_one_import(package: Path) -> None:
    (package / "test_shift.py").write_text(LAWS, encoding="utf-8")
    done = run(package, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_shift.py")
    assert done.returncode == 0, done.stdout[-3000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 150


def test_the_laws_find_a_method_that_breaks_them(package: Path) -> None:
    broken = CODE.replace("torch.zeros(", "torch.randn(")
    (package / "mymethods/shift.py").write_text(broken, encoding="utf-8")
    laws = LAWS + '    families = ("llama",)\n'
    (package / "test_shift.py").write_text(laws, encoding="utf-8")
    done = run(package, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_shift.py")
    failed = set(re.findall(r"FAILED \S+::(\w+)", done.stdout))
    assert failed == {
        "test_another_family_is_refused",  # it works on families that it does not name
        "test_the_seed_alone_decides_the_start",
        "test_untrained_it_is_the_base_model",
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda code: code.replace('name="attention-shift"', 'name="lora"'), "'lora' already"),
        (lambda code: code.replace("SHIFT = Method(", "SHIFT = dict("), "is dict, not a"),
        (lambda code: "import nothing_like_it\n" + code, "cannot be imported (ModuleNotFound"),
    ],
)
def test_a_wrong_entry_point_is_one_clear_line(package: Path, change: object, said: str) -> None:
    assert callable(change)
    (package / "mymethods/shift.py").write_text(change(CODE), encoding="utf-8")
    done = run(package, "-m", "harness.cli", "plan", "demo")
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("zbench: mymethods: entry point 'attention-shift' of zbench.methods: ")
    assert said in line
    assert line.endswith("correct the package, or uninstall it")
