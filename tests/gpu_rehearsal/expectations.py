"""What a rehearsal is expected to give: two files, which `--write` alone changes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

MATRIX = Path(__file__).resolve().with_name("expected.json")
"""Of `matrix`: every method at two layers, by method and card."""
FULL_DEPTH = MATRIX.with_name("expected_full.json")
"""Of `full_depth`: whole models."""
TOLERANCES = {"launches": 0.02, "ops": 0.02, "ops_around": 0.02, "tflop": 0.02, "gb_moved": 0.02}
"""Relative tolerances of figures; of sizes, which end in `_gb`, it is SIZE, all others are exact:
waits, kernels and dtypes of attention, fallbacks."""
SIZE = 0.03


def faults(
    name: str,
    found: Mapping[str, Any],
    file: Path = MATRIX,
    *,
    known: bool = True,
    only: Container[str] | None = None,
) -> list[str]:
    """What is wrong with an entry, one line each.

    Args:
        name: of the entry, such as `lora | h200 bf16`.
        found: figures or an outcome by stage; an outcome other than `ok` is an error.
        known: whether expected values must stand in the file; otherwise errors alone are faults.
        only: the stages that are compared; None for all.
    """
    if not known:
        return [f"{stage}: {line}" for stage, line in found.items() if _is_error(line)]
    expected = read(file)
    if name not in expected:
        return [f"no expected values: write them with --write ({file.name})"]
    then = expected[name]
    if only is not None:
        then = {stage: value for stage, value in then.items() if stage in only}
    return _differences("", then, found)


def read(file: Path = MATRIX) -> dict[str, Any]:
    """All expected entries; none where there is no file yet."""
    entries: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return entries


def write(found: Mapping[str, Any], file: Path = MATRIX) -> None:
    """Puts entries into the file, beside those that it has; several processes may do so at once."""
    with FileLock(Path(tempfile.gettempdir()) / f"zbench-{file.name}.lock"):
        entries = dict(sorted((read(file) | found).items()))
        file.write_text(json.dumps(entries, indent=1) + "\n")


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
