"""Mutants of grid files: each is planned, or told in lines; none ends in a raw exception."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given

from tests.fuzz.conftest import Watch, mutants
from tests.fuzz.mutants import texts_of, typos

SHAPE = {
    "num_hidden_layers": 5,
    "hidden_size": 128,
    "intermediate_size": 344,
    "num_attention_heads": 4,
    "vocab_size": 1688,
    "tie_word_embeddings": True,
}
GOOD: dict[str, Any] = {
    "name": "small",
    "title": "A small grid",
    "notes": ["One of its kind."],
    "world": "demo",
    "models": {"tiny": {"path": "model", "shape": SHAPE}},
    "data": {"source": None, "path": "alpaca/train.parquet", "num_rows": 600},
    "train": {"epochs": 1, "batch_size": 16, "learning_rate": 0.003, "warmup_ratio": 0.1},
    "tasks": ["demo_arc_easy", {"name": "demo_arc_challenge", "limit": 20}],
    "tracking": {"experiment": "mine", "uri": "sqlite:///mlflow.db"},
    "blocks": [
        {
            "models": ["tiny"],
            "methods": [
                "base",
                {"method": "lora", "label": "lora-8", "rank": 8, "train": {"learning_rate": 0.001}},
                {"method": "zero-init-linear", "num_layers": 3, "prompt_length": 4},
            ],
            "fractions": [0.1, 1.0],
            "seeds": [0, 1],
        }
    ],
}


def test_mutants_of_a_grid(watch: Watch, home: Path) -> None:
    file = home / "grid.yaml"

    @mutants(quick=30, long=2000)
    @given(texts_of(GOOD) | typos(yaml.safe_dump(GOOD)))
    def try_one(text: bytes) -> None:
        file.write_bytes(text)
        with watch.trial("grids") as found:
            done = watch.zbench("plan", str(file), "--runs-dir", str(home / "runs"))
            found.refused += done.code != 0

    try_one()
    found = watch.figures["grids"]
    assert 0 < found.refused < found.tried  # some of them do no harm


def test_the_good_one_is_planned(watch: Watch, home: Path) -> None:
    file = home / "good.yaml"
    file.write_text(json.dumps(GOOD))
    assert watch.zbench("plan", str(file), "--runs-dir", str(home / "runs")).code == 0
