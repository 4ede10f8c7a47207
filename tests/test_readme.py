"""What the README says is so: its file map, its commands, its grid."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main
import yaml

from harness.cli import app
from harness.grid.loader import shipped_grids
from harness.grid.resolver import resolve_grid
from harness.grid.schema import expand

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MADE_BY_RUNS = {"runs"}


def file_map() -> list[str]:
    """Returns the paths that the README's map names."""
    section = README.split("## Where things are")[1]
    paths = []
    for line in section.splitlines():
        found = re.match(r"^( {4}| {6})(\S.*?)(?: {2,}|$)", line)
        if found:
            inside = "harness/" if len(found[1]) == 6 else ""
            paths += [inside + name for name in found[2].split(", ")]
    return paths


def test_the_file_map_is_true() -> None:
    paths = file_map()
    assert len(paths) > 15
    missing = [path for path in paths if not (ROOT / path).exists()]
    assert [path for path in missing if path.rstrip("/") not in MADE_BY_RUNS] == []


def test_the_file_map_names_every_part_of_the_package() -> None:
    section = README.split("## Where things are")[1]
    parts = [
        path.name + ("/" if path.is_dir() else "")
        for path in (ROOT / "harness").iterdir()
        if not path.name.startswith("_")
    ]
    assert {part for part in parts if part not in section} == set()


def commands() -> list[list[str]]:
    """Returns the zbench command lines in the README's blocks of shell."""
    blocks = re.findall(r"```sh\n(.*?)```", README, flags=re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    found = [re.search(r"\bzbench (?:zbench )?((?:[a-z]+-)?[a-z]+ .*)", line) for line in lines]
    return [shlex.split(match[1], comments=True) for match in found if match]


def test_the_readmes_commands_exist_and_name_grids_that_ship() -> None:
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # it is a group
    lines = commands()
    assert len(lines) >= 5
    for name, *rest in lines:
        assert name in known
        if name not in ("theory", "export-adapter", "import-adapter", "compare", "merge"):
            assert rest[0] in shipped_grids()


def test_the_readmes_grid_validates() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", README, flags=re.S)
    cells = expand(resolve_grid(yaml.safe_load(text), place="README.md"))
    assert len(cells) == 1 + 2 * 2 * 3


@pytest.mark.parametrize("target", ["demo", "test", "check"])
def test_the_makefile_has_the_readmes_targets(target: str) -> None:
    assert f"make {target}" in README
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.M)


def test_every_picture_of_the_readme_is_there() -> None:
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    assert pictures
    assert [path for path in pictures if not (ROOT / path).is_file()] == []


def test_every_path_of_the_contributors_guide_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = set(re.findall(r"\b(?:harness|tests|docs|benchmarks)/[\w/.-]*\w", text))
    named = {path for path in paths if "mine" not in path and "/x/" not in path}
    assert len(named) > 20
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []
