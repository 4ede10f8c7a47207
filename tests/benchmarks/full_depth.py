"""Rehearses a step of 7B at full depth for gpu-check's expected values.

    python -m tests.benchmarks.full_depth            # against expected_full.json
    python -m tests.benchmarks.full_depth --write    # renews it

Real Alpaca from ZBENCH_DATA_ROOT is needed. Exit code 1 where anything differs.
"""

from __future__ import annotations

from tests.gpu_rehearsal import before_torch  # noqa: F401

# isort: split

import json
import sys
from typing import Any

from benchmarks.gpu_check.expected import FULL_DEPTH, REHEARSAL
from benchmarks.gpu_check.steps import METHODS
from tests.gpu_rehearsal.step import measure

CARDS = {"h200": "bf16", "a100-80": "bf16"}
TOLERANCES = {"launches": 0.02, "peak_gb": 0.03}


def main() -> int:
    """Rehearses the steps; returns the exit code."""
    found: dict[str, Any] = {}
    for method in METHODS:
        figures = measure(method, sites=False).steps[-1].figures()
        kept = {key: figures[key] for key in ("launches", "syncs", "peak_gb", "attention")}
        print(method, kept, flush=True)
        # The two cards run the same kernels in bf16.
        found |= {f"{method} | {card} {half}": {"train": kept} for card, half in CARDS.items()}
    path = REHEARSAL / FULL_DEPTH
    if "--write" in sys.argv[1:]:
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return 0
    faults = differences(json.loads(path.read_text("utf-8")), found)
    print(*faults, sep="\n")
    return 1 if faults else 0


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What has changed, a line each."""
    faults = []
    for name in sorted(then.keys() | now.keys()):
        old, new = (one.get(name, {}).get("train", {}) for one in (then, now))
        for key in sorted(old.keys() | new.keys()):
            was, is_ = old.get(key), new.get(key)
            near = was == is_
            if key in TOLERANCES and was and is_:
                near = abs(is_ - was) <= TOLERANCES[key] * was
            faults += [] if near else [f"{name}, {key}: was {was}, is {is_}"]
    return faults


if __name__ == "__main__":
    sys.exit(main())
