"""Every fault of a grid, of its models and of its data comes at once; `plan` refuses what
`run-grid` would."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from harness.errors import GridError, UsageError
from harness.grid.checks import MAX_CELLS, combination_faults
from harness.grid.loader import MOST_FAULTS, load_grid
from harness.grid.resolver import resolve
from harness.grid.workspace import open_grid, open_to_run
from tests.grid.test_loader import GRID, faults_of, grid_with

MANY = """
name: waves
models:
  a: {path: nowhere, shape: &shape {num_hidden_layers: 5, hidden_size: 64, intermediate_size: 172,
      num_attention_heads: 8, vocab_size: 512}}
  b: {path: nor here, shape: *shape, sorce: x}
  c/d: {path: "~nobody-of-this-name/x", shape: *shape}
data: {source: null, path: mine.parquet, num_rows: 40}
titel: misspelt
train: {epochs: 0, batch_size: 010}
tasks: [arc_easi, mmlu, {name: arc_easy, lmit: 3}]
blocks:
  - methods: [{method: zero-init-linear, label: z, num_layers: 99}, {method: lora, rank: true},
      {method: lora, label: kim}, {method: lora, label: pat}, {adapter: gone}, [lora]]
    fractions: [0.001, 1.5]
    seeds: [yes, 0]
"""
TOLD = (
    "m.yaml: train.batch_size: line 10, column 32: 010 is 8 in YAML (octal); write 8 or 10",
    "m.yaml: models.c/d: a model's name has letters (a to z), digits",
    "m.yaml: models.c/d.path: ~nobody-of-this-name/x: there is no user ~nobody-of-this-name",
    "m.yaml: models.b.sorce: unknown key; did you mean 'source'?",
    "m.yaml: titel: unknown key; did you mean 'title'?",
    "m.yaml: train.epochs: must be at least 1 (got 0)",
    "m.yaml: tasks[0]: no such task 'arc_easi'; did you mean 'arc_easy'?",
    "m.yaml: tasks[2].lmit: unknown key; did you mean 'limit'?",
    "m.yaml: blocks[0].methods[1].rank: must be a number (got true)",
    "m.yaml: blocks[0].methods[4].adapter: {folder}/gone: no such folder",
    "m.yaml: blocks[0].methods[5]: must be a method's name, or a mapping",
    "m.yaml: blocks[0].fractions[1]: must be at most 1.0 (got 1.5)",
    "m.yaml: blocks[0].seeds[0]: must be a number (got true)",
    "m.yaml: a with z: num_layers: must be at most 5",
    "m.yaml: b with z: num_layers: must be at most 5",
    "m.yaml: methods 'kim' and 'pat' have the same settings; keep one",
    "m.yaml: fraction 0.001 of 40 rows selects no example",
    "models.a.path: no folder {root}/nowhere",
    "models.b.path: no folder {root}/nor here",
    "data.path: no file {root}/mine.parquet",
    "{root}/mmlu/test.parquet: no such file",
    "{root}/arc_easy/test.parquet: no such file",
)


def told_of(text: str, folder: Path, *, root: Path | None = None) -> list[str]:
    """The lines with which `plan` and `run-grid` refuse a grid."""
    file = folder / "m.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        open_to_run(str(file), folder / "runs", root, None)
    return str(caught.value).split("\n")


def test_all_kinds_of_faults_are_told_at_once_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    lines = told_of(MANY, tmp_path, root=root)
    places = [said.format(folder=tmp_path, root=root) for said in TOLD]
    assert [place for place in places if not any(line.startswith(place) for line in lines)] == []
    assert [line for line in lines if not line.startswith(tuple(places))] == []
    assert len(lines) == len(places)
    assert not (tmp_path / "runs").exists()


def test_a_missing_data_root_is_told_with_the_rest(tmp_path: Path) -> None:
    lines = told_of(MANY, tmp_path, root=tmp_path / "root")
    assert lines[-1] == f"--data-root {tmp_path / 'root'}: no such folder"
    assert len(lines) > 10


def test_paths_that_nothing_places_are_refused(tmp_path: Path) -> None:
    model, data = told_of(GRID, tmp_path)
    assert model.startswith("models.a.path: a is relative; --data-root names the folder")
    assert data.startswith("data.path: train.parquet is relative; --data-root names the folder")


def test_a_grid_of_the_world_is_held_to_what_the_world_will_hold(tmp_path: Path) -> None:
    demo = Path("harness/grids/demo.yaml").read_text(encoding="utf-8")
    file = tmp_path / "m.yaml"
    file.write_text(demo)
    assert len(open_to_run(str(file), tmp_path / "runs", None, None).cells) == 56
    (line,) = told_of(demo.replace("path: model", "path: modle"), tmp_path)
    assert line.startswith("models.tiny-llama.path: no folder ")
    assert "did you mean 'model'?" in line
    assert not (tmp_path / "runs").exists()


def test_what_only_reads_results_looks_at_no_file(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(GRID)
    assert len(open_grid(str(file), tmp_path / "runs", None, None).cells) == 9


def test_chosen_cells_alone_are_looked_at(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(GRID)
    with pytest.raises(UsageError) as caught:
        open_to_run(str(file), tmp_path / "runs", None, "base")
    assert "data.path" not in str(caught.value)


def test_more_cells_than_anyone_runs_are_counted_and_not_made(tmp_path: Path) -> None:
    raw = grid_with(
        {"blocks": [{"methods": ["lora", "base"], "seeds": list(range(3000)),
                     "fractions": [0.01 + i / 4000 for i in range(3000)]}]}
    )  # fmt: skip
    (line,) = faults_of(raw)
    assert line.startswith("g.yaml: blocks: span 9,000,001 cells, which is too many: at most")
    few = grid_with({"blocks": [{"methods": ["lora"], "seeds": list(range(MAX_CELLS))}]})
    assert resolve(few, place="g.yaml").faults == ()


def test_of_very_many_faults_the_first_are_told(tmp_path: Path) -> None:
    blocks = [{"methods": ["lora"], "seeds": [-1] * 999}]
    file = tmp_path / "g.yaml"
    file.write_text(yaml.safe_dump(grid_with({"blocks": blocks})))
    with pytest.raises(GridError) as caught:
        load_grid(file)
    assert len(caught.value.faults) == MOST_FAULTS + 1
    assert caught.value.faults[-1] == f"{999 - MOST_FAULTS} more faults; correct these first"


def test_the_sound_part_of_a_faulty_grid_makes_no_faults_of_its_own() -> None:
    for key in ("name", "tasks", "blocks", "data", "models"):
        found = resolve(yaml.safe_load(GRID) | {key: 3}, place="g.yaml")
        assert len(found.faults) == 1
        assert list(combination_faults(found.grid)) == []


def test_a_fault_of_what_is_read_is_the_only_line(tmp_path: Path) -> None:
    """What is left of a faulty entry is no other set, and nothing is looked for in its place."""
    root = tmp_path / "root"
    root.mkdir()
    for data in ("{source: null}", "mine.parquet", "[mine]", "{source: ./mine}", '{path: "a\\n"}'):
        text = GRID.replace("{source: null, path: train.parquet, num_rows: 200}", data)
        assert text != GRID
        lines = told_of(text, tmp_path, root=root)
        told = [line for line in lines if line.startswith(("m.yaml", "data")) or "@main" in line]
        assert [line.startswith("m.yaml: data") for line in told] == [True], told
    demo = Path("harness/grids/demo.yaml").read_text(encoding="utf-8")
    for world in ("demmo", "[demo]", "7"):
        (line,) = told_of(demo.replace("world: demo", f"world: {world}"), tmp_path)
        assert line.startswith("m.yaml: world: must be one of 'demo'")
    (line,) = told_of(demo.replace("path: model", "path: !!int x"), tmp_path)
    assert line.startswith("m.yaml: models.tiny-llama.path: line ")


def test_every_entry_of_a_list_is_told() -> None:
    blocks = [{"methods": ["lora"], "seeds": ["x", None, 1.5, -1, True], "fractions": [2, True]}]
    told = [fault.partition(": ")[2] for fault in faults_of(grid_with({"blocks": blocks}))]
    places = sorted(line.partition(":")[0] for line in told)
    seeds = [f"blocks[0].seeds[{index}]" for index in range(5)]
    assert places == ["blocks[0].fractions[0]", "blocks[0].fractions[1]", *seeds]


def test_a_label_used_twice_is_one_line_for_all_models() -> None:
    raw = grid_with({"blocks": [{"methods": [{"method": "ia3", "label": "same"}, "base"]},
                                {"methods": [{"method": "lora", "label": "same"}]}]})  # fmt: skip
    raw["models"] |= {"b": raw["models"]["a"]}
    (line,) = faults_of(raw)
    assert "two different cells are called 'a/same/100%/seed0'" in line


def test_a_folder_given_as_source_is_told_with_the_key_that_is_meant() -> None:
    shape = yaml.safe_load(GRID)["models"]["a"]["shape"]
    for source in ("a/b/c", "./model", "/data/model", "a--b", "~/model", "x" * 300):
        raw = grid_with({"models": {"a": {"source": source, "shape": shape}}})
        (line,) = faults_of(raw)
        assert line.startswith("g.yaml: models.a.source: must be a model of the hub")
        assert "a folder of your own is `path`" in line
        assert len(line) < 250
    copy = {"a": {"source": "a copy of mine", "path": "model", "shape": shape}}
    assert resolve(grid_with({"models": copy}), place="g.yaml").faults == ()


def test_a_link_to_nothing_is_told_as_that(tmp_path: Path) -> None:
    for name, target in (("a", "gone"), ("train.parquet", "train.parquet")):
        (tmp_path / name).symlink_to(target)
    lines = told_of(GRID, tmp_path, root=tmp_path)
    for line, target in zip(lines, ("gone", "train.parquet"), strict=False):
        assert line.endswith(f": it is a link to {target}, which is not there; correct the link")


def test_an_adapter_that_is_gone_is_known_by_its_cells(tmp_path: Path) -> None:
    text = GRID.replace("{method: lora, rank: 4}", "{adapter: gone}")
    file, cell = tmp_path / "m.yaml", tmp_path / "runs" / "cells" / "a-gone--0123456789ab"
    file.write_text(text)
    cell.mkdir(parents=True)
    options = {"adapter": "/elsewhere/gone", "sha256": "0123abcd"}
    record = {"method": "adapter", "method_label": "gone", "options": options}
    (cell / "cell.json").write_text(json.dumps(record))
    opened = open_grid(str(file), tmp_path / "runs", None, None, results_alone=True)
    assert opened.cells[-1].options.model_dump()["sha256"] == "0123abcd"
    with pytest.raises(GridError, match="gone: no such folder"):
        open_grid(str(file), tmp_path / "runs", None, None)


def test_the_best_epoch_needs_validation_rows_to_be_told_by(tmp_path: Path) -> None:
    lines = told_of(f"{GRID}train: {{keep: best}}\n", tmp_path)
    assert any("train.keep: best is told by validation rows" in line for line in lines)
