# ruff: noqa: E501, E402, PT008
"""Whole cells on a card that is not there: loaded from disk, trained, saved, restored, scored.

    python whole.py [--methods lora,full] [--pairs h200] [--limit-mb 40] [--deterministic]

`run_cell` with the 260K-parameter LLaMA of the data folder and `device="cuda"`: what `load_base`,
`check_memory`, checkpoints, `token_budgets.json` and the model card do when the device is a card.
"""

from __future__ import annotations

from tests.gpu_rehearsal import before_torch  # noqa: F401

# isort: split

import argparse
import contextlib
import gc
import json
import sys
import tempfile
import time
from pathlib import Path

import torch

from harness.cell.memory import SmallerBudget
from harness.cell.run import run_cell
from harness.cell.settings import RunSettings
from harness.grid.loader import load_grid
from harness.grid.schema import expand
from tests.gpu_rehearsal import card as fakecuda
from tests.gpu_rehearsal import score, stage

GRID = """
name: rehearsed
models:
  stories260k:
    path: stories260k_hf
    shape: {{num_hidden_layers: 5, hidden_size: 64, intermediate_size: 172, num_attention_heads: 8, num_key_value_heads: 4, vocab_size: 512, tie_word_embeddings: true}}
data: {{source: tatsu-lab/alpaca, num_rows: 52002}}
train: {{epochs: 1, batch_size: 8, precision: {precision}, checkpoint_minutes: 0}}
tasks: [{{name: arc_easy, limit: 3}}, {{name: paper_arc_easy, limit: 1}}]
blocks:
  - methods: [{methods}]
    fractions: [0.0004]
    seeds: [0]
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", default="base,full,lora,zero-init-linear")
    parser.add_argument("--pairs", default="h200")
    parser.add_argument("--limit-mb", type=float)
    parser.add_argument("--deterministic", action="store_true")
    given = parser.parse_args()
    failed = 0
    for pair in given.pairs.split(","):
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            place = Path(folder) / "rehearsed.yaml"
            place.write_text(GRID.format(precision=stage.PAIRS[pair], methods=given.methods))
            card = stack.enter_context(
                fakecuda.rehearsal(
                    pair.split()[0], limit_bytes=given.limit_mb and given.limit_mb * 1e6
                )
            )
            stack.enter_context(score.short_generation(3))
            if given.deterministic:
                torch.use_deterministic_algorithms(True)
                stack.callback(torch.use_deterministic_algorithms, False)
            for cell in expand(load_grid(place)):
                begun, told = time.perf_counter(), []
                settings = RunSettings(Path(folder) / "runs", stage.DATA, device="cuda")
                for _ in range(8):
                    again = False
                    try:
                        result = run_cell(cell, settings, told.append)
                        line = f"ok, {len(result.scores)} scores, device {result.environment['device']}"
                    except SmallerBudget as fault:
                        print(f"      {fault}")
                        again = True
                    except Exception as fault:
                        failed += 1
                        line = f"{type(fault).__name__}: {str(fault).splitlines()[0][:200]}"
                    if not again:
                        break
                    gc.collect()  # zbench goes on in a fresh process
                    card.reset()
                print(
                    f"{cell.label:42} {pair:14} {line} ({time.perf_counter() - begun:.1f} s)",
                    flush=True,
                )
            budgets = Path(folder) / "runs" / "token_budgets.json"
            if budgets.exists():
                print("   token_budgets.json:", json.loads(budgets.read_text()))
            del card
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
