"""A log without a terminal says what runs, how far it is and what fails, at once."""

from __future__ import annotations

import subprocess
import sys
import time

from harness.execution.log_lines import LogLines
from harness.records.events import (
    CellEnded,
    CellQueued,
    CellStarted,
    EpochValidated,
    Scoring,
    StepDone,
    Warned,
)

LABELS = {"1": "a/lora", "2": "a/full", "3": "a/base"}


def test_a_log_says_what_runs_before_it_ends() -> None:
    told: list[str] = []
    with LogLines(LABELS, told.append, seconds=0.02) as lines:
        lines(CellStarted("2", "a/full", 0, 0))
        lines(CellStarted("1", "a/lora", 40, 0))
        assert told[:2] == ["a/full: starts (scoring alone)", "a/lora: starts (40 steps to train)"]
        until(told, "a/lora: loading")  # hours of it may pass without an event
        for step in range(1, 5):
            lines(StepDone("1", step, 0, 1.25, 1e-3, 10.0, 1000 * step, restored=step < 3))
        until(told, "a/lora: step 4 of 40, loss 1.250, 10 tokens/s, 36 s left of it")
        lines(EpochValidated("1", 0, 1.5, 0))
        until(
            told,
            "a/lora: step 4 of 40, loss 1.250, validation loss 1.500 after epoch 1, 10 tokens/s, "
            "36 s left of it",
        )
        lines(Scoring("1", "arc_easy", 5, 20, 6000))
        lines(Scoring("1", "arc_easy", 10, 20, 11000))
        until(told, "a/lora: scoring arc_easy, 10 of 20, 10 s left of it")
        lines(CellEnded("1", "", 1.0))
        del told[:]
        until(told, "a/full: loading")
        assert not [line for line in told if "a/lora" in line]
    del told[:]
    time.sleep(0.1)
    assert told == []


def test_a_failure_is_told_at_once_with_its_reason() -> None:
    told: list[str] = []
    with LogLines(LABELS, told.append, seconds=60) as lines:
        lines(CellStarted("1", "a/lora", 40, 0))
        lines(CellEnded("1", "", 2.0, "the loss is not a number at step 3"))
        assert told[-1] == "[1/3] a/lora: FAILED: the loss is not a number at step 3 (2.0 s)"


def test_queued_cells_are_counted_until_they_start() -> None:
    told: list[str] = []
    with LogLines(LABELS, told.append, seconds=0.02) as lines:
        lines(CellQueued("1", "7_1"))
        lines(CellQueued("2", "7_2"))
        until(told, "waiting in the queue: 2")
        lines(CellStarted("1", "a/lora", 40, 0))
        until(told, "waiting in the queue: 1")
        lines(CellStarted("2", "a/full", 40, 0))
        del told[:]
        until(told, "a/full: loading")
        assert not [line for line in told if "waiting in the queue" in line]


def test_warnings_are_told_where_no_other_listener_does() -> None:
    told: list[str] = []
    for warnings in (False, True):
        with LogLines(LABELS, told.append, warnings=warnings) as lines:
            lines(Warned("1", "no BOS"))
    assert told == ["warning: a/lora: no BOS"]


def test_lines_are_in_a_jobs_output_while_it_runs() -> None:
    program = (
        "import time\n"
        "from harness.execution.log_lines import LogLines\n"
        "from harness.records.events import CellStarted\n"
        "with LogLines({'1': 'a'}) as lines:\n"
        "    lines(CellStarted('1', 'a', 4, 0))\n"
        "    time.sleep(60)\n"
    )
    job = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert job.stdout is not None
        assert job.stdout.readline() == "a: starts (4 steps to train)\n"
        assert job.poll() is None
    finally:
        job.kill()
        job.communicate()


def until(told: list[str], line: str) -> None:
    deadline = time.monotonic() + 20
    while line not in told:
        assert time.monotonic() < deadline, told
        time.sleep(0.01)
