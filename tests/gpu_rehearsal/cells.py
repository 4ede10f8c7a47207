"""Whole cells: loaded from disk, trained, saved, restored and scored by `run_cell`.

    python -m tests.gpu_rehearsal.cells --methods lora,full --pairs h200
    python -m tests.gpu_rehearsal.cells --deterministic             # as ZBENCH_DETERMINISTIC=1
    python -m tests.gpu_rehearsal.cells --limit-mb 9                # memory runs out

The model is the 260K-parameter LLaMA of the data folder: what `load_base`, the memory check,
checkpoints, `token_budgets.json` and the model card do where the device is a card. Exit code 1
where a cell fails.
"""

from __future__ import annotations

from tests.gpu_rehearsal import before_torch  # noqa: F401

# isort: split

import argparse
import contextlib
import gc
import json
import logging
import os
import sys
import tempfile
import time
from pathlib import Path

import torch

from harness.cell.memory import SmallerBudget
from harness.cell.run import run_cell
from harness.cell.settings import RunSettings
from harness.grid.loader import load_grid
from harness.grid.schema import Cell, expand
from harness.records import environment
from tests.gpu_rehearsal import stage
from tests.gpu_rehearsal.card import Card, rehearsal
from tests.gpu_rehearsal.matrix import PAIRS
from tests.gpu_rehearsal.score import short_generation

GRID = """
name: rehearsed
models:
  stories260k:
    path: stories260k_hf
    shape: {{num_hidden_layers: 5, hidden_size: 64, intermediate_size: 172, num_attention_heads: 8,
             num_key_value_heads: 4, vocab_size: 512, tie_word_embeddings: true}}
data: {{source: tatsu-lab/alpaca, num_rows: 52002}}
train: {{epochs: 1, batch_size: 8, precision: {precision}, checkpoint_minutes: 0}}
tasks: [{{name: arc_easy, limit: 3}}, {{name: paper_arc_easy, limit: 1}}]
blocks:
  - methods: [{methods}]
    fractions: [0.0004]
    seeds: [0]
"""
RESTARTS = 8
"""How often a cell may begin again with a smaller token budget."""


def run(cell: Cell, card: Card, runs: Path) -> tuple[bool, str]:
    """Whether the cell is done, and its outcome in a line; makes the restarts that it asks for."""
    settings = RunSettings(runs, stage.data_root(), device="cuda")
    told = ""
    for _ in range(RESTARTS):
        try:
            result = run_cell(cell, settings, lambda event: None)
        except SmallerBudget as fault:
            told += f"{fault}; "
            gc.collect()  # zbench resumes in a fresh process, where nothing is left
            card.reset()
        except Exception as fault:  # of any kind: it is what a rehearsal looks for
            text = (str(fault).strip().splitlines() or ["no message"])[0][:200]
            return False, f"{told}{type(fault).__name__}: {text}"
        else:
            device = result.environment["device"]
            return True, f"{told}ok, {len(result.scores)} scores, device {device}"
    return False, f"{told}gave up"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", default="base,full,lora,zero-init-linear")
    parser.add_argument("--pairs", default="h200", help=", ".join(PAIRS))
    parser.add_argument("--limit-mb", type=float)
    parser.add_argument("--deterministic", action="store_true")
    given = parser.parse_args()
    logging.getLogger("harness").setLevel(logging.ERROR)
    if given.deterministic:
        os.environ[environment.DETERMINISTIC] = "1"
        environment.prepare_torch(torch.get_num_threads())
    failed = 0
    for pair in given.pairs.split(","):
        limit = given.limit_mb and given.limit_mb * 1e6
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            card = stack.enter_context(rehearsal(pair.split()[0], limit_bytes=limit))
            stack.enter_context(short_generation(3))
            grid = folder / "rehearsed.yaml"
            grid.write_text(GRID.format(precision=PAIRS[pair], methods=given.methods))
            for cell in expand(load_grid(grid)):
                begun = time.perf_counter()
                done, line = run(cell, card, folder / "runs")
                failed += not done
                print(
                    f"{cell.label:42} {pair:14} {line} ({time.perf_counter() - begun:.1f} s)",
                    flush=True,
                )
            budgets = folder / "runs" / "token_budgets.json"
            if budgets.exists():
                print("   token_budgets.json:", json.loads(budgets.read_text()))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
