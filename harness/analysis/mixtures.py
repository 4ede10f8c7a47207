"""Where the cells of one table are of several stacks: what its head says, which row is which."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from harness.analysis.columns import Group
from harness.analysis.measurements import Measurements
from harness.analysis.stacks import Made, Stack, varying
from harness.analysis.variants import label_of, name_of


@dataclass(frozen=True)
class Mixture:
    """The stacks of the cells of one set of tables, where there are several."""

    letters: Mapping[Made, str]
    trained: tuple[str, ...]
    """Fields in which the trainings differ."""
    scored: tuple[str, ...]
    """Fields in which the evaluations differ."""
    rows: Mapping[tuple[str, str], tuple[Made, ...]]
    """Stacks by model and printed name of a row, in their order."""

    @property
    def head(self) -> str:
        """What the head of a table says of them."""
        listed = "; ".join(
            f"[{letter}] {self._said(made)}" for made, letter in self.letters.items()
        )
        return f"Cells of {len(self.letters)} stacks, not comparable like those of one: {listed}"

    def mark(self, model: str, name: str) -> str:
        """What a row's name ends with."""
        letters = sorted({self.letters[_told_as(m, self.letters)] for m in self._of(model, name)})
        return f" [{','.join(letters)}]" if letters else ""

    def crosses(self, model: str, left: str, right: str) -> bool:
        """Whether a difference between two rows is across stacks."""
        pairs = product(self._of(model, left), self._of(model, right))
        return not all(
            one.scored == other.scored
            and (None in (one.trained, other.trained) or one.trained == other.trained)
            for one, other in pairs
        )

    def _of(self, model: str, name: str) -> tuple[Made, ...]:
        return self.rows.get((model, name), ())

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
    known = dict.fromkeys(_plain(made, trained, scored) for *_, made in rows)
    seen = dict.fromkeys(_told_as(made, known) for made in known)
    names = [*string.ascii_lowercase, *map(str, range(1, len(seen)))]
    letters = dict(zip(seen, names, strict=False))
    found: dict[tuple[str, str], dict[Made, None]] = {}
    for model, printed, made in rows:
        for name in printed:
            found.setdefault((model, name), {})[_plain(made, trained, scored)] = None
    return Mixture(letters, trained, scored, {key: tuple(stacks) for key, stacks in found.items()})


def _told_as(made: Made, known: Iterable[Made]) -> Made:
    """The stack that stands for another in the head: an untrained model is of any training's."""
    if made.trained is not None:
        return made
    same = (one for one in known if one.trained is not None and one.scored == made.scored)
    return next(same, made)


def _plain(made: Made, trained: Sequence[str], scored: Sequence[str]) -> Made:
    """A stack with the fields alone in which the tables' stacks differ."""
    return Made(
        None if made.trained is None else _only(made.trained, trained), _only(made.scored, scored)
    )


def _only(stack: Stack, names: Sequence[str]) -> Stack:
    return Stack(**{name: getattr(stack, name) for name in names})


def table_mixture(measured: Measurements, group: Group) -> Mixture | None:
    """The stacks behind the rows of a group's tables; None where they are of one."""
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
                names = {name_of(variant), measured.row_name(variant), label_of(variant)}
                rows.append((variant.model, sorted(names), made))
    return mixture_of(rows)
