"""Events of a running cell: plain records that cross process borders and import nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class CellQueued:
    """A cell waits in a scheduler's queue, or runs there already."""

    cell_id: str
    job: str
    """What the scheduler calls it: `123_4`."""
    before: bool = False
    """An earlier command has submitted it."""
    logged: bool = False
    """Its job logs it to MLflow by itself."""


@dataclass(frozen=True)
class CellStarted:
    """A cell's work begins."""

    cell_id: str
    label: str
    total_steps: int
    """Optimizer steps to come; 0 where nothing is left to train."""
    time_ms: int
    """Milliseconds since 1970, UTC."""


@dataclass(frozen=True)
class StepDone:
    """One optimizer step."""

    cell_id: str
    step: int
    """From 1."""
    epoch: int
    """From 0."""
    loss: float
    """Mean over the step's label tokens, in nats."""
    learning_rate: float
    tokens_per_second: float
    time_ms: int
    statistics: Mapping[str, float] = field(default_factory=dict)
    restored: bool = False
    """Taken by an earlier process; repeated by the one that resumes from its checkpoint."""


@dataclass(frozen=True)
class EpochValidated:
    """The loss on the validation rows after an epoch."""

    cell_id: str
    epoch: int
    """From 0."""
    loss: float
    """Mean per label token, in nats."""
    time_ms: int
    """Milliseconds since 1970, UTC."""
    restored: bool = False
    """Measured by an earlier process, as of StepDone."""


@dataclass(frozen=True)
class Encoding:
    """Pictures that the image encoder has been given, before a training or a scoring."""

    cell_id: str
    done: int
    total: int
    time_ms: int
    """Milliseconds since 1970, UTC."""


@dataclass(frozen=True)
class Scoring:
    """Requests of one benchmark that have been scored."""

    cell_id: str
    benchmark: str
    done: int
    total: int
    time_ms: int = 0
    """Milliseconds since 1970, UTC."""


@dataclass(frozen=True)
class Warned:
    """Something is wrong, and the cell continues."""

    cell_id: str
    message: str
    """One line."""
    restarts: bool = False
    """The worker leaves, and a fresh process takes the cell on."""


@dataclass(frozen=True)
class CellEnded:
    """A cell's work is over; the rest is in its folder."""

    cell_id: str
    folder: str
    seconds: float
    error: str | None = None
    """First line of what went wrong; None where nothing did."""
    elsewhere: bool = False
    """Another process was running it: nothing was done here."""
    paused: bool = False
    """Its training stopped with a checkpoint, to be resumed when others have come as far."""


Event = (
    CellQueued | CellStarted | StepDone | EpochValidated | Encoding | Scoring | Warned | CellEnded
)
Emit = Callable[[Event], None]
