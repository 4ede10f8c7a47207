from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet
import pytest

from harness.evaluation.scienceqa.matching import extract, judge
from tests.fixtures.real_data import DATA_ROOT


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" The answer is A.", 0),
        ("The answer is B. BECAUSE: it is.", 1),
        ("I think. The answer is C!", 2),  # the pattern's point stands for any character
        ("The answer is C", None),
        ("The answer is D.", None),  # of three options
        ("The answer is A. The answer is A.", None),
        ("the answer is A.", None),
        ("The answer is (A).", None),
        ("", None),
    ],
)
def test_the_letter_is_read_by_the_official_pattern(text: str, expected: int | None) -> None:
    assert extract(text, 3) == expected
    verdict = judge(text, ["one", "two", "three"], 0)
    assert verdict.prediction == expected
    assert verdict.right == (expected == 0)
    assert verdict.not_extracted == (expected is None)


def test_published_outputs_of_gpt3() -> None:
    """The official random fallback is not drawn: 72.18 where the published average is 75.17."""
    folder = Path(DATA_ROOT or "") / "scienceqa"
    published, text = folder / "gpt3_cot_predictions.json", folder / "test_text.parquet"
    if DATA_ROOT is None or not published.is_file() or not text.is_file():
        pytest.skip("needs ScienceQA's published predictions: set ZBENCH_DATA_ROOT")
    outputs = json.loads(published.read_text(encoding="utf-8"))["outputs"]
    columns = ["pid", "choices", "answer", "has_hint", "has_image"]
    rows = pyarrow.parquet.read_table(text, columns=columns).to_pylist()
    assert len(rows) == 4241
    verdicts = [judge(outputs[row["pid"]], row["choices"], row["answer"]) for row in rows]

    def percent(chosen: list[bool]) -> float:
        right = [one.right for one, is_in in zip(verdicts, chosen, strict=True) if is_in]
        return round(100 * sum(right) / len(right), 2)

    assert sum(one.right for one in verdicts) == 3061
    assert sum(one.not_extracted for one in verdicts) == 249
    assert percent([True] * len(rows)) == 72.18
    assert percent([row["has_hint"] for row in rows]) == 72.78
    assert percent([row["has_image"] for row in rows]) == 66.04
    assert percent([not row["has_hint"] and not row["has_image"] for row in rows]) == 74.22
