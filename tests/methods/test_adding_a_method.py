"""docs/adding-a-method.md, as written: an outside package with an entry point, and its laws."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
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


def write_method(package: Path, change: Callable[[str], str]) -> None:
    (package / "mymethods/shift.py").write_text(change(CODE), encoding="utf-8")


BROKEN = [
    (
        lambda code: code.replace('name="attention-shift"', 'name="shift"'),
        "is called 'shift'; give",
    ),
    (lambda code: code.replace("SHIFT = Method(", "SHIFT = dict("), "is dict, not a"),
    (lambda code: "import nothing_like_it\n" + code, "cannot be imported (ModuleNotFound"),
]
"""What is wrong in a package, and what is said of it."""


@pytest.mark.parametrize(("change", "said"), BROKEN)
def test_a_broken_package_is_told_in_one_line_where_it_is_used(
    package: Path, change: Callable[[str], str], said: str
) -> None:
    write_method(package, change)
    grid = write_grid(package, METHODS_OF_A_GRID)
    done = run(package, "-m", "harness.cli", "plan", str(grid))
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "mine.yaml: blocks[0].methods[2]: mymethods: entry point 'attention-shift' of" in line
    assert said in line


def test_a_broken_package_stops_nothing_else(package: Path) -> None:
    write_method(package, lambda code: "1 / 0\n" + code)
    for command in (["--help"], ["plan", "demo"], ["status", "demo"]):
        done = run(package, "-m", "harness.cli", *command)
        assert done.returncode == 0, done.stderr
        assert not done.stderr


def test_a_stored_cell_of_a_broken_package_hides_no_other(package: Path) -> None:
    grid = write_grid(package, METHODS_OF_A_GRID)
    code = (
        "import json\nfrom pathlib import Path\n"
        "from harness.grid.folders import cell_folder, stored_cells\n"
        "from harness.grid.loader import load_grid\nfrom harness.grid.schema import expand\n"
    )
    write_cells = (
        f"for cell in expand(load_grid({str(grid)!r})):\n"
        "    folder = cell_folder(Path('runs'), cell)\n    folder.mkdir(parents=True)\n"
        "    (folder / 'cell.json').write_text(cell.model_dump_json())\n"
    )
    assert run(package, "-c", code + write_cells).returncode == 0
    write_method(package, lambda text: "1 / 0\n" + text)
    done = run(package, "-c", code + "print(*stored_cells(Path('runs')))")
    assert "tiny-llama/base" in done.stdout, done.stderr
    assert "attention-shift" in done.stdout  # by the name of its folder


def test_a_name_that_is_taken_is_told_where_it_is_used(package: Path) -> None:
    entries = package / "mymethods-1.0.dist-info/entry_points.txt"
    entries.write_text("[zbench.methods]\nlora = mymethods.shift:SHIFT\n")
    done = run(package, "-m", "harness.cli", "plan", "demo")
    assert done.returncode == 2
    assert "'lora' of zbench.methods: there is a method 'lora' already" in done.stderr
    grid = write_grid(package, "blocks:\n  - methods: [base, zero-init-linear]\n")
    text = grid.read_text(encoding="utf-8")
    settings = text[text.index("\nmethods:") : text.index("\nblocks:")]  # of lora, among others
    grid.write_text(text.replace(settings, ""), encoding="utf-8")
    assert run(package, "-m", "harness.cli", "plan", str(grid)).returncode == 0


def test_an_unknown_name_lists_those_of_packages_unread(package: Path) -> None:
    write_method(package, lambda code: "1 / 0\n" + code)
    grid = write_grid(package, "blocks:\n  - methods: [attention-shft]\n")
    done = run(package, "-m", "harness.cli", "plan", str(grid))
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "did you mean 'attention-shift'?" in line
    assert "zero-init-linear" in line


OLD_IMPORTS = """import torch
from harness.checkpoint import shape_of
from harness.errors import MethodError
from harness.families import FAMILIES
from harness.methods import Method, MethodOptions
"""
"""As the document had them before `harness.methods` held all of it."""


@pytest.mark.parametrize(
    ("old", "said"),
    [
        (OLD_IMPORTS, "harness.checkpoint: import shape_of from harness.methods instead"),
        (
            OLD_IMPORTS.replace("harness.checkpoint", "harness.methods"),
            "harness.families: import FAMILIES from harness.methods instead",
        ),
    ],
)
def test_an_import_of_the_last_version_is_told_with_the_new_one(
    package: Path, old: str, said: str
) -> None:
    new = re.search(r"^import torch\nfrom harness.methods import .*\n", CODE, re.M)
    assert new is not None
    write_method(package, lambda code: code.replace(new[0], old))
    grid = write_grid(package, METHODS_OF_A_GRID)
    done = run(package, "-m", "harness.cli", "plan", str(grid))
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert said in line


def test_an_old_import_inside_of_apply_is_told_too(package: Path) -> None:
    old = "    from harness.methods.peft_adapter import insert_adapter\n    layers = count_shift("
    write_method(package, lambda code: code.replace("    layers = count_shift(", old))
    call = "from harness.methods import METHODS; METHODS['attention-shift'].apply(0, 0, 0)"
    last = run(package, "-c", call).stderr.strip().splitlines()[-1]
    assert last.startswith("harness.errors.MethodError: mymethods: entry point 'attention-shift'")
    assert "harness.methods.peft_adapter: import insert_adapter from harness.methods inst" in last
