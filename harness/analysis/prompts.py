"""Training and evaluation prompts side by side: one example of each model and benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.grid.schema import Cell
from harness.records.prompts import Prompt, agreement
from harness.records.results import CellResult


@dataclass(frozen=True)
class PromptPair:
    """What a model was trained on, and what a benchmark asked it."""

    model: str
    data: str | None
    """The data set's name, where the grid has several."""
    benchmark: str
    training: Prompt
    evaluation: Prompt

    @property
    def agree(self) -> bool:
        """Whether both are in the same template."""
        return self.training.template == self.evaluation.template

    @property
    def sentence(self) -> str:
        """Whether they are, in words."""
        return agreement(self.training.template, self.evaluation.template, self.benchmark)


def prompt_pairs(
    cells: Iterable[Cell], results: Mapping[str, CellResult]
) -> tuple[PromptPair, ...]:
    """Of each model, data set and benchmark the first cell's; older results hold no prompts."""
    found: dict[tuple[str, str | None, str], PromptPair] = {}
    for cell in cells:
        result = results.get(cell.id)
        if result is None or result.train is None or result.train.example is None:
            continue
        for task in cell.tasks:
            if (asked := result.examples.get(task.name)) is not None:
                key = cell.model_name, cell.data_name, task.name
                found.setdefault(key, PromptPair(*key, result.train.example, asked))
    return tuple(found.values())
