"""Scores of one request on other items stand side by side; which one is shown."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet
import pytest

from harness.data.pins import pins
from harness.evaluation.data_versions import local_contents, task_content_sha256
from harness.evaluation.shown import (
    OTHER_ITEMS,
    is_pinned,
    items_under,
    shown_result,
)
from harness.evaluation.task_data import data_fingerprint
from harness.evaluation.tasks import TaskSpec
from harness.records.results import CellResult
from harness.records.scores import TaskScore, evaluations
from tests.evaluation.conftest import write_rows
from tests.records.test_results import RESULT, SCORE

TASK = TaskSpec(name="arc_easy")
PIN = pins()["arc_easy/test.parquet"]


def score(value: float, content: str, **change: object) -> TaskScore:
    named = {"content_sha256": content * 64, "items": content * 12, "data_sha256": content}
    return replace(SCORE, value=value, **named | change)  # type: ignore[arg-type]


def of(*scores: TaskScore) -> CellResult:
    return replace(RESULT, scores=scores)


def values(result: CellResult) -> list[float]:
    return [score.value for score in result.scores]


def test_scores_on_other_items_never_replace_each_other() -> None:
    result = of().with_scores((score(0.1, "a"),), 1.0, {"torch": "1"})
    result = result.with_scores((score(0.2, "b"),), 1.0, {"torch": "2"})
    assert values(result) == [0.1, 0.2]
    again = result.with_scores((score(0.3, "a"),), 1.0, {"torch": "3"})
    assert sorted(values(again)) == [0.2, 0.3]
    assert again.evaluation_environments == {
        f"k-{'a' * 12}": {"torch": "3"},
        f"k-{'b' * 12}": {"torch": "2"},
    }
    assert CellResult.from_json(again.to_json()) == again


def test_one_content_in_another_file_is_the_same_evaluation() -> None:
    other_file = score(0.2, "a", data_sha256="of another file")
    assert values(of(score(0.1, "a")).with_scores((other_file,), 1.0)) == [0.2]
    older = replace(SCORE, data_sha256="a")  # recorded no content
    assert values(of(older).with_scores((score(0.2, "a"),), 1.0)) == [0.2]
    assert values(of(older).with_scores((score(0.2, "b"),), 1.0)) == [0.5, 0.2]


def test_evaluations_are_told_apart_by_request_and_items() -> None:
    scores = [score(0.1, "a"), score(0.2, "b"), score(0.3, "a", metric="acc_norm")]
    scores.append(score(0.4, "a", key="k2"))
    assert [[one.value for one in group] for group in evaluations(scores)] == [
        [0.1, 0.3],
        [0.2],
        [0.4],
    ]


def test_without_a_data_root_the_pinned_version_is_shown_else_the_first() -> None:
    first, second = score(0.1, "a"), score(0.2, "b")
    shown = shown_result(of(first, second))
    assert values(shown) == [0.1]
    assert str(shown.scores[0].note).startswith(f"{OTHER_ITEMS} ({'b' * 12}); these are the first")
    pinned = score(0.3, "c", content_sha256=PIN.content_sha256)
    assert is_pinned(pinned)
    assert not is_pinned(first)
    shown = shown_result(of(first, pinned, second))
    assert values(shown) == [0.3]
    assert "these are the pinned ones" in str(shown.scores[0].note)
    older = replace(SCORE, data_sha256=PIN.file_sha256, value=0.4)
    assert values(shown_result(of(first, older))) == [0.4]


def test_one_evaluation_is_shown_as_it_is() -> None:
    result = of(score(0.1, "a"), score(0.3, "a", metric="acc_norm"))
    assert shown_result(result, [TASK]) is result


@pytest.fixture
def root(shared_root: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return shutil.copytree(shared_root / "arc_easy", tmp_path / "arc_easy").parent


def test_the_data_roots_items_are_shown_and_no_others(root: Path) -> None:
    content = task_content_sha256(local_contents(TASK, root))
    here = score(0.2, "b", content_sha256=content)
    result = of(score(0.1, "a"), here)
    shown = shown_result(result, [TASK], lambda task: items_under(task, root))
    assert shown.scores == (here,)
    none = shown_result(of(score(0.1, "a")), [TASK], lambda task: items_under(task, root))
    assert none.scores == ()
    by_file = replace(SCORE, data_sha256=data_fingerprint(TASK, root))  # of an older version
    items = items_under(TASK, root)
    assert items is not None
    assert items.answer(by_file)


def test_the_same_rows_in_another_file_are_the_same_items(root: Path) -> None:
    made = score(0.2, "b", content_sha256=task_content_sha256(local_contents(TASK, root)))
    path = root / "arc_easy" / "test.parquet"
    rows = pyarrow.parquet.read_table(path).to_pylist()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, compression="gzip")
    items = items_under(TASK, root)
    assert items is not None
    assert items.answer(made)
    write_rows(path, rows[:-1])
    changed = items_under(TASK, root)
    assert changed is not None
    assert not changed.answer(made)


def test_a_data_root_without_the_items_says_nothing_of_them(tmp_path: Path) -> None:
    assert items_under(TASK, tmp_path) is None
    assert items_under(TASK, None) is None
