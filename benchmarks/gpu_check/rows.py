"""What a check says: rows of a table that is printed as they come, and one JSON file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness.records.files import write_text

Verdict = Literal["pass", "FAIL", "skipped", "measured"]
COLUMNS = "{:>2} {:48} {:44} {:28} {:8} {:>4}"
TITLES = ("", "check", "found", "expected", "verdict", "s")


@dataclass(frozen=True)
class Row:
    """One thing that was looked at."""

    check: int
    """Number of the check, as docs/gpu.md has it."""
    name: str
    verdict: Verdict
    """`measured` where nothing is expected yet."""
    found: str = ""
    expected: str = ""
    source: str = ""
    """Where the expected value comes from."""
    note: str = ""
    """Why it was skipped, or what went wrong."""
    seconds: float = 0.0
    """Of the whole case up to this row."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """All that was measured, for JSON."""


def judged(check: int, name: str, ok: bool, **fields: Any) -> Row:
    """A row that passes or fails."""
    return Row(check, name, "pass" if ok else "FAIL", **fields)


def within(found: float, expected: float, share: float) -> bool:
    """Whether a value is a number, and within a share of the expected one."""
    return math.isfinite(found) and abs(found - expected) <= share * abs(expected)


def close(found: Sequence[float], expected: Sequence[float], tolerance: float) -> tuple[bool, str]:
    """Whether numbers agree to a tolerance, and the largest difference as text.

    Relative to the expected one where that is above 1. A value that is no number never agrees.
    """
    if len(found) != len(expected) or not found:
        return False, f"{len(found)} values, not {len(expected)}"
    largest = 0.0
    for one, other in zip(found, expected, strict=True):
        if not (math.isfinite(one) and math.isfinite(other)):
            return False, f"{one} and {other}"
        largest = max(largest, abs(one - other) / max(1.0, abs(other)))
    return largest <= tolerance, f"{largest:.1e}"


class Sheet:
    """The rows so far; the JSON file is whole after every row."""

    def __init__(self, path: Path, about: Mapping[str, Any], *, prints: bool = True) -> None:
        self.path, self.about, self._prints = path, dict(about), prints
        self.rows: list[Row] = []

    def describe(self, machine: Mapping[str, Any]) -> None:
        """Adds what is known of the machine, and prints the head of the table."""
        self.about |= machine
        if self._prints:
            for key in ("device", "memory_gb", "driver", "cuda", "torch", "data", "git_commit"):
                print(f"{key}: {self.about.get(key)}")
            print(COLUMNS.format(*TITLES))
        self.write()

    def add(self, row: Row) -> None:
        """Prints and stores a row."""
        self.rows.append(row)
        if self._prints:
            cells = (row.name, row.found, row.expected, row.verdict)
            print(COLUMNS.format(row.check, *cells, f"{row.seconds:.0f}"), flush=True)
            if row.note:
                print(f"   {row.note}", flush=True)
        self.write()

    def write(self) -> None:
        """Writes the JSON file, whole or not at all."""
        content = self.about | {"passed": self.passed, "rows": [asdict(row) for row in self.rows]}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, json.dumps(content, indent=1, default=str) + "\n")

    @property
    def passed(self) -> bool:
        """Whether no row has failed, and there is any."""
        return bool(self.rows) and all(row.verdict != "FAIL" for row in self.rows)

    @property
    def summary(self) -> str:
        """One line: how many rows passed, failed, were measured and skipped, by name."""
        count = {verdict: 0 for verdict in ("pass", "FAIL", "measured", "skipped")}
        for row in self.rows:
            count[row.verdict] += 1
        named = []
        for verdict in ("FAIL", "skipped"):
            names = [f"{row.check} {row.name}" for row in self.rows if row.verdict == verdict]
            named += [f"{verdict}: {', '.join(names)}"] if names else []
        first = (
            f"{count['pass']} passed, {count['FAIL']} failed, {count['measured']} measured, "
            f"{count['skipped']} skipped"
        )
        return "\n".join([first, *named])
