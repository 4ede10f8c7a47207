"""Makes a rehearsal of `scienceqa-7b`: real questions and pictures, a tiny LLaMA, a tiny CLIP.

The training pictures of ScienceQA are on the hub alone. So half of 240 test pictures train, beside
the text of train rows, and the other half is scored: every part runs on real rows, and no number
means anything.

    python -m scripts.rehearse_scienceqa DATA_ROOT FOLDER
    cd FOLDER && zbench run-grid rehearsal.yaml && zbench report rehearsal.yaml
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pyarrow
import yaml
from pyarrow import parquet

from harness.data.sets import shuffled
from harness.demo.world import DATA

NUM_TRAINED = 120
"""Of the test pictures; the others are scored."""
ENCODER = DATA / "image_encoder"
"""The embedded world's, whose pictures are 48 pixels wide."""
ENCODER_SIZES = {"width": 64, "scales": [1, 2, 3, 4], "hidden_size": 32}
TASKS = ("paper_scienceqa", "scienceqa")
NINE = {"name": list(TASKS), "columns": "scienceqa"}
GRID: dict[str, Any] = {
    "name": "scienceqa-rehearsal",
    "title": "Rehearsal of ScienceQA's grid: it trains on test rows, and its numbers mean nothing",
    "notes": [
        "TEST ROWS ARE TRAINED ON, AND THE NUMBERS MEAN NOTHING. The training pictures are on the "
        "hub alone, so that 120 questions of the test split train here with their pictures, beside "
        "the text of 1,041 training rows (those that ask about a picture do so without it); 120 "
        "other questions of the test split, all with a picture, are scored.",
        "The base model has 260 thousand parameters and has only read children's stories; the "
        "encoder has seen drawings of pets. This page shows that every part of the grid runs.",
    ],
    "models": {
        "stories260k": {
            "path": "stories260k_hf",
            "shape": {
                "num_hidden_layers": 5, "hidden_size": 64, "intermediate_size": 172,
                "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 512,
                "tie_word_embeddings": True,
            },
        }
    },
    "data": {"path": "train.parquet"},
    "local_data": {task: {"test": "test.parquet"} for task in TASKS},
    "tasks": list(TASKS),
    "train": {"epochs": 3, "batch_size": 16, "warmup_epochs": 0.5, "learning_rate": 1e-1},
    "methods": {
        "text-only": {"method": "zero-init-linear"},
        "pictures": {"method": "zero-init-linear"},
        "pictures-random": {"method": "random-init"},
    },
    "tables": [
        {"title": "ScienceQA, rehearsed", "columns": [NINE]}
    ],
    "claims": [{"better": "pictures", "than": "text-only", "on": "Avg", "margin": 2}],
    "blocks": [{"methods": ["base", "text-only", "pictures", "pictures-random"]}],
}  # fmt: skip


def prepare(data_root: Path, folder: Path, *, encoder: Path = ENCODER) -> Path:
    """Writes rows and grids of the rehearsal; returns the grid that is run.

    Beside it lies `all-text.yaml`, which trains on the text of the whole test split: to plan.

    Args:
        data_root: the folder that holds `scienceqa` and `stories260k_hf`.
        folder: where the rehearsal is written; made where it is not there.
        encoder: a CLIP vision encoder of the sizes of `ENCODER_SIZES`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source = data_root / "scienceqa"
    pictures = parquet.read_table(source / "test_pictures_240.parquet").to_pylist()
    order = shuffled(len(pictures), "scienceqa-rehearsal")
    trained = [pictures[place] for place in sorted(order[:NUM_TRAINED])]
    scored = [pictures[place] for place in sorted(order[NUM_TRAINED:])]
    sample = parquet.read_table(source / "train_val_test_sample_text.parquet").to_pylist()
    text = [row | {"image": None} for row in sample if row["split"] == "train"]
    names = list(pictures[0])
    for name, rows in (("train", trained + text), ("test", scored)):
        table = pyarrow.Table.from_pylist([{key: row.get(key) for key in names} for row in rows])
        parquet.write_table(table, folder / f"{name}.parquet")
    grid = _grid(data_root, encoder)
    everything = grid | {"name": "scienceqa-all-text"}
    everything["data"] = {"path": str(source / "test_text.parquet")}
    for name, content in (("rehearsal", grid), ("all-text", everything)):
        lines = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
        (folder / f"{name}.yaml").write_text(lines, encoding="utf-8")
    return folder / "rehearsal.yaml"


def _grid(data_root: Path, encoder: Path) -> dict[str, Any]:
    (name, model), *_ = GRID["models"].items()
    looks = {
        "image_encoder": {"path": str(encoder.resolve()), **ENCODER_SIZES},
        "train": {"image_learning_rate": 3e-3},
    }
    methods = {
        label: options | (looks if label.startswith("pictures") else {})
        for label, options in GRID["methods"].items()
    }
    place = str((data_root / model["path"]).resolve())
    return GRID | {"models": {name: model | {"path": place}}, "methods": methods}


def main() -> None:
    """Makes the folder that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m scripts.rehearse_scienceqa")
    parser.add_argument("data_root", type=Path, help="holds scienceqa and stories260k_hf")
    parser.add_argument("folder", type=Path, help="is written")
    arguments = parser.parse_args()
    grid = prepare(arguments.data_root, arguments.folder)
    print(f"cd {grid.parent} && zbench run-grid {grid.name} && zbench report {grid.name}")


if __name__ == "__main__":
    main()
