"""With what numbers were made: software, kind of device, precision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from harness.records.results import CellResult
from harness.records.scores import TaskScore

CPU = "cpu"
NAMES = {"lm_eval": "lm-eval", "peft": "PEFT"}
"""What fields are called that have another name than their own."""
NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class Stack:
    """The versions, device and precision of a training, or of an evaluation.

    A field is None where it was not recorded; or of a training, which no lm-eval takes part in.
    """

    torch: str | None = None
    transformers: str | None = None
    peft: str | None = None
    lm_eval: str | None = None
    device: str | None = None
    """The GPU's name, or `cpu`."""
    precision: str | None = None

    def text(self, names: Iterable[str]) -> str:
        """Some of its fields, such as `torch 2.13.0, lm-eval 0.4.13`."""
        values = ((name, getattr(self, name)) for name in names)
        return ", ".join(
            f"{NAMES.get(name, name)} {value or NOT_RECORDED}" for name, value in values
        )


FIELDS = tuple(field.name for field in fields(Stack))


@dataclass(frozen=True)
class Made:
    """How a score came about."""

    trained: Stack | None
    """None of a model that was not trained here."""
    scored: Stack


def made_of(result: CellResult, score: TaskScore) -> Made:
    """How a score of a result came about."""
    return Made(training_stack(result), scoring_stack(result, score))


def training_stack(result: CellResult) -> Stack | None:
    """With what a cell was trained; None where it was not."""
    if result.train is None:
        return None
    return _stack(result.environment, None, result.train.precision)


def scoring_stack(result: CellResult, score: TaskScore) -> Stack:
    """With what a score was measured."""
    # Scores of an untrained model may be older than the record of each evaluation's own.
    default = {} if result.train else result.environment
    made_in = result.evaluation_environments.get(score.evaluation, default)
    return _stack(made_in, score.lm_eval_version, score.precision)


def _stack(environment: Mapping[str, Any], lm_eval: str | None, precision: str) -> Stack:
    torch, transformers, peft = (
        environment.get(name) for name in ("torch", "transformers", "peft")
    )
    return Stack(torch, transformers, peft, lm_eval, kind_of(environment.get("device")), precision)


def kind_of(device: str | None) -> str | None:
    """The kind of a device as the environment describes it: a CPU's model and threads are none."""
    return CPU if device is not None and device.endswith(" threads") else device


def varying(stacks: Iterable[Stack | None]) -> tuple[str, ...]:
    """Fields in which stacks are not the same."""
    known = [stack for stack in stacks if stack is not None]
    return tuple(name for name in FIELDS if len({getattr(one, name) for one in known}) > 1)
