"""What a plan says of operations and traffic is what the pretended GPU counts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.estimate import compute, step_time
from harness.estimate.gpus import find_gpu
from harness.estimate.lengths import TrainingTokens
from harness.estimate.step_time import OP_SECONDS, Work, scoring_seconds, training_work
from harness.estimate.tokens import ScoringTokens
from harness.grid.schema import Cell
from harness.grid.workspace import open_grid
from tests.fixtures.real_data import DATA_ROOT

PACKAGE = Path(__file__).parents[2]
H200 = find_gpu("h200")

COUNTED = """
import json, sys
from tests.gpu_rehearsal import step, stage
layers, batch = 4, 24
for method in sys.argv[1:]:
    training = step.measure(method, layers=layers, batch_size=batch, steps=2, sites=False)
    last, spec = training.steps[-1], stage.train_spec(method)
    examples = stage.examples(2 * batch, spec.max_length)[batch:]
    labels = sum(len(one.token_ids) - one.num_prompt_tokens for one in examples)
    print(json.dumps({
        "method": method, "ops": last.counts.ops, "traffic": last.counts.bytes_moved,
        "nodes": sum(positions for positions, _ in last.passes), "labels": labels,
        "tokens": last.num_tokens, "passes": len(last.passes), "rows": batch, "layers": layers,
    }))
"""


def counted(*methods: str) -> dict[str, dict[str, Any]]:
    """Counts of an optimizer step at four layers of LLaMA-7B's width, by method."""
    done = subprocess.run(
        [sys.executable, "-c", COUNTED, *methods],
        cwd=PACKAGE, capture_output=True, text=True, check=True,
        env=os.environ | {"ZBENCH_DATA_ROOT": str(DATA_ROOT)},
    )  # fmt: skip
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {one["method"]: one for one in found}


def cell_of(method: str, **training: object) -> Cell:
    """The paper's cell of a method, with other settings of its training."""
    states = open_grid("paper-7b", Path("no-runs"), None, method).states
    cell = next(state.cell for state in states if state.cell.method == method)
    assert cell.train is not None
    train = cell.train.model_copy(update=training)
    return cell.model_copy(update={"train": train, "gpus_per_cell": 1})


def planned(one: dict[str, Any], cell: Cell) -> Work:
    """What a plan says of such a step."""
    shared = one["tokens"] - one["nodes"]
    tokens = TrainingTokens(one["rows"], one["tokens"], one["labels"], shared, 0)
    layers = {"num_hidden_layers": one["layers"]}
    model = cell.model.model_copy(update={"shape": cell.model.shape.model_copy(update=layers)})
    options = {"num_layers": one["layers"]} if hasattr(cell.options, "num_layers") else {}
    cell = cell.model_copy(
        update={"model": model, "options": cell.options.model_copy(update=options)}
    )
    return training_work(cell, tokens, 0.0, H200, "bf16")


@pytest.mark.slow
@pytest.mark.skipif(DATA_ROOT is None, reason="ZBENCH_DATA_ROOT: names no real data")
@pytest.mark.skipif(shutil.which("g++") is None, reason="the rehearsal needs a C++ compiler")
def test_operations_and_traffic_are_those_that_are_counted() -> None:
    methods = ("zero-init-linear", "random-init", "lora", "full")
    for method, one in counted(*methods).items():
        settings = {"epochs": 1, "batch_size": one["rows"], "max_steps": None}
        work = planned(one, cell_of(method, **settings))
        assert work.ops == pytest.approx(one["ops"], rel=0.1), method
        assert work.traffic == pytest.approx(one["traffic"], rel=0.1), method


def test_a_step_takes_the_longer_of_the_cpu_and_the_gpu() -> None:
    products = Work(ops=10, flops=989.5e12 * H200.sustained_share)
    assert products.seconds(H200, "bf16") == pytest.approx(1.0)
    moved = Work(ops=10, flops=0.0, traffic=H200.bandwidth * step_time.TRAFFIC_SHARE)
    assert moved.seconds(H200, "bf16") == pytest.approx(1.0)
    both = Work(products.ops, products.flops, moved.traffic)
    assert both.seconds(H200, "bf16") == pytest.approx(2.0)
    many = Work(ops=3 / OP_SECONDS, flops=products.flops, traffic=moved.traffic)
    assert many.seconds(H200, "bf16") == pytest.approx(3.0)
    assert many.seconds(find_gpu("t4"), "bf16") is None


def test_generation_of_a_few_answers_waits_for_the_cpu_and_with_large_weights_for_the_memory() -> (
    None
):
    cell = cell_of("zero-init-linear")
    one = ScoringTokens(items=64, tokens=64 * 100, scored=0, pairs=0, new_tokens=64 * 40)
    prompts = replace(one, new_tokens=0)
    h200, t4 = (
        (scoring_seconds(cell, [one], find_gpu(name), "fp16") or 0.0)
        - (scoring_seconds(cell, [prompts], find_gpu(name), "fp16") or 0.0)
        for name in ("h200", "t4")
    )
    steps = one.new_tokens / step_time.GENERATION_BATCH
    launching = steps * (44 + 32 * 61) * OP_SECONDS
    assert launching < h200 < 1.5 * launching
    reading = steps * 2 * cell.model.shape.num_parameters / (0.32e12 * step_time.WEIGHTS_SHARE)
    assert reading < t4 < 1.5 * reading


def test_gradient_checkpointing_and_several_gpus_change_the_work() -> None:
    cell = cell_of("full", max_steps=1)
    tokens = TrainingTokens(1000, 127_000, 65_000, 0, 25_000_000)
    flops = compute.training_flops(compute.workload(cell), cell.model.shape, tokens)
    one = training_work(cell, tokens, flops, H200, "bf16")
    assert cell.train is not None
    four = training_work(cell.model_copy(update={"gpus_per_cell": 4}), tokens, flops, H200, "bf16")
    assert four.flops == one.flops / 4
    assert four.traffic < one.traffic
    train = cell.train.model_copy(update={"gradient_checkpointing": True})
    again = training_work(cell.model_copy(update={"train": train}), tokens, flops, H200, "bf16")
    assert again.flops == pytest.approx(4 / 3 * flops)
    assert again.ops > one.ops
