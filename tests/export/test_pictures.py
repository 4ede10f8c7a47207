"""A trained cell that looks at pictures, for others: its folder, its card, a grid's adapter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM

import harness
from harness.cell.run import run_cell
from harness.cell.settings import RunSettings
from harness.demo.world import write_world
from harness.errors import ModelError, UsageError
from harness.export.adapters import export_cell
from harness.export.llama_adapter import read_llama_adapter
from harness.export.model_card import cell_grid
from harness.grid.loader import load_grid
from harness.grid.own_encoders import find_own_encoders
from harness.grid.resolver import resolve_grid
from harness.grid.schema import Cell, expand
from harness.methods.zero_init.options import image_encoder_of
from harness.models.adapter_folder import CONFIG_FILE
from tests.export.test_llama_adapter import checkpoint, write
from tests.fixtures.image_encoder import encoder_entry, picture, write_encoder
from tests.fixtures.tiny_models import shape
from tests.integration.test_end_to_end import grid_text

COLOURS = ("red", "blue", "green", "white")


def cell_of(methods: list[Any], folder: Path) -> Cell:
    raw = yaml.safe_load(grid_text())
    raw["data"] = {"source": None, "path": str(folder / "rows.parquet")}
    raw["train"] = {"epochs": 1, "batch_size": 4, "learning_rate": 0.02}
    raw["tasks"] = [{"name": "demo_pictures", "limit": 4}]
    del raw["methods"]
    raw["blocks"] = [{"methods": methods, "fractions": [1.0]}]
    grid = resolve_grid(raw, place="g.yaml", folder=folder)
    (cell,) = expand(find_own_encoders(grid, None, folder / "runs").settle(grid))
    return cell


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the world, an encoder, rows, a trained cell, and its exported adapter."""
    folder = tmp_path_factory.mktemp("pictures")
    write_world(folder / "world")
    write_encoder(folder / "clip")
    rows = [
        {"instruction": "Which?", "output": colour, "image": picture(colour).data}
        for colour in COLOURS * 2
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "rows.parquet")
    encoder = encoder_entry(folder / "clip")
    entry = {"method": "zero-init-linear", "num_layers": 5, "image_encoder": encoder}
    cell = cell_of([entry], folder)
    settings = RunSettings(runs_dir=folder / "runs", data_root=folder / "world")
    run_cell(cell, settings, lambda event: None)
    export_cell(cell.id, folder / "adapter", runs_dir=folder / "runs", data_root=None)
    (folder / "cell.yaml").write_text(cell_grid(cell))
    (folder / "id").write_text(cell.id)
    return folder


def test_its_folder_says_which_encoder_and_loads_under_plain_peft(folder: Path) -> None:
    stated = json.loads((folder / "adapter" / CONFIG_FILE).read_text())
    assert stated["options"]["image_encoder"]["path"] == str(folder / "clip")
    assert len(stated["image_encoder"]["weights_sha256"]) == 64
    base = AutoModelForCausalLM.from_pretrained(folder / "world" / "model")
    model = PeftModel.from_pretrained(base, folder / "adapter").eval()
    ids, found = torch.tensor([[1, 5, 9, 200]]), []
    for colour in COLOURS[:2]:
        with torch.no_grad(), harness.pictures(model, picture(colour).data):
            found.append(model(ids).logits)
    assert not torch.equal(*found)


def test_its_card_names_the_encoder_and_its_grid_is_the_cell(folder: Path) -> None:
    card = (folder / "adapter" / "README.md").read_text()
    assert "with harness.pictures(model, images):" in card
    assert f"It looks at pictures by `{folder / 'clip'}`, frozen: the class tokens after" in card
    grid = load_grid(folder / "cell.yaml")
    (cell,) = expand(find_own_encoders(grid, None, folder / "runs").settle(grid))
    assert cell.id == (folder / "id").read_text()


def test_as_a_grids_adapter_it_is_shown_pictures_too(folder: Path) -> None:
    cell = cell_of([{"adapter": str(folder / "adapter")}], folder)
    spec = image_encoder_of(cell.options)
    assert spec is not None
    assert spec.path == str(folder / "clip")
    assert cell.options.identity().keys() == {"sha256"}
    settings = RunSettings(runs_dir=folder / "runs", data_root=folder / "world")
    result = run_cell(cell, settings, lambda event: None)
    stated = json.loads((folder / "adapter" / CONFIG_FILE).read_text())["image_encoder"]
    assert result.image_encoder["weights_sha256"] == stated["weights_sha256"]


def test_a_grids_adapter_is_refused_another_encoder(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "adapter", tmp_path / "adapter")
    file = tmp_path / "adapter" / CONFIG_FILE
    stated = json.loads(file.read_text())
    stated["options"]["image_encoder"]["path"] = str(write_encoder(tmp_path / "other", seed=3))
    file.write_text(json.dumps(stated))
    cell = cell_of([{"adapter": str(tmp_path / "adapter")}], folder)
    settings = RunSettings(runs_dir=tmp_path / "runs", data_root=folder / "world")
    with pytest.raises(ModelError, match="features of another encoder"):
        run_cell(cell, settings, lambda event: None)


def test_a_file_of_llama_adapter_has_no_projection(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="hold no projection of pictures; leave it out") as refused:
        read_llama_adapter(
            write(tmp_path, checkpoint("rows")),
            shape("multi-head"),
            method=None,
            options={"image_encoder": {"source": "some/clip"}},
        )
    assert "\n" not in str(refused.value)
