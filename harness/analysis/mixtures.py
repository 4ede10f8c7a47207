"""Where the cells of one table are of several stacks: what its head says, which row is which."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
