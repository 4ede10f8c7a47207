"""A frozen base in 8 or 4 bits: what is asked of transformers, and every refusal."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
import yaml

from harness.errors import GridError, ModelError
from harness.grid.resolver import resolve_grid
from harness.grid.schema import Cell, expand
from harness.models.loading import load_base
from harness.models.quantization import quantization_config
from tests.grid.test_loader import GRID


def cells_with(quantization: str | None, method: str) -> list[Cell]:
    train = {} if quantization is None else {"base_quantization": quantization}
    raw = yaml.safe_load(GRID)
    raw["blocks"] = [{"methods": [{"method": method, "train": train}]}]
    return expand(resolve_grid(raw, place="g.yaml"))


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


@pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed"
)
def test_without_bitsandbytes_it_is_refused_with_the_extra() -> None:
    with pytest.raises(ModelError) as caught:
        quantization_config("nf4", "bfloat16", "cuda")
    assert str(caught.value) == (
        "train.base_quantization: nf4 needs bitsandbytes; pip install 'zbench[quantised]'"
    )


def test_on_the_cpu_it_is_refused_before_weights_are_read(tmp_path: Path) -> None:
    (cell,) = cells_with("int8", "lora")
    with pytest.raises(ModelError, match="a: no such folder"):
        load_base(cell.model, data_root=tmp_path, device="cpu", precision="fp32")
    with pytest.raises(ModelError, match="int8 needs a CUDA device; leave it out on cpu"):
        load_base(
            cell.model, data_root=tmp_path, device="cpu", precision="fp32", quantization="int8"
        )


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
