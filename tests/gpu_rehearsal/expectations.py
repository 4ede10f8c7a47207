"""What a rehearsal is expected to give: `expected.json`, which `--write` alone changes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().with_name("expected.json")
TOLERANCES = {"launches": 0.02, "ops": 0.02, "ops_around": 0.02, "tflop": 0.02, "gb_moved": 0.02}
"""Relative tolerances of figures; of sizes, which end in `_gb`, it is SIZE, all others are exact:
waits, kernels and dtypes of attention, fallbacks."""
SIZE = 0.03


def faults(name: str, found: Mapping[str, Any], *, known: bool = True) -> list[str]:
    """What is wrong with an entry, one line each.

    Args:
        name: of the entry, such as `lora | h200 bf16`.
        found: figures or an outcome by stage; an outcome other than `ok` is an error.
        known: whether expected values must stand in the file; otherwise errors alone are faults.
    """
    if not known:
        return [f"{stage}: {line}" for stage, line in found.items() if _is_error(line)]
    expected = read()
    if name not in expected:
        return [f"no expected values: write them with --write ({FILE.name})"]
    return _differences("", expected[name], found)


def read() -> dict[str, Any]:
    """All expected entries; none where there is no file yet."""
    entries: dict[str, Any] = json.loads(FILE.read_text()) if FILE.exists() else {}
    return entries


def write(found: Mapping[str, Any]) -> None:
    """Puts entries into the file, beside those that it has."""
    entries = read() | found
    lines = json.dumps(dict(sorted(entries.items())), indent=1)
    FILE.write_text(lines + "\n")


def _differences(path: str, then: Any, now: Any) -> list[str]:
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        found = []
        for key in then.keys() | now.keys():
            place = f"{path}/{key}" if path else key
            if key not in now:
                found.append(f"{place}: is missing, was {then[key]}")
            elif key not in then:
                found.append(f"{place}: is new, with {now[key]}")
            else:
                found += _differences(place, then[key], now[key])
        return sorted(found)
    name = path.rsplit("/", 1)[-1]
    tolerance = SIZE if name.endswith("_gb") else TOLERANCES.get(name, 0.0)
    numbers = isinstance(then, int | float) and isinstance(now, int | float)
    near = abs(now - then) <= tolerance * abs(then) if numbers else now == then
    return [] if near else [f"{path}: was {then}, is {now}"]


def _is_error(line: Any) -> bool:
    return isinstance(line, str) and line != "ok"
