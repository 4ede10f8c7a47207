"""docs/adding-a-method.md, as written: an outside package with an entry point, and its laws."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.errors import MethodError
from harness.methods import METHODS
from harness.methods.plug_ins import Registry

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
    file.write_text(demo[: demo.index("# Its columns:")] + methods, encoding="utf-8")
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


@pytest.mark.slow  # the next test runs the same laws on one family
def test_the_laws_run_on_it_with_one_import(package: Path) -> None:
    (package / "test_shift.py").write_text(LAWS, encoding="utf-8")
    done = run(package, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_shift.py")
    assert done.returncode == 0, done.stdout[-3000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 150


@pytest.mark.long
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
    (
        lambda code: "import nothing_like_it\n" + code,
        "cannot be imported (module not found: No module",
    ),
]
"""What is wrong in a package, and what is said of it."""


@pytest.fixture
def registry(package: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """A registry that finds the document's package, and of zbench's own methods knows LoRA."""
    monkeypatch.syspath_prepend(str(package))
    yield Registry([METHODS["lora"]])
    for name in [name for name in sys.modules if name.partition(".")[0] == "mymethods"]:
        del sys.modules[name]


@pytest.mark.parametrize(("change", "said"), BROKEN)
def test_a_broken_package_is_told_in_one_line(
    package: Path, registry: Registry, change: Callable[[str], str], said: str
) -> None:
    write_method(package, change)
    with pytest.raises(MethodError) as fault:
        registry["attention-shift"]
    assert str(fault.value).startswith("mymethods: entry point 'attention-shift' of zbench.methods")
    assert said in str(fault.value)
    assert "\n" not in str(fault.value)


def test_a_grid_that_uses_a_broken_package_says_where(package: Path) -> None:
    write_method(package, lambda code: "1 / 0\n" + code)
    grid = write_grid(package, METHODS_OF_A_GRID)
    done = run(package, "-m", "harness.cli", "plan", str(grid))
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "mine.yaml: blocks[0].methods[2]: mymethods: entry point 'attention-shift' of" in line
    assert "(zero division: division by zero); correct the package, or uninstall it" in line


def test_a_broken_package_stops_nothing_else(package: Path) -> None:
    write_method(package, lambda code: "1 / 0\n" + code)
    for command in (["--help"], ["plan", "demo"], ["status", "demo"]):
        done = run(package, "-m", "harness.cli", *command)
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        told = done.stdout.count("warning: mymethods: entry point 'attention-shift'")
        assert told == (command != ["--help"])


def test_stored_cells_are_found_beside_those_of_a_broken_package(package: Path) -> None:
    grid = write_grid(package, METHODS_OF_A_GRID)
    write_cells = f"""
from pathlib import Path
from harness.grid.folders import cell_folder
from harness.grid.loader import load_grid
from harness.grid.schema import expand
for cell in expand(load_grid({str(grid)!r})):
    folder = cell_folder(Path("runs"), cell)
    folder.mkdir(parents=True)
    (folder / "cell.json").write_text(cell.model_dump_json())
    print(cell.label)
"""
    labels = run(package, "-c", write_cells).stdout.split()
    assert len(labels) == 3
    write_method(package, lambda text: "1 / 0\n" + text)
    find_cells = f"""
from pathlib import Path
from harness.grid.selection import find_folder
for label in {labels!r}:
    print(find_folder(label, Path("runs")))
"""
    found = run(package, "-c", find_cells)
    assert len(set(found.stdout.split())) == 3, found.stderr


def test_a_name_that_is_taken_stays_zbenchs_own(package: Path, registry: Registry) -> None:
    entries = package / "mymethods-1.0.dist-info/entry_points.txt"
    entries.write_text(
        "[zbench.methods]\nlora = mymethods.shift:SHIFT\nattention-shift = mymethods.shift:SHIFT\n"
    )
    assert list(registry) == ["lora", "attention-shift"]
    assert registry["lora"] is METHODS["lora"]
    (line,) = registry.broken()
    assert line.startswith("mymethods: entry point 'lora' of zbench.methods: not used, zbench has")
    assert registry["attention-shift"].title == "Attention shift"


def test_an_unknown_name_lists_those_of_packages_unread(package: Path, registry: Registry) -> None:
    write_method(package, lambda code: "1 / 0\n" + code)
    assert "attention-shift" in registry
    assert "attention-shft" not in registry
    with pytest.raises(KeyError, match=r"did you mean 'attention-shift'.*known: lora, attention"):
        registry["attention-shft"]


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
    package: Path, registry: Registry, old: str, said: str
) -> None:
    new = re.search(r"^import torch\nfrom harness.methods import .*\n", CODE, re.M)
    assert new is not None
    write_method(package, lambda code: code.replace(new[0], old))
    with pytest.raises(MethodError, match=said):
        registry["attention-shift"]


def test_an_old_import_inside_of_apply_is_told_too(package: Path, registry: Registry) -> None:
    old = "    from harness.methods.peft_adapter import insert_adapter\n    layers = count_shift("
    write_method(package, lambda code: code.replace("    layers = count_shift(", old))
    method = registry["attention-shift"]
    said = r"^mymethods: .*harness.methods.peft_adapter: import insert_adapter from harness.methods"
    with pytest.raises(MethodError, match=said):
        method.apply(None, None, 0)  # type: ignore[arg-type]  # it looks at neither before
