"""The page's items: bounded, of the pairs that are asked for, and safe whatever a text holds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from harness.analysis import item_tables
from harness.analysis.findings import find
from harness.analysis.item_texts import ItemText
from harness.report import build_report
from harness.report.items import items_section
from tests.fixtures.results import GridResults

Answer = Callable[..., dict[str, list[float]]]


@pytest.fixture
def study(results: GridResults, answer: Answer) -> GridResults:
    for seed, (linear, random) in enumerate([("1100", "1010"), ("1101", "1010"), ("1000", "0010")]):
        results.add("zero-init-linear", seed, answer(linear))
        results.add("random-init", seed, answer(random))
    results.add("lora", 0, answer("0000"))
    return results


def data_of(html: str) -> dict[str, Any]:
    (found,) = re.findall(r'<script type="application/json" id="items-data">(.*?)</script>', html)
    return json.loads(found)


def table(html: str, benchmark: str) -> dict[str, Any]:
    return next(t for t in data_of(html)["tables"] if t["benchmark"].startswith(benchmark))


def test_the_pairs_of_the_claims_are_told_item_by_item(study: GridResults) -> None:
    html = items_section(find(study.input()).items)
    assert {t["pair"] for t in data_of(html)["tables"]} == {
        "tiny: Zero-init + linear − Random-init"
    }
    mmlu = table(html, "MMLU")
    assert {row[1].split()[-1]: row[0] for row in mmlu["rows"]} == {
        "0": "both", "1": "first", "2": "second", "3": "neither",
    }  # fmt: skip
    assert [(kind, count) for kind, _, count in mmlu["kinds"]] == [
        ("both", 1), ("first", 1), ("second", 1), ("neither", 1),
    ]  # fmt: skip
    first = mmlu["rows"][0]
    assert (first[0], first[6], first[7]) == ("first", pytest.approx(2 / 3, abs=1e-4), 0)


def test_so_many_rows_stand_on_the_page_and_it_says_how_many_more(
    study: GridResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_tables, "MOST_ROWS", 10)  # of five columns with four items each
    html = items_section(find(study.input()).items)
    tables = data_of(html)["tables"]
    assert [len(t["rows"]) for t in tables] == [2] * 5
    assert {row[0] for t in tables for row in t["rows"]} == {"first", "second"}
    assert "10 of 20 items stand here" in html
    assert "prints the other 10" in html


def test_no_text_leaves_its_place(study: GridResults, tmp_path: Any) -> None:
    nasty = "</script><script>alert(1)</script><!-- \x1b[31m & \ud800"
    frame = study.items["tiny-random-init-1.0-0", "mmlu"]
    key = (f"{frame['task'][0]}/{frame['doc_id'][0]}", str(frame["question_id"][0]))
    given = replace(study.input(), texts=lambda _cell, _benchmark: {key: ItemText(nasty, (nasty,))})
    page = build_report(given, tmp_path).page.read_text(encoding="utf-8")
    assert "alert(1)</script>" not in page
    texts = data_of(page)["texts"]
    shown = next(text for text in texts if "alert" in text[0])
    assert shown[0].startswith("</script><script>alert(1)</script><!-- ")
    assert "\x1b" not in page


def test_without_a_pair_that_is_asked_for_there_is_no_table(
    results: GridResults, answer: Answer, tmp_path: Any
) -> None:
    results.add("lora", 0, answer("10"))
    page = build_report(results.input(), tmp_path).page.read_text(encoding="utf-8")
    assert "<script" not in page
    assert "Item by item" not in page


def test_the_items_of_a_perplexity_are_told_apart_by_their_log_likelihoods(
    results: GridResults,
) -> None:
    how = {"metric": "word_perplexity", "unit": "word_perplexity", "higher_is_better": False}
    for method, nats in (("zero-init-linear", [-5.0, -9.0, -7.0]), ("random-init", [-6.0] * 3)):
        cell = results.add(method, 0, {"own": nats}, value=40.0, **how)
        results.items[cell, "own"]["loglikelihood"] = nats
    (found,) = find(results.input()).items
    assert found.counts == {"first": 1, "second": 2, "equal": 0}


def test_two_ways_of_measuring_a_benchmark_can_both_be_chosen(
    study: GridResults, answer: Answer
) -> None:
    study.add("zero-init-linear", 7, answer("1100", ["mmlu"]), limit=4)
    study.add("random-init", 7, answer("1100", ["mmlu"]), limit=4)
    names = [t["benchmark"] for t in data_of(items_section(find(study.input()).items))["tables"]]
    assert len(set(names)) == len(names) == 6
    assert any("MMLU (mmlu acc): " in name and "limit 4" in name for name in names)
