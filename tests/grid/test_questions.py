"""Tables, comparisons and claims of a grid: what they mean, and every fault with its place."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import yaml
from pydantic import ValidationError

from harness.errors import GridError
from harness.evaluation.protocols import LM_EVAL
from harness.grid.loader import load_grid, shipped_grids
from harness.grid.questions import TableSpec, question_faults
from harness.grid.resolver import resolve_grid
from harness.grid.schema import expand
from harness.grid.table_columns import AverageColumn, BenchmarkColumn, title_of

GRID = """
name: mine
models: {tiny: {path: tiny, shape: {num_hidden_layers: 2, hidden_size: 8, intermediate_size: 16,
  num_attention_heads: 2, vocab_size: 32}}}
tasks: [arc_easy, arc_challenge, hellaswag, paper_arc_easy, {name: truthfulqa_mc2}]
methods: {small: {method: lora, rank: 2}}
blocks: [{methods: [base, lora, small, full]}]
"""
TABLE = """
tables:
  - title: One
    columns:
      - {title: Easy, name: [arc_easy, paper_arc_easy]}
      - {name: hellaswag, metric: acc}
      - {average: [Easy, hellaswag]}
      - {average: {Average: 1, arc_challenge: 3}, title: Weighed}
    rows: [lora, small]
    bold: all
compare: small
claims: [{better: small, than: lora, on: Weighed, margin: 1.5}, {better: lora, than: full}]
"""


def read(*parts: str):
    raw: dict[str, object] = {}
    for part in parts:
        raw |= yaml.safe_load(part)
    return resolve_grid(raw, place="m.yaml")


def faults_of(part: str) -> list[str]:
    with pytest.raises(GridError) as told:
        read(GRID, part)
    return str(told.value).splitlines()


def test_what_a_grid_asks_is_read() -> None:
    grid = read(GRID, TABLE)
    (table,) = grid.tables
    assert [type(one) for one in table.columns] == [BenchmarkColumn] * 2 + [AverageColumn] * 2
    assert table.columns[2] == AverageColumn(average={"Easy": 1, "hellaswag": 1}, title="Average")
    assert table.columns[3].average == {"Average": 1, "arc_challenge": 3}
    assert (table.rows, table.bold, table.params) == (("lora", "small"), ("all",), True)
    assert grid.compare == "small"
    assert (grid.claims[0].on, grid.claims[0].margin, grid.claims[1].on) == ("Weighed", 1.5, None)


def test_all_rows_are_those_of_no_list() -> None:
    grid = read(GRID, "tables: [{columns: [arc_easy], rows: all}]")
    assert grid.tables[0].rows == ()


def test_what_a_grid_asks_is_no_part_of_its_cells() -> None:
    assert [cell.id for cell in expand(read(GRID, TABLE))] == [c.id for c in expand(read(GRID))]


@pytest.mark.parametrize(
    ("part", "line"),
    [
        ("tables: [{columns: [arc_esy]}]", "tables[0].columns[0]: 'arc_esy' is no task of this "
         "grid; did you mean 'arc_easy'?"),
        ("tables: [{columns: [{name: hellaswag, metric: acc_nrm}]}]", "tables[0].columns[0].metric:"
         " hellaswag has no metric 'acc_nrm'; did you mean 'acc_norm'?"),
        ("tables: [{columns: [{nam: hellaswag}]}]", "tables[0].columns[0]: must be a benchmark's "
         "name, or a mapping with `name` or with `average`"),
        ("tables: [{columns: [{name: hellaswag, titel: x}]}]", "tables[0].columns[0].titel: unknown"
         " key; did you mean 'title'?"),
        ("tables: [{columns: []}]", "tables[0].columns: is empty; add at least one"),
        ("tables: [{title: x}]", "tables[0]: 'columns' is missing; add it"),
        ("tables: [{columns: [{average: []}]}]", "tables[0].columns[0].average: is empty"),
        ("tables: [{columns: [{average: {arc_easy: 0}}]}]", "tables[0].columns[0].average.arc_easy:"
         " must be more than 0"),
        ("tables: [{columns: [{average: [arc_easy, Mean]}]}]", "tables[0].columns[0].average: "
         "'Mean' is no column before it and no task of this grid"),
        ("tables: [{columns: [{average: [arc_easy], title: A}, {average: [B], title: B}]}]",
         "tables[0].columns[1].average: 'B' is no column before it"),
        ("tables: [{columns: [{name: [arc_easy, hellaswag]}]}]", "tables[0].columns[0]: arc_easy "
         "and hellaswag are measured with one protocol (lm-eval); give each a column"),
        ("tables: [{columns: [arc_easy, arc_easy]}]", "tables[0].columns[1]: a second column is "
         "called 'ARC-e'; give it a `title`"),
        ("tables: [{columns: [arc_easy]}, {columns: [{name: hellaswag, title: ARC-e}]}]",
         "tables[1].columns[0]: 'ARC-e' is another column in tables[0]"),
        ("tables: [{columns: [arc_easy], rows: [lora, loar]}]", "tables[0].rows[1]: no method "
         "'loar' in the blocks of this grid; did you mean 'lora'?"),
        ("tables: [{columns: [arc_easy], rows: [lora, lora]}]", "tables[0].rows: 'lora' stands 2 "
         "times; keep one"),
        ("tables: [{columns: [arc_easy], bold: [loar]}]", "tables[0].bold[0]: no method 'loar'"),
        ("tables: [{columns: [arc_easy], params: maybe}]", "tables[0].params: must be true or fal"),
        ("tables: [{columns: [arc_easy], published: table3}]", "tables[0].published: must be one "),
        ("tables: {columns: [arc_easy]}", "tables: must be a list"),
        ("compare: dora", "compare: no method 'dora' in the blocks of this grid"),
        ("claims: [{better: dora, than: lora}]", "claims[0].better: no method 'dora' in the blocks "
         "of this grid; did you mean 'lora'?"),
        ("claims: [{better: lora, than: mine}]", "claims[0].than: no method 'mine' in the blocks"),
        ("claims: [{better: lora, than: full, on: mmlu}]", "claims[0].on: no column 'mmlu' is "
         "measured"),
        ("claims: [{better: lora, than: lora}]", "claims[0]: 'lora' is compared with itself; name "
         "two methods"),
        ("claims: [{better: lora}]", "claims[0]: 'than' is missing; add it"),
        ("claims: [{better: lora, than: full, margin: 0}]", "claims[0].margin: must be "
         "more than 0"),
        ("claims: [{better: lora, than: full, margin: true}]", "claims[0].margin: must be "
         "a number"),
        ("claims: [{better: lora, than: full}, {better: full, than: lora}]", "claims[1]: tests the "
         "same as claims[0]; keep one"),
    ],
    ids=range(28),
)  # fmt: skip
def test_a_fault_is_one_line_with_its_place(part, line) -> None:
    (told,) = faults_of(part)
    assert told.startswith(f"m.yaml: {line}")


def test_faults_of_all_questions_come_at_once() -> None:
    told = faults_of(
        "{compare: x, claims: [{better: y, than: lora}, {better: lora, than: lora}], "
        "tables: [{columns: [z]}]}"
    )
    places = sorted(line.split(": ")[1] for line in told)
    assert places == ["claims[0].better", "claims[1]", "compare", "tables[0].columns[0]"]


def test_what_has_a_fault_of_its_own_is_not_said_to_be_missing() -> None:
    with pytest.raises(GridError) as told:
        read(
            GRID,
            "blocks: [{methods: [lora, {method: full, label: broken, rank: 2}]}]",
            "tasks: [arc_easy, {name: hellaswag, lmit: 3}]",
            "claims: [{better: broken, than: lora, on: hellaswag}]",
        )
    lines = str(told.value).splitlines()
    assert len(lines) == 2
    assert not any("claims" in line for line in lines)


def test_misspelt_blocks_are_told_once() -> None:
    with pytest.raises(GridError) as told:
        read(GRID.replace("blocks:", "blocs:"), TABLE, "compare: small")
    lines = str(told.value).splitlines()
    assert len(lines) == 2
    assert "did you mean 'blocks'?" in lines[1]


def known(name: str, **kinds: tuple[str | None, bool]) -> SimpleNamespace:
    """Returns what a benchmark of these metrics (unit, higher is better) tells."""
    described = {m: SimpleNamespace(unit=u, higher_is_better=h) for m, (u, h) in kinds.items()}
    return SimpleNamespace(
        title=name, column=None, protocol=LM_EVAL, kinds=described, metrics=tuple(kinds),
        primary_metric=next(iter(kinds)), higher_is_better=True,
    )  # fmt: skip


def test_an_average_of_what_is_no_share_or_of_two_directions_is_refused() -> None:
    tasks = {
        "a": known("a", acc=(None, True)),
        "brier": known("brier", brier=(None, False)),
        "text": known("text", perplexity=("perplexity", False), acc=(None, True)),
    }

    def told(*columns: object) -> list[str]:
        table = TableSpec(columns=columns)
        return list(question_faults([table], None, [], methods=(), tasks=tasks))

    assert told({"average": ["a", "text"]}) == [
        "tables[0].columns[0].average: text is no share (it counts perplexity) and in no average; "
        "give it a column of its own"
    ]
    assert told({"name": "text", "metric": "acc", "title": "T"}, {"average": ["a", "T"]}) == []
    (line,) = told({"average": ["a", "brier"]})
    assert "of brier the lower score is better, of a the higher one" in line


def test_lm_evals_own_tasks_have_columns_by_filter_and_units() -> None:
    tasks = "tasks: [arc_easy, gsm8k, wikitext]"
    columns = "[gsm8k, {name: gsm8k, metric: 'exact_match,flexible-extract'}, wikitext]"
    grid = read(GRID, tasks, f"tables: [{{columns: {columns}}}]")
    benchmarks = {task.name: task.benchmark for task in grid.blocks[0].tasks}
    assert [title_of(one, benchmarks) for one in grid.tables[0].columns] == [
        *("gsm8k", "gsm8k (flexible-extract)", "wikitext"),
    ]
    with pytest.raises(GridError, match=r"wikitext is no share \(it counts word_perplexity\)"):
        read(GRID, tasks, "tables: [{columns: [{average: [arc_easy, wikitext]}]}]")
    with pytest.raises(GridError, match=r"gsm8k has no metric 'acc' \(known: exact_match,strict"):
        read(GRID, tasks, "tables: [{columns: [{name: gsm8k, metric: acc}]}]")


def test_every_shipped_grid_with_the_papers_methods_states_the_papers_claims() -> None:
    for name in shipped_grids():
        grid = load_grid(name)
        others = ("rehearsal", "demo", "neighbours")
        if name not in ("paper", "paper-7b", "paper-7b-seeds", "paper-13b", *others):
            continue
        assert [(claim.better, claim.than, claim.on) for claim in grid.claims] == [
            ("zero-init-linear", "random-init", "Average"),
            ("zero-init-nonlinear", "zero-init-linear", "Average"),
        ]
        assert grid.tables[0].rows == ("zero-init-linear", "random-init")
        assert not grid.tables[0].params


def test_a_set_of_columns_is_taken_apart() -> None:
    table = TableSpec(columns=["mine", {"name": "mine", "columns": "scienceqa", "metric": "acc"}])
    titles = [title_of(one, {}) for one in table.columns]
    assert titles == ["mine", "NAT", "SOC", "LAN", "TXT", "IMG", "NO", "G1-6", "G7-12", "Avg"]
    assert table.columns[1].where == (("subject", ("natural science",)),)
    assert table.columns[7].where == (("grade", tuple(f"grade{n}" for n in range(1, 7))),)
    assert table.columns[9].where == ()
    assert {one.metric for one in table.columns[1:]} == {"acc"}


def test_a_column_of_some_items_is_called_by_them() -> None:
    (column,) = TableSpec(
        columns=[{"name": "mine", "where": {"kind": ["a", "b"], "seen": False}}]
    ).columns
    assert title_of(column, {}) == "mine (kind a or b, seen false)"


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({}, "is empty"),
        ("subject", "must be a mapping"),
        ({"subject": None}, "must be a text"),
        ({"subject": []}, "must be a text"),
        ({"subject": {"a": 1}}, "must be a text"),
        ({1: "a"}, "is no name of a column"),
    ],
    ids=str,
)
def test_items_that_are_no_columns_and_values(where, said) -> None:
    with pytest.raises(ValidationError, match=said):
        TableSpec(columns=[{"name": "mine", "where": where}])


def test_an_unknown_set_of_columns() -> None:
    with pytest.raises(ValidationError, match="scienceqa"):
        TableSpec(columns=[{"name": "mine", "columns": "sciencqa"}])
