"""A judge's verdicts on disk: one line each, added as they come, and found again by content."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.answers.judge_prompt import Choice
from harness.errors import StorageError
from harness.grid.folders import VERDICTS_LOG
from harness.readers.files import unreadable
from harness.records.files import sha256_of_json
from harness.records.line_files import append_lines


@dataclass(frozen=True)
class Judge:
    """Who judged, and how it was asked: numbers of two of them are never compared."""

    model: str
    """As it was asked for."""
    reported: str
    """As the endpoint called the model that answered; empty where it did not."""
    prompt_sha256: str
    settings: str

    @property
    def name(self) -> str:
        """A name for tables, another for each judge."""
        own = f" ({self.reported})" if self.reported not in ("", self.model) else ""
        return f"{self.model}{own}, prompt {self.prompt_sha256[:8]}, {self.settings}"


@dataclass(frozen=True)
class Verdict:
    """What a judge said of two answers, shown in one order."""

    judge: Judge
    shown: str
    """Identity of what was shown: see `identity_of`."""
    choice: Choice | None
    """None where it cannot be read."""
    text: str
    """All that the judge wrote."""
    finish_reason: str
    made_at: str
    """UTC, ISO 8601."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


def identity_of(instruction: str, first: str, second: str) -> str:
    """The identity of an instruction and two answers in the order in which a judge sees them."""
    return sha256_of_json([instruction, first, second])


class VerdictLog:
    """The verdicts of a runs folder; may be added to by several threads.

    A line that a killed process left half is skipped, and the next one begins behind it.
    """

    def __init__(self, runs_dir: Path) -> None:
        """Reads what is there.

        Raises:
            StorageError: it cannot be read.
        """
        self.path = runs_dir / VERDICTS_LOG
        self.num_damaged = 0
        self._found: dict[str, dict[Judge, Verdict]] = {}
        self._lock = threading.Lock()
        self._newest: dict[tuple[str, str, str], Verdict] = {}
        for verdict in self._read():
            self._note(verdict)

    def of(self, shown: str) -> dict[Judge, Verdict]:
        """The verdicts of all judges on what was shown."""
        return self._found.get(shown, {})

    @property
    def judges(self) -> list[Judge]:
        """All who have judged, in the order of their first verdicts."""
        return list(dict.fromkeys(judge for one in self._found.values() for judge in one))

    def newest(self, model: str, prompt_sha256: str, settings: str) -> Judge | None:
        """Who answered last when this model was asked in this way; None where nobody has."""
        found = self._newest.get((model, prompt_sha256, settings))
        return None if found is None else found.judge

    def add(self, verdict: Verdict) -> None:
        """Writes a verdict to the disk, in one piece.

        Raises:
            StorageError: it cannot be written.
        """
        line = json.dumps(asdict(verdict), sort_keys=True).encode() + b"\n"
        with self._lock:
            append_lines(self.path, line)
            self._note(verdict)

    def _note(self, verdict: Verdict) -> None:
        judge = verdict.judge
        self._found.setdefault(verdict.shown, {})[judge] = verdict
        asked = judge.model, judge.prompt_sha256, judge.settings
        known = self._newest.setdefault(asked, verdict)
        if verdict.made_at >= known.made_at:  # lines of a merge may be older than those before
            self._newest[asked] = verdict

    def _read(self) -> Iterator[Verdict]:
        try:
            with self.path.open("rb") as file:
                for line in file:
                    if line.strip() and (verdict := _verdict_of(line)) is not None:
                        yield verdict
                    elif line.strip():
                        self.num_damaged += 1
        except FileNotFoundError:
            return
        except OSError as fault:
            raise StorageError(str(unreadable(self.path, fault))) from fault


def _verdict_of(line: bytes) -> Verdict | None:
    """The verdict of a line; None where it holds none."""
    try:
        said: dict[str, Any] = json.loads(line)
        verdict = Verdict(**said | {"judge": Judge(**said["judge"])})
        known = verdict.choice in ("A", "B", "C", None)
        judge = asdict(verdict.judge).values()
        strings = (*judge, verdict.shown, verdict.text, verdict.made_at)
        return verdict if known and all(isinstance(one, str) for one in strings) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
