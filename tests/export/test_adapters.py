"""Trained cells for others: folders, cards, the grid in a card; and adapters as cells of a grid."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from harness.cell.run import run_cell
from harness.cell.settings import RunSettings
from harness.demo.world import world_folder, write_world
from harness.errors import GridError, ModelError, UsageError, ZbenchError
from harness.evaluation.own_benchmarks import find_benchmark
from harness.evaluation.task_index import index_of_folder
from harness.export.adapters import _with_known_tasks, export_cell
from harness.export.model_card import cell_grid
from harness.grid.folders import cell_folder
from harness.grid.loader import load_grid
from harness.grid.resolver import resolve_grid
from harness.grid.schema import Cell, GridSpec, expand
from harness.methods import METHODS
from harness.models.loading import load_base
from harness.records.results import CellResult, read_result
from tests.fixtures.own_study import CAPITALS_TASK

GRID = """
name: export
world: demo
models:
  tiny-llama:
    path: model
    shape: {num_hidden_layers: 5, hidden_size: 128, intermediate_size: 344, num_attention_heads: 4,
            vocab_size: 1688, tie_word_embeddings: true}
data: {source: null, path: alpaca/train.parquet, num_rows: 600}
tasks: [{name: demo_arc_easy, limit: 6}]
train: {epochs: 1, batch_size: 8, learning_rate: 1e-2}
blocks:
  - methods: METHODS
    fractions: [0.02]
"""


def grid_of(methods: str, folder: Path | None = None) -> GridSpec:
    text = GRID.replace("METHODS", methods)
    return resolve_grid(yaml.safe_load(text), place="export.yaml", folder=folder)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Cell]]:
    """A folder of cells that were really trained and scored."""
    runs_dir = tmp_path_factory.mktemp("runs")
    world = world_folder(runs_dir)
    write_world(world)
    cells = expand(grid_of("[base, full, {method: lora, rank: 2}, zero-init-linear]"))
    for cell in cells:
        run_cell(cell, RunSettings(runs_dir=runs_dir, data_root=world), lambda event: None)
    return runs_dir, {cell.method: cell for cell in cells}


Runs = tuple[Path, dict[str, Cell]]


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([[1, 5, 9, 200]])).logits


def result_of(runs: Runs, method: str) -> CellResult:
    result = read_result(cell_folder(runs[0], runs[1][method]))
    assert result is not None
    return result


@pytest.mark.parametrize("method", ["lora", "zero-init-linear"])
def test_an_exported_adapter_is_peft_folder_and_card(
    method: str, runs: Runs, tmp_path: Path
) -> None:
    runs_dir, cells = runs
    done = export_cell(cells[method].id, tmp_path / "out", runs_dir=runs_dir, data_root=None)
    result = result_of(runs, method)
    assert result.train is not None
    assert done.num_parameters == result.train.trainable_parameters
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    base = load_base(
        cells[method].model, data_root=world_folder(runs_dir), device="cpu", precision="fp32"
    ).model
    plain = logits(base)
    model = PeftModel.from_pretrained(base, tmp_path / "out")
    assert not torch.equal(logits(model), plain)
    with model.disable_adapter():
        assert torch.equal(logits(model), plain)
    card = (tmp_path / "out" / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert head["base_model"] == "model"
    (score,) = (s for s in result.scores if s.metric == "acc")
    assert f"| demo_arc_easy | lm-eval | 0 | acc | {100 * score.value:.2f} |" in card
    assert METHODS[method].title in card


def test_a_fully_fine_tuned_cell_is_a_whole_checkpoint(runs: Runs, tmp_path: Path) -> None:
    runs_dir, cells = runs
    export_cell(cells["full"].label, tmp_path / "out", runs_dir=runs_dir, data_root=None)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", local_files_only=True)
    stored = load_file(cell_folder(runs_dir, cells["full"]) / "adapter/trained.safetensors")
    parameters = dict(model.named_parameters())
    assert parameters.keys() == stored.keys()
    assert all(torch.equal(parameters[name], stored[name]) for name in stored)
    assert (tmp_path / "out/tokenizer.json").is_file()


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("full", "trained.safetensors"),
        ("lora", "adapter_model.safetensors"),
        ("lora", "adapter_config.json"),
    ],
)
def test_damaged_weights_are_not_exported(
    method: str, name: str, runs: Runs, tmp_path: Path
) -> None:
    runs_dir, cells = runs
    file = cell_folder(runs_dir, cells[method]) / "adapter" / name
    whole = file.read_bytes()
    file.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    try:
        with pytest.raises(ModelError, match="weights are damaged or were changed") as fault:
            export_cell(cells[method].id, tmp_path / "out", runs_dir=runs_dir, data_root=None)
        file.unlink()
        with pytest.raises(ModelError, match="weights are damaged|holds no trained weights"):
            export_cell(cells[method].id, tmp_path / "out", runs_dir=runs_dir, data_root=None)
    finally:
        file.write_bytes(whole)
    assert "\n" not in str(fault.value)
    assert not (tmp_path / "out").exists()
    export_cell(cells[method].id, tmp_path / "out", runs_dir=runs_dir, data_root=None)


@pytest.mark.parametrize("method", ["full", "lora", "zero-init-linear", "base"])
def test_the_grid_in_a_card_is_the_cell(method: str, runs: Runs, tmp_path: Path) -> None:
    file = tmp_path / "card.yaml"
    file.write_text(cell_grid(runs[1][method]))
    (cell,) = expand(load_grid(file))
    assert cell.id == runs[1][method].id
    assert cell.tasks == runs[1][method].tasks


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (lambda cells: "nothing", "no such cell .*known: tiny-llama"),
        (lambda cells: cells["base"].id, "nothing was trained in this cell"),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    cell: Callable[[dict[str, Cell]], str], said: str, runs: Runs, tmp_path: Path
) -> None:
    runs_dir, cells = runs
    with pytest.raises(UsageError, match=said):
        export_cell(cell(cells), tmp_path / "out", runs_dir=runs_dir, data_root=None)
    assert not list(tmp_path.iterdir())


def test_a_cell_of_a_method_that_is_not_installed_says_so(runs: Runs, tmp_path: Path) -> None:
    runs_dir, cells = runs
    file = cell_folder(runs_dir, cells["lora"]) / "cell.json"
    stored = file.read_text()
    try:
        file.write_text(stored.replace('"method": "lora"', '"method": "colleagues"'))
        with pytest.raises(UsageError, match="its method 'colleagues' is not installed here"):
            export_cell(cells["lora"].id, tmp_path / "out", runs_dir=runs_dir, data_root=None)
        file.write_text("[" * 100_000)
        with pytest.raises(ZbenchError, match="nested more than"):
            export_cell(cells["lora"].id, tmp_path / "out", runs_dir=runs_dir, data_root=None)
    finally:
        file.write_text(stored)


def test_a_folder_in_use_is_left_alone(runs: Runs, tmp_path: Path) -> None:
    runs_dir, cells = runs
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="is there already and not empty"):
        export_cell(cells["lora"].id, tmp_path, runs_dir=runs_dir, data_root=None)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_adapter_cell_scores_as_the_cell_that_it_came_from(runs: Runs, tmp_path: Path) -> None:
    runs_dir, cells = runs
    for method in ("lora", "zero-init-linear"):
        folder = tmp_path / method
        export_cell(cells[method].id, folder, runs_dir=runs_dir, data_root=None)
        (cell,) = expand(grid_of(f"[{{adapter: {method}}}]", tmp_path))
        assert cell.label == f"tiny-llama/{method}"
        settings = RunSettings(runs_dir=runs_dir, data_root=world_folder(runs_dir))
        done = run_cell(cell, settings, lambda event: None)
        assert done.train is None
        assert [s.value for s in done.scores] == [s.value for s in result_of(runs, method).scores]


def test_an_adapters_content_and_not_its_place_is_its_id(runs: Runs, tmp_path: Path) -> None:
    runs_dir, cells = runs
    for name in ("one", "two"):
        export_cell(cells["lora"].id, tmp_path / name, runs_dir=runs_dir, data_root=None)
    ids = {
        cell.id
        for name in ("one", "two")
        for cell in expand(grid_of(f"[{{adapter: {name}, label: mine}}]", tmp_path))
    }
    assert len(ids) == 1
    config = tmp_path / "two/adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"lora_alpha": 3}))
    (changed,) = expand(grid_of("[{adapter: two, label: mine}]", tmp_path))
    assert changed.id not in ids


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            lambda folder: (folder / "adapter_config.json").unlink(),
            "adapter_config.json: no such file",
        ),
        (
            lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"x" * 20),
            "is no safetensors file",
        ),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "say its peft_type"),
        (lambda folder: folder.rename(folder.parent / "elsewhere"), "no such folder"),
    ],
)
def test_a_damaged_adapter_is_a_fault_of_the_grid(
    damage: Callable[[Path], object], said: str, runs: Runs, tmp_path: Path
) -> None:
    runs_dir, cells = runs
    export_cell(cells["lora"].id, tmp_path / "lora", runs_dir=runs_dir, data_root=None)
    damage(tmp_path / "lora")
    with pytest.raises(GridError, match=said) as fault:
        grid_of("[{adapter: lora}]", tmp_path)
    assert len(fault.value.faults) == 1
    assert fault.value.faults[0].startswith("export.yaml: blocks[0].methods[0].adapter: ")


def test_an_adapter_of_another_model_is_a_fault_of_the_grid(runs: Runs, tmp_path: Path) -> None:
    runs_dir, cells = runs
    export_cell(cells["zero-init-linear"].id, tmp_path / "a", runs_dir=runs_dir, data_root=None)
    text = GRID.replace("METHODS", "[{adapter: a}]").replace(
        "num_hidden_layers: 5", "num_hidden_layers: 6"
    )
    with pytest.raises(GridError, match="made for num_hidden_layers 5, this base has 6"):
        resolve_grid(yaml.safe_load(text), place="export.yaml", folder=tmp_path)


def test_an_adapter_that_changes_before_it_is_loaded_is_refused(runs: Runs, tmp_path: Path) -> None:
    runs_dir, cells = runs
    export_cell(cells["lora"].id, tmp_path / "lora", runs_dir=runs_dir, data_root=None)
    config = tmp_path / "lora/adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"lora_alpha": 5}))
    (cell,) = expand(grid_of("[{adapter: lora, label: changing}]", tmp_path))
    config.write_text(json.dumps(json.loads(config.read_text()) | {"lora_alpha": 3}))
    settings = RunSettings(runs_dir=runs_dir, data_root=world_folder(runs_dir))
    with pytest.raises(ModelError, match="has changed since the grid was read"):
        run_cell(cell, settings, lambda event: None)


def test_a_label_of_two_cells_asks_for_an_id(runs: Runs, tmp_path: Path) -> None:
    runs_dir, _ = runs
    both = []
    for rate in ("2e-2", "3e-2"):
        methods = f"[{{method: lora, rank: 2, label: twice, train: {{learning_rate: {rate}}}}}]"
        (cell,) = expand(grid_of(methods))
        settings = RunSettings(runs_dir=runs_dir, data_root=world_folder(runs_dir))
        run_cell(cell, settings, lambda event: None)
        both.append(cell)
    with pytest.raises(UsageError, match="2 cells have this name .*give an id") as fault:
        export_cell(both[0].label, tmp_path / "out", runs_dir=runs_dir, data_root=None)
    assert all(cell.id in str(fault.value) for cell in both)
    export_cell(both[0].id, tmp_path / "out", runs_dir=runs_dir, data_root=None)


@pytest.mark.parametrize(
    "methods",
    [
        "[{method: prefix-tuning, train: {max_gradient_norm: null}}]",
        "[{method: zero-init-linear, train: {warmup_epochs: null}}]",
    ],
)
def test_the_grid_in_a_card_keeps_what_was_set_to_nothing(methods: str, tmp_path: Path) -> None:
    (cell,) = expand(grid_of(methods))
    file = tmp_path / "card.yaml"
    file.write_text(cell_grid(cell))
    assert [other.id for other in expand(load_grid(file))] == [cell.id]


def test_training_settings_of_what_is_not_trained_are_a_fault() -> None:
    with pytest.raises(GridError, match=r"methods\[0\]\.train: 'base' trains nothing; leave it"):
        grid_of("[{method: base, train: {learning_rate: 1e-3}}]")


def test_a_card_names_benchmarks_of_ones_own_as_a_grid_does(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "t.yaml").write_text(CAPITALS_TASK)
    (tmp_path / "t.jsonl").write_text("{}")
    shape = {
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "vocab_size": 320,
    }
    raw = {
        "name": "g",
        "include": "mine",
        "local_data": {"capitals": {"test": "t.jsonl"}},
        "models": {"m": {"path": "/m", "shape": shape}},
        "tasks": [{"name": "capitals", "limit": 3}, "humaneval", "arc_easy"],
        "allow_code_execution": True,
        "blocks": [{"methods": ["base"]}],
    }
    (cell,) = expand(resolve_grid(raw, place="g.yaml", folder=tmp_path))
    (again,) = expand(resolve_grid(yaml.safe_load(cell_grid(cell)), place="card"))
    assert again.tasks == cell.tasks
    shutil.rmtree(tmp_path / "mine")
    index_of_folder.cache_clear()
    find_benchmark.cache_clear()
    kept = _with_known_tasks(cell.model_dump(mode="json"))["tasks"]
    assert [task.name for task in kept] == ["humaneval", "arc_easy"]
