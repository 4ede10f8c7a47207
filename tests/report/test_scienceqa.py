"""ScienceQA's columns on the page, beside the published numbers, with verdicts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from harness.grid.questions import ClaimSpec, TableSpec
from harness.report.listings import published_names, published_tables
from harness.report.reading import caution_sentences
from harness.report.tables import score_tables, table_records
from harness.report.verdicts import claim_records

BENCHMARK = "paper_scienceqa"
MEASURED = {"protocol": "scienceqa", "temperature": 0.0}
NUMBER = 4241


def items() -> pd.DataFrame:
    """The test split's numbers of items by category; 1,257 have a text and a picture."""
    place = np.arange(NUMBER)
    subjects = np.where(place < 2252, "natural science", "social science")
    return pd.DataFrame(
        {
            "subject": np.where(place < 3141, subjects, "language science"),
            "grade": np.where(place % 3 == 0, "grade9", "grade4"),
            "has_text": place < 2046,
            "has_image": (place >= 789) & (place < 789 + 2017),
            "num_options": 2,
        }
    )


def answers(share: float, seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).random(NUMBER) < share).astype(float)


@pytest.fixture
def grid(results):
    """A grid of LLaMA-7B: text only, pictures, and random-init with pictures."""
    rows = (
        ("zero-init-linear", "text-only", 0.78, None),
        ("zero-init-linear", "pictures", 0.85, 30),
        ("random-init", "random-pictures", 0.42, 30),
        ("zero-init-linear", "ten-layers", 0.56, 10),
    )
    for number, (method, label, share, layers) in enumerate(rows):
        for seed in (0, 1):
            cell = results.add(
                method,
                seed,
                {BENCHMARK: answers(share, 10 * number + seed)},
                model="llama-7b",
                label=label,
                further={"picture_layers": layers},
                **MEASURED,
            )
            frame = results.items[cell, BENCHMARK]
            results.items[cell, BENCHMARK] = pd.concat([frame, items()], axis=1)
    return results


def table(**fields) -> TableSpec:
    return TableSpec(columns=[{"name": BENCHMARK, "columns": "scienceqa"}], **fields)


def cells_of(findings, name: str) -> dict[str, list[str]]:
    (shown,) = score_tables(findings.measured.layout.tables[0], findings)
    head = shown.header.index("NAT")
    found: dict[str, list[str]] = {}
    last = ""
    for line in shown.rows:
        texts = [entry.text for entry in line.entries]
        last = f"{last} {texts[1]}" if texts[1] == "published" else texts[1]
        found[last] = texts[head:]
    return found


def test_rows_stand_beside_the_published_ones_of_the_same_use_of_pictures(grid) -> None:
    findings = grid.findings(tables=(table(published="scienceqa"),), claims=())
    found = cells_of(findings, "scienceqa")
    by_label = {
        label: next(values for name, values in found.items() if f"({label})" in name and
                    name.endswith("published"))
        for label in ("text-only", "pictures")
    }  # fmt: skip
    assert by_label["text-only"][-1] == "78.31"
    assert by_label["pictures"] == [
        *("84.37", "88.30", "84.36", "83.72", "80.32", "86.90", "–", "–", "85.19")
    ]  # of the grades this frame has other numbers of items
    assert not any("random-pictures" in name and "published" in name for name in found)
    assert found["GPT-3 (CoT)"][3:6] == ["74.68", "67.43", "79.93"]
    assert "random choice" not in str(found).lower()


def test_the_ablations_are_marked_as_of_the_validation_split(grid) -> None:
    findings = grid.findings(tables=(table(published="scienceqa-ablation"),), claims=())
    (shown,) = score_tables(findings.measured.layout.tables[0], findings)
    texts = [[entry.text for entry in line.entries] for line in shown.rows]
    published = [line[-1] for line in texts if line[1] == "published"]
    assert sorted(published) == ["40.77§", "55.95§", "83.85§"]
    assert "§: of the validation split, not of ours." in " ".join(shown.caption)
    records = table_records(findings.measured.layout.tables[0], findings)
    marked = [r for r in records if r["published_percent"] is not None]
    assert {r["published_split"] for r in marked} == {"validation"}


def test_claims_have_verdicts_of_the_published_differences(grid) -> None:
    claims = (
        ClaimSpec(better="pictures", than="text-only", on="IMG"),
        ClaimSpec(better="pictures", than="random-pictures", on="Avg"),
    )
    findings = grid.findings(tables=(table(),), claims=claims)
    first, second = claim_records(findings)
    assert (first["column"], first["num_items"]) == ("IMG", 2017)
    assert first["published"]["difference"] == pytest.approx(80.32 - 70.35)
    assert "split" not in first["published"]
    assert second["published"]["difference"] == pytest.approx(83.85 - 40.77)
    assert second["published"]["split"] == "validation"
    assert second["verdict"] == "reproduced"
    told = [claim.published.split for claim in findings.claims]
    assert told == ["", "validation"]


def test_the_published_tables_are_those_of_what_is_measured(grid, results) -> None:
    findings = grid.findings(tables=(table(),), claims=())
    assert published_names(findings) == ["scienceqa", "scienceqa-ablation"]
    whole, ablation = published_tables(findings)
    assert len(whole.rows) == 7
    assert "arXiv 2303.16199v3" in whole.caption[0]
    assert "validation split" in ablation.title
    lines = " ".join(caution_sentences(findings))
    assert "LLaMA-Adapter's ScienceQA scores" in lines
    assert "The paper's ARC" not in lines


def test_a_grid_of_other_benchmarks_has_no_table_of_scienceqa(results, answer) -> None:
    results.add("lora", 0, answer("1100"), model="llama-7b")
    findings = results.findings()
    assert published_names(findings) == ["table1", "table2"]
    assert "ScienceQA" not in " ".join(caution_sentences(findings))
