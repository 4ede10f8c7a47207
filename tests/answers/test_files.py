"""What a grid's answers are written to: every cell's rows, and a file per cell for any judge."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import yaml

from harness.answers.files import CELL_COLUMNS, Answered, write_answers
from harness.answers.store import COLUMNS, GREEDY, Entry, InstructionSet, read_outputs
from harness.grid.resolver import resolve_grid
from harness.grid.schema import expand
from tests.grid.test_loader import GRID


def test_the_files_hold_every_cells_answers(tmp_path: Path) -> None:
    cells = expand(resolve_grid(yaml.safe_load(GRID), place="g.yaml"))[:2]
    assert [cell.train is None for cell in cells] == [True, False]
    chosen = InstructionSet.of("mine", [Entry("1", "Add.", "1 2", "sum", "mine")])
    answered = []
    for number, cell in enumerate(cells):
        rows = [("1", "sum", "Add.", "1 2", f"{number}", 1, "eos", "mine")]
        answered.append(Answered(cell, "alpaca", pd.DataFrame(rows, columns=list(COLUMNS))))
    files = write_answers(tmp_path, "g", answered, chosen, GREEDY, (), ["a note"])
    whole = pd.read_parquet(files.responses)
    assert list(whole.columns) == [*CELL_COLUMNS, *COLUMNS]
    assert list(whole["cell_id"]) == [cell.id for cell in cells]
    assert whole["seed"].isna().tolist() == [True, False]
    assert [path.parent.name for path in files.outputs] == [cell.slug for cell in cells]
    (output,) = read_outputs(files.outputs[1])
    assert (output.instruction, output.output) == ("Add.\n\n1 2", "1")
    assert output.generator == cells[1].label
    assert "a note" in files.page.read_text()
    assert len(files.columns) == 2
