"""Results can be read where a method of their grid is not installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import GridError
from harness.grid.absent_methods import without_absent_methods
from harness.grid.loader import load_grid, read_grid
from harness.grid.schema import expand
from harness.grid.workspace import open_grid, open_to_run

GRID = """
name: shared
world: demo
models:
  tiny-llama:
    path: model
    shape: {num_hidden_layers: 5, hidden_size: 128, intermediate_size: 344, num_attention_heads: 4,
            vocab_size: 1688, tie_word_embeddings: true}
data: {source: null, path: alpaca/train.parquet, num_rows: 600}
tasks: [{name: demo_arc_easy, limit: 6}]
methods:
  named: {method: colleagues, rank: 3}
  small: {method: lora, rank: 2}
blocks:
  - methods: [base, small, named, another, {method: third, label: mine}, {adapter: gone}]
    fractions: [0.02]
  - methods: [named]
"""


def write(folder: Path, text: str = GRID) -> str:
    (folder / "g.yaml").write_text(text)
    return str(folder / "g.yaml")


def test_what_is_here_is_read_and_the_rest_is_told(tmp_path: Path) -> None:
    file = write(tmp_path)
    grid = open_grid(file, tmp_path / "runs", None, None, results_alone=True)
    assert [cell.method for cell in grid.cells] == ["base", "lora"]
    assert len(grid.left_out) == 4
    told = "\n".join(grid.left_out)
    assert "g.yaml: methods.named: no such method 'colleagues'" in told
    assert "g.yaml: blocks[0].methods[3]: no such method 'another'" in told
    assert "g.yaml: blocks[0].methods[4]: no such method 'third'" in told
    assert "g.yaml: blocks[0].methods[5]: adapter: " in told
    assert all(line.endswith("its cells are left out here") for line in grid.left_out)
    assert set(grid.left_out) <= set(grid.notices)
    assert [state.status for state in grid.states] == ["to do", "to do"]


def test_what_asks_about_an_absent_method_is_no_fault(tmp_path: Path) -> None:
    asks = "compare: third\nclaims: [{better: named, than: small}, {better: smal, than: base}]\n"
    with pytest.raises(GridError) as told:
        open_grid(write(tmp_path, GRID + asks), tmp_path, None, None, results_alone=True)
    (line,) = (one for one in str(told.value).splitlines() if "claims" in one)
    assert line.startswith("g.yaml: claims[1].better: no method 'smal' in the blocks of this grid")
    asks = asks.replace("smal,", "small,")
    grid = open_grid(write(tmp_path, GRID + asks), tmp_path, None, None, results_alone=True)
    assert [claim.better for claim in grid.spec.claims] == ["named", "small"]


def test_the_cells_that_are_left_keep_their_ids(tmp_path: Path) -> None:
    grid = open_grid(write(tmp_path), tmp_path / "runs", None, None, results_alone=True)
    rest = GRID.replace(", named, another, {method: third, label: mine}, {adapter: gone}]", "]")
    rest = rest.replace("  - methods: [named]\n", "").replace(
        "  named: {method: colleagues, rank: 3}\n", ""
    )
    alone = expand(load_grid(write(tmp_path, rest)))
    assert [cell.id for cell in grid.cells] == [cell.id for cell in alone]


def test_what_runs_cells_refuses_such_a_grid(tmp_path: Path) -> None:
    with pytest.raises(GridError, match="no such method 'colleagues'") as caught:
        open_to_run(write(tmp_path), tmp_path / "runs", None, None)
    assert len(caught.value.faults) == 4


def test_a_grid_with_other_faults_tells_all_of_them(tmp_path: Path) -> None:
    text = GRID.replace("fractions: [0.02]", "fractions: [2]")
    with pytest.raises(GridError, match="blocks\\[0\\].fractions") as caught:
        open_grid(write(tmp_path, text), tmp_path / "runs", None, None, results_alone=True)
    assert any("colleagues" in fault for fault in caught.value.faults)


def test_a_grid_of_absent_methods_alone_is_refused(tmp_path: Path) -> None:
    text = GRID.replace("base, small, ", "").replace("  small: {method: lora, rank: 2}\n", "")
    with pytest.raises(GridError, match="no such method"):
        open_grid(write(tmp_path, text), tmp_path / "runs", None, None, results_alone=True)


@pytest.mark.parametrize("text", ["[]", "blocks: 3", "blocks: [3, {methods: 4}]\nmethods: [1]"])
def test_what_is_no_grid_is_told_as_before(tmp_path: Path, text: str) -> None:
    def told(*, leave_out: bool) -> object:
        try:
            return read_grid(file, results=tmp_path if leave_out else None).faults
        except GridError as fault:
            return fault.faults

    file = write(tmp_path, text)
    assert told(leave_out=True)
    assert told(leave_out=True) == told(leave_out=False)


def test_spaces_of_absent_methods_are_left_out_with_them(tmp_path: Path) -> None:
    rates = {"learning_rate": [1e-3, 1e-2]}
    raw = {
        "blocks": [
            {
                "methods": ["lora", "gone-method", {"method": "gone-too", "rank": 4}],
                "tune": {"trials": 2, "space": dict.fromkeys(
                    ("lora", "gone-method", "gone-too[rank=4]"), rates)},
            },
            {"methods": ["lora", "gone-method"],
             "tune": {"trials": 2, "space": {"gone-method": rates}}},
        ]
    }  # fmt: skip
    rest, lines = without_absent_methods(raw, place="g.yaml", folder=tmp_path, results=tmp_path)
    assert len(lines) == 3
    assert [
        list(block["tune"]["space"]) if block["tune"] else None for block in rest["blocks"]
    ] == [
        ["lora"],
        None,
    ]
