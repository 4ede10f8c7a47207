"""Runs the cases one after the other, and tells what they say line by line.

A card that a case has broken stays broken for its process: after some errors it ends, and the
command starts another one behind that case.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_check.bench import Bench
from benchmarks.gpu_check.cases import CASES, Case
from benchmarks.gpu_check.expected import pair_of, read_expected
from benchmarks.gpu_check.machine import describe, refusal
from benchmarks.gpu_check.rows import Row
from harness.errors import plain_message
from harness.models.devices import free_memory, is_out_of_memory
from harness.training.signals import Stopped

AGAIN = 75
"""Exit code: start a process anew for the case after those that have begun."""
BROKEN = ("illegal memory access", "device-side assert", "unspecified launch failure",
          "misaligned address", "illegal instruction", "uncorrectable ecc")  # fmt: skip
"""In the messages of errors after which CUDA answers nothing more in a process."""

Tell = Callable[[Mapping[str, Any]], None]


def work(
    bench: Bench,
    tell: Tell,
    *,
    deadline: float,
    cases: Sequence[Case] = CASES,
    start: int = 0,
) -> int:
    """Runs the cases from `start` on; returns 0 when all are done, or AGAIN.

    Args:
        bench: what they work on.
        tell: gets what is begun, every row, and the end.
        deadline: of `time.time()`; a case that would not be done by then is skipped.
        cases: all of them.
        start: the first one to run.
    """
    for number, case in enumerate(cases[start:], start):
        if bench.on_card and any(os.environ.get(k) != v for k, v in case.environment.items()):
            if number == start:
                tell({"environment": dict(case.environment)})
            tell({"next": number, "environment": dict(case.environment)})
            return AGAIN
        tell({"begin": number, "check": case.check, "name": case.name})
        broken = run(case, bench, tell, deadline)
        free_memory(bench.device)
        if broken:
            tell({"next": number + 1})
            return AGAIN
    tell({"end": True})
    return 0


def run(case: Case, bench: Bench, tell: Tell, deadline: float) -> bool:
    """Runs one case; returns whether the card is broken for this process."""

    def add(row: Row) -> None:
        row = replace(row, seconds=round(time.time() - begun, 1))
        bench.seen.append(row)
        tell({"row": asdict(row)})

    begun = time.time()
    if (reason := case.reason_to_skip(bench, deadline - begun)) is not None:
        add(Row(case.check, case.name, "skipped", note=reason))
        return False
    told = len(bench.seen)
    try:
        for row in case.run(bench):
            add(row)
    except (Exception, Stopped) as fault:  # what a case raises is its verdict; the others go on
        add(failure(case, fault))
        return any(words in str(fault).lower() for words in BROKEN)
    if len(bench.seen) == told:
        add(Row(case.check, case.name, "FAIL", note="it said nothing"))
    return False


def failure(case: Case, fault: BaseException) -> Row:
    """The row of a case that ended with an error: what it says, and where it was raised."""
    frames = traceback.extract_tb(fault.__traceback__)
    own = [frame for frame in frames if "/harness/" in frame.filename] or frames[-1:]
    place = "/".join(Path(own[-1].filename).parts[-2:])
    found = "out of memory" if is_out_of_memory(fault) else type(fault).__name__
    said = plain_message(fault).strip()[:300] or "no message"
    return Row(
        case.check,
        case.name,
        "FAIL",
        found=found,
        expected="no error",
        note=f"{said} ({place}:{own[-1].lineno})",
        figures={"traceback": "".join(traceback.format_exception(fault))[-4000:]},
    )


def make_bench(arguments: argparse.Namespace, seen: Sequence[Row] = ()) -> Bench:
    """The bench of a command line."""
    device = arguments.device
    on_card = device.startswith("cuda")
    return Bench(
        device,
        arguments.folder,
        tiny=arguments.tiny,
        data_root=arguments.data_root,
        expected=read_expected(
            pair=pair_of(torch.cuda.get_device_capability() if on_card else (9, 0))
        ),
        free_gb=round(torch.cuda.mem_get_info()[0] / 1e9, 1) if on_card else None,
        seen=list(seen),
    )


def parse(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line that the command starts this with."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--lines", type=Path, required=True)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--deadline", type=float, required=True)
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    """Runs the cases of a command line."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    arguments = parse(given)

    def tell(line: Mapping[str, Any]) -> None:
        with arguments.lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, default=str) + "\n")

    if arguments.device.startswith("cuda") and (reason := refusal()) is not None:
        tell({"refused": reason})
        return 2
    lines = arguments.lines.read_text("utf-8").splitlines() if arguments.lines.exists() else []
    rows = [Row(**line["row"]) for line in map(json.loads, lines) if "row" in line]
    bench = make_bench(arguments, rows)
    if not arguments.start:
        tell({"machine": describe(arguments.device) | {"data": bench.data}})
    return work(bench, tell, deadline=arguments.deadline, start=arguments.start)


if __name__ == "__main__":
    sys.exit(main())
