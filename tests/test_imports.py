"""Imports go one way: between folders, between files, at the top of a file or not."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "harness"
HEAVY = ("torch", "transformers", "peft", "lm_eval", "datasets", "accelerate", "mlflow", "optuna")

FLOORS = (
    ("errors",),
    ("readers", "terminal"),
    ("spec", "records", "demo"),
    ("models", "data"),
    ("methods", "evaluation"),
    ("peft_hook", "training"),
    ("grid",),
    ("export", "theory", "tracking"),
    ("cell", "analysis"),
    ("execution", "report"),
    ("estimate", "answers"),
    ("prepare", "testing"),
    ("commands",),
    ("cli",),
)
"""Folders and root files, from the bottom up. Each imports from itself and the floors below it;
docs/architecture.md draws them."""

FILES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imports_of(path: Path) -> set[str]:
    """Returns the modules that a file imports, lazily and for types too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else node.module for name in inner}
    return found


GRAPH = {
    name: (imports_of(path) & FILES.keys()) - {name, "harness"} for name, path in FILES.items()
}


def part(module: str) -> str:
    """Returns the folder, or the root file, that a module belongs to."""
    return module.split(".")[1]


def test_every_part_stands_on_one_floor() -> None:
    parts = {part(name) for name in FILES if name != "harness"}
    assert sorted(name for floor in FLOORS for name in floor) == sorted(parts)


@pytest.mark.parametrize("module", [name for name in FILES if name != "harness"])
def test_imports_point_down(module: str) -> None:
    height = {name: index for index, floor in enumerate(FLOORS) for name in floor}
    for target in GRAPH[module]:
        own = part(target) == part(module)
        assert own or height[part(target)] < height[part(module)], f"{module} imports {target}"


def test_the_document_draws_the_same_floors() -> None:
    text = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    drawn: list[list[str]] = []
    for line in text.split("```text\n")[1].split("```")[0].splitlines():
        if line[:2].strip():
            drawn.append([])
        drawn[-1].append(line.split()[1 if line[:2].strip() else 0])
    assert [sorted(floor) for floor in reversed(drawn)] == [sorted(floor) for floor in FLOORS]


def test_no_circle_of_files() -> None:
    circle: list[str] = []
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as fault:
        circle = fault.args[1]
    assert circle == [], f"files import each other: {' -> '.join(circle)}"


def test_the_root_holds_few_files() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 7


def test_only_tracking_imports_mlflow() -> None:
    importing = {
        part(name)
        for name, path in FILES.items()
        if any(module.split(".")[0] == "mlflow" for module in imports_of(path))
    }
    assert importing == {"tracking"}


def loaded_by(code: str, names: tuple[str, ...]) -> str:
    """Returns which of the modules are loaded after code ran in a process of its own."""
    code += f"\nimport sys\nprint([name for name in {names!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_planning_and_reporting_import_nothing_heavy() -> None:
    code = (
        "import harness.cli, harness.report, harness.tracking.runs\n"
        "from harness.commands import compare, compare_items, drift, plan, report, status\n"
        "from harness.grid.loader import load_grid\n"
        "from harness.grid.schema import expand\n"
        "expand(load_grid('paper'))"
    )
    assert loaded_by(code, HEAVY) == "[]"


def test_help_imports_no_part_of_the_work() -> None:
    assert loaded_by("import harness.cli", ("pydantic", "yaml", "pandas", "rich.table")) == "[]"
