"""Whose answers are compared with whose: cells, and the method, cell or file they stand against."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.answers.store import InstructionSet, Output, read_outputs
from harness.errors import UsageError, did_you_mean, shortened
from harness.grid.schema import Cell
from harness.grid.selection import UnknownCell, find_cell
from harness.readers.files import user_path

FILE_ENDINGS = (".json", ".jsonl", ".parquet", ".csv")
Answers = Mapping[str, str]
"""Answers by the id of their instruction."""


@dataclass(frozen=True)
class Reference:
    """What answers are compared with."""

    name: str
    cells: tuple[Cell, ...] = ()
    """Of a method all its cells, else one; none of a file."""
    is_method: bool = False
    outputs: tuple[Output, ...] = ()
    """Of a file."""

    def partners(self, cell: Cell) -> list[Cell]:
        """The cells that a cell is compared with.

        Of a method, that is the one of the same model, data, fraction and seed; what trains
        nothing has a partner in each.
        """
        if not self.is_method:
            return list(self.cells)
        return [
            other
            for other in self.cells
            if other.model_name == cell.model_name
            and (cell.train is None or other.train is None or _place(cell) == _place(other))
        ]


def _place(cell: Cell) -> tuple[object, ...]:
    return cell.data_name, cell.fraction, cell.seed


@dataclass(frozen=True)
class Contestant:
    """A cell with what it is compared with: in a table, one seed of a row."""

    cell: Cell
    partner: Cell | None
    """None where the reference is a file."""
    share: str
    """Data set and fraction of whichever of the two is trained; empty where neither is."""
    seed: int | None
    answers: Answers
    reference: Answers


@dataclass(frozen=True)
class Contest:
    """All that is to be compared."""

    contestants: tuple[Contestant, ...]
    without_answers: tuple[Cell, ...]
    """Cells, also of the reference, whose answers are not there."""
    without_partner: tuple[Cell, ...]
    """Cells that the reference's method was not trained beside."""
    unmatched: tuple[str, ...]
    """Instructions that a file of answers does not have."""


def find_reference(named: str, cells: Sequence[Cell]) -> Reference:
    """What `--against` names: a method of the grid, a file of answers, or a cell.

    Raises:
        UsageError: it is none of these.
        Unreadable: the file cannot be read.
    """
    own = [cell for cell in cells if cell.method_label == named]
    own = own or [cell for cell in cells if cell.method == named]
    if len(labels := list(dict.fromkeys(cell.method_label for cell in own))) > 1:
        raise UsageError(f"--against {named}: is several methods of the grid; name one of them: "
                         f"{', '.join(labels)}")  # fmt: skip
    if own:
        return Reference(named, tuple(own), is_method=True)
    if named.endswith(FILE_ENDINGS):
        try:
            outputs = tuple(read_outputs(user_path(named)))
        except UsageError as fault:
            raise UsageError(f"--against: {fault}") from fault
        names = list(dict.fromkeys(output.generator for output in outputs))
        return Reference(names[0] if len(names) == 1 else Path(named).stem, outputs=outputs)
    try:
        cell = find_cell(cells, named)
    except UnknownCell as fault:
        known = did_you_mean(named, dict.fromkeys(one.method_label for one in cells))
        raise UsageError(
            f"--against {shortened(named)}: is no method of the grid, none of its cells, and no "
            f"file of answers ({', '.join(FILE_ENDINGS)}){known}"
        ) from fault
    return Reference(cell.label, (cell,))


def find_contest(
    cells: Sequence[Cell],
    reference: Reference,
    instructions: InstructionSet,
    answers_of: Callable[[Cell], Answers | None],
) -> Contest:
    """The answers of cells, each beside the reference's.

    Args:
        cells: the chosen ones; those of the reference are not compared with themselves.
        reference: from `find_reference`.
        instructions: the set that is answered.
        answers_of: a cell's answers to the set; None where it has none.
    """
    from_file = _matched(reference.outputs, instructions) if reference.outputs else None
    own = {cell.id for cell in reference.cells}
    found: list[Contestant] = []
    silent: dict[str, Cell] = {}
    alone: list[Cell] = []
    for cell in (one for one in cells if one.id not in own):
        partners: list[Cell | None] = [*reference.partners(cell)]
        if from_file is None and not partners:
            alone.append(cell)
            continue
        if (answers := answers_of(cell)) is None:
            silent[cell.id] = cell
        for partner in partners or (None,):
            theirs = from_file if partner is None else answers_of(partner)
            if partner is not None and theirs is None:
                silent[partner.id] = partner
            if answers is not None and theirs is not None:
                found.append(_contestant(cell, partner, answers, theirs))
    known = from_file or {}
    unmatched = [
        entry.text
        for entry in instructions.entries
        if from_file is not None and entry.id not in known
    ]
    return Contest(tuple(found), tuple(silent.values()), tuple(alone), tuple(unmatched))


def _contestant(
    cell: Cell, partner: Cell | None, answers: Answers, reference: Answers
) -> Contestant:
    trained = next((one for one in (cell, partner) if one is not None and one.train), None)
    share, seed = "", None
    if trained is not None:
        of = "" if trained.data_name is None else f"{trained.data_name} "
        assert trained.fraction is not None
        share, seed = f"{of}{100 * trained.fraction:g}%", trained.seed
    return Contestant(cell, partner, share, seed, answers, reference)


def _matched(outputs: Sequence[Output], instructions: InstructionSet) -> Answers:
    """A file's answers by the ids of the set, whose texts they answer; blanks do not count."""
    known = {" ".join(output.instruction.split()): output.output for output in outputs}
    texts = ((entry.id, " ".join(entry.text.split())) for entry in instructions.entries)
    return {name: known[text] for name, text in texts if text in known}


def generate_command(
    cells: Sequence[Cell], every: Sequence[Cell], *, grid: str, options: Sequence[str]
) -> str:
    """The command that makes the answers of cells that have none."""
    import shlex

    words = ["zbench", "generate", grid, *options]
    if len(cells) < len(every):
        only = cells[0].label if len(cells) == 1 else _common(cells, every)
        words += ["--only", only] if only else []
    return shlex.join(words)


def _common(cells: Sequence[Cell], every: Sequence[Cell]) -> str:
    """Words that the labels of these cells share and no other has; empty where there are none."""
    shared = set.intersection(*(set(cell.label.split("/")) for cell in cells))
    names = {cell.id for cell in cells}
    for word in sorted(shared):
        if {cell.id for cell in every if word in cell.label} == names:
            return word
    return ""
