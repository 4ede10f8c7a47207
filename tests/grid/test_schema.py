"""A cell's id names its trained weights and nothing else."""

from __future__ import annotations

import json

import pytest
import yaml

from harness.errors import GridError
from harness.grid.loader import load_grid
from harness.grid.resolver import resolve_grid
from harness.grid.schema import Cell, expand
from tests.grid.test_loader import GRID


def cells_of(text: str) -> list[Cell]:
    return expand(resolve_grid(yaml.safe_load(text), place="g.yaml"))


def ids_of(text: str) -> set[str]:
    return {cell.id for cell in cells_of(text)}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("seeds: [0, 1]", "seeds: [1, 0]"),
        ("fractions: [0.1, 1.0]", "fractions: [1, 0.1]"),
        ("tasks: [arc_easy, {name: mmlu, limit: 5}]", "tasks: [hellaswag]"),
        ("path: a,", "path: /elsewhere/a,"),
        ("rank: 4", "rank: 4, label: mine"),
        ("name: tiny", "name: other\ntitle: Other"),
        ("blocks:", "train: {token_budget: 100}\nblocks:"),
        ("blocks:", "train: {checkpoint_minutes: 0}\nblocks:"),
        ("blocks:", "train: {gradient_checkpointing: true}\nblocks:"),
        ("num_rows: 200", "num_rows: 201"),
        ("path: train.parquet", "path: other.parquet"),
        ("source: null, path", "path"),
    ],
)
def test_ids_ignore_order_labels_paths_tasks_and_budgets(old: str, new: str) -> None:
    assert old in GRID
    assert ids_of(GRID.replace(old, new)) == ids_of(GRID)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("blocks:", "train: {epochs: 1}\nblocks:"),
        ("hidden_size: 64", "hidden_size: 128"),
        ("rank: 4", "rank: 5"),
        ("  a: {path: a,", "  b: {path: a,"),
    ],
)
def test_ids_follow_what_changes_the_weights(old: str, new: str) -> None:
    assert old in GRID
    assert ids_of(GRID.replace(old, new)) != ids_of(GRID)


def test_ids_follow_the_content_of_a_file_of_ones_own_and_not_its_path() -> None:
    def ids(text: str, content: str) -> list[str]:
        grid = resolve_grid(yaml.safe_load(text), place="g")
        return [cell.id for cell in expand(grid, {None: content})]

    here, moved = GRID, GRID.replace("path: train.parquet", "path: /elsewhere/mine.parquet")
    assert ids(here, "1" * 64) == ids(moved, "1" * 64)
    base, *trained = ids(here, "1" * 64)
    assert not set(trained) & set(ids(here, "2" * 64))
    assert base == ids(here, "2" * 64)[0]  # it is trained on nothing


def test_data_of_the_hub_and_of_the_world_are_known_by_name() -> None:
    def data_of(data: str, head: str = "") -> object:
        text = GRID.replace("{source: null, path: train.parquet, num_rows: 200}", data)
        grid = resolve_grid(yaml.safe_load(head + text), place="g")
        return expand(grid, {None: "1" * 64})[1].record()["data"]

    alpaca = {"source": "tatsu-lab/alpaca", "revision": "main"}
    assert data_of("{}") == data_of("{source: tatsu-lab/alpaca, path: a.parquet}") == alpaca
    assert data_of("{source: a/b, revision: v1}") == {"source": "a/b", "revision": "v1"}
    world = "world: demo\n"
    assert data_of("{path: alpaca/train.parquet}", world) == {"path": "alpaca/train.parquet"}
    assert data_of("{path: alpaca/train.parquet}") == {"sha256": "1" * 64}
    assert data_of("{path: /my/alpaca/train.parquet}", world) == {"sha256": "1" * 64}
    assert data_of("{path: mine.parquet}", world) == {"sha256": "1" * 64}


def test_a_hub_models_id_follows_its_revision() -> None:
    hub = GRID.replace("path: a,", "source: org/a,")
    assert ids_of(hub) != ids_of(hub.replace("source: org/a,", "source: org/a, revision: v2,"))
    assert ids_of(hub) == ids_of(hub.replace("  a: {", "  renamed: {"))


@pytest.mark.parametrize("source", ["https://u:pw@host/a/b", "/models/a", "a/b/c", "a b", ""])
def test_a_models_source_is_a_name_of_the_hub(source: str) -> None:
    with pytest.raises(GridError, match="source: must be a model of the hub") as told:
        cells_of(GRID.replace("path: a,", f"source: '{source}',"))
    assert "pw" not in str(told.value)


def test_overlapping_blocks_share_cells_and_join_their_tasks() -> None:
    text = GRID + "  - {methods: [zero-init-linear], seeds: [1], tasks: [hellaswag]}\n"
    cells = cells_of(text)
    assert len(cells) == len(cells_of(GRID))
    (shared,) = [cell for cell in cells if cell.label == "a/zero-init-linear/100%/seed1"]
    assert [task.name for task in shared.tasks] == ["arc_easy", "mmlu", "hellaswag"]


def test_the_base_model_is_one_cell_whatever_the_fractions_and_seeds() -> None:
    assert sum(cell.method == "base" for cell in cells_of(GRID)) == 1


def test_a_cell_survives_its_own_json() -> None:
    for cell in cells_of(GRID):
        text = json.dumps(cell.model_dump(mode="json", serialize_as_any=True))
        again = Cell.model_validate(json.loads(text))
        assert again == cell
        assert again.id == cell.id


def test_a_changed_copy_has_an_id_of_its_own() -> None:
    cell = next(cell for cell in cells_of(GRID) if cell.train)
    other = cell.model_copy(update={"seed": 7})
    assert other.id != cell.id
    assert other.model_copy(update={"seed": cell.seed}).id == cell.id


GOLDEN = {
    "llama-7b/base": "4915418dcb5e",
    "llama-7b/full/100%/seed0": "0734ba146936",
    "llama-7b/lora/100%/seed0": "a5a3d96cbfd8",
    "llama-7b/random-init/100%/seed0": "45221f1fdc9c",
    "llama-7b/zero-init-linear/100%/seed0": "00357ce9ac68",
    "llama-7b/zero-init-nonlinear/1%/seed0": "7c374ab8ce4b",
}
"""Ids of the paper's cells. A change here means that users' trained cells are trained anew."""


def test_a_stored_cell_of_an_earlier_version_is_still_read() -> None:
    cell = next(cell for cell in cells_of(GRID) if cell.train)
    stored = json.loads(cell.model_dump_json(serialize_as_any=True))
    stored["train"]["micro_batch_size"] = 4
    assert Cell.model_validate(stored).id == cell.id


def test_golden_ids() -> None:
    ids = {cell.label: cell.id for cell in expand(load_grid("paper-7b"))}
    assert {label: ids[label] for label in GOLDEN} == GOLDEN


def test_the_papers_seeds_begin_with_the_cells_of_paper_7b() -> None:
    seeds = {cell.label: cell.id for cell in expand(load_grid("paper-7b-seeds"))}
    known = {cell.label: cell.id for cell in expand(load_grid("paper-7b"))}
    shared = {label: cell_id for label, cell_id in seeds.items() if label in known}
    assert len(shared) == 4
    assert shared.items() <= known.items()
    assert len(seeds) == 1 + 3 * 5


def test_the_whole_papers_cells_are_those_of_its_two_halves() -> None:
    def ids(grid: str) -> set[str]:
        return {cell.id for cell in expand(load_grid(grid))}

    assert ids("paper") == ids("paper-7b") | ids("paper-13b")


def test_cells_that_are_copied_have_the_ids_of_cells_that_are_validated() -> None:
    cells = expand(load_grid("paper-7b-seeds"))
    assert len({cell.id for cell in cells}) == len(cells) > 10
    for cell in cells:
        validated = Cell.model_validate(cell.model_dump(serialize_as_any=True))
        assert (validated.id, validated.record()) == (cell.id, cell.record())
        assert validated == cell
    other = cells[-1].model_copy(update={"world": "other-1"})
    assert other.id != cells[-1].id, "what is not drawn is found anew"
