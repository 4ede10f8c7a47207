"""A grid file: what is accepted, and that every fault is told at once, with its place."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from harness.errors import GridError, UsageError
from harness.grid.entries import merge_settings
from harness.grid.loader import load_grid, shipped_grids
from harness.grid.resolver import resolve_grid
from harness.grid.schema import expand

GRID = """
name: tiny
models:
  a: {path: a, shape: {num_hidden_layers: 5, hidden_size: 64, intermediate_size: 172,
      num_attention_heads: 8, vocab_size: 512}}
data: {source: null, path: train.parquet, num_rows: 200}
tasks: [arc_easy, {name: mmlu, limit: 5}]
blocks:
  - methods: [base, zero-init-linear, {method: lora, rank: 4}]
    fractions: [0.1, 1.0]
    seeds: [0, 1]
"""


def grid_with(change: dict[str, object]) -> dict[str, object]:
    return yaml.safe_load(GRID) | change


def faults_of(raw: object) -> tuple[str, ...]:
    with pytest.raises(GridError) as caught:
        resolve_grid(raw, place="g.yaml")
    return caught.value.faults


def test_a_good_grid_gives_its_cells() -> None:
    cells = expand(resolve_grid(yaml.safe_load(GRID), place="g.yaml"))
    assert [cell.label for cell in cells[:3]] == [
        "a/base",
        "a/zero-init-linear/10%/seed0",
        "a/zero-init-linear/10%/seed1",
    ]
    assert len(cells) == 1 + 4 + 4
    assert cells[-1].method_label == "lora[rank=4]"
    assert cells[-1].tasks[1].limit == 5


@pytest.mark.parametrize("name", sorted(shipped_grids()))
def test_every_shipped_grid_validates(name: str) -> None:
    grid = load_grid(name)
    assert grid.name == name
    assert expand(grid)


def test_a_misspelt_key_gets_the_nearest_one() -> None:
    (fault,) = faults_of(grid_with({"blocs": []}))
    assert fault.startswith("g.yaml: blocs: unknown key; did you mean 'blocks'?")


def test_a_misspelt_key_inside_a_block_is_placed() -> None:
    (fault,) = faults_of(grid_with({"blocks": [{"methods": ["base"], "seed": [1]}]}))
    assert fault.startswith("g.yaml: blocks[0].seed: unknown key; did you mean 'seeds'?")


def test_a_misspelt_method_and_task_are_both_told() -> None:
    raw = grid_with({"tasks": ["arc_esy"], "blocks": [{"methods": ["zero-init-liner"]}]})
    first, second = faults_of(raw)
    assert "tasks[0]: no such task 'arc_esy'; did you mean 'arc_easy'?" in first
    assert "blocks[0].methods[0]: no such method 'zero-init-liner'; did you mean" in second


def test_a_name_near_one_of_lm_evals_is_told_as_such() -> None:
    raw = grid_with({"tasks": ["winogrande", "winogrand", "arc_easy"]})
    (near,) = faults_of(raw)
    assert near.startswith("g.yaml: tasks[1]: no such task 'winogrand'; did you mean 'winogrande'")


def test_an_unknown_model_in_a_block_is_told() -> None:
    (fault,) = faults_of(grid_with({"blocks": [{"models": ["b"], "methods": ["base"]}]}))
    assert "blocks[0].models[0]: no such model 'b'" in fault


def test_a_value_out_of_bounds_names_bound_and_value() -> None:
    raw = grid_with({"blocks": [{"methods": [{"method": "lora", "rank": 0}]}]})
    (fault,) = faults_of(raw)
    assert fault == "g.yaml: blocks[0].methods[0].rank: must be at least 1 (got 0)"


def test_a_fault_of_the_grids_training_is_told_once_and_placed() -> None:
    assert faults_of(grid_with({"train": {"epochs": 0}})) == (
        "g.yaml: train.epochs: must be at least 1 (got 0)",
    )


def test_a_fault_of_a_methods_training_is_placed_there() -> None:
    raw = grid_with({"methods": {"lora": {"train": {"epoch": 3}}}})
    (fault,) = faults_of(raw)
    assert fault.startswith("g.yaml: methods.lora.train.epoch: unknown key; did you mean 'epochs'")


def test_micro_batch_size_is_refused_with_the_name_of_what_replaced_it() -> None:
    (fault,) = faults_of(grid_with({"train": {"micro_batch_size": 4}}))
    assert fault.startswith("g.yaml: train.micro_batch_size: is now token_budget")


def test_exponents_without_a_dot_are_numbers() -> None:
    raw = yaml.safe_load(GRID.replace("rank: 4", "train: {learning_rate: 1e-4}"))
    assert isinstance(raw["blocks"][0]["methods"][2]["train"]["learning_rate"], str)
    cells = expand(resolve_grid(raw, place="g.yaml"))
    assert cells[-1].train is not None
    assert cells[-1].train.peak_learning_rate == 1e-4


def test_a_fraction_that_selects_nothing_is_refused() -> None:
    raw = grid_with({"blocks": [{"methods": ["full"], "fractions": [0.001]}]})
    (fault,) = faults_of(raw)
    assert "fraction 0.001 of 200 rows selects no example" in fault


def test_more_layers_than_the_model_has_are_refused() -> None:
    raw = grid_with({"blocks": [{"methods": [{"method": "zero-init-linear", "num_layers": 6}]}]})
    (fault,) = faults_of(raw)
    assert "6" in fault
    assert "5" in fault


def test_two_settings_with_one_label_are_refused() -> None:
    raw = grid_with(
        {
            "blocks": [
                {"methods": [{"method": "lora", "label": "x", "rank": 4}]},
                {"methods": [{"method": "lora", "label": "x", "rank": 8}]},
            ]
        }
    )
    (fault,) = faults_of(raw)
    assert "two different cells are called 'a/x/100%/seed0'" in fault


def test_two_labels_of_the_same_settings_are_refused() -> None:
    methods = [{"method": "lora", "label": "x"}, {"method": "lora", "label": "y"}]
    (fault,) = faults_of(grid_with({"blocks": [{"methods": methods}]}))
    assert fault == "g.yaml: methods 'x' and 'y' have the same settings; keep one"


def test_an_option_that_is_a_list_makes_a_label() -> None:
    raw = grid_with(
        {"blocks": [{"methods": [{"method": "lora", "targets": ["q_proj", "k_proj"]}]}]}
    )
    (cell, *_) = expand(resolve_grid(raw, place="g.yaml"))
    assert cell.method_label == "lora[targets=q_proj+k_proj]"


def test_no_tasks_are_refused() -> None:
    assert faults_of(grid_with({"tasks": []})) == ("g.yaml: tasks: is empty; add at least one",)


@pytest.mark.parametrize("key", ["models", "tasks"])
def test_an_empty_list_in_a_block_is_refused(key: str) -> None:
    raw = grid_with({"blocks": [{"methods": ["base"], key: []}]})
    assert faults_of(raw) == (f"g.yaml: blocks[0].{key}: is empty; add at least one",)


def test_a_rate_of_the_grid_replaces_the_recipes() -> None:
    raw = grid_with({"train": {"learning_rate": 0.5}})
    cells = expand(resolve_grid(raw, place="g.yaml"))
    assert {cell.train.peak_learning_rate for cell in cells if cell.train} == {0.5}


def test_settings_that_exclude_each_other_replace_each_other() -> None:
    lower = {"base_learning_rate": 0.1, "warmup_steps": 3, "epochs": 2}
    upper = {"learning_rate": 0.2}
    assert merge_settings(lower, upper) == {"warmup_steps": 3, "epochs": 2, "learning_rate": 0.2}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [", "is no valid YAML"),
        ("name: a\nname: b\n", "key 'name' stands twice"),
        ("- a\n", "must be a mapping"),
        ("", "must be a mapping"),
    ],
)
def test_broken_yaml_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "g.yaml"
    path.write_text(text)
    with pytest.raises(GridError) as caught:
        load_grid(path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_grid_gets_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="did you mean 'rehearsal'"):
        load_grid("rehersal")


def devices_of(raw: dict[str, object]) -> dict[str, int]:
    cells = expand(resolve_grid(raw, place="g.yaml"))
    return {cell.label: cell.gpus_per_cell for cell in cells}


def test_gpus_per_cell_is_the_blocks_else_the_grids_and_one_for_what_trains_nothing() -> None:
    blocks = [{"methods": ["base", "lora"]}, {"methods": ["full"], "gpus_per_cell": 4}]
    found = devices_of(grid_with({"blocks": blocks, "gpus_per_cell": 2}))
    assert found == {"a/base": 1, "a/lora/100%/seed0": 2, "a/full/100%/seed0": 4}


def test_a_cell_of_two_blocks_gets_the_larger_gpus_per_cell() -> None:
    blocks = [{"methods": ["lora"], "gpus_per_cell": count} for count in (2, 4, 1)]
    assert devices_of(grid_with({"blocks": blocks})) == {"a/lora/100%/seed0": 4}


def test_gpus_per_cell_is_not_part_of_the_id() -> None:
    ids = [
        {cell.id for cell in expand(resolve_grid(raw, place="g.yaml"))}
        for raw in (grid_with({}), grid_with({"gpus_per_cell": 8}))
    ]
    assert ids[0] == ids[1]


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "must be at least 1 (got 0)"), ("two", "must be a whole number (got 'two')")],
)
def test_gpus_per_cell_is_a_count(value: object, said: str) -> None:
    blocks = [{"methods": ["lora"], "gpus_per_cell": value}]
    assert faults_of(grid_with({"gpus_per_cell": value})) == (f"g.yaml: gpus_per_cell: {said}",)
    assert faults_of(grid_with({"blocks": blocks})) == (f"g.yaml: blocks[0].gpus_per_cell: {said}",)
