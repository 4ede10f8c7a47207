"""Groups of cells are paired, averaged over seeds, and their items told apart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.stats import ttest_rel

from harness.analysis.compare import Comparison, compare
from harness.analysis.sides import Sides, find_sides, pair_sides
from harness.analysis.stats import Sample, combine
from harness.commands.compare import comparison_record
from harness.commands.compare_items import chosen_items
from harness.demo.world import DATA
from harness.errors import UsageError
from harness.evaluation.items import question_id
from harness.evaluation.task_data import local_files
from harness.evaluation.tasks import TaskSpec
from harness.grid.cells import TuningRole
from harness.grid.folders import items_path
from harness.grid.resolver import resolve_grid
from harness.grid.schema import Cell, expand
from harness.readers.parquet_files import read_columns
from harness.records.files import write_frame
from tests.analysis.test_compare import items, scored, shown, written
from tests.records.test_results import RESULT

GRID = """
name: g
models:
  a: {path: model, shape: {num_hidden_layers: 5, hidden_size: 128, intermediate_size: 344,
      num_attention_heads: 4, vocab_size: 1688, tie_word_embeddings: true}}
methods: {lora: {rank: 4}, ia3: {}, base: {}}
train: {learning_rate: 1e-3}
tasks: [arc_easy]
data: {source: null, path: train.parquet, num_rows: 100}
blocks: [{models: [a], methods: [base, lora, ia3], fractions: [0.1, 1.0], seeds: [0, 1, 2]}]
"""
LEFT = {0: [1.0, 1.0, 0.0, 0.0, 1.0], 1: [1.0, 1.0, 1.0, 0.0, 0.0], 2: [1.0, 0.0, 0.0, 0.0, 1.0]}
RIGHT = {0: [1.0, 0.0, 1.0, 0.0, 0.0], 1: [1.0, 0.0, 1.0, 0.0, 1.0], 2: [1.0, 0.0, 0.0, 1.0, 1.0]}


def cells() -> list[Cell]:
    return expand(resolve_grid(yaml.safe_load(GRID), place="g.yaml"), {None: "1" * 64})


def answered(cell: Cell, runs_dir: Path, answers: list[float], **change: object) -> Path:
    score = scored(answers, **change)
    result = replace(RESULT, cell=cell.record(), cell_id=cell.id, scores=(score,))
    folder = written(cell, runs_dir, result)
    write_frame(items_path(folder, score.benchmark, score.evaluation), items(answers))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for cell in cells():
        if cell.fraction == 1.0 and cell.seed is not None:
            answered(cell, tmp_path, (LEFT if cell.method == "lora" else RIGHT)[cell.seed])
        elif cell.method == "base":
            answered(cell, tmp_path, [0.0, 0.0, 0.0, 1.0, 1.0])
    return tmp_path


def group(name: str, runs_dir: Path) -> Sides:
    return find_sides(name, runs_dir=runs_dir, tracking_uri=None)


def compared(one: str, other: str, runs_dir: Path) -> Comparison:
    return compare(group(one, runs_dir), group(other, runs_dir))


def test_seeds_are_paired_and_combined_as_in_the_report(runs: Path) -> None:
    (row,) = compared("method=lora", "method=ia3", runs).rows
    left, right = (np.array(list(answers.values())) for answers in (LEFT, RIGHT))
    gained = right - left
    expected = combine([Sample(gained.mean(axis=1), gained, None, 5)])
    assert row.values == pytest.approx((left.mean(), right.mean()))
    assert row.difference == pytest.approx(gained.mean())
    assert row.interval == pytest.approx(expected.interval)
    assert row.p_value == pytest.approx(expected.p_value)
    own = combine([Sample(left.mean(axis=1), left, None, 5)])
    assert row.errors[0] == pytest.approx(own.stderr)


def test_an_item_is_right_where_more_than_half_of_the_seeds_are(runs: Path) -> None:
    (row,) = compared("method=lora", "method=ia3", runs).rows
    assert row.outcomes is not None
    kinds = [one.kind for one in row.outcomes.items]
    assert kinds == ["both", "first", "second", "neither", "both"]
    assert row.outcomes.counts == {"both": 2, "first": 1, "second": 1, "neither": 1}


def test_a_base_model_stands_against_each_seed(runs: Path) -> None:
    found = compared("method=base", "method=lora", runs)
    assert len(found.pairs.pairs) == 3
    assert found.rows[0].values[0] == pytest.approx(0.4)
    seeds = next(one for one in found.differences if one.what == "seed")
    assert (seeds.first, seeds.second) == ("none", "0, 1, 2")


def test_a_label_means_its_own_row_and_none_of_the_methods_other_settings(runs: Path) -> None:
    mine = [cell for cell in cells() if (cell.method, cell.fraction) == ("lora", 1.0)]
    for kind, number, name in (("winner", 0, "tuned"), ("trial", 0, "trial-0")):
        role = TuningRole(kind=kind, of="lora", number=number)
        for cell in mine:
            assert cell.train is not None
            train = cell.train.model_copy(update={"weight_decay": len(name) / 100})
            named = {"method_label": f"lora[{name}]", "tuning": role, "train": train}
            answered(cell.model_copy(update=named), runs, RIGHT[cell.seed or 0])
    for name in ("lora", "lora[tuned]", "lora[trial-0]"):
        found = group(f"method={name}", runs).members
        assert [one.key.method for one in found] == [name] * 3
    (row,) = compared("method=lora", "method=lora[tuned]", runs).rows
    means = (np.mean([*answers.values()]) for answers in (LEFT, RIGHT))
    assert row.values == pytest.approx(tuple(means))


def test_what_differs_is_told_once_for_the_group(runs: Path) -> None:
    for cell in cells():
        if (cell.method, cell.fraction, cell.seed) == ("lora", 1.0, 1):
            answered(cell, runs, LEFT[1], bos="none")
    found = {one.what: one for one in compared("method=lora", "method=ia3", runs).differences}
    assert found["method"].pairs == ""
    assert (found["BOS"].pairs, found["BOS"].first) == ("1 of 3 pairs", "none")


def test_cells_without_a_partner_or_a_score_are_named(runs: Path) -> None:
    extra = next(c for c in cells() if (c.method, c.fraction, c.seed) == ("lora", 0.1, 0))
    empty = next(c for c in cells() if (c.method, c.fraction, c.seed) == ("ia3", 0.1, 0))
    answered(extra, runs, [1.0, 0.0])
    written(empty, runs, replace(RESULT, cell_id=empty.id, scores=()))
    found = compared("method=lora", "method=ia3", runs)
    assert [one.label for one in found.pairs.only_first] == [extra.label]
    assert found.second.left_out == (f"{empty.label}: has no score yet",)
    text = shown(found.first, found.second)
    assert f"without a partner: {extra.label}" in text
    assert f"left out: {empty.label}" in text
    record = json.loads(json.dumps(comparison_record(found)))
    assert record["first"]["unpaired"] == [extra.label]
    assert record["scores"][0]["pairs"] == 3


def test_several_fractions_have_a_table_each(runs: Path) -> None:
    for cell in cells():
        if cell.fraction == 0.1:
            answered(cell, runs, LEFT[cell.seed or 0])
    found = compared("method=lora", "method=ia3", runs)
    assert [row.of for row in found.rows] == ["10%", "100%"]
    assert found.rows[0].difference == 0
    one_each = compared("method=lora,fraction=10%", "method=lora,fraction=1.0", runs)
    assert len(one_each.pairs.pairs) == 3


def test_a_group_may_be_of_one_grid_and_one_seed(runs: Path, tmp_path: Path) -> None:
    grid = tmp_path / "g.yaml"
    grid.write_text(GRID)
    names = ("seed=0,method=lora", f"{grid}:method=base", "method=lora,seed=0,seed=2")
    assert [len(group(name, runs).members) for name in names] == [1, 1, 2]


@pytest.mark.parametrize("as_lambada", [False, True])
def test_a_perplexity_is_no_mean_over_items_and_lower_is_better(
    tmp_path: Path, as_lambada: bool
) -> None:
    values = {"lora": (8.0, 9.0, 8.5), "ia3": (10.0, 10.5, 11.0)}
    change = {"metric": "word_perplexity", "unit": "perplexity", "higher_is_better": False}
    for cell in cells():
        if cell.fraction == 1.0 and cell.seed is not None:
            score = scored([0.0] * 3, **change, value=values[cell.method][cell.seed])
            result = replace(RESULT, cell=cell.record(), cell_id=cell.id, scores=(score,))
            folder = written(cell, tmp_path, result)
            frame = items([-9.0, -8.0, -7.0 if cell.method == "lora" else -6.0])
            frame = frame.rename(columns={"acc": "loglikelihood"})
            if as_lambada:  # lm-eval has an item's log-likelihood under the metric's own name
                frame["word_perplexity"] = frame["loglikelihood"]
            write_frame(items_path(folder, score.benchmark, score.evaluation), frame)
    found = compared("method=lora", "method=ia3", tmp_path)
    (row,) = found.rows
    moved = np.subtract(values["ia3"], values["lora"])
    reach = 4.3026527 * moved.std(ddof=1) / 3**0.5  # Student's t, 2 degrees of freedom
    assert row.interval == pytest.approx((moved.mean() - reach, moved.mean() + reach), abs=1e-6)
    spread = [np.std(values[method], ddof=1) / 3**0.5 for method in ("lora", "ia3")]
    assert row.errors == pytest.approx(spread)
    assert row.outcomes is not None
    assert row.outcomes.counts == {"first": 0, "second": 1, "equal": 2}
    text = shown(found.first, found.second)
    assert "word_perplexity [perplexity]" in text
    assert "8.5" in text
    assert "850" not in text
    assert "Lower is better: arc_easy word_perplexity." in text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("method=lra", "no cell in .* is so; did you mean 'lora'"),
        ("metod=lora", "cells are not known by their 'metod'; did you mean 'method'"),
        ("demmo:method=lora", "demmo: no such grid; did you mean 'demo'"),
        ("demo:method=lora", "no cell of demo in"),
    ],
)
def test_a_group_that_is_not_there_is_told_in_one_line(runs: Path, name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        group(name, runs)


def test_two_cells_in_one_place_are_refused(runs: Path) -> None:
    cell = next(c for c in cells() if (c.method, c.fraction, c.seed) == ("lora", 1.0, 0))
    answered(cell.model_copy(update={"world": "demo-1"}), runs, LEFT[0])
    with pytest.raises(UsageError, match=r"of which one alone can stand in a pair; name the grid"):
        pair_sides(group("method=lora", runs), group("method=ia3", runs))


def test_the_texts_of_items_come_from_the_rows_under_the_data_root(tmp_path: Path) -> None:
    task = TaskSpec(name="demo_arc_easy")
    path = local_files(task, DATA)[task.benchmark.eval_split]
    rows = read_columns(path, task.benchmark.columns).to_pylist()[:4]
    frame = pd.DataFrame(
        {"task": "demo_arc_easy", "doc_id": range(4), "prediction": [0, 1, 2, 3], "gold": 1,
         "question_id": [question_id(task.benchmark, row) for row in rows],
         "acc": [0.0, 1.0, 0.0, 0.0]}
    )  # fmt: skip
    for cell in cells():
        if cell.seed == 0 and cell.fraction == 1.0:
            change = {"benchmark": "demo_arc_easy", "task": "demo_arc_easy"}
            folder = answered(cell, tmp_path, [0.0, 1.0, 0.0, 0.0], **change)
            write_frame(items_path(folder, "demo_arc_easy", RESULT.scores[0].evaluation), frame)
    found = compared("method=lora", "method=ia3", tmp_path)
    ((_, chosen, problem),) = chosen_items(found, 2, data_root=DATA, runs_dir=tmp_path)
    assert problem is None
    assert [one.kind for one in chosen] == ["both", "neither", "neither"]
    right = rows[1]["choices"]["text"][1]
    assert chosen[0].question == rows[1]["question"]
    assert (chosen[0].gold, chosen[0].first_answers, chosen[0].second_answers) == (right,) * 3
    assert chosen[2].first_answers == rows[2]["choices"]["text"][2]


def test_a_cell_of_the_one_data_set_stands_against_each_of_another_grids(tmp_path: Path) -> None:
    (one,) = [c for c in cells() if (c.method, c.fraction, c.seed) == ("lora", 1.0, 0)]
    (other,) = [c for c in cells() if (c.method, c.fraction, c.seed) == ("ia3", 1.0, 0)]
    answered(one, tmp_path, [1.0, 1.0, 0.0, 0.0])
    for name, answers in (("chats", [1.0, 0.0, 0.0, 0.0]), ("table", [1.0, 1.0, 1.0, 0.0])):
        options = other.model_copy(update={"data_name": name, "world": f"demo-{len(name)}{name}"})
        answered(options, tmp_path, answers)
    found = compared("method=lora", "method=ia3", tmp_path)
    assert [(row.of, row.difference, len(row.requests)) for row in found.rows] == [
        ("@chats", -0.25, 1),
        ("@table", 0.25, 1),
    ]


def test_a_share_that_is_no_mean_over_items_is_compared_over_the_seeds(tmp_path: Path) -> None:
    values = {"lora": (0.5, 0.6, 0.4), "ia3": (0.55, 0.7, 0.45)}
    for cell in cells():
        if cell.fraction == 1.0 and cell.seed is not None:
            score = scored([0.0] * 3, metric="f1", value=values[cell.method][cell.seed])
            result = replace(RESULT, cell=cell.record(), cell_id=cell.id, scores=(score,))
            frame = items([1.0, 0.0, 1.0])
            write_frame(
                items_path(written(cell, tmp_path, result), score.benchmark, score.evaluation),
                frame,
            )
    (row,) = compared("method=lora", "method=ia3", tmp_path).rows
    assert (row.test, row.outcomes) == ("t, seeds", None)
    assert row.p_value == pytest.approx(ttest_rel(values["ia3"], values["lora"]).pvalue)
