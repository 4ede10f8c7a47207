"""With what numbers were made: software, kind of device, precision; and where tables mix them."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from harness.records.results import CellResult, TaskScore

if TYPE_CHECKING:
    from harness.analysis.columns import Group
    from harness.analysis.measurements import Measurements

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


@dataclass(frozen=True)
class Mixture:
    """The stacks of the cells of one set of tables, where there are several."""

    letters: Mapping[Made, str]
    trained: tuple[str, ...]
    """Fields in which the trainings differ."""
    scored: tuple[str, ...]
    """Fields in which the evaluations differ."""
    rows: Mapping[tuple[str, str], tuple[str, ...]]
    """Letters by model and printed name of a row."""

    @property
    def head(self) -> str:
        """What the head of a table says of them."""
        listed = "; ".join(
            f"[{letter}] {self._said(made)}" for made, letter in self.letters.items()
        )
        return f"Cells of {len(self.letters)} stacks, not comparable like those of one: {listed}"

    def mark(self, model: str, name: str) -> str:
        """What a row's name ends with."""
        letters = self.rows.get((model, name), ())
        return f" [{','.join(letters)}]" if letters else ""

    def crosses(self, model: str, left: str, right: str) -> bool:
        """Whether a difference between two rows is across stacks."""
        sides = [self.rows.get((model, name), ()) for name in (left, right)]
        return all(sides) and sides[0] != sides[1]

    def _said(self, made: Made) -> str:
        scored = made.scored.text(self.scored)
        if made.trained is None:
            return f"scored with {scored}" if scored else "not trained here"
        trained = made.trained.text(self.trained)
        if self.trained == self.scored and trained == scored:
            return trained
        said = [("trained", trained), ("scored", scored)]
        return ", ".join(f"{how} with {what}" for how, what in said if what)


def mixture_of(rows: Sequence[tuple[str, Sequence[str], Made]]) -> Mixture | None:
    """The stacks behind rows of tables, given as model, printed names and stack of each cell.

    None where all are of one stack. An untrained model is of any training's.
    """
    trained, scored = (
        varying(made.trained for *_, made in rows),
        varying(m.scored for *_, m in rows),
    )
    if not trained and not scored:
        return None
    seen = dict.fromkeys(_plain(made, trained, scored) for *_, made in rows)
    names = [*string.ascii_lowercase, *map(str, range(1, len(seen)))]
    letters = dict(zip(seen, names, strict=False))
    found: dict[tuple[str, str], dict[str, None]] = {}
    for model, printed, made in rows:
        for name in printed:
            found.setdefault((model, name), {})[letters[_plain(made, trained, scored)]] = None
    of_rows = {key: tuple(sorted(marks)) for key, marks in found.items()}
    return Mixture(letters, trained, scored, of_rows)


def _plain(made: Made, trained: Sequence[str], scored: Sequence[str]) -> Made:
    """A stack with the fields alone in which the tables' stacks differ."""
    return Made(
        None if made.trained is None else _only(made.trained, trained), _only(made.scored, scored)
    )


def _only(stack: Stack, names: Sequence[str]) -> Stack:
    return Stack(**{name: getattr(stack, name) for name in names})


def table_mixture(measured: Measurements, group: Group) -> Mixture | None:
    """The stacks behind the rows of a group's tables; None where they are of one."""
    from harness.analysis.measurements import name_of

    variants = {
        cell: variant for variant in measured.tabled for cell in measured.cells[variant].values()
    }
    rows = []
    for setting in dict.fromkeys(group.settings.values()):
        frame = measured.rows[setting]
        if "made" not in frame:
            continue
        for cell, made in zip(frame["cell_id"], frame["made"], strict=True):
            variant = variants.get(cell)
            if variant is not None and isinstance(made, Made):
                names = {name_of(variant), measured.row_name(variant), variant.method}
                rows.append((variant.model, sorted(names), made))
    return mixture_of(rows)
