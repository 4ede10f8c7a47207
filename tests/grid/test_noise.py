"""Repeats, the noise floor's other seed, and blocks that vary some sources of variance alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from harness.errors import GridError
from harness.evaluation.tasks import request_key
from harness.export.model_card import cell_grid
from harness.grid.cell_groups import group_folders, parse_group
from harness.grid.cells import SOURCES, FixedSeeds
from harness.grid.folders import cell_folder, stored_label, write_cell_file
from harness.grid.noise import fixed_seeds, noise_lines, other_seed
from harness.grid.resolver import resolve_grid
from harness.grid.schema import Cell, GridSpec, count_cells, expand
from harness.grid.selection import find_cell, find_folder, select_cells
from tests.grid.test_loader import GRID


def grid_of(text: str) -> GridSpec:
    return resolve_grid(yaml.safe_load(text), place="g.yaml")


def cells_of(text: str) -> list[Cell]:
    return expand(grid_of(text))


def faults_of(text: str) -> list[str]:
    with pytest.raises(GridError) as caught:
        grid_of(text)
    return list(caught.value.faults)


PLAIN = {cell.id: cell for cell in cells_of(GRID)}
NOISE = "noise: {repeats: 3}\n" + GRID
VARIED = GRID.replace("seeds: [0, 1]", "seeds: [4, 1, 2]\n    vary: [order]")


def test_a_plan_says_which_cells_stand_in_no_table() -> None:
    assert noise_lines(PLAIN.values()) == []
    (line,) = noise_lines(cells_of("noise: {repeats: 3}\n" + VARIED))
    assert line.startswith("11 cells tell what noise does, and stand in no table of scores")
    assert line.endswith("(2 repeated, 1 with another seed, 8 varied in a part)")


def test_without_the_keys_no_record_knows_of_them() -> None:
    for cell in PLAIN.values():
        assert not {"repeat", "fixed_seeds"} & cell.record().keys()
        assert not {"repeat", "fixed_seeds", "is_noise"} & cell.model_dump().keys()
        assert all(cell.seed_of(source) == (cell.seed or 0) for source in SOURCES)


def test_noise_adds_repeats_and_leaves_the_blocks_cells_as_they_are() -> None:
    cells = cells_of(NOISE)
    assert [cell.id for cell in cells[: len(PLAIN)]] == list(PLAIN)
    assert [cell.label for cell in cells[len(PLAIN) :]] == [
        "a/zero-init-linear/100%/seed0/repeat1",
        "a/zero-init-linear/100%/seed0/repeat2",
    ]  # the other seed is the block's own
    assert not any(cell.is_noise for cell in cells[: len(PLAIN)])
    assert all(cell.is_noise for cell in cells[len(PLAIN) :])
    assert len({cell.id for cell in cells}) == len(cells)


def test_a_block_of_one_seed_gets_another_for_the_noise_floor_alone() -> None:
    (*_, repeat, other) = cells_of("noise: {}\n" + GRID.replace("seeds: [0, 1]", "seeds: [0]"))
    assert (repeat.label, other.label) == (
        "a/zero-init-linear/100%/seed0/repeat1",
        "a/zero-init-linear/100%/seed1",
    )
    assert other.is_noise
    ordinary = PLAIN[other.id]  # the same cell where a block asks for that seed
    assert not ordinary.is_noise
    assert ordinary.record() == other.record()


@pytest.mark.parametrize("method", ["lora", "lora[rank=4]"])
def test_noise_may_name_its_method(method: str) -> None:
    found = [cell for cell in cells_of(f"noise: {{method: '{method}'}}\n" + GRID) if cell.is_noise]
    assert [cell.label for cell in found] == ["a/lora[rank=4]/100%/seed0/repeat1"]


def test_noise_of_each_model_or_of_one() -> None:
    shape = GRID[GRID.index("shape:") : GRID.index("}}") + 2]
    two = GRID.replace("  a: {path: a,", f"  b: {{path: b, {shape}\n  a: {{path: a,")
    assert [c.model_name for c in cells_of("noise: {}\n" + two) if c.is_noise] == ["b", "a"]
    assert [c.model_name for c in cells_of("noise: {model: a}\n" + two) if c.is_noise] == ["a"]


def test_a_repeat_draws_sampled_responses_anew_and_asks_all_else_alike() -> None:
    asked = "tasks: [arc_easy, paper_arc_easy, {name: paper_arc_challenge, temperature: 0}]"
    text = NOISE.replace("tasks: [arc_easy, {name: mmlu, limit: 5}]", asked)
    cells = {cell.label: cell for cell in cells_of(text)}
    first = cells["a/zero-init-linear/100%/seed0"].tasks
    again, third = (cells[f"a/zero-init-linear/100%/seed0/repeat{n}"].tasks for n in (1, 2))
    assert [task.draw for task in again] == [None, 1, 2, None]  # nothing is drawn at temperature 0
    assert [task.draw for task in third] == [None, 3, 4, None]
    keys = [[request_key(task) for task in tasks] for tasks in (first, again, third)]
    assert len({own[0] for own in keys}) == len({own[-1] for own in keys}) == 1
    assert len({key for own in keys for key in own[1:-1]}) == 5


def test_a_block_varies_some_sources_alone() -> None:
    cells = [cell for cell in cells_of(VARIED) if cell.method_label == "zero-init-linear"]
    full = [cell for cell in cells if cell.fraction == 1]
    assert [cell.label.rpartition("%/")[2] for cell in full] == [
        "seed4",
        "seed1/initialization4+subset4",
        "seed2/initialization4+subset4",
    ]
    assert [[cell.seed_of(source) for source in SOURCES] for cell in full] == [
        [4, 4, 4],
        [4, 1, 4],
        [4, 2, 4],
    ]
    assert full[1].record()["fixed_seeds"] == {"initialization": 4, "subset": 4}
    together = cells_of(GRID.replace("seeds: [0, 1]", "seeds: [4, 1, 2]"))
    assert {cell.id for cell in full} & {cell.id for cell in together} == {full[0].id}


def test_blocks_that_vary_other_sources_share_their_first_cell() -> None:
    block = "  - {methods: [zero-init-linear], fractions: [0.1], seeds: [0, 1], vary: [%s]}\n"
    text = GRID[: GRID.index("  - methods")] + "".join(block % source for source in SOURCES)
    assert [cell.label.removeprefix("a/zero-init-linear/10%/") for cell in cells_of(text)] == [
        "seed0",
        "seed1/order0+subset0",
        "seed1/initialization0+subset0",
        "seed1/initialization0+order0",
    ]


def test_the_new_cells_survive_their_own_json_and_are_found_by_their_labels() -> None:
    cells = cells_of("noise: {repeats: 3}\n" + VARIED)
    for cell in cells:
        again = Cell.model_validate(json.loads(cell.model_dump_json(serialize_as_any=True)))
        assert again == cell
        assert again.id == cell.id
        assert find_cell(cells, cell.label) == cell
        assert find_cell(cells, cell.slug) == cell
    assert len({cell.slug for cell in cells}) == len(cells)
    assert count_cells(grid_of("noise: {repeats: 3}\n" + VARIED)) == len(cells)
    assert {cell.repeat for cell in select_cells(cells, "repeat")} == {1, 2}


def test_the_other_seed_is_none_that_varies_a_part_alone() -> None:
    assert other_seed([5], varies=False) == 6
    assert other_seed([5, 3], varies=False) == 3
    assert other_seed([5, 3], varies=True) == 6
    assert other_seed([2**31 - 1], varies=False) == 2**31 - 2
    assert fixed_seeds((), 1, 0) == fixed_seeds(("order",), 0, 0) == FixedSeeds()


def test_stored_cells_are_found_by_their_labels_and_no_group_has_the_noise(tmp_path: Path) -> None:
    cells = cells_of("noise: {repeats: 3}\n" + VARIED)
    for cell in cells:
        folder = cell_folder(tmp_path, cell)
        folder.mkdir(parents=True)
        write_cell_file(folder, cell)
    for cell in cells:
        assert stored_label(cell_folder(tmp_path, cell)) == cell.label
        assert find_folder(cell.label, tmp_path) == cell_folder(tmp_path, cell)
    group = parse_group("method=zero-init-linear,fraction=1")
    assert group is not None
    meant = {folder.name.rpartition("--")[2] for folder, _ in group_folders(group, tmp_path)}
    assert meant == {
        cell.id
        for cell in cells
        if cell.method == "zero-init-linear" and cell.fraction == 1
        and cell.repeat is None and not cell.is_varied
    }  # fmt: skip
    assert len(meant) == 2  # the block's first seed, and the noise floor's other one


def test_a_cluster_changes_no_request_and_no_cell() -> None:
    task = "{name: mmlu, limit: 5}"
    named = GRID.replace(task, "{name: mmlu, limit: 5, cluster: subject}")
    assert [cell.id for cell in cells_of(named)] == list(PLAIN)
    for one, other in zip(cells_of(named), PLAIN.values(), strict=True):
        assert list(map(request_key, one.tasks)) == list(map(request_key, other.tasks))
    two = named + f"  - {{methods: [base], tasks: [{task}, arc_easy]}}\n"
    (base,) = [cell for cell in cells_of(two) if cell.method == "base"]
    assert [(one.name, one.cluster) for one in base.tasks] == [
        ("arc_easy", None),
        ("mmlu", "subject"),
    ]  # each request once


@pytest.mark.parametrize(
    ("task", "fault"),
    [
        ("{name: arc_easy, draw: 1}", "tasks[0]: 'draw' is none of its keys"),
        ("{name: arc_easy, cluster: ''}", "tasks[0].cluster: "),
        ("{name: arc_easy, cluster: [a]}", "tasks[0].cluster: "),
        ("{name: arc_easy, clusters: a}", "tasks[0].clusters: unknown key"),
    ],
)
def test_a_wrong_key_of_a_task_gets_one_line(task: str, fault: str) -> None:
    (told,) = faults_of(GRID.replace("tasks: [arc_easy,", f"tasks: [{task},"))
    assert told.startswith(f"g.yaml: {fault}")


def test_the_pages_fragments_are_accepted() -> None:
    page = (Path(__file__).parents[2] / "docs" / "noise.md").read_text(encoding="utf-8")
    noise, blocks = re.findall(r"```yaml\n(.*?)```", page, flags=re.S)
    head = GRID[: GRID.index("blocks:")]
    cells = cells_of(noise + head + blocks)
    assert sum(cell.is_varied for cell in cells) == 3 * 4
    assert [cell.repeat for cell in cells if cell.is_noise] == [1, None]


@pytest.mark.parametrize(
    ("noise", "fault"),
    [
        ("{method: loar}", "noise.method: no method 'loar' in the blocks of this grid; did you"),
        ("{method: base}", "noise.method: 'base' trains nothing"),
        ("{model: b}", "noise.model: no model 'b' in this grid"),
        ("{repeats: 0}", "noise.repeats: must be at least 2 (got 0)"),
        ("{repeats: 1}", "noise.repeats: must be at least 2 (got 1)"),
        ("{repeats: 1000}", "noise.repeats: must be at most 50 (got 1000)"),
        ("{draws: 0}", "noise.draws: must be at least 1 (got 0)"),
        ("{repeats: two}", "noise.repeats: "),
        ("{repeat: 2}", "noise.repeat: unknown key"),
        ("2", "noise: "),
    ],
)
def test_a_wrong_noise_gets_one_line(noise: str, fault: str) -> None:
    (told,) = faults_of(f"noise: {noise}\n" + GRID)
    assert told.startswith(f"g.yaml: {fault}")


@pytest.mark.parametrize(
    ("vary", "fault"),
    [
        ("[ordre]", "no such source of variance 'ordre'; did you mean 'order'?"),
        ("[initialisation]", "no such source of variance 'initialisation'; did you mean 'initial"),
        ("[order, order]", "'order' stands 2 times; keep one"),
        ("[order, subset, initialization]", "names every source, which seeds vary anyhow"),
        ("order", "must be a list of one or two of initialization, order, subset"),
        ("[]", "must be a list of one or two of"),
        ("[1]", "no such source of variance '1'"),
        ("[subset]", "at fraction 1 every seed has the same rows"),
    ],
)
def test_a_wrong_vary_gets_one_line(vary: str, fault: str) -> None:
    (told,) = faults_of(GRID + f"    vary: {vary}\n")
    assert told.startswith(f"g.yaml: blocks[0].vary: {fault}")


def test_vary_needs_seeds_and_something_that_is_trained() -> None:
    few = GRID.replace("seeds: [0, 1]", "seeds: [0]\n    vary: [order]")
    assert "blocks[0].vary: needs two seeds or more" in faults_of(few)[0]
    idle = "  - {methods: [base], seeds: [0, 1], vary: [order]}\n"
    (told,) = faults_of(GRID + idle)
    assert "blocks[1].vary: no method of this block trains anything" in told
    alone = "noise: {}\n" + GRID[: GRID.index("  - methods")] + "  - methods: [base]\n"
    assert faults_of(alone) == [
        "g.yaml: noise: no method of the blocks trains anything; leave it out"
    ]


def test_noise_needs_a_model_that_its_method_is_trained_on() -> None:
    shape = GRID[GRID.index("shape:") : GRID.index("}}") + 2]
    two = GRID.replace("  a: {path: a,", f"  b: {{path: b, {shape}\n  a: {{path: a,")
    elsewhere = two.replace("  - methods", "  - models: [b]\n    methods")
    assert faults_of("noise: {model: a}\n" + elsewhere) == [
        "g.yaml: noise: no block trains that method on that model; name another"
    ]


def test_faults_of_other_keys_are_told_with_them() -> None:
    told = faults_of("noise: {method: loar}\ncompare: nothing\n" + GRID)
    assert len(told) == 2


@pytest.mark.parametrize("named", ["lora[rank=4]/10%/seed2/initialization4+subset4", "repeat1"])
def test_the_grid_of_a_model_card_has_the_cell(named: str) -> None:
    asked = VARIED.replace("{name: mmlu, limit: 5}", "paper_arc_easy")
    cells = cells_of("noise: {method: lora}\n" + asked)
    (cell,) = select_cells(cells, named)
    again = cells_of(cell_grid(cell))
    assert cell.id in {one.id for one in again}
    assert [task.name for task in again[0].tasks] == ["arc_easy", "paper_arc_easy"]
