"""A frozen base in 8 or 4 bits: what is asked of transformers, and every refusal."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from harness.cell.run import run_cell
from harness.cell.settings import RunSettings
from harness.demo.world import write_world
from harness.errors import GridError, ModelError
from harness.grid.folders import cell_folder
from harness.grid.resolver import resolve_grid
from harness.grid.schema import Cell, expand
from harness.models.quantization import quantization_config
from harness.records.events import Event, StepDone
from harness.records.results import write_result
from tests.grid.test_loader import GRID
from tests.integration.test_end_to_end import grid_text


def cells_with(quantization: str | None, method: str) -> list[Cell]:
    train = {} if quantization is None else {"base_quantization": quantization}
    raw = yaml.safe_load(GRID)
    raw["blocks"] = [{"methods": [{"method": method, "train": train}]}]
    return expand(resolve_grid(raw, place="g.yaml"))


THERE = importlib.util.find_spec("bitsandbytes") is not None
INSTALLED = pytest.mark.skipif(
    not THERE, reason="bitsandbytes is not installed (make test-quantised)"
)


@pytest.fixture
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)


@pytest.mark.usefixtures("_installed")
def test_what_transformers_is_asked_for() -> None:
    eight = quantization_config("int8", "bfloat16", "cuda")
    four = quantization_config("nf4", "float16", "cuda")
    assert eight is not None
    assert four is not None
    assert (eight.load_in_8bit, eight.load_in_4bit) == (True, False)
    assert (four.load_in_8bit, four.load_in_4bit) == (False, True)
    assert (four.bnb_4bit_quant_type, four.bnb_4bit_compute_dtype) == ("nf4", torch.float16)
    assert quantization_config(None, "float32", "cpu") is None


@pytest.mark.skipif(THERE, reason="bitsandbytes is installed")
def test_without_bitsandbytes_it_is_refused_with_the_extra() -> None:
    with pytest.raises(ModelError) as caught:
        quantization_config("nf4", "bfloat16", "cuda")
    assert str(caught.value) == (
        "train.base_quantization: nf4 needs bitsandbytes; pip install 'zbench[quantised]'"
    )


def test_a_library_too_old_for_the_cpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.47.0")
    assert quantization_config("int8", "bfloat16", "cuda") is not None
    with pytest.raises(ModelError, match=r"int8 needs bitsandbytes 0\.48 or later on the cpu"):
        quantization_config("int8", "float32", "cpu")


@INSTALLED
@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_a_cell_on_a_quantised_base_runs_on_the_cpu(quantization: str, tmp_path: Path) -> None:
    raw = yaml.safe_load(grid_text())
    raw["blocks"] = [{"methods": ["zero-init-linear"], "fractions": [0.1]}]
    raw["train"] |= {"base_quantization": quantization, "epochs": 1}
    [cell] = expand(resolve_grid(raw, place="g.yaml"))
    cell = cell.model_copy(update={"tasks": cell.tasks[:1]})
    settings = RunSettings(tmp_path / "runs", write_world(tmp_path / "demo"))
    told: list[Event] = []
    result = run_cell(cell, settings, told.append)
    assert result.base["quantization"] == quantization
    steps = [event.loss for event in told if isinstance(event, StepDone)]
    assert steps[-1] < steps[0]
    # Scored again from what was stored: the same base, and the same numbers.
    folder = cell_folder(settings.runs_dir, cell)
    write_result(folder, replace(result, scores=()))
    again = run_cell(cell, settings, told.append)
    assert [score.value for score in again.scores] == [score.value for score in result.scores]


def test_full_fine_tuning_has_nothing_to_quantise() -> None:
    with pytest.raises(GridError) as caught:
        cells_with("nf4", "full")
    assert caught.value.faults == (
        "g.yaml: a with full[base_quantization=nf4]: train.base_quantization: nothing is frozen in "
        "'full'; leave it out",
    )


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(GridError, match="base_quantization: must be one of 'int8' or 'nf4'"):
        cells_with("int4", "lora")


def test_it_is_part_of_the_id_only_where_it_is_set() -> None:
    (plain,), (eight,), (four,) = (cells_with(kind, "lora") for kind in (None, "int8", "nf4"))
    assert len({plain.id, eight.id, four.id}) == 3
    assert "base_quantization" not in plain.record()["train"]
    assert eight.record()["train"]["base_quantization"] == "int8"
