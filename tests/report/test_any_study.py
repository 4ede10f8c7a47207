"""Tables, comparisons and figures of any study: benchmarks, metrics and data sets of one's own."""

from __future__ import annotations

import io
from dataclasses import replace

import pandas as pd
import pytest
from matplotlib.figure import Figure

from harness.evaluation.benchmarks import BENCHMARKS
from harness.grid.questions import ClaimSpec, TableSpec
from harness.report import contents
from harness.report.comparisons import comparison_tables
from harness.report.reading import headline_sentences
from harness.report.verdict_words import sentence_of
from tests.fixtures.results import GridResults, answers_of

NAMES = ("piqa", "boolq", "winogrande", "openbookqa", "sciq")
STRICT, FLEXIBLE = "exact_match,strict-match", "exact_match,flexible-extract"
TABLE = TableSpec(
    title="Mine",
    columns=(
        {"name": "gsm8k", "metric": FLEXIBLE},
        "piqa",
        {"average": {"piqa": 3, "boolq": 1}, "title": "Weighed"},
        "wikitext",
    ),
    rows=("oft", "lora"),
    bold="all",
)


def own(name: str, primary: str = "acc", **fields):
    fields = {"name": name, "title": name, "column": None, "chance": None} | fields
    return replace(BENCHMARKS["arc_easy"], primary_metric=primary, **fields)


KNOWN = {
    **{name: own(name) for name in NAMES},
    "gsm8k": own("gsm8k", STRICT, metrics=(STRICT, FLEXIBLE)),
    "wikitext": own("wikitext", "word_perplexity"),
}


def add(
    grid: GridResults,
    method: str,
    seed: int | None = None,
    pattern: str = "1100",
    perplexity: float = 20.0,
    **fields,
) -> None:
    """Adds a cell with scores on every benchmark, gsm8k by both filters, wikitext in its unit."""
    cell_id = grid.add(method, seed, answers_of(pattern, NAMES), **fields)
    names = ("cell_id", "label", "model", "method", "method_name", "method_title", "data")
    head = {name: grid.cells[-1][name] for name in (*names, "fraction", "seed")
            if name in grid.cells[-1]}  # fmt: skip
    values = [float(each) for each in pattern]
    grid.score(head, "gsm8k", values, metric=STRICT)
    strict = grid.items[cell_id, "gsm8k"][STRICT]
    grid.score(head, "gsm8k", values[::-1], metric=FLEXIBLE, key=grid.scores[-1]["key"])
    grid.items[cell_id, "gsm8k"][STRICT] = strict
    unit = {"unit": "word_perplexity", "higher_is_better": False, "stderr": None, "n": 62}
    grid.score(head, "wikitext", [1.0], metric="word_perplexity", value=perplexity, **unit)
    del grid.items[cell_id, "wikitext"]


@pytest.fixture
def grid(results) -> GridResults:
    """Two methods of three seeds beside the base model."""
    add(results, "base", None, "10000000", 22.5)
    for seed in range(3):
        add(results, "lora", seed, "11000000", 20.0 + 0.1 * seed)
        add(results, "oft", seed, "11110010", 18.123 + 0.1 * seed)
    return results


def ask(grid: GridResults, *tables: TableSpec, **fields):
    return grid.findings(KNOWN, **{"tables": tables, "claims": (), **fields})


def files_of(findings) -> dict[str, str]:
    return dict(contents.table_files(findings))


def csv(text: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(text))


def test_without_a_word_one_table_has_every_benchmark_and_every_filter(grid) -> None:
    findings = ask(grid)
    (group,) = findings.measured.groups
    assert group.columns == (
        *(*NAMES, "gsm8k (strict-match)", "gsm8k (flexible-extract)", "wikitext"),
    )
    files = files_of(findings)
    assert {"table1.md", "table1.tex", "table1.csv", "comparisons.md"} <= files.keys()
    assert not any("benchmarks" in name for name in files)
    assert files["table1.md"].startswith("**All benchmarks: piqa, boolq")


def test_a_table_has_the_columns_rows_and_averages_that_it_states(grid) -> None:
    findings = ask(grid, TABLE)
    (key, *_) = [key for key in findings.lines if key[0].name == "table1"]
    _, view = key
    assert view.columns == ("gsm8k (flexible-extract)", "piqa", "Weighed", "wikitext")
    assert [line.variant.method for line in findings.lines[key]] == ["base", "oft", "lora"]
    oft = findings.lines[key][1]
    assert oft.estimates["Weighed"].value == pytest.approx(5 / 8)
    assert view.weights["Weighed"] == {"piqa": 0.75, "boolq": 0.25}
    text = files_of(findings)["table1.md"]
    assert "Weighed: 0.75 × piqa + 0.25 × boolq." in text
    # boolq, a part of the average without a column of its own, and all others are not lost.
    assert (
        "Benchmarks in no other table: boolq, winogrande, openbookqa, sciq"
        in (files_of(findings)["benchmarks.md"])
    )


def test_what_is_no_share_is_printed_as_it_is_and_the_lower_one_is_bold(grid) -> None:
    findings = ask(grid, TABLE)
    files = files_of(findings)
    base, oft, lora = (line for line in files["table1.md"].splitlines() if "|  |" in line[:5] or
                       "| tiny |" in line)  # fmt: skip
    assert base.endswith("| 22.50 |")
    # Of a perplexity the seeds' own error is known alone: 0.1/√3.
    assert oft.endswith("| **18.22** ± 0.06¶ |")
    assert lora.endswith("| 20.10 ± 0.06¶ |")
    assert "¶ No mean over items" in files["table1.md"]
    assert "wikitext ↓" in files["table1.md"]
    assert "printed as they are: wikitext (word_perplexity)." in files["table1.md"]
    table = csv(files["table1.csv"])
    (row,) = table[(table["column"] == "wikitext") & (table["method"] == "oft")].to_dict("records")
    assert row["value_in_unit"] == pytest.approx(18.223)
    assert (row["unit"], row["value_percent"]) == (
        "word_perplexity",
        pytest.approx(float("nan"), nan_ok=True),
    )
    assert "2,010" not in files["scores.md"]
    assert "| word\\_perplexity | 20.10 |" in files["scores.md"].replace("word_perp", "word\\_perp")


def test_an_average_of_what_turns_out_to_be_no_share_is_not_made(grid) -> None:
    table = TableSpec(columns=("piqa", {"average": ["piqa", "wikitext"]}))
    findings = ask(grid, table)
    lines = next(lines for (one, _), lines in findings.lines.items() if one.name == "table1")
    assert all(line.estimates["Average"] is None for line in lines)
    assert "Average: not made, as wikitext is no share." in files_of(findings)["table1.md"]


def test_a_claim_is_tested_on_its_column_with_its_margin_in_the_columns_unit(grid) -> None:
    claims = (
        ClaimSpec(better="oft", than="lora", on="wikitext", margin=0.5),
        ClaimSpec(better="oft", than="lora", on="Weighed", margin=60),
        ClaimSpec(better="lora", than="base"),
    )
    findings = ask(grid, TABLE, claims=claims)
    asked = {(e.left, e.right, e.column): e for e in findings.headlines}
    assert list(asked) == [
        ("oft", "LoRA", "Weighed"),
        ("oft", "LoRA", "wikitext"),
        ("LoRA", "Base model", "Weighed"),
    ]
    on_text = asked["oft", "LoRA", "wikitext"]
    assert on_text.estimate.value == pytest.approx(-1.877)
    # Three seeds show one difference, which tells no error: nothing is tested.
    assert (on_text.is_left_better, on_text.margin, on_text.is_within_margin) == (True, 0.5, None)
    shares = asked["oft", "LoRA", "Weighed"]
    assert (shares.is_left_better, shares.margin) == (True, 0.6)
    assert headline_sentences(findings) == []  # claims have verdicts instead
    first, second, _ = findings.claims
    assert (first.margin, second.margin) == (0.6, 0.5)
    assert second.difference.value == pytest.approx(1.877)  # positive as claimed
    assert "+1.877 word_perplexity (95% interval " in sentence_of(second)
    record = csv(files_of(findings)["comparisons.csv"])
    mine = record[(record["column"] == "wikitext") & (record["left"] == "oft")].iloc[0]
    assert mine["difference_in_unit"] == pytest.approx(-1.877)
    assert mine["margin"] == 0.5
    assert pd.isna(mine["p_margin"])
    assert pd.isna(mine["is_within_margin"])


@pytest.mark.parametrize(
    ("compare", "pairs"),
    [
        (None, []),
        ("lora", ["oft − LoRA", "mine − LoRA"]),
        ("all", ["oft − LoRA", "mine − LoRA", "mine − oft"]),
        ("base", ["LoRA − Base model", "oft − Base model", "mine − Base model"]),
    ],
)
def test_compare_says_which_methods_stand_against_each_other(grid, compare, pairs) -> None:
    add(grid, "mine", 0, "11111111")
    (found, *_) = ask(grid, compare=compare).comparisons.values()
    asked = [entry for entry in found if entry.family == "compare"]
    assert list(dict.fromkeys(entry.label for entry in asked)) == pairs
    # Each benchmark is tested once: gsm8k by its first filter.
    tested = {entry.column for entry in asked if entry.is_tested}
    assert tested == ({*NAMES, "gsm8k (strict-match)", "wikitext"} if pairs else set())


def test_all_compares_every_label(grid) -> None:
    add(grid, "lora", 0, "11111111", label="lora-r64")
    (found, *_) = ask(grid, compare="all").comparisons.values()
    asked = dict.fromkeys(entry.label for entry in found if entry.family == "compare")
    assert list(asked) == ["oft − LoRA", "LoRA (lora-r64) − LoRA", "LoRA (lora-r64) − oft"]


def test_what_counts_and_is_a_mean_over_its_items_is_paired_by_item(results) -> None:
    for method, values in (("lora", [3.0, 5.0, 8.0]), ("oft", [2.0, 5.0, 6.0])):
        results.add(method, 0, {"words": values}, unit="words", higher_is_better=False)
    (found,) = ask(results, compare="all").comparisons.values()
    (entry,) = found
    assert entry.test == "sign flips"
    assert entry.estimate.value == -1.0
    assert entry.estimate.stderr == pytest.approx(1 / 3**0.5)
    assert entry.is_left_better


def test_the_base_model_may_be_claimed_to_be_the_better_one(grid) -> None:
    claim = ClaimSpec(better="base", than="lora", on="wikitext")
    (entry,) = ask(grid, claims=(claim,)).headlines
    assert (entry.label, entry.estimate.num_seeds) == ("Base model − LoRA", 3)
    assert entry.estimate.value == pytest.approx(2.4)
    assert not entry.is_left_better


def test_a_pair_that_is_claimed_is_not_compared_again(grid) -> None:
    claims = (ClaimSpec(better="lora", than="oft", on="piqa"),)
    (found, *_) = ask(grid, compare="all", claims=claims).comparisons.values()
    assert {entry.family for entry in found} == {"claim", "context"}
    assert {entry.label for entry in found if entry.family == "claim"} == {"LoRA − oft"}


def test_the_benchmarks_in_no_table_describe_beside_an_average(grid) -> None:
    findings = ask(grid, TABLE, compare="all")
    tables, rest = findings.comparisons.values()
    assert {entry.column for entry in tables if entry.is_tested} == {"Weighed"}
    assert not any(entry.is_tested for entry in rest)
    note = comparison_tables(findings, is_rest=True)[0].notes[0]
    assert note.startswith("Nothing here is tested")


@pytest.fixture
def two_sets(results) -> GridResults:
    """A method on two data sets, of which the second is trained on less."""
    add(results, "base", None, "10000000")
    for data, fractions in (("chats", (0.1, 1.0)), ("table", (0.1,))):
        for fraction in fractions:
            for method, pattern in (("lora", "11000000"), ("oft", "11110010")):
                add(results, method, 0, pattern, data=data, fraction=fraction, losses=[2.0, 1.0])
    return results


def test_data_sets_are_never_averaged_nor_compared_and_base_stands_against_each(two_sets) -> None:
    findings = ask(two_sets, compare="all")
    (lines, *_) = findings.lines.values()
    assert [(line.name, line.variant.fraction) for line in lines] == [
        ("Base model", None),
        *(("LoRA on chats", 1.0), ("oft on chats", 1.0)),
        *(("LoRA on table", 0.1), ("oft on table", 0.1)),
    ]
    assert all(e.num_seeds == 1 for line in lines for e in line.estimates.values())
    (found,) = findings.comparisons.values()
    assert list(dict.fromkeys(entry.label for entry in found)) == [
        "oft on chats − LoRA on chats",
        "oft on table − LoRA on table",
        "LoRA on chats − Base model",
        "oft on chats − Base model",
        "LoRA on table − Base model",
        "oft on table − Base model",
    ]
    text = files_of(findings)["table1.md"]
    assert "Trained on a share of the training data: tiny on chats 100%, tiny on table 10%." in text
    assert set(csv(files_of(findings)["scores.csv"])["data"].dropna()) == {"chats", "table"}


def test_each_data_set_has_figures_of_its_own(two_sets) -> None:
    findings = ask(two_sets, TABLE)
    names = [drawing.name for drawing in contents.drawings(findings)]
    for data in ("chats", "table"):
        for figure in ("sample-efficiency", "training-loss"):
            assert f"{figure}-tiny-{data}" in names


def test_a_figure_of_what_is_no_share_has_its_unit_and_direction(grid) -> None:
    add(grid, "lora", 0, "10000000", 21.0, fraction=0.1)
    drawings = {drawing.name: drawing for drawing in contents.drawings(ask(grid, TABLE))}
    panels = {panel.title: panel for panel in drawings["sample-efficiency-tiny-each"].panels}
    assert list(panels) == ["gsm8k (flexible-extract)", "piqa", "wikitext"]
    axes = Figure().add_subplot()
    panels["wikitext"].draw(axes)
    assert axes.get_ylabel() == "word_perplexity (↓ lower is better)"
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.get_lines()}
    assert lines["LoRA"] == pytest.approx([21.0, 20.1])
    assert [panel.title for panel in drawings["sample-efficiency-tiny"].panels] == ["Weighed"]


@pytest.mark.parametrize(
    "tables",
    [
        # A title that is the name of another task, in another table.
        (["boolq", {"name": "gsm8k", "title": "piqa"}], [{"average": ["piqa"], "title": "Mean"}]),
        # A later column whose title is the head of a part that no table shows.
        ([{"average": ["piqa"], "title": "Mean"}], [{"name": "gsm8k", "title": "piqa"}]),
        ([{"average": ["piqa"], "title": "Mean"}, {"name": "gsm8k", "title": "piqa"}],),
    ],
)
def test_a_part_of_an_average_is_no_column_that_only_has_its_name(results, tables) -> None:
    results.add("lora", 0, {"piqa": [1.0, 1.0, 1.0, 0.0], "boolq": [0.0, 0.0]})
    results.score(results.cells[-1], "gsm8k", [1.0, 0.0, 0.0, 0.0], metric=STRICT)
    findings = ask(results, *(TableSpec(columns=columns) for columns in tables))
    found = {
        column: line.estimates[column].value
        for (_, view), lines in findings.lines.items()
        for line in lines
        for column in view.columns
    }
    assert (found["Mean"], found["piqa"]) == (0.75, 0.25)
