"""How mutants are tried: in this process, watched for raw exceptions, time and memory.

`make test` tries a few of each kind, always the same; `make test-fuzz` tries thousands.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from harness.cli import main

LONG = bool(os.environ.get("ZBENCH_FUZZ"))
LONGEST_SECONDS, LARGEST_GROWTH = 20.0, 2**30
LONGEST_LINE = 900
RAW = re.compile(
    r"Traceback \(most recent|with --debug for the traceback|<class |object at 0x|"
    r"(^|[^A-Za-z.])([a-z_0-9]+\.)*[A-Z][A-Za-z]*(Error|Exception|Interrupt)([^A-Za-z]|$)"
)
"""What a raw exception looks like in an output."""
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def mutants(quick: int, long: int) -> settings:
    """How many mutants a test tries."""
    return settings(
        max_examples=long if LONG else quick,
        derandomize=not LONG,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )


@dataclass
class Figures:
    """What the mutants of one kind took."""

    tried: int = 0
    refused: int = 0
    seconds: float = 0.0
    growth: int = 0


@dataclass
class Output:
    """What a command printed, and its exit code."""

    code: int
    text: str


@dataclass
class Watch:
    """Runs commands in this process, and keeps the largest figures by kind."""

    figures: dict[str, Figures] = field(default_factory=dict)

    @contextlib.contextmanager
    def trial(self, kind: str) -> Iterator[Figures]:
        """One mutant: the block may take 20 s of CPU and let the process grow by 1 GiB."""
        found = self.figures.setdefault(kind, Figures())
        found.tried += 1
        before, start = _largest_memory(), time.process_time()
        yield found
        found.seconds = max(found.seconds, took := time.process_time() - start)
        found.growth = max(found.growth, grown := _largest_memory() - before)
        assert took < LONGEST_SECONDS
        assert grown < LARGEST_GROWTH

    def zbench(self, *arguments: str) -> Output:
        """Runs a command; what it prints must be fit for any reader."""
        printed = io.TextIOWrapper(io.BytesIO(), "utf-8")
        argv = sys.argv
        sys.argv = ["zbench", *arguments]
        code = 0
        try:
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                main()
        except SystemExit as done:
            code = int(done.code or 0)
        finally:
            sys.argv = argv
        printed.flush()
        text = printed.buffer.getvalue().decode()  # type: ignore[attr-defined]
        assert code in (0, 1, 2), text
        assert not RAW.search(text), text
        assert not CONTROL.search(text), ascii(text)
        told = [line for line in text.splitlines() if line.startswith("zbench:")]
        assert all(len(line) <= LONGEST_LINE for line in told), told
        return Output(code, text)


def _largest_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


WATCH = Watch()


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    monkeypatch.setenv("COLUMNS", "160")
    return WATCH


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for kind, found in WATCH.figures.items():
        terminalreporter.write_line(
            f"{kind}: {found.tried} mutants, {found.refused} refused, longest "
            f"{found.seconds:.2f} s of CPU, largest growth {found.growth / 2**20:.0f} MiB"
        )


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all that mutants read and write."""
    return tmp_path_factory.mktemp("fuzz")
