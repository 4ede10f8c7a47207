"""Checks 1 and 2: the card computes what the CPU computes."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_check.bench import Bench
from benchmarks.gpu_check.cells import live, log_likelihoods, world_cells
from benchmarks.gpu_check.rows import Row, close, judged
from harness.methods import METHODS
from harness.models.devices import DTYPES
from harness.testing import perturb, tiny_model
from harness.testing.gradients import gradients, law_examples, whole_batch
from harness.training.loss import ResponseLoss

LOSSES = 1e-4
LOG_LIKELIHOODS = 1e-3
CELL_METHODS = ("zero-init-linear", "lora", "full")
HALF_LOSSES, HALF_GRADIENTS = 2e-2, 0.1
"""Relative, of bf16 on tiny models with wide weights; on a CPU 3e-3 and 5e-2 are the largest."""
LAW_TESTS = "tests/methods/test_laws.py"
CARD_TESTS = ("tests/training/test_loop.py", "tests/methods/zero_init/test_formula.py")
ROOT = Path(__file__).parents[2]


def cells_agree(bench: Bench) -> Iterator[Row]:
    """Check 1: cells of the embedded world in fp32, on the CPU and on the device."""
    limit, fraction = (4, 0.03) if bench.tiny else (50, 0.2)
    methods = CELL_METHODS[:1] if bench.tiny else CELL_METHODS
    task = f"{{name: demo_arc_easy, limit: {limit}}}"
    place = bench.folder / "agreement"
    cells = world_cells(place, ", ".join(methods), precision="fp32", fraction=fraction, tasks=task)
    for cell in cells:
        ours, theirs = (live(cell, place / name, name) for name in (bench.device, "cpu"))
        good, loss = close(ours.losses, theirs.losses, LOSSES)
        fine, score = close(log_likelihoods(ours), log_likelihoods(theirs), LOG_LIKELIHOODS)
        yield judged(
            1,
            f"{cell.method}: cell in fp32 against the CPU",
            good and fine,
            found=f"losses {loss}, scores {score}",
            expected=f"{LOSSES:g}, {LOG_LIKELIHOODS:g}",
            source="GPU and CPU round differently in fp32; chosen",
            figures={"steps": len(ours.losses), "log_likelihoods": len(log_likelihoods(ours))},
        )


def laws_hold(bench: Bench) -> Iterator[Row]:
    """Check 2: the laws of every method on the device in fp32, and the tests that need a card."""
    chosen = "zero-init-linear" if bench.tiny else ""
    words = ["llama", *(["ZeroInitLinear"] if chosen else [])]
    # Bits that two kernels share are the CPU's alone: the laws of bits run there in `make test`.
    yield run_tests("method laws in fp32, family llama", [LAW_TESTS], words, bench)
    if bench.on_card:
        yield run_tests("tests marked gpu: bf16 and the formula", list(CARD_TESTS), [], bench)


def half_precision_agrees(bench: Bench) -> Iterator[Row]:
    """Check 2, in half precision: losses and gradients of every method against fp32."""
    from tests.methods.test_laws import SETTINGS

    names = [
        name for name, one in METHODS.items() if one.trains and name not in ("adapter", "peft")
    ]
    worst: dict[str, tuple[float, float]] = {}
    for name in names[-1:] if bench.tiny else names:
        options = SETTINGS.get(name, {}).get("options", {})
        worst[name] = distances_in_half(name, options, bench)
    far = [
        name
        for name, (loss, gradient) in worst.items()
        if not (loss <= HALF_LOSSES and gradient <= HALF_GRADIENTS)  # of NaN too
    ]
    largest = [max(column) for column in zip(*worst.values(), strict=True)]
    yield judged(
        2,
        f"all methods in {bench.half} against fp32",
        not far,
        found=f"losses {largest[0]:.1e}, gradients {largest[1]:.1e}",
        expected=f"{HALF_LOSSES:g}, {HALF_GRADIENTS:g}",
        source="bf16 on a CPU: 3e-3 and 5e-2",
        note=", ".join(far),
        figures={"by_method": worst},
    )


def distances_in_half(method: str, options: dict[str, Any], bench: Bench) -> tuple[float, float]:
    """Relative distances of loss and gradient in half precision from fp32 on the same weights."""
    dtype = getattr(torch, DTYPES[bench.half])
    chosen = METHODS[method]
    base = tiny_model("llama", dtype=dtype, device=bench.device)
    model = perturb(chosen.apply(base, chosen.options.model_validate(options), 5))
    exact = copy.deepcopy(model).float()
    losses, found = [], []
    for one, half in ((exact, False), (model, True)):
        with torch.autocast(torch.device(bench.device).type, dtype, enabled=half):
            gradient = gradients(one, law_examples(), 100)
            loss = ResponseLoss(one)
            with torch.no_grad():
                losses.append(loss(whole_batch(loss, law_examples()[:1], share=True)).item())
        found.append(torch.cat([value.float().flatten() for value in gradient.values()]))
    distance = (found[1] - found[0]).norm() / found[0].norm()
    return abs(losses[1] - losses[0]) / losses[0], distance.item()


def run_tests(name: str, files: list[str], words: list[str], bench: Bench) -> Row:
    """Runs tests in a process of their own; the row names those that fail."""
    report = bench.folder / f"tests-{abs(hash(name))}.xml"
    marker = "not slow" if words else "gpu"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        *files,
        "-m",
        marker,
        "-k",
        " and ".join(words),
    ]
    command += ["-p", "no:cacheprovider", "--no-header", f"--junitxml={report}"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"ZBENCH_LAWS_DEVICE": bench.device},
        capture_output=True,
        text=True,
        check=False,
    )
    if not report.is_file():
        tail = (done.stdout + done.stderr).strip().splitlines()[-1:]
        return judged(2, name, False, found=f"pytest ended with {done.returncode}", note=str(tail))
    return row_of_report(name, report)


def row_of_report(name: str, report: Path) -> Row:
    """The row of pytest's report: it passes if tests ran, and none failed."""
    cases = list(ET.parse(report).getroot().iter("testcase"))
    failed = [
        f"{case.get('classname', '').rpartition('.')[2]}.{case.get('name')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    ran = [case for case in cases if case.find("skipped") is None]
    return judged(
        2,
        name,
        bool(ran) and not failed,
        found=f"{len(ran) - len(failed)} of {len(ran)} hold",
        expected="all",
        source="tests/methods/test_laws.py on the CPU",
        note="; ".join(failed[:8]) + (f"; {len(failed) - 8} more" if len(failed) > 8 else ""),
        figures={"failed": failed},
    )
