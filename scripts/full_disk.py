"""Fills the disk at every write of a small grid, each in turn, and looks that nothing is lost.

    python -m scripts.full_disk --folder /tmp/full [--every 10]

It needs a C compiler: `full_disk.c`, preloaded, lets the n-th write in the runs folder and all
after it fail, for every n, whoever writes: Python, the libraries of tensors and of parquet files,
SQLite. In the folder one cell is done and another begins to train. The run that fails must tell it
in lines without a traceback and take nothing away; once there is room, the same command must give
the adapter, losses, scores and items of an undisturbed run to the last bit, and MLflow must hold
one point of each metric for each step. Exit code 1 if anything differs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import mmap
import os
import re
import shutil
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from scripts.kill_test import GRID, differences, outcome, tracked

CELLS = (
    GRID.replace("epochs: 6", "epochs: 1")
    .replace("checkpoint_minutes: 0.01", "checkpoint_minutes: 0")
    .replace("limit: 20", "limit: 4")
    .replace("limit: 10", "limit: 3")
)
RAW = re.compile(r"Traceback|(^|[ (])([a-z_]+\.)*[A-Z]\w*(Error|Exception)\b|core dumped", re.M)


class Disk:
    """The counts that the preloaded library shares."""

    def __init__(self, file: Path) -> None:
        with file.open("r+b") as opened:
            self.counts = mmap.mmap(opened.fileno(), 16)

    def fill_at(self, number: int) -> None:
        """Lets writes fail from this one on, counted from now; 0 for never."""
        self.counts[:] = struct.pack("ll", 0, number)

    @property
    def writes(self) -> int:
        """The number of writes since `fill_at`."""
        return int(struct.unpack("ll", self.counts[:])[0])


def run_here(states: Sequence[object], plan: object) -> Iterator[object]:
    """An executor that runs the cells in this process."""
    from harness.cell.run import run_cell
    from harness.execution.worker import log_progress, logging_beside_the_screen
    from harness.grid.folders import LOG_FILE, cell_folder

    for state in states:
        events: list[object] = []

        def emit(event: object, events: list[object] = events) -> None:
            log_progress(event)  # type: ignore[arg-type]
            events.append(event)

        cell, settings = state.cell, plan.settings  # type: ignore[attr-defined]
        folder = cell_folder(settings.runs_dir, cell)
        with logging_beside_the_screen(folder / LOG_FILE), contextlib.suppress(Exception):
            run_cell(cell, settings, emit)  # why it failed is in its last event
        yield from events


RUN = ("run-grid", "kills.yaml", "--device", "cpu", "--workers", "1", "--executor", "here")


def command(folder: Path, *arguments: str) -> tuple[int, str]:
    """Runs zbench in a child of this process; returns its exit code and all that it printed."""
    output = folder.parent.parent / f"{folder.name}.txt"  # it is not full there
    child = os.fork()
    if not child:
        code = 99
        try:
            file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(file, 1)
            os.dup2(file, 2)
            os.chdir(folder)
            from harness import cli
            from harness.execution.executors import EXECUTORS

            EXECUTORS["here"] = run_here  # type: ignore[assignment]
            sys.argv = ["zbench", *arguments]
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), output.read_text(errors="replace")


def attempt(disk: Disk, prepared: Path, folder: Path, number: int) -> tuple[list[str], int]:
    """Fills the disk at one write; returns what went wrong then and after, and what was printed."""
    shutil.copytree(prepared, folder)
    (done,) = (folder / "runs" / "cells").glob("*lora*/result.json")
    before = done.read_bytes()
    disk.fill_at(number)
    code, said = command(folder, *RUN)
    hit = disk.writes >= number
    disk.fill_at(0)
    wrong = []
    if found := RAW.search(said):
        wrong.append(f"prints {said[max(found.start() - 40, 0) : found.end() + 100]!r}")
    if hit and code == 0 and not re.search(r"(?i)warning|not all is in MLflow|No space", said):
        wrong.append("nothing is said")
    if code not in (0, 1, 2):
        wrong.append(f"ends with {code}")
    if done.read_bytes() != before:
        wrong.append("the result of the cell that was done has changed")
    for arguments in (RUN, ("sync", "kills.yaml"), ("verify", "kills.yaml")):
        code, said = command(folder, *arguments)
        if code != 0:
            wrong.append(f"with room again {arguments[0]} ends with {code}: {said[-200:]!r}")
    return wrong, hit


def main() -> int:
    """Fills the disk at every write; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="a new one")
    parser.add_argument("--every", type=int, default=1, help="take each k-th write only")
    parser.add_argument("--first", type=int, default=1, help="the first write to take")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many")
    options = parser.parse_args()
    root, library = options.folder.resolve() / "disk", options.folder.resolve() / "full_disk.so"
    counts = options.folder.resolve() / "counts"
    if "FULL_DISK_COUNTS" not in os.environ:
        root.mkdir(parents=True)
        counts.write_bytes(bytes(16))
        source = Path(__file__).with_suffix(".c")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        preload = {"LD_PRELOAD": str(library), "FULL_DISK_ROOT": f"{root}/", "OMP_NUM_THREADS": "1",
                   "FULL_DISK_COUNTS": str(counts), "HF_HUB_OFFLINE": "1"}  # fmt: skip
        again = [sys.executable, "-m", "scripts.full_disk", *sys.argv[1:]]
        os.execve(sys.executable, again, os.environ | preload)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    import lm_eval.evaluator  # what a child would load is loaded once
    import mlflow
    import peft
    import transformers.models.llama.modeling_llama

    import harness.cell.score
    import harness.cell.train
    import harness.evaluation.scoring  # noqa: F401

    del lm_eval, mlflow, peft, transformers
    begun, disk = time.monotonic(), Disk(counts)
    prepared, calm = root / "prepared", root / "calm"
    prepared.mkdir()
    (prepared / "kills.yaml").write_text(CELLS)
    code, said = command(prepared, *RUN, "--only", "lora")
    assert code == 0, said
    shutil.copytree(prepared, calm)
    disk.fill_at(0)
    code, said = command(calm, *RUN)
    assert code == 0, said
    writes, expected = disk.writes, outcome(calm)
    print(f"undisturbed: {writes} writes; {json.dumps(tracked(calm))}", flush=True)
    tried = bad = 0
    for number in range(options.first, writes + 1, options.every):
        if time.monotonic() - begun > options.seconds:
            break
        folder = root / f"write-{number}"  # MLflow keeps connections to a database of one name
        wrong, hit = attempt(disk, prepared, folder, number)
        try:
            wrong += differences(expected, outcome(folder)) + tracked(folder)
        except (AssertionError, OSError) as fault:
            wrong.append(str(fault))
        tried += hit
        bad += bool(wrong)
        if not wrong:
            shutil.rmtree(folder)
        else:
            print(f"write {number}: {json.dumps(wrong)}", flush=True)
    print(f"{tried} writes of {writes} failed in turn: {bad} went wrong; last: {number}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
