"""What a checkpoint costs: the seconds that a training waits for it, of the 10 minutes between two.

Medians per row, for a state of which AdamW has taken a step and whose records are those of a
training of `--steps` steps. `waits`: until the training goes on (the state is copied). `writes`:
until the checkpoint is on disk, beside the training (write, SHA-256, flush, removal of the oldest).
`processor`: CPU seconds of both, of all threads: what the training pays where no core is free.
The shares are those of `waits` and of `processor` in the interval.

    python benchmarks/checkpoint_cost.py --folder /scratch --json
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from harness.data.instructions import Example
from harness.methods import METHODS
from harness.training.checkpoint import Checkpoints, TrainingState, checkpoint_folders
from harness.training.progress import Progress, StepRecord
from harness.training.spec import TrainSpec
from harness.training.step import TrainStep

SIZES = {
    "15M": {"hidden_size": 288, "num_hidden_layers": 6, "num_attention_heads": 6,
            "intermediate_size": 768},
    "110M": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
             "intermediate_size": 2048},
}  # fmt: skip
"""LLaMAs with 32,000 pieces."""
METHODS_MEASURED = ("zero-init-linear", "lora", "full")


def begun_training(size: str, name: str, device: str, num_steps: int) -> tuple[Progress, TrainStep]:
    """Returns a training whose optimizer has taken a step, and its progress."""
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=32000, max_position_embeddings=512, **SIZES[size])
    method = METHODS[name]
    options = {"num_layers": config.num_hidden_layers} if name.startswith("zero") else {}
    base = LlamaForCausalLM(config).to(device)
    model = method.apply(base, method.options.model_validate(options), 0)
    train_step = TrainStep(
        model,
        TrainSpec(learning_rate=1e-3, batch_size=2),
        device=torch.device(device),
        precision="fp32",
        pad_token_id=0,
    )
    train_step.backward([Example(tuple(range(1, 17)), 4)] * 2, 0)
    train_step.update(1e-3)
    figures: dict[str, float] = {}
    if method.statistics is not None:
        figures = method.statistics(model)
    progress = Progress.begin(5)
    progress.records = [
        StepRecord(
            step, 0, 1 / step, 1e-3, 8000, 0.1 * step, 1e4, step, {} if step % 10 else figures
        )
        for step in range(1, num_steps + 1)
    ]
    return progress, train_step


def measure(
    progress: Progress, train_step: TrainStep, folder: Path, repeats: int, minutes: float
) -> dict[str, Any]:
    """Writes a checkpoint several times, each at another step, as a training does."""
    checkpoints = Checkpoints(folder, {"cell_id": "benchmark"}, minutes=minutes)
    waits, writes, processor = [], [], []
    last = progress.records[-1]
    for repeat in range(repeats):
        progress.records[-1] = StepRecord(**{**vars(last), "step": last.step + repeat})
        start, used = time.perf_counter(), time.process_time()
        checkpoints.save(TrainingState(progress, train_step.state()))
        waits.append(time.perf_counter() - start)
        checkpoints.wait()
        writes.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    (newest, *_) = checkpoint_folders(folder)
    found = {
        "bytes": sum(path.stat().st_size for path in newest.iterdir()),
        "waits_seconds": statistics.median(waits),
        "writes_seconds": statistics.median(writes),
        "processor_seconds": statistics.median(processor),
    }
    interval = 60 * minutes
    return {
        **found,
        "waits_share": found["waits_seconds"] / interval,
        "processor_share": found["processor_seconds"] / interval,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, help="on the disk to measure; else a temporary one")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4065, help="of the training so far")
    parser.add_argument("--minutes", type=float, default=10.0, help="between two checkpoints")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, dict[str, Any]] = {}
    for size in SIZES:
        for name in METHODS_MEASURED:
            progress, train_step = begun_training(size, name, options.device, options.steps)
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                found[f"{size}/{name}"] = measure(
                    progress, train_step, Path(folder), options.repeats, options.minutes
                )
    if options.json:
        print(json.dumps(found))
        return
    head = ("MB", "waits s", "writes s", "processor s", "waits", "processor")
    print(f"{'training':22} " + " ".join(f"{name:>11}" for name in head))
    for name, row in found.items():
        print(
            f"{name:22} {row['bytes'] / 1e6:11.1f} {row['waits_seconds']:11.3f} "
            f"{row['writes_seconds']:11.3f} {row['processor_seconds']:11.3f} "
            f"{row['waits_share']:11.3%} {row['processor_share']:11.3%}"
        )


if __name__ == "__main__":
    main()
