"""Runs cases of gpu-check on the card that is not there.

    python -m tests.benchmarks.pretended_card [CHECK ...]

Numbers are zeros there, and time is none: shapes, dtypes, devices, memory and waits are the card's.
Prints a line of JSON per row. Two layers of 7B's width.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from tests.gpu_rehearsal import card as pretended  # before torch

import torch  # isort: skip

from benchmarks.gpu_check.bench import Bench
from benchmarks.gpu_check.cases import CASES
from benchmarks.gpu_check.expected import read_expected
from benchmarks.gpu_check.worker import run

WITHOUT_NUMBERS = (3, 5, 6, 7, 8, 10)
"""Checks that need neither numbers nor a profiler."""
SLOW = "cell twice, stopped and resumed"
"""A case of minutes there: it runs where its check is named."""


def main() -> None:
    """Runs the cases of the checks that are named, or of all that can be run."""
    chosen = tuple(map(int, sys.argv[1:])) or WITHOUT_NUMBERS
    with tempfile.TemporaryDirectory() as folder, pretended.rehearsal("h200") as card:

        def limit(fraction: float, device: Any = None) -> None:
            card.limit = None if fraction >= 1 else fraction * card.spec.gigabytes * 1e9

        with (
            mock.patch.object(torch.cuda, "set_per_process_memory_fraction", limit),
            mock.patch.object(torch.cuda, "set_sync_debug_mode", lambda mode: None),  # noqa: PT008
        ):
            bench = Bench(
                "cuda",
                Path(folder),
                expected=read_expected(),
                free_gb=20.0,  # two layers
            )
            for case in CASES:
                if case.check in chosen and (case.name != SLOW or sys.argv[1:]):
                    run(case, bench, lambda line: print(json.dumps(line), flush=True), 1e12)


if __name__ == "__main__":
    main()
