"""Training and evaluation prompts side by side on the page."""

from __future__ import annotations

from harness.analysis.prompts import PromptPair
from harness.records.prompts import Prompt
from harness.report import build_report, contents
from harness.report.prompts import prompts_section, template_sentences
from tests.fixtures.results import make_small_grid

TRAINING = Prompt("alpaca", (("<s>### Instruction:", False), ("yes</s>", True)))
PAIRS = (
    PromptPair("m", None, "arc_easy", TRAINING, Prompt("alpaca", (("<s>Why?", False),))),
    PromptPair("m", "chats", "mmlu", TRAINING, Prompt("none", (("<i>\x1b?", False), ("A", True)))),
)


def test_the_page_says_which_benchmarks_share_the_template() -> None:
    same, other = template_sentences(PAIRS)
    assert same == "In the same template as the training rows: arc_easy."
    assert "(training on chats: alpaca, evaluation: none): mmlu." in other
    assert template_sentences(PAIRS[:1]) == [
        "In the same template as the training rows: every benchmark."
    ]


def test_prompts_stand_beside_each_other_escaped_and_marked() -> None:
    found = prompts_section(PAIRS)
    assert "<mark>yes&lt;/s&gt;</mark>" in found
    assert "&lt;i&gt;\\x1b?<mark>A</mark>" in found
    assert "m on chats, mmlu: <b>other templates</b>" in found
    assert prompts_section(()) == ""


def test_the_section_is_on_the_page_where_there_are_prompts(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(contents, "drawings", lambda _: [])
    results = make_small_grid()
    report = build_report(results.input(prompts=PAIRS), tmp_path / "with")
    assert '<section id="prompts">' in report.page.read_text(encoding="utf-8")
    report = build_report(results.input(), tmp_path / "without")
    assert '<section id="prompts">' not in report.page.read_text(encoding="utf-8")
