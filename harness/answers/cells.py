"""A grid's cells that can answer, and the answers of each: generated once, then kept.

A cell that is finished is read without its lock: its weights do not change any more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from harness.analysis.frames import is_trial
from harness.answers.columns import shown_cell
from harness.answers.prompts import PromptForm, ask, prompt_form
from harness.answers.store import (
    InstructionSet,
    effective,
    read_origin,
    read_responses,
    set_key,
    write_responses,
)
from harness.cell.run import load_finished
from harness.cell.settings import CellContext, RunSettings
from harness.data.templates import ALPACA
from harness.errors import StorageError, ZbenchError
from harness.evaluation.benchmarks import Decoding
from harness.grid.schema import Cell
from harness.grid.status import CellState
from harness.grid.workspace import OpenGrid
from harness.models.devices import free_memory
from harness.records.environment import describe_environment, prepare_torch
from harness.records.events import Emit
from harness.records.files import sha256_of_json
from harness.records.results import CellResult

if TYPE_CHECKING:
    import pandas as pd

SAME = ("cell_id", "weights_sha256", "base", "set_sha256", "decoding", "prompts")
"""What of an origin must be the same for answers to be kept."""
NAMED = 5
"""Cells that a line names."""


@dataclass(frozen=True)
class Answering:
    """A cell that can answer."""

    state: CellState
    form: PromptForm
    result: CellResult

    @property
    def cell(self) -> Cell:
        """The cell."""
        return self.state.cell


@dataclass(frozen=True)
class CellsToAsk:
    """The chosen cells of a grid, by whether they can answer."""

    able: tuple[Answering, ...]
    left_out: Mapping[str, Sequence[CellState]]
    """The others, by why they are left out."""
    num_trials: int
    """Cells that are trained to choose settings alone: they are not asked."""

    @property
    def lines(self) -> list[str]:
        """Which cells are left out and why, a line per reason."""
        told = []
        for why, states in self.left_out.items():
            labels = [shown_cell(state.cell).label for state in states]
            more = f" and {len(labels) - NAMED} more" if len(labels) > NAMED else ""
            told.append(f"left out, {why}: {', '.join(labels[:NAMED])}{more}")
        if self.num_trials:
            told.append(f"left out, trials of a tuning: {self.num_trials} cells")
        return told


def cells_to_ask(grid: OpenGrid) -> CellsToAsk:
    """The cells of a grid that are finished, with what their prompts are put into."""
    shown = [state for state in grid.states if not is_trial(shown_cell(state.cell))]
    recorded: dict[str | None, str] = {}
    for state in shown:
        example = state.result and state.result.train and state.result.train.example
        if example:
            recorded.setdefault(state.cell.data_name, example.template)

    @cache
    def form_of(name: str | None) -> PromptForm:
        return prompt_form(grid.spec.data_of(name), recorded.get(name), grid.data_root)

    able = []
    left_out: dict[str, list[CellState]] = {}
    for state in shown:
        why = _why_not(state)
        try:
            form = None if why else form_of(_data_name(state.cell, grid))
        except ZbenchError as fault:  # of one data set: cells of others are asked
            why, form = str(fault), None
        if form is None or state.result is None:
            left_out.setdefault(str(why), []).append(state)
        else:
            able.append(Answering(state, form, state.result))
    return CellsToAsk(tuple(able), left_out, len(grid.states) - len(shown))


def _why_not(state: CellState) -> str | None:
    """Why a cell cannot answer; None where it can."""
    if state.status == "stale":
        return str(state.fault)
    if state.result is None or not state.trained or not state.result.base:
        if state.status == "failed" and state.fault:
            return f"failed ({state.fault})"
        told = {"running": "still running", "pruned": "stopped early"}
        return told.get(state.status, "not trained yet" if state.cell.train else "not run yet")
    return None


def _data_name(cell: Cell, grid: OpenGrid) -> str | None:
    """The set whose template a cell's prompts are put into: of one that trains nothing, that which
    the first of its model's blocks trains on."""
    if cell.train is not None:
        return cell.data_name
    blocks = (block for block in grid.spec.blocks if block.trains)
    trained = [block.data for block in blocks if cell.model_name in block.models]
    return trained[0] if trained else None


def key_of(
    cell: Cell, form: PromptForm | None, instructions: InstructionSet, decoding: Decoding
) -> str:
    """What a cell's answers are filed under: see `set_key`.

    The template that a cell which trains nothing is asked in is its grid's. Where it is not
    Alpaca's it stands in the name, so that two grids do not take each other's answers.
    """
    key = set_key(instructions, decoding)
    if cell.train is not None or form in (None, PromptForm(ALPACA)):
        return key
    return f"{key}-{sha256_of_json(form.identity)[:8]}"


def origin_of(
    answering: Answering, instructions: InstructionSet, decoding: Decoding
) -> dict[str, Any]:
    """What a cell's answers follow from, as far as it is known before they are generated."""
    known = _of_result(answering.result) | {"prompts": answering.form.identity}
    named = {"label": answering.cell.label, "set_name": instructions.name}
    return named | _of_set(answering.cell, instructions, decoding) | known


def _of_set(cell: Cell, instructions: InstructionSet, decoding: Decoding) -> dict[str, Any]:
    return {
        "cell_id": cell.id,
        "set_sha256": instructions.sha256,
        "decoding": asdict(effective(decoding)),
    }


def _of_result(result: CellResult) -> dict[str, Any]:
    names = ("weights_sha256", "commit", "tokenizer_sha256")
    return {
        "weights_sha256": result.train.weights_sha256 if result.train else None,
        "base": {name: result.base.get(name) for name in names},
    }


def is_answered(answering: Answering, instructions: InstructionSet, decoding: Decoding) -> bool:
    """Whether a cell's answers are there, of the same weights to the same prompts."""
    key = key_of(answering.cell, answering.form, instructions, decoding)
    folder = answering.state.folder
    try:
        known = read_origin(folder, key)
        if known is None or read_responses(folder, key) is None:
            return False
    except StorageError:  # damaged: made again
        return False
    now = origin_of(answering, instructions, decoding)
    return all(known.get(name) == now[name] for name in SAME)


def kept_answers(
    state: CellState, form: PromptForm | None, instructions: InstructionSet, decoding: Decoding
) -> pd.DataFrame | None:
    """A cell's answers; None where it has none, or they are known to be of something else: of other
    weights, another base model, or prompts in the template of another grid.

    Args:
        form: what the cell's prompts are put into; None where nothing tells.

    Raises:
        StorageError: the file is damaged, or cannot be read.
    """
    key = key_of(state.cell, form, instructions, decoding)
    frame = read_responses(state.folder, key)
    if frame is None or state.status == "stale":
        return None
    now = _of_set(state.cell, instructions, decoding)
    now |= {} if state.result is None else _of_result(state.result)
    now |= {} if form is None else {"prompts": form.identity}
    then = read_origin(state.folder, key) or {}
    return frame if all(then[name] == now[name] for name in then if name in now) else None


def answer_cell(
    answering: Answering,
    instructions: InstructionSet,
    decoding: Decoding,
    settings: RunSettings,
    *,
    emit: Emit,
    on_progress: Callable[[int, int], None],
) -> None:
    """Generates a cell's answers and writes them into its folder.

    Raises:
        ZbenchError: its weights are damaged or of another base, its template does not take the
            instructions, or the memory is too small.
    """
    from harness.answers.generation import generate_answers

    start = time.monotonic()
    prepare_torch(settings.threads)
    context = CellContext(answering.cell, settings, answering.state.folder, emit)
    base, model = load_finished(context, answering.result)
    try:
        asked = ask(
            instructions.entries,
            answering.form,
            base.tokenizer,
            f"--instructions {instructions.name}",
        )
        answers = generate_answers(
            model,
            base.tokenizer,
            instructions.entries,
            asked,
            decoding,
            precision=base.identity["precision"],
            on_progress=on_progress,
        )
    finally:
        precision = base.identity["precision"]
        del base, model
        free_memory(settings.device)
    origin = origin_of(answering, instructions, decoding) | {
        "template": answering.form.name,
        "max_new_tokens": answers.max_new_tokens,
        "num_cut": answers.num_cut,
        "num_rows": answers.num_rows,
        "precision": precision,
        "seconds": round(time.monotonic() - start, 3),
        "environment": describe_environment(settings.device),
    }
    key = key_of(answering.cell, answering.form, instructions, decoding)
    write_responses(answering.state.folder, key, answers.frame, origin)
