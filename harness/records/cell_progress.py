"""How far a running cell is, by its events: those that come, or the last ones of its event file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from harness.records.event_file import last_events
from harness.records.events import CellStarted, Encoding, EpochValidated, Event, Scoring, StepDone

TRAINING = "training"
ENCODING = "encoding pictures"


@dataclass(frozen=True)
class CellProgress:
    """How far a cell is, after the events that `after` was given."""

    started_ms: int = 0
    """When it was started, by the clock of its machine; 0 where that is not known."""
    last_ms: int = 0
    """When its newest event came."""
    part: str = "loading"
    """`loading`, `encoding pictures`, `training`, or the benchmarks that are being scored."""
    step: int = 0
    total_steps: int = 0
    loss: float | None = None
    tokens_per_second: float | None = None
    validated_epoch: int | None = None
    """From 1."""
    validation_loss: float | None = None
    done: int = 0
    """Steps, pictures or requests of this part."""
    total: int = 0
    first_done: int = 0
    """What was done at the first event of this part that was seen here."""
    first_ms: int = 0

    def after(self, event: Event) -> CellProgress:
        """How far it is after one more event of it."""
        if isinstance(event, CellStarted):
            return CellProgress(event.time_ms, event.time_ms, total_steps=event.total_steps)
        if isinstance(event, StepDone):
            taken = replace(self, step=event.step, loss=event.loss)
            if event.restored:
                return taken
            taken = replace(taken, tokens_per_second=event.tokens_per_second)
            return taken._in(TRAINING, event.step, self.total_steps, event.time_ms)
        if isinstance(event, EpochValidated):
            epoch = event.epoch + 1
            return replace(self, validated_epoch=epoch, validation_loss=event.loss)
        if isinstance(event, Encoding):
            return self._in(ENCODING, event.done, event.total, event.time_ms)
        if isinstance(event, Scoring):
            return self._in(event.benchmark, event.done, event.total, event.time_ms)
        return self

    def _in(self, part: str, done: int, total: int, time_ms: int) -> CellProgress:
        came = replace(self, done=done, total=total, last_ms=max(self.last_ms, time_ms))
        if part == self.part:
            return came
        return replace(came, part=part, first_done=done, first_ms=time_ms)

    @property
    def seconds_left(self) -> float | None:
        """Of this part, at the pace of its events so far; None where that is not known yet."""
        if self.done <= self.first_done or self.last_ms <= self.first_ms:
            return None
        pace = (self.last_ms - self.first_ms) / 1000 / (self.done - self.first_done)
        return pace * max(self.total - self.done, 0)

    def __str__(self) -> str:
        """In words: `step 12 of 456, loss 1.234, 1,234 tokens/s, 3 min left of it`."""
        if self.part in ("loading", TRAINING):
            parts = [f"step {self.step} of {self.total_steps}"] if self.step else [self.part]
            parts += [f"loss {self.loss:.3f}"] if self.loss is not None else []
            if self.validation_loss is not None:
                after = f"after epoch {self.validated_epoch}"
                parts.append(f"validation loss {self.validation_loss:.3f} {after}")
            if self.tokens_per_second is not None:
                parts.append(f"{self.tokens_per_second:,.0f} tokens/s")
        else:
            part = self.part if self.part == ENCODING else f"scoring {self.part}"
            parts = [f"{part}, {self.done} of {self.total}"]
        if (left := self.seconds_left) is not None and self.done < self.total:
            parts.append(f"{format_seconds(left)} left of it")
        return ", ".join(parts)


def stored_progress(folder: Path) -> CellProgress | None:
    """How far the cell of a folder is, from the end of its event file; None without any."""
    events = last_events(folder)
    if not events:
        return None
    progress = CellProgress()
    for event in events:
        progress = progress.after(event)
    return progress


def format_seconds(seconds: float) -> str:
    """A duration as a reader says it: `45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
