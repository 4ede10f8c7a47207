"""Where a path of training data leads: beside the grid file, under the data root, or both."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import yaml

from harness.commands.plan import plan_command
from harness.data.spec import DataSpec, data_file
from harness.data.validation import read_validation
from harness.errors import GridError, UsageError
from harness.grid.checks import look_at
from harness.grid.folders import cell_folder, write_cell_file
from harness.grid.inputs import inputs_of_cells
from harness.grid.loader import load_grid
from harness.grid.resolver import resolve_grid
from harness.grid.schema import Cell
from harness.grid.workspace import OpenGrid, open_grid, open_to_run
from tests.grid.test_loader import GRID

ROWS = [{"instruction": "a", "output": f"{n}"} for n in range(20)]


def write(path: Path, rows: list[dict[str, object]] | list[dict[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def grid_file(root: Path, data: str) -> str:
    text = GRID.replace("{source: null, path: train.parquet, num_rows: 200}", data)
    assert data in text
    (root / "study").mkdir(exist_ok=True)
    (root / "study" / "g.yaml").write_text(text)
    return str(root / "study" / "g.yaml")


def opened(root: Path, data: str, *, data_root: bool = True) -> OpenGrid:
    (root / "root").mkdir(exist_ok=True)
    grid = grid_file(root, data)
    return open_grid(grid, root / "runs", root / "root" if data_root else None, None)


def ids(grid: OpenGrid) -> list[str]:
    assert not grid.own_data.faults
    return [cell.id for cell in grid.cells]


def test_a_path_is_beside_the_grid_file_or_under_the_data_root(tmp_path: Path) -> None:
    write(tmp_path / "study" / "rows.jsonl", ROWS)
    beside = opened(tmp_path, "{path: rows.jsonl}", data_root=False)
    assert data_file(beside.spec.data, None) == tmp_path / "study" / "rows.jsonl"
    assert beside.num_rows == {None: 20}
    (tmp_path / "root").mkdir(exist_ok=True)
    (tmp_path / "study" / "rows.jsonl").rename(tmp_path / "root" / "rows.jsonl")
    under = opened(tmp_path, "{path: rows.jsonl}")
    assert data_file(under.spec.data, under.data_root) == tmp_path / "root" / "rows.jsonl"
    assert ids(under) == ids(beside)  # the content is the identity, not the place
    assert "study" not in json.dumps(beside.cells[1].model_dump(mode="json"))


def test_the_same_in_both_places_is_one_and_other_content_is_refused(tmp_path: Path) -> None:
    for folder in ("study", "root"):
        write(tmp_path / folder / "rows.jsonl", ROWS)
    assert ids(opened(tmp_path, "{path: rows.jsonl}"))
    other = write(tmp_path / "root" / "rows.jsonl", ROWS[1:])
    with pytest.raises(UsageError, match=r"study/rows.jsonl and .*root/rows.jsonl hold different"):
        opened(tmp_path, "{path: rows.jsonl}").read_states()
    assert ids(opened(tmp_path, f"{{path: {other}}}"))


def test_folders_and_globs_lie_beside_the_grid_file_too(tmp_path: Path) -> None:
    write(tmp_path / "study" / "all" / "1.jsonl", ROWS[:10])
    write(tmp_path / "study" / "all" / "2.jsonl", ROWS[10:])
    write(tmp_path / "root" / "rows.jsonl", ROWS)
    folder, matches = opened(tmp_path, "{path: all}"), opened(tmp_path, "{path: 'all/*.jsonl'}")
    assert folder.num_rows == matches.num_rows == {None: 20}
    assert ids(folder) == ids(matches)
    (tmp_path / "study" / "all" / "2.jsonl").rename(tmp_path / "study" / "all" / "0.jsonl")
    assert ids(opened(tmp_path, "{path: all}"))[1] != ids(folder)[1]  # another order of rows


def test_paths_of_the_world_and_of_shipped_grids_stay_where_they_are(tmp_path: Path) -> None:
    write(tmp_path / "alpaca" / "train.parquet", ROWS)
    raw = yaml.safe_load("world: demo\n" + GRID) | {"data": {"path": "alpaca/train.parquet"}}
    world = resolve_grid(raw, place="g.yaml", folder=tmp_path)
    assert data_file(world.data, Path("/root")) == Path("/root/alpaca/train.parquet")
    assert data_file(load_grid("paper").data, None) is None
    default = resolve_grid(yaml.safe_load(GRID) | {"data": {}}, place="g.yaml", folder=tmp_path)
    assert data_file(default.data, None) is None  # nobody states Alpaca's own path


def test_a_path_that_leads_nowhere_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"data\.path: rows\.jsonl: is relative; .* beside the gr"):
        opened(tmp_path, "{path: rows.jsonl}", data_root=False).read_states()
    grid = grid_file(tmp_path, "{path: rows.jsonl}")
    with pytest.raises(UsageError, match=r"data\.path: no file .*root/rows\.jsonl"):
        open_to_run(grid, tmp_path / "runs", tmp_path / "root", None)


def test_settings_are_in_an_id_where_they_are_stated(tmp_path: Path) -> None:
    write(tmp_path / "study" / "rows.jsonl", [*ROWS, {"instruction": "a", "output": ""}])
    plain = opened(tmp_path, "{path: rows.jsonl}")
    data = plain.cells[1].record()["data"]
    assert data == {"sha256": plain.own_data.contents[None]}
    where = opened(tmp_path, "{path: rows.jsonl, where: {max_characters: 2}}")
    assert where.cells[1].record()["data"] == data | {"where": {"max_characters": 2}}
    assert where.num_rows == {None: 11}
    columns = "{instruction: output, output: instruction}"
    mapped = opened(tmp_path, f"{{path: rows.jsonl, columns: {columns}}}")
    stated = {"instruction": "output", "output": "instruction"}
    assert mapped.cells[1].record()["data"] == data | {"columns": stated}


def test_a_split_of_files_is_their_content(tmp_path: Path) -> None:
    write(tmp_path / "study" / "rows" / "train.jsonl", ROWS)
    write(tmp_path / "study" / "rows" / "test.jsonl", ROWS[:9])
    whole = ids(opened(tmp_path, "{path: rows}"))
    assert ids(opened(tmp_path, "{path: rows, split: train}")) == whole
    assert ids(opened(tmp_path, "{path: rows/train.jsonl}")) == whole
    other = ids(opened(tmp_path, "{path: rows, split: test}"))
    assert other == ids(opened(tmp_path, "{path: rows/test.jsonl}")) != whole
    write(tmp_path / "study" / "rows.jsonl", ROWS)
    assert ids(opened(tmp_path, "{path: rows.jsonl, split: train}")) == whole
    assert not DataSpec(source="some/rows", split="train").stated
    assert DataSpec(source="some/rows", split="test").stated == {"split": "test"}


def test_a_policy_is_in_an_id_only_where_it_changes_a_row(tmp_path: Path) -> None:
    path = write(tmp_path / "study" / "rows.jsonl", ROWS)
    for policy in ("fail", "drop", "keep"):
        idle = opened(tmp_path, f"{{path: rows.jsonl, on_bad_rows: {policy}}}")
        assert ids(idle) == ids(opened(tmp_path, "{path: rows.jsonl}"))
    write(path, [*ROWS, {"instruction": "a", "output": ""}])
    kept = opened(tmp_path, "{path: rows.jsonl, on_bad_rows: keep}")
    assert ids(kept) == ids(opened(tmp_path, "{path: rows.jsonl}"))
    dropped = opened(tmp_path, "{path: rows.jsonl, on_bad_rows: drop}")
    assert ids(dropped) != ids(kept)
    assert dropped.cells[1].record()["data"]["on_bad_rows"] == "drop"


def test_plan_tells_of_each_set_what_is_odd(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "study" / "a.jsonl", [*ROWS, {"instruction": "a", "output": ""}])
    write(tmp_path / "study" / "b.jsonl", [{"text": "b" * n} for n in range(1, 30)])
    text = GRID[: GRID.index("data:")] + GRID[GRID.index("tasks:") : GRID.index("blocks:")]
    text += "datasets: {a: {path: a.jsonl}, b: {path: b.jsonl, where: text|length < 9}, "
    text += "c: {source: some/rows}}\nblocks:\n"
    text += "".join(f"  - {{methods: [{{method: lora, rank: 4}}], data: {n}}}\n" for n in "abc")
    (tmp_path / "study" / "g.yaml").write_text(text)
    plan_command(open_grid(str(tmp_path / "study" / "g.yaml"), tmp_path, None, None), as_json=False)
    said = capsys.readouterr().out
    assert "datasets.a: 21 rows (instruction, template alpaca); 1 with an empty response" in said
    assert "datasets.b: 8 rows (text, no template); 21 left out by `where`" in said
    assert "datasets.c: rows unknown until they are read, of some/rows" in said
    assert "a/lora[rank=4]@b/100%/seed0" in said


def test_two_names_of_the_same_rows_are_told(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / "study" / f"{name}.jsonl", ROWS)
    text = GRID[: GRID.index("blocks:")] + "datasets: {a: {path: a.jsonl}, b: {path: b.jsonl}}\n"
    text += "blocks:\n" + "".join(f"  - {{methods: [zero-init-linear], data: {n}}}\n" for n in "ab")
    (tmp_path / "study" / "g.yaml").write_text(text)
    grid = open_grid(str(tmp_path / "study" / "g.yaml"), tmp_path, None, None)
    assert grid.own_data.faults == {"b": "datasets.b: holds the same rows as datasets.a; keep one"}


@pytest.mark.parametrize("other", ["template: alpaca", "on_bad_rows: fail", "on_bad_rows: drop"])
def test_two_names_of_the_same_cells_are_told_whatever_they_state(
    tmp_path: Path, other: str
) -> None:
    for name in "ab":
        write(tmp_path / "study" / f"{name}.jsonl", ROWS)
    text = GRID[: GRID.index("blocks:")]
    text += f"datasets: {{a: {{path: a.jsonl}}, b: {{path: b.jsonl, {other}}}}}\n"
    text += "blocks:\n" + "".join(f"  - {{methods: [zero-init-linear], data: {n}}}\n" for n in "ab")
    (tmp_path / "study" / "g.yaml").write_text(text)
    grid = open_grid(str(tmp_path / "study" / "g.yaml"), tmp_path, None, None)
    assert grid.own_data.faults == {"b": "datasets.b: holds the same rows as datasets.a; keep one"}


def test_a_validation_file_is_its_content_and_not_its_path(tmp_path: Path) -> None:
    write(tmp_path / "study" / "rows.jsonl", ROWS)
    held = write(tmp_path / "study" / "held.jsonl", ROWS[:5])
    grid = opened(tmp_path, "{path: rows.jsonl, validation: {path: held.jsonl}}")
    stated = grid.cells[1].record()["data"]["validation"]
    assert stated == {"sha256": hashlib.sha256(held.read_bytes()).hexdigest()}
    stored = Cell.model_validate_json(grid.cells[1].model_dump_json(serialize_as_any=True))
    assert stored.id == grid.cells[1].id
    write_cell_file(cell_folder(grid.runs_dir, grid.cells[1]), grid.cells[1])
    with pytest.raises(GridError, match=r"data\.validation\.sha256: is found with the files"):
        load_grid(grid_file(tmp_path, "{path: a.jsonl, validation: {path: b.jsonl, sha256: a}}"))
    held.rename(tmp_path / "study" / "renamed.jsonl")
    gone = opened(tmp_path, "{path: rows.jsonl, validation: {path: held.jsonl}}")
    renamed = opened(tmp_path, "{path: rows.jsonl, validation: {path: renamed.jsonl}}")
    assert ids(gone) == ids(renamed) == ids(grid)
    write(held, ROWS[:6])
    assert ids(opened(tmp_path, "{path: rows.jsonl, validation: {path: held.jsonl}}")) != ids(grid)


def test_validation_rows_that_are_trained_on_are_told(tmp_path: Path) -> None:
    write(tmp_path / "study" / "rows.jsonl", ROWS)
    held = write(tmp_path / "study" / "held.jsonl", ROWS[:5])
    grid = opened(tmp_path, "{path: rows.jsonl, validation: {path: held.jsonl}}")
    said = "data.validation: all of its 5 rows are trained on; hold out other rows"
    assert said in look_at(inputs_of_cells(grid.cells), None).faults
    write(held, [*ROWS[:5], {"instruction": "b", "output": "c"}])
    notes = look_at(inputs_of_cells(grid.cells), None).notes
    assert notes == ["data.validation: 5 of 6 rows are trained on too"]


def test_a_policy_counts_in_validation_rows_too(tmp_path: Path) -> None:
    write(tmp_path / "study" / "rows.jsonl", ROWS)
    held = write(tmp_path / "study" / "held.jsonl", [*ROWS, {"instruction": "a"}])
    dropped = "{path: rows.jsonl, on_bad_rows: drop, validation: {path: held.jsonl}}"
    grid = opened(tmp_path, dropped)
    assert grid.cells[1].data.on_bad_rows == "drop"
    found = read_validation(grid.cells[1].data, None)
    assert found is not None
    assert len(found.rows) == len(ROWS)
    write(held, ROWS)
    assert ids(opened(tmp_path, dropped)) == ids(opened(tmp_path, dropped.replace("drop", "fail")))
