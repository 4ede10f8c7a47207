"""Host memory of a sharded model's checkpoint, as a multiple of the state's bytes.

Two processes on the CPU train a LLaMA of `--millions` parameters (full fine-tuning, FSDP2 over
gloo), take a step, write a checkpoint and resume from it. `saving`: what rank 0 grows by at most,
until the file is on disk, over what it holds before: 1 is one copy. `resuming`: the same of rank 1,
a third for its half of AdamW's two moments; `mapped`: the share of the file in its page tables, to
which the system adds the neighbours of pages that are read, where it has them already.

    python benchmarks/sharded_checkpoint.py --millions 50
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import multiprocessing
import os
import tempfile
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from harness.data.instructions import Example
from harness.methods import METHODS
from harness.training.checkpoint import Checkpoints, TrainingState, read_checkpoint
from harness.training.process_group import RankInfo, joined
from harness.training.progress import Progress, StepRecord
from harness.training.spec import TrainSpec
from harness.training.step import TrainStep

IDENTITY = {"cell_id": "benchmark"}


class PeakMemory:
    """Follows the memory of this process that is no file's, and that of mapped files."""

    def __init__(self) -> None:
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> PeakMemory:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what is free must not serve again without a trace
        self._before = self.peak = resident()
        self._thread.start()
        return self

    def __exit__(self, *fault: object) -> None:
        self._end.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._end.wait(0.002):
            self.peak = tuple(map(max, self.peak, resident()))

    @property
    def growth(self) -> list[int]:
        """Bytes of the process' own, and of files."""
        return [peak - before for peak, before in zip(self.peak, self._before, strict=True)]


def resident() -> tuple[int, ...]:
    """Resident bytes that are the process' own, and those of mapped files."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    found = {name: value for name, _, value in (line.partition(":") for line in lines)}
    return tuple(1024 * int(found[name].split()[0]) for name in ("RssAnon", "RssFile"))


def begun(millions: int) -> TrainStep:
    """A sharded training; its model has about so many million parameters."""
    width = 512
    layers = max(1, round((millions * 1e6 - 2 * 8000 * width) / (16 * width**2)))
    config = LlamaConfig(
        vocab_size=8000, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=8,
    )  # fmt: skip
    full = METHODS["full"]
    model = full.apply_on(2, LlamaForCausalLM(config), full.options(), 0)
    spec = TrainSpec(learning_rate=1e-3, batch_size=2)
    return TrainStep(
        model, spec, device=torch.device("cpu"), precision="fp32", pad_token_id=0
    )  # fmt: skip


def measure(rank: int, folder: Path, millions: int) -> dict[str, float]:
    """What one rank's memory grows by, in bytes."""
    train_step = begun(millions)
    train_step.backward([Example(tuple(range(1, 17)), 4)] * 2, 0)
    train_step.update(1e-3)
    progress = Progress.begin(1)
    progress.records = [StepRecord(1, 0, 1.0, 1e-3, 8000, 0.1, 1e4, 1, {})]
    checkpoints = Checkpoints(folder, IDENTITY, minutes=10, writes=rank == 0)
    with PeakMemory() as saving:
        checkpoints.save(TrainingState(progress, train_step.state()))
        checkpoints.wait()
    torch.distributed.barrier()
    del train_step
    fresh = begun(millions)
    with PeakMemory() as resuming:
        state = read_checkpoint(folder / "step-00000001", IDENTITY)
        fresh.load_state(state.tensors)
    state_bytes = sum(value.nbytes for value in state.tensors.values())
    return {
        "state_bytes": state_bytes,
        "saving": saving.growth[0] / state_bytes,
        "resuming": resuming.growth[0] / state_bytes,
        "mapped": resuming.growth[1] / state_bytes,
    }


def run_rank(pipe: Connection, rank_info: RankInfo, folder: Path, millions: int) -> None:
    os.environ.update(rank_info.environment)
    torch.set_num_threads(1)
    with joined(rank_info, "cpu"):
        pipe.send(measure(rank_info.rank, folder, millions))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--millions", type=int, default=50, help="parameters")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        context, pipes = multiprocessing.get_context("spawn"), []
        for rank in range(2):
            here, there = context.Pipe()
            info = RankInfo(rank, 2, f"{name}/store")
            arguments = (there, info, Path(name) / "checkpoints", options.millions)
            context.Process(target=run_rank, args=arguments).start()
            pipes.append(here)
        found = [pipe.recv() for pipe in pipes]
    lead, other = found
    row = {"state_bytes": lead["state_bytes"], "saving": lead["saving"]}
    row |= {name: other[name] for name in ("resuming", "mapped")}
    print(json.dumps(row) if options.json else row)


if __name__ == "__main__":
    main()
