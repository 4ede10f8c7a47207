"""Who stands against whom: methods by seed, cells, files of answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.answers.contest import (
    Contest,
    Reference,
    find_contest,
    find_reference,
    generate_command,
)
from harness.answers.instructions import read_set
from harness.answers.judged import meetings_of
from harness.answers.store import Entry, InstructionSet, Output, write_outputs
from harness.errors import UsageError
from harness.grid.schema import Cell
from harness.grid.workspace import open_grid
from tests.fixtures.real_data import DATA_ROOT
from tests.integration.test_end_to_end import grid_text

SET = InstructionSet.of("q", [Entry("a", "Say a."), Entry("b", "Add.", "1 and 2")])
BLOCK = "  - methods: [base, zero-init-linear]\n    fractions: [0.1]\n"
BLOCKS = "  - methods: [base, zero-init-linear, lora]\n    fractions: [0.1, 1]\n    seeds: [0, 1]\n"
OUTPUTS = Path(DATA_ROOT or "") / "alpaca_eval" / "alpaca-7b_outputs.json"


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[Cell]:
    folder = tmp_path_factory.mktemp("grid")
    (folder / "g.yaml").write_text(grid_text().replace(BLOCK, BLOCKS))
    return open_grid(str(folder / "g.yaml"), folder / "runs", None, None).cells


def contest(cells: list[Cell], reference: Reference, *silent: str) -> Contest:
    """All answer `<label> <id>`, but for those that are named."""

    def answers_of(cell: Cell) -> dict[str, str] | None:
        return None if cell.label in silent else {name: f"{cell.label} {name}" for name in "ab"}

    return find_contest(cells, reference, SET, answers_of)


def test_a_cell_stands_against_the_one_of_its_fraction_and_seed(cells: list[Cell]) -> None:
    found = contest(cells, find_reference("lora", cells))
    sides = [(one.cell.label, one.partner and one.partner.label) for one in found.contestants]
    trained = [f"{share}/seed{seed}" for share in ("10%", "100%") for seed in (0, 1)]
    assert sorted(sides) == sorted(
        (f"tiny-llama/{method}", f"tiny-llama/lora/{place}")
        for place in trained
        for method in ("base", f"zero-init-linear/{place}")
    )
    assert {(one.share, one.seed) for one in found.contestants} == {
        ("10%", 0),
        ("10%", 1),
        ("100%", 0),
        ("100%", 1),
    }
    assert not found.without_answers + found.without_partner + found.unmatched


def test_all_stand_against_the_base_model(cells: list[Cell]) -> None:
    found = contest(cells, find_reference("base", cells))
    assert len(found.contestants) == len(cells) - 1
    assert {one.partner and one.partner.label for one in found.contestants} == {"tiny-llama/base"}


def test_all_stand_against_one_cell(cells: list[Cell]) -> None:
    reference = find_reference("tiny-llama/lora/10%/seed0", cells)
    found = contest(cells, reference)
    assert len(found.contestants) == len(cells) - 1
    assert reference.name == "tiny-llama/lora/10%/seed0"


def test_cells_without_a_partner_are_left_out(cells: list[Cell]) -> None:
    some = [cell for cell in cells if cell.method != "lora" or cell.seed == 0]
    found = contest(some, find_reference("lora", some))
    assert {cell.seed for cell in found.without_partner} == {1}


def test_cells_without_answers_are_named_once_the_reference_too(cells: list[Cell]) -> None:
    silent = "tiny-llama/lora/10%/seed0", "tiny-llama/zero-init-linear/100%/seed1"
    found = contest(cells, find_reference("lora", cells), *silent)
    assert sorted(cell.label for cell in found.without_answers) == sorted(silent)


def test_outputs_are_matched_by_text_whatever_its_blanks(cells: list[Cell], tmp_path: Path) -> None:
    path = tmp_path / "published.json"
    write_outputs(
        path, [Output("Add.\n1  and 2", "3", "other-7b"), Output("Else.", "x", "other-7b")]
    )
    reference = find_reference(str(path), cells)
    found = contest(cells, reference)
    assert reference.name == "other-7b"
    assert found.unmatched == ("Say a.",)
    assert len(found.contestants) == len(cells)
    assert {meeting.pair.reference for meeting in meetings_of(found, SET)} == {"3"}
    assert {meeting.pair.instruction for meeting in meetings_of(found, SET)} == {"Add.\n\n1 and 2"}


@pytest.mark.skipif(
    not (DATA_ROOT and OUTPUTS.is_file()),
    reason="needs AlpacaEval's published outputs: set ZBENCH_DATA_ROOT",
)
def test_published_outputs_answer_all_of_vicunas_questions(cells: list[Cell]) -> None:
    reference = find_reference(str(OUTPUTS), cells)
    assert reference.name == "alpaca-7b"
    assert find_contest(cells, reference, read_set(None, None), lambda _: None).unmatched == ()


@pytest.mark.parametrize("named", ["lorra", "tiny-llama/lora/10%", "nowhere"])
def test_an_unknown_reference_names_what_is_there(cells: list[Cell], named: str) -> None:
    with pytest.raises(UsageError, match=f"--against {named}: is no method .*lora"):
        find_reference(named, cells)


def test_a_kind_of_method_that_the_grid_has_twice_is_no_reference(cells: list[Cell]) -> None:
    twins = [cell.model_copy(update={"method_label": "lora-2"}) for cell in cells
             if cell.method == "lora"]  # fmt: skip
    others = [cell.model_copy(update={"method_label": "lora-1"}) if cell.method == "lora" else cell
              for cell in cells]  # fmt: skip
    assert find_reference("lora", [*cells, *twins]).name == "lora"
    with pytest.raises(UsageError, match="several methods of the grid; .*: lora-1, lora-2"):
        find_reference("lora", [*others, *twins])


def test_the_command_that_makes_answers_names_as_few_cells_as_it_can(cells: list[Cell]) -> None:
    lora = [cell for cell in cells if cell.method == "lora"]
    made = [
        generate_command(some, cells, grid="g.yaml", options=["--instructions", "my q.json"])
        for some in (cells, lora, lora[:1])
    ]
    assert made == [
        "zbench generate g.yaml --instructions 'my q.json'",
        "zbench generate g.yaml --instructions 'my q.json' --only lora",
        "zbench generate g.yaml --instructions 'my q.json' --only tiny-llama/lora/10%/seed0",
    ]
