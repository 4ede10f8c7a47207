"""Progress of answers: a line per cell in a log, bars on a terminal; labels steer nothing."""

from __future__ import annotations

import io

from rich.console import Console

from harness.commands.answer_progress import AnswerProgress


def shown(*, terminal: bool) -> str:
    out = io.StringIO()
    screen = Console(file=out, force_terminal=terminal, width=120, color_system=None)
    with AnswerProgress(screen, 2, 4) as progress:
        progress.start("m/[bold]lora/seed0")
        for done in range(1, 5):
            progress.advance(done, 4)
        progress.end(None)
        progress.start("m/full")
        progress.end("no memory")
    return out.getvalue()


def test_a_log_has_a_line_per_cell() -> None:
    first, second = shown(terminal=False).splitlines()
    assert first.startswith("[1/2] m/[bold]lora/seed0: done (")
    assert second.startswith("[2/2] m/full: FAILED: no memory (")


def test_a_terminal_has_bars() -> None:
    text = shown(terminal=True)
    assert "m/[bold]lora/seed0" in text
    assert "2/2 cells, 1 failed" in text


def test_a_slow_cell_is_told_of_now_and_then() -> None:
    out = io.StringIO()
    with AnswerProgress(Console(file=out, width=120), 1, 4) as progress:
        progress.start("m/lora")
        progress._told -= 1000
        progress.advance(1, 4)
        progress.advance(2, 4)
    assert out.getvalue() == "m/lora: 1 of 4 answers\n"
