"""The columns of the page of answers: the methods of a grid, and published outputs beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from harness.analysis.frames import is_trial
from harness.answers.store import Entry, read_outputs
from harness.grid.schema import Cell

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Answer:
    """What stands in one place of the page."""

    text: str
    num_tokens: int | None = None
    """None of outputs that do not say it."""
    ended: bool | None = None
    """Whether the model ended it itself; None where nothing says it."""


@dataclass(frozen=True)
class Member:
    """One model's answers: a seed of a method, or a file."""

    name: str
    """Such as `seed 0`; empty of one that is alone."""
    answers: Mapping[str, Answer]
    """By the entry's id."""


@dataclass(frozen=True)
class Column:
    """What stands side by side: a method with its seeds, or a file of published outputs."""

    title: str
    members: tuple[Member, ...]
    template: str = ""
    """What its prompts were put into; empty of a file."""
    is_trained: bool = True
    """False of a base model, and of an adapter that the grid did not train."""
    is_beside: bool = False
    """Whether it is a file of outputs, and no method of the grid."""

    @property
    def answers(self) -> list[Answer]:
        """All answers of all members."""
        return [answer for member in self.members for answer in member.answers.values()]

    @property
    def mean_characters(self) -> float | None:
        """Mean length of an answer in characters."""
        return fmean([len(one.text) for one in self.answers]) if self.answers else None

    @property
    def mean_tokens(self) -> float | None:
        """Mean length of an answer in tokens; None where they are not known."""
        found = [one.num_tokens for one in self.answers if one.num_tokens is not None]
        return fmean(found) if found else None

    @property
    def ended_ratio(self) -> float | None:
        """Share of the answers that the model ended itself; None where it is not known."""
        found = [one.ended for one in self.answers if one.ended is not None]
        return fmean(found) if found else None

    @property
    def empty_ratio(self) -> float | None:
        """Share of the answers without a letter."""
        return fmean([not one.text.strip() for one in self.answers]) if self.answers else None


def shown_cell(cell: Cell) -> Cell:
    """A cell under the name that it has in tables: not that of a trial."""
    return next((one for one in cell.listings if not is_trial(one)), cell)


def method_columns(answered: Sequence[tuple[Cell, str, pd.DataFrame]]) -> list[Column]:
    """A column per method, in the order of the cells; its seeds are its members.

    Args:
        answered: cells with the name of their template and their answers.
    """
    shown = [(shown_cell(cell), template, frame) for cell, template, frame in answered]
    several_models = len({cell.model_name for cell, _, _ in shown}) > 1
    several_fractions = len({cell.fraction for cell, _, _ in shown if cell.train}) > 1
    groups: dict[tuple[str, str, bool], list[Member]] = {}
    for cell, template, frame in shown:
        title = (
            cell.method_label if cell.data_name is None else f"{cell.method_label}@{cell.data_name}"
        )
        title = f"{cell.model_name}/{title}" if several_models else title
        if several_fractions and cell.fraction is not None:
            title += f" {100 * cell.fraction:g}%"
        key = title, template, cell.train is not None
        groups.setdefault(key, []).append(Member(_seed(cell), _by_id(frame)))
    return [
        Column(title, tuple(_unnamed(members)), template, is_trained)
        for (title, template, is_trained), members in groups.items()
    ]


def _unnamed(members: Sequence[Member]) -> Iterable[Member]:
    return members if len(members) > 1 else [Member("", members[0].answers)]


def _seed(cell: Cell) -> str:
    """What tells a cell from the others of its method."""
    if cell.seed is None:
        return ""
    name = f"seed {cell.seed}"
    name += f", {cell.fixed_seeds.text}" if cell.is_varied else ""
    return name if cell.repeat is None else f"{name}, repeat {cell.repeat}"


def _by_id(frame: pd.DataFrame) -> dict[str, Answer]:
    rows = zip(frame["id"], frame["output"], frame["num_tokens"], frame["stop_reason"], strict=True)
    return {key: Answer(text, int(count), stop == "eos") for key, text, count, stop in rows}


@dataclass(frozen=True)
class Beside:
    """Outputs from outside, matched to a set."""

    path: Path
    column: Column
    num_matched: int
    num_other: int
    """Outputs to instructions that the set does not have."""
    unmatched: tuple[str, ...] = field(default=())
    """Ids of entries that it does not answer."""

    @property
    def line(self) -> str:
        """How much of it stands on the page."""
        total = self.num_matched + len(self.unmatched)
        text = (
            f"{self.column.title} ({self.path.name}): answers {self.num_matched} of {total} prompts"
        )
        if 0 < len(self.unmatched) <= 5:
            text += f" (not {', '.join(self.unmatched)})"
        if self.num_other:
            text += f"; {self.num_other} of its outputs are to other instructions"
        return text


def beside_column(path: Path, entries: Sequence[Entry]) -> Beside:
    """A file of outputs as a column; instructions are matched by their text, whatever its blanks.

    Raises:
        Unreadable: the file holds no outputs.
    """
    outputs = read_outputs(path)
    by_text = {_plain(one.instruction): one for one in outputs}
    generators = {one.generator for one in outputs}
    title = outputs[0].generator if len(generators) == 1 else path.stem
    wanted = {_plain(entry.text) for entry in entries}
    found = {
        entry.id: Answer(by_text[_plain(entry.text)].output)
        for entry in entries
        if _plain(entry.text) in by_text
    }
    return Beside(
        path=path,
        column=Column(title, (Member("", found),), is_beside=True),
        num_matched=len(found),
        num_other=sum(_plain(one.instruction) not in wanted for one in outputs),
        unmatched=tuple(entry.id for entry in entries if entry.id not in found),
    )


def _plain(text: str) -> str:
    return " ".join(text.split())
