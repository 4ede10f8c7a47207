"""Mutants of adapter folders: each is refused by `plan`, or when it is put on a model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save
from transformers import AutoModelForCausalLM

from harness.errors import ZbenchError
from harness.methods import METHODS
from harness.methods.imported import AdapterOptions
from tests.fixtures.tiny_checkpoint import write_checkpoint
from tests.fixtures.tiny_models import tiny_model
from tests.fuzz.conftest import RAW, Watch, mutants
from tests.fuzz.mutants import arrays, damaged, texts_of


@pytest.fixture(scope="module")
def checkpoint(home: Path) -> dict[str, Any]:
    """A tiny model, a LoRA adapter of it in `adapter/`, and a grid of the two."""
    spec = write_checkpoint(home / "model")
    rng = np.random.default_rng(0)
    tensors = {
        f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{side}.weight": (
            rng.normal(size=size).astype("float32")
        )
        for layer in range(4)
        for side, size in (("A", (2, 32)), ("B", (32, 2)))
    }
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": 2,
        "lora_alpha": 4,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": ["q_proj"],
        "inference_mode": True,
        "base_model_name_or_path": None,
    }
    grid = {
        "name": "adapters",
        "models": {"tiny": {"path": str(home / "model"), "shape": spec.shape.model_dump()}},
        "tasks": ["demo_arc_easy"],
        "world": "demo",
        "blocks": [{"methods": [{"adapter": str(home / "adapter")}]}],
    }
    (home / "adapters.yaml").write_text(json.dumps(grid))
    return {"tensors": save(tensors, {"format": "pt"}), "config": config}


def test_mutants_of_an_adapter(watch: Watch, home: Path, checkpoint: dict[str, Any]) -> None:
    folder = home / "adapter"
    good, config = checkpoint["tensors"], checkpoint["config"]
    tensors = st.one_of(damaged(good), arrays(load(good)).map(lambda t: save(t, {"format": "pt"})))
    model = AutoModelForCausalLM.from_pretrained(home / "model")
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pad = torch.arange(5)[None]

    def put(config_bytes: bytes, tensor_bytes: bytes) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "adapter_config.json").write_bytes(config_bytes)
        (folder / "adapter_model.safetensors").write_bytes(tensor_bytes)

    def attempt() -> str:
        """Returns why the folder is refused, or nothing."""
        planned = watch.zbench(
            "plan", str(home / "adapters.yaml"), "--runs-dir", str(home / "runs")
        )
        if planned.code:
            assert str(folder) in planned.text.replace("\n", ""), planned.text
            return planned.text
        base = tiny_model()
        base.load_state_dict(kept)
        try:
            adapted = METHODS["adapter"].apply(base, AdapterOptions(adapter=str(folder)), 0)
        except ZbenchError as fault:
            told = str(fault)
        else:
            told = ""
        if told:
            assert not RAW.search(told), told
            assert str(folder) in told
            return told
        with torch.no_grad():
            logits = adapted(input_ids=pad).logits
        assert logits.isfinite().all(), "an adapter with values that are no numbers was taken"
        return ""

    put(json.dumps(config).encode(), good)
    assert attempt() == ""

    @mutants(quick=12, long=500)
    @given(st.data())
    def try_one(data: st.DataObject) -> None:
        of_config = data.draw(st.booleans())
        if of_config:
            put(data.draw(texts_of(config)), good)
        else:
            put(json.dumps(config).encode(), data.draw(tensors))
        with watch.trial("adapter folders") as found:
            found.refused += bool(attempt())

    try_one()
