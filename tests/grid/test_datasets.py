"""Several training sets in one grid: each by its name, in labels, ids and what is known of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from harness.errors import GridError, UsageError
from harness.estimate.plan import plan_rows
from harness.grid.folders import stored_label, write_cell_file
from harness.grid.resolver import resolve, resolve_grid
from harness.grid.schema import Cell, GridSpec, expand
from harness.grid.selection import select_cells
from harness.grid.workspace import OpenGrid, open_grid, open_to_run
from tests.evaluation.conftest import write_rows
from tests.grid.test_loader import GRID

SETS = """
datasets:
  one: {path: one.parquet}
  two: {path: two.parquet}
"""
BLOCKS = """blocks:
  - {models: [a], methods: [base, {method: lora, rank: 4}], data: one}
  - {models: [a], methods: [{method: lora, rank: 4}], data: two, fractions: [0.5], seeds: [1]}
"""
TEXT = GRID[: GRID.index("blocks:")] + SETS + BLOCKS


def grid_of(text: str = TEXT) -> GridSpec:
    return resolve_grid(yaml.safe_load(text), place="g.yaml")


def opened(root: Path, text: str = TEXT) -> OpenGrid:
    for name, size in (("one", 20), ("two", 30)):
        rows = [{"instruction": name, "input": "", "output": f"{n}"} for n in range(size)]
        write_rows(root / "data" / f"{name}.parquet", rows)
    (root / "g.yaml").write_text(text)
    return open_grid(str(root / "g.yaml"), root / "runs", root / "data", None)


def test_a_named_set_stands_in_the_label_of_what_is_trained_on_it() -> None:
    labels = [cell.label for cell in expand(grid_of())]
    assert labels == ["a/base", "a/lora[rank=4]@one/100%/seed0", "a/lora[rank=4]@two/50%/seed1"]
    assert [cell.data_name for cell in expand(grid_of())] == [None, "one", "two"]


def test_the_name_of_a_set_is_no_part_of_what_is_trained() -> None:
    """A set by name is the cell of the grid that has it as its one `data`."""
    contents = {"one": "1" * 64, "two": "2" * 64}
    one, two = expand(grid_of(), contents)[1:]
    alone = GRID.replace("train.parquet, num_rows: 200", "one.parquet")
    named = {cell.id: cell for cell in expand(grid_of(alone), {None: "1" * 64})}
    assert named[one.id].label == "a/lora[rank=4]/100%/seed0"
    assert named[one.id].data == one.data
    assert two.id not in named
    assert "data_name" not in named[one.id].model_dump()
    assert Cell.model_validate(one.model_dump(mode="json", serialize_as_any=True)) == one


def test_each_set_has_its_own_content_and_size(tmp_path: Path) -> None:
    grid = opened(tmp_path)
    assert grid.num_rows == {"one": 20, "two": 30}
    assert len(set(grid.own_data.contents.values())) == 2
    assert [row.examples for row in plan_rows(grid.states, grid.num_rows)] == [None, 20, 15]
    (tmp_path / "data" / "two.parquet").unlink()
    left = open_grid(grid.argument, tmp_path / "runs", tmp_path / "data", None)
    with pytest.raises(UsageError, match=r"datasets\.two\.path: no file .*two\.parquet"):
        left.read_states()
    (cell,) = select_cells(left.cells, "@one")
    assert cell.data_sha256 == grid.own_data.contents["one"]


def test_faults_of_files_name_the_set_and_are_told_at_once(tmp_path: Path) -> None:
    grid = opened(tmp_path)
    for name in ("one", "two"):
        (tmp_path / "data" / f"{name}.parquet").write_text('{"a": 1}')
    with pytest.raises(GridError) as told:
        open_to_run(grid.argument, tmp_path / "runs", tmp_path / "data", None)
    rows = [fault for fault in told.value.faults if "no columns of a training row" in fault]
    assert [fault.partition(": ")[0] for fault in rows] == ["datasets.one", "datasets.two"]


def test_a_set_that_no_block_names_is_told(tmp_path: Path) -> None:
    unused = "data: no block trains on it: each names one of `datasets`"
    assert opened(tmp_path).notices == [unused]
    text = TEXT.replace("data: two", "data: one")
    assert opened(tmp_path, text).notices == ["datasets.two: no block names it", unused]
    text = TEXT.replace("methods: [{method: lora, rank: 4}], data: two", "methods: [lora]")
    assert opened(tmp_path, text).notices == ["datasets.two: no block names it"]


def test_a_stored_cell_keeps_its_label(tmp_path: Path) -> None:
    cell = expand(grid_of())[1]
    write_cell_file(tmp_path, cell)
    assert stored_label(tmp_path) == cell.label


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("data: two", "data: tow", "blocks[1].data: no such data set 'tow'; did you mean 'two'?"),
        (", data: two", "", "blocks[1]: say which set it trains on, by `data` (one, two)"),
        ("two.parquet", "one.parquet", "datasets.two: is the same set as datasets.one; keep one"),
        ("  two:", "  t/o:", "datasets.t/o"),
        ("{path: two.parquet}", "{pat: two.parquet}", "datasets.two.pat: unknown key"),
        ("fractions: [0.5]", "fractions: [0.001]", "fraction 0.001 of 30 rows selects no example"),
    ],
)
def test_a_fault_of_a_set_is_one_line(old: str, new: str, said: str) -> None:
    text = TEXT.replace("data: {source: null, path: train.parquet, num_rows: 200}\n", "")
    text = text.replace("two.parquet}", "two.parquet, num_rows: 30}") if "0.5" in old else text
    assert old in text
    with pytest.raises(GridError) as told:
        grid_of(text.replace(old, new))
    assert sum(said in fault for fault in told.value.faults) == 1


def test_faults_of_a_set_hide_no_others() -> None:
    text = TEXT.replace("{path: two.parquet}", "{path: two.parquet, revision: 3}")
    found = resolve(yaml.safe_load(text.replace("rank: 4", "rank: 0")), place="g.yaml")
    assert len(found.faults) == 3
    assert found.grid.datasets["one"].path == "one.parquet"
