"""Imports point one way; what a laptop needs to plan and report imports nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "harness"
HEAVY = ("torch", "transformers", "peft", "lm_eval", "datasets", "accelerate")

ORDER = (
    ("errors", "spec", "events", "environment", "fingerprint", "families", "interrupts"),
    ("shape", "recipe", "checkpoint", "demo", "distributed", "loss_scale"),
    ("packing.layout", "packing.attention", "packing.batches", "packing.loss"),
    ("methods", "adapters", "peft_hook", "evaluation.benchmarks"),
    ("evaluation.tasks", "quantization"),
    ("evaluation.data_identity",),
    ("grid", "results", "evaluation.bos"),
    ("grid_resolver", "device_memory"),
    (
        "grid_file",
        "state",
        "models",
        "data",
        "packing",
        "response_loss",
        "model_card",
    ),
    ("parallel", "optimizer"),
    ("progress", "memory"),
    ("training_checkpoint",),
    (
        "train",
        "evaluation",
        "tracking",
        "frames",
        "plan",
        "report",
        "theory",
        "released",
        "law_gradients",
        "method_laws",
    ),
    ("cell", "cell_training", "export", "result_source", "differences"),
    ("notices", "compare"),
    ("executors",),
    ("estimate",),
    ("display", "progress_display", "opened", "compare_display", "estimate.output"),
    ("commands", "theory.command"),
    ("estimate.command",),
    ("cli",),
)
"""From the bottom up: a module imports from its own layer and those before it."""


def layer_of(module: str) -> int:
    """Returns the layer of a dotted name inside the package: that of its longest known prefix."""
    best, rank = "", -1
    for index, names in enumerate(ORDER):
        for name in names:
            if (module == name or module.startswith(name + ".")) and len(name) >= len(best):
                best, rank = name, index
    assert rank >= 0, f"harness.{module} stands in no layer; add it to ORDER"
    return rank


def imports_of(path: Path, *, top_only: bool) -> list[str]:
    """Returns the modules that a file imports, those under TYPE_CHECKING left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    nodes = tree.body if top_only else ast.walk(tree)
    found: list[str] = []
    for node in nodes:
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "harness":
                found += [f"harness.{alias.name}" for alias in node.names]
            else:
                found.append(node.module)
    return found


MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path != PACKAGE / "__init__.py"
}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    own = layer_of(module)
    for name in imports_of(MODULES[module], top_only=False):
        inner = name.removeprefix("harness").removeprefix(".")
        if name.startswith("harness") and inner and not inner.startswith("__"):
            assert layer_of(inner) <= own, f"harness.{module} imports {name} from a layer above"


def test_only_tracking_imports_mlflow() -> None:
    importing = {
        module
        for module, path in MODULES.items()
        if any(name.split(".")[0] == "mlflow" for name in imports_of(path, top_only=False))
    }
    assert {name.split(".")[0] for name in importing} == {"tracking"}


def test_planning_and_reporting_import_nothing_heavy() -> None:
    code = (
        "import sys, harness.cli, harness.commands, harness.report, harness.tracking\n"
        "from harness.grid_file import load_grid\n"
        "from harness.grid import expand\n"
        "from harness.plan import plan_rows\n"
        "expand(load_grid('paper'))\n"
        f"print([name for name in {HEAVY!r} + ('mlflow',) if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_imports_no_part_of_the_work() -> None:
    code = (
        "import sys, harness.cli\n"
        "print([name for name in ('pydantic', 'yaml', 'pandas', 'rich.table') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
