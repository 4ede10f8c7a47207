"""What is shown while cells answer: bars, in a log a line per cell and now and then."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from harness.commands.display import print_line
from harness.errors import printable
from harness.records.cell_progress import format_seconds

if TYPE_CHECKING:
    from rich.console import Console

LINE_SECONDS = 60.0
"""Between two lines about a cell in a log."""


class AnswerProgress:
    """How far the cells are, one after the other.

    Args:
        screen: where it is shown.
        num_cells: that are asked.
        num_entries: answers of each.
    """

    def __init__(self, screen: Console, num_cells: int, num_entries: int) -> None:
        self.screen, self.num_cells, self.num_entries = screen, num_cells, num_entries
        self._ended = self._failed = self._done = 0
        self._label = ""
        self._start = self._cell_start = self._told = time.monotonic()
        self._bars = None
        if screen.is_terminal:
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[text]}"),
                TimeElapsedColumn(),
                console=screen,
                transient=True,
            )
            total = num_cells * num_entries
            self._all = self._bars.add_task("[bold]all cells", total=total, text="")
            self._one = self._bars.add_task("", total=num_entries, text="", visible=False)

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def start(self, label: str) -> None:
        """A cell's model is loaded."""
        self._label, self._done = label, 0
        self._cell_start = self._told = time.monotonic()
        if self._bars is None:
            return
        from rich.markup import escape

        name = escape(printable(label))
        self._bars.reset(self._one, description=name, text="loading", visible=True)
        self._overall()

    def advance(self, done: int, total: int) -> None:
        """A cell has answered so many."""
        self._done, now = done, time.monotonic()
        if self._bars is not None:
            self._bars.update(self._one, completed=done, text=f"answers {done}/{total}")
            self._overall()
        elif now - self._told >= LINE_SECONDS:
            self._told = now
            print_line(self.screen, f"{self._label}: {done} of {total} answers")

    def end(self, error: str | None) -> None:
        """A cell has answered, or failed."""
        self._ended += 1
        self._failed += error is not None
        self._done = 0
        if self._bars is not None:
            self._overall()
            return
        seconds = time.monotonic() - self._cell_start
        said = "done" if error is None else f"FAILED: {error}"
        count = f"[{self._ended}/{self.num_cells}] " if self.num_cells > 1 else ""
        print_line(self.screen, f"{count}{self._label}: {said} ({seconds:.1f} s)")

    def _overall(self) -> None:
        assert self._bars is not None
        done, total = self._ended * self.num_entries + self._done, self.num_cells * self.num_entries
        elapsed = time.monotonic() - self._start
        text = f"{self._ended}/{self.num_cells} cells"
        if self._failed:
            text += f", [red]{self._failed} failed[/red]"
        if done and elapsed > 5:
            text += f", {format_seconds(elapsed * (total - done) / done)} left"
        self._bars.update(self._all, completed=done, text=text)
