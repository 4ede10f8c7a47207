"""Checks zbench on the card that is here: what only a card can show, the most important first.

    make gpu-check          # or: python -m benchmarks.gpu_check [--minutes 8] [--out FILE]

Needs no internet: models of LLaMA-7B's shape with random weights, and rows of the lengths of real
ones, or real ones from ZBENCH_DATA_ROOT. Prints a table as it goes; the JSON file is whole after
every row. Exit code: 0 all passed, 1 otherwise, 2 where there is no card. See docs/gpu.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.rows import Row, Sheet
from harness.errors import ZbenchError, one_line

AGAIN = 75
"""See `worker`, which is not imported here: it imports torch."""
GRACE = 60.0
"""Seconds behind the budget after which a case that says nothing is ended."""
NO_CARD = 2


def parse(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="time budget")
    parser.add_argument("--out", type=Path, default=Path("gpu-check.json"), help="the JSON file")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true", help="the logic alone, with --device cpu")
    parser.add_argument(
        "--data-root", type=Path, default=os.environ.get("ZBENCH_DATA_ROOT"), help="real data"
    )
    arguments = parser.parse_args(given)
    if (arguments.device == "cpu") != arguments.tiny:
        parser.error(
            "--device cpu and --tiny go together: a CPU runs the logic of the checks alone"
        )
    if not (math.isfinite(arguments.minutes) and arguments.minutes >= 0):
        parser.error(f"--minutes {arguments.minutes:g}: must be a number from 0 up")
    if arguments.out.is_dir():
        parser.error(f"--out {arguments.out}: is a folder; name a file in it")
    if arguments.data_root is not None and not Path(arguments.data_root).is_dir():
        parser.error(f"--data-root {arguments.data_root}: no such folder")
    return arguments


def main(given: Sequence[str] | None = None) -> int:
    """Runs all checks, and returns the exit code."""
    arguments = parse(given)
    deadline = time.time() + 60 * arguments.minutes
    with tempfile.TemporaryDirectory(prefix="gpu-check-", ignore_cleanup_errors=True) as folder:
        sheet = Sheet(arguments.out, {"command": sys.argv[1:], "minutes": arguments.minutes})
        try:
            refused = check(arguments, Path(folder), sheet, deadline)
        except KeyboardInterrupt:
            print(f"stopped; what is known so far is in {arguments.out}")
            return 130
        except (OSError, ZbenchError) as fault:
            print(f"gpu-check: {one_line(fault)}", file=sys.stderr)
            return 1
    if refused is not None:
        print(refused, file=sys.stderr)
        return NO_CARD
    print(sheet.summary)
    print(f"all of it: {arguments.out}")
    return 0 if sheet.passed else 1


def check(arguments: argparse.Namespace, folder: Path, sheet: Sheet, deadline: float) -> str | None:
    """Starts workers until all cases are done; returns why there is nothing to check, if so."""
    lines, start, environment = folder / "lines.jsonl", 0, dict[str, str]()
    read = 0
    while True:
        process = begin(arguments, folder, lines, start, environment, deadline)
        last: dict[str, Any] = {}
        try:
            for line in follow(process, lines, read, deadline + GRACE):
                read += 1
                if "refused" in line:
                    return str(line["refused"])
                if "machine" in line:
                    sheet.describe(line["machine"])
                elif "row" in line:
                    sheet.add(Row(**line["row"]))
                last = dict(line) if {"begin", "end", "next"} & line.keys() else last
        finally:
            if process.poll() is None:
                process.kill()
            code = process.wait()
        if "end" in last:
            return None
        if "next" in last and code == AGAIN:
            start, environment = last["next"], last.get("environment", {})
            continue
        sheet.add(died(last, code, folder))
        if "begin" not in last or time.time() > deadline + GRACE:
            return None
        start = last["begin"] + 1


def begin(
    arguments: argparse.Namespace,
    folder: Path,
    lines: Path,
    start: int,
    environment: Mapping[str, str],
    deadline: float,
) -> subprocess.Popen[bytes]:
    """Starts a worker; what it and its libraries print goes to a file."""
    command = [sys.executable, "-m", "benchmarks.gpu_check.worker", "--device", arguments.device]
    command += ["--folder", str(folder), "--lines", str(lines), "--start", str(start)]
    command += ["--deadline", str(deadline), *(["--tiny"] if arguments.tiny else [])]
    if arguments.data_root is not None:
        command += ["--data-root", str(arguments.data_root)]
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    with (folder / "worker.log").open("ab") as log:
        return subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env=os.environ | {"PYTHONPATH": path} | dict(environment),
        )


def follow(
    process: subprocess.Popen[bytes], lines: Path, read: int, last: float
) -> Iterator[dict[str, Any]]:
    """Yields what a worker tells, until it ends; it is ended at `last` of `time.time()`."""
    ended = False
    while True:
        text = lines.read_text("utf-8") if lines.exists() else ""
        whole = text[: text.rfind("\n") + 1].splitlines()
        for line in whole[read:]:
            yield json.loads(line)
        read = max(read, len(whole))
        if ended:
            return
        ended = process.poll() is not None
        if time.time() > last and not ended:
            process.kill()
            process.wait()
            ended = True
        elif not ended:
            time.sleep(0.1)


def died(last: Mapping[str, Any], code: int, folder: Path) -> Row:
    """The row of a case whose process ended, or was ended, in the middle of it."""
    how = f"exit code {code}"
    if code < 0:
        how = f"signal {signal.Signals(-code).name}"
    tail = (folder / "worker.log").read_text("utf-8", errors="replace").strip().splitlines()[-1:]
    name = last.get("name", "start")
    return Row(
        last.get("check", 0), name, "FAIL", found=f"the process died: {how}", note=" ".join(tail)
    )


if __name__ == "__main__":
    sys.exit(main())
