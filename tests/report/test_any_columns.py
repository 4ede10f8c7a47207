"""Reports of whatever a grid may hold: no crash, nothing lost, nothing from outside is markup."""

from __future__ import annotations

import itertools
import math
import random
import re
from dataclasses import replace

import pytest

from harness.evaluation.benchmarks import BENCHMARKS
from harness.grid.questions import ClaimSpec, TableSpec
from harness.report import contents
from harness.report.figures import Drawing
from tests.report.test_report import parse_text

NASTY = (
    "plain",
    "a_b & 50% #1 $x$ {y} ~ ^ \\ <b> | [c](d)",
    "\"quoted\" 'so' `code` *star* __init__ -- ?` ,,",
    "模型 модель é ß ǆ ﷺ 🌿 \u202e\x1b[31m\x00",
    "x" * 80,
    "lora-r8,alpha=16,target=[q_proj,k_proj,v_proj,o_proj],lr=0.0003,warmup=0.03,more",
)
TASKS = (
    *("arc_easy", "arc_challenge", "mmlu", "hellaswag", "truthfulqa_mc1"),
    *("truthfulqa_mc2", "paper_arc_easy", "paper_truthfulqa", "paper_truthfulqa_shuffled"),
    *("demo_arc_easy", "demo_truthfulqa_mc2", "own_1", "own_2"),
)
METHODS = ("base", "full", "lora", "random-init", "zero-init-linear", "zero-init-nonlinear", "mine")


def fill(results, draw: random.Random) -> None:
    """Adds cells, scores, items and losses of any kind to a grid."""
    tasks = draw.sample(TASKS, draw.choice((1, 2, 5, 9)))
    methods = draw.sample(METHODS, draw.choice((1, 2, 3, 5)))
    values = (1.0, 0.0, 0.0, 1.0, math.nan) if draw.random() < 0.3 else (1.0, 0.0)
    for model in draw.sample(("tiny", "llama-7b", *NASTY), draw.choice((1, 2))):
        for method in methods:
            label = draw.choice((None, None, draw.choice(NASTY)))
            for fraction in draw.choice(((1.0,), (0.1, 0.5, 1.0))):
                for seed in (None,) if method == "base" else range(draw.choice((1, 2))):
                    asked = [task for task in tasks if draw.random() < 0.8]
                    number = draw.choice((1, 2, 7))
                    answers = {task: draw.choices(values, k=number) for task in asked}
                    status = draw.choice(("done", "done", "failed", "missing"))
                    if status != "done" and draw.random() < 0.7:
                        answers = {}
                    losses = draw.choices((2.0, 1.0, math.nan, math.inf), k=draw.choice((0, 1, 3)))
                    results.add(
                        method, seed, answers, model=model, fraction=fraction, label=label,
                        status=status, losses=losses, error=draw.choice((None, draw.choice(NASTY))),
                        limit=draw.choice((None, None, 7)), note=draw.choice((None, None, *NASTY)),
                    )  # fmt: skip
    for record in results.scores:
        protocol = "paper" if "paper" in record["benchmark"] else "lm-eval"
        record |= {"protocol": protocol, "data_source": draw.choice(NASTY)}
        if draw.random() < 0.15:
            record |= {"value": draw.choice((math.nan, None, math.inf)), "stderr": math.nan}
        if draw.random() < 0.1:
            record |= {"stderr": None}
    for record in results.cells:
        if draw.random() < 0.2:
            record |= {"examples": None, "steps": None, "trainable_parameters": None}
    for key in list(results.items):
        if draw.random() < 0.2:
            del results.items[key]


def asked_of(results, draw: random.Random) -> dict[str, object]:
    """Gives some cells data sets, and some results units; returns what their grid asks."""
    if draw.random() < 0.3:
        return {}  # the paper's
    for record in (*results.cells, *results.scores, *results.losses):
        number = sum(map(ord, f"{record['cell_id']}{record['model']}"))
        record["data"] = ("chats", NASTY[0], None)[number % 3]
    for record in results.scores:
        if record["benchmark"] in ("own_1", "mmlu"):
            record |= {"unit": "perplexity", "higher_is_better": False}
    benchmarks = sorted({record["benchmark"] for record in results.scores})
    columns: list[object] = [{"name": name, "title": f"{name} ◊"} for name in benchmarks[1:]]
    columns.append({"average": dict.fromkeys(benchmarks, 2.0)} if benchmarks else "arc_easy")
    methods = sorted({record["method"] for record in results.cells})
    claims = [ClaimSpec(better=a, than=b, margin=2) for a, b in itertools.pairwise(methods)]
    table = TableSpec(columns=tuple(columns), rows=tuple(methods[1:]), bold="all")
    return {
        "tables": draw.choice(((), (table,))),
        "claims": tuple(claims[: draw.choice((0, 2))]),
        "compare": draw.choice((None, "all", methods[-1])),
    }


def without_figures(findings) -> tuple[dict[str, str], str, str]:
    """Returns the tables' files, the page and the terminal's text; figures are not drawn."""
    drawings = contents.drawings(findings)
    assert len({drawing.name.casefold() for drawing in drawings}) == len(drawings)
    images = [(drawing, ["" for _ in drawing.panels]) for drawing in drawings]
    page = contents.page_html(findings, images, ["a.md"], figures_key="ab")
    return dict(contents.table_files(findings)), page, contents.terminal_text(findings)


@pytest.mark.parametrize(
    "seed", [*range(8), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(8, 60))]
)
def test_any_set_of_cells_methods_benchmarks_and_scores_gives_a_report(results, seed) -> None:
    draw = random.Random(seed)
    fill(results, draw)
    texts = {"grid_title": draw.choice(NASTY), "notes": (draw.choice(NASTY),)}
    texts |= {"grid_yaml": draw.choice(NASTY)}
    findings = results.findings(**texts, **asked_of(results, draw))
    files, page, terminal = without_figures(findings)
    parsed = parse_text(page)
    assert parsed.tags == []
    assert "b" not in parsed.seen or any(entry.best for entry in every_line(findings))
    for text in (page, terminal, *files.values()):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", text)
    assert max(map(len, terminal.splitlines())) <= contents.TERMINAL_WIDTH
    for name, text in files.items():
        if name.endswith(".tex"):
            check_latex(text)
        elif name.endswith(".md"):
            check_markdown(text)
    # Every number that was measured at the largest share stands in some table.
    shown = "".join(
        text for name, text in files.items() if re.match(r"(table|benchmarks|methods).*csv", name)
    )
    for line in every_line(findings):
        for column, estimate in line.estimates.items():
            assert estimate is None or math.isfinite(estimate.value)
            assert estimate is None or column in shown


def every_line(findings):
    return [line for lines in findings.lines.values() for line in lines]


def check_latex(text: str) -> None:
    plain = re.sub(r"\\othercharacter\{.\}", "", text.split("\\begin", 1)[1])
    plain = re.sub(r"^%.*$|\\providecommand.*", "", plain, flags=re.M)
    assert plain.isascii(), {c for c in plain if not c.isascii()}
    plain = re.sub(r"\\[{}\\%&#_$]", "", plain)
    assert plain.count("{") == plain.count("}")
    ours = (
        r"\[[rlt]\]|\\[~^\"`]\{|\$[^$]*\$|\{\[\}|\{\]\}|>\{"
        r"|\\resizebox.*|\\begin\{tabular\}.*|\\label.*"
    )
    assert not re.search(r"[#_~^\"`\[\]|<>]", re.sub(ours, "", plain))


def check_markdown(text: str) -> None:
    for table in text.split("\n\n"):
        rows = [line for line in table.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in rows}) <= 1
    assert not re.search(r"(?<!\\)[`$~\[\]]", text)


def test_every_benchmark_has_a_table_with_its_score(results, answer) -> None:
    names = [*BENCHMARKS, "somebody_elses"]
    for name in names:
        protocol = BENCHMARKS[name].protocol.name if name in BENCHMARKS else "lm-eval"
        results.add("base", None, answer("1101", [name]), protocol=protocol)
    findings = results.findings()
    shown = {setting.benchmark for group in findings.measured.groups for setting in
             group.settings.values()}  # fmt: skip
    assert shown == set(names)
    files, _, terminal = without_figures(findings)
    for title in ("TruthfulQA MC2", "somebody_elses", "options shuffled"):
        assert title in files["benchmarks.md"]
        assert title.split()[-1] in terminal
    assert "75.00" in files["benchmarks.tex"]
    assert "Table 1" not in files["benchmarks.md"]


def test_a_column_of_ones_own_is_a_table_of_its_own(results, answer) -> None:
    own = replace(BENCHMARKS["arc_easy"], column="PIQA")
    also = replace(BENCHMARKS["arc_challenge"], column="Average")
    results.add("base", None, answer("1101", ["arc_easy", "arc_challenge"]))
    known = {**BENCHMARKS, "arc_easy": own, "arc_challenge": also}
    average = TableSpec(columns=({"average": ["truthfulqa_mc2"]},))
    findings = results.findings(known, tables=(average,))
    (group,) = findings.measured.groups
    assert group.columns == ("PIQA", "Average (arc_challenge)")
    assert group.is_rest
    files, _, _ = without_figures(findings)
    assert "table1.md" not in files
    assert "comparisons.md" not in files
    assert "Average (arc\\_challenge)" in files["benchmarks.tex"].replace("\\\\", " ")


def test_another_benchmark_under_a_title_of_the_papers_has_no_published_value(
    results, answer
) -> None:
    results.add("zero-init-linear", 0, answer("10" * 5021, ["mine"]), model="llama-7b")
    record = {"metric": "acc_norm", "shots": 10}
    results.scores[0] |= record
    own = replace(BENCHMARKS["hellaswag"], name="mine")
    columns = ({"title": "HellaSwag", "name": "mine"},)
    table = TableSpec(columns=columns, published="table2")
    (line,) = every_line(results.findings({"mine": own}, tables=(table,)))
    assert line.estimates["HellaSwag"].num_items == 10042
    assert line.published is not None
    assert not line.matches


def test_where_all_failed_the_page_says_so_and_why(results) -> None:
    results.add("lora", 0, status="failed", error="boom")
    findings = results.findings()
    files, page, terminal = without_figures(findings)
    assert files == {}
    assert "No cell has a score yet" in page
    assert "boom" in page
    assert "No cell has a score yet" in terminal


def test_scores_that_are_no_numbers_are_dashes_and_told(results, answer) -> None:
    results.add("zero-init-linear", 0, answer("1100"))
    results.add("zero-init-nonlinear", 0, answer("1100"))
    results.scores[0]["value"] = math.nan
    findings = results.findings()
    first, second = (line for (paper, _), lines in findings.lines.items()
                     if paper.name == "table2" for line in lines)  # fmt: skip
    assert first.estimates["ARC-e"] is None
    assert not second.best
    _, page, terminal = without_figures(findings)
    assert "Scores that are no numbers" in page
    assert "nan" not in terminal.lower().replace("finance", "")


def test_the_lower_score_is_bold_where_lower_is_better(results, answer) -> None:
    lower = replace(BENCHMARKS["arc_easy"], higher_is_better=False)
    results.add("zero-init-linear", 0, answer("1000", ["arc_easy"]))
    results.add("zero-init-nonlinear", 0, answer("1100", ["arc_easy"]))
    findings = results.findings({"arc_easy": lower})
    best = {line.variant.method: line.best for line in every_line(findings)}
    assert best == {"zero-init-linear": {"ARC-e"}, "zero-init-nonlinear": frozenset()}
    files, _, _ = without_figures(findings)
    assert "↓ Lower is better: ARC-e." in files["table2.md"]
    assert "ARC-e $\\downarrow$" in files["table2.tex"]
    assert findings.at_chance == []


def test_of_two_settings_that_stand_for_a_method_one_at_most_is_bold(results, answer) -> None:
    results.add("zero-init-linear", 0, answer("1110"), label="short")
    results.add("zero-init-linear", 0, answer("1111"), label="long")
    results.add("zero-init-nonlinear", 0, answer("1000"))
    best = {line.variant.method: bool(line.best) for line in every_line(results.findings())}
    assert best == {"short": False, "long": True, "zero-init-nonlinear": False}


def test_bold_is_explained_only_where_it_can_be(results, answer) -> None:
    results.add("zero-init-linear", 0, answer("1110"))
    files, _, _ = without_figures(results.findings())
    assert "Bold:" not in files["table2.md"]


@pytest.mark.slow
def test_figures_of_odd_grids_are_drawn(results) -> None:
    draw = random.Random(3)
    fill(results, draw)
    for drawing in contents.drawings(results.findings()):
        assert isinstance(drawing, Drawing)
        assert drawing.render("png")
