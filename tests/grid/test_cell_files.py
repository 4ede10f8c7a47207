"""A file that is not the one that was written with a result is found, told, and not believed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.errors import StorageError
from harness.grid.cell_files import file_faults, read_table, whole_scores
from harness.grid.folders import STEPS_FILE, items_path
from harness.records.files import write_frame
from harness.records.results import CellResult, write_result
from tests.records.test_results import RESULT, SCORE

FRAME = pd.DataFrame({"task": ["a", "b"], "doc_id": [0, 1], "question_id": ["x", "y"], "acc": 1.0})


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[10] ^= 1
    path.write_bytes(content)


def another(path: Path) -> None:
    write_frame(path, FRAME.assign(acc=0.0))


def into_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def into_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


CHANGES = (half, one_bit, another, into_a_folder, into_a_pipe, Path.unlink)


@pytest.fixture
def result(tmp_path: Path) -> CellResult:
    names = [str(items_path(Path(), "arc_easy", "k")), STEPS_FILE]
    hashes = {name: write_frame(tmp_path / name, FRAME) for name in names}
    other = replace(SCORE, benchmark="mmlu", task="mmlu")
    return replace(RESULT, scores=(SCORE, other), files_sha256=hashes)


def test_whole_files_have_no_faults(tmp_path: Path, result: CellResult) -> None:
    assert file_faults(tmp_path, result) == {}
    assert whole_scores(result, {}) is result
    for name, sha256 in result.files_sha256.items():
        assert read_table(tmp_path / name, sha256).to_pandas().equals(FRAME)


@pytest.mark.parametrize("change", CHANGES)
def test_a_benchmark_whose_items_are_lost_is_scored_again(
    tmp_path: Path, result: CellResult, change: Callable[[Path], None]
) -> None:
    name = str(items_path(Path(), "arc_easy", "k"))
    change(tmp_path / name)
    faults = file_faults(tmp_path, result)
    assert list(faults) == [name]
    assert str(faults[name]).endswith("; run-grid scores the benchmark again")
    assert [score.benchmark for score in whole_scores(result, faults).scores] == ["mmlu"]
    with pytest.raises(StorageError, match=r"arc_easy--k\.parquet: damaged .*scores the benchmark"):
        read_table(tmp_path / name, result.files_sha256[name])


@pytest.mark.parametrize("change", CHANGES)
def test_lost_steps_are_told_and_nothing_is_trained_again(
    tmp_path: Path, result: CellResult, change: Callable[[Path], None]
) -> None:
    change(tmp_path / STEPS_FILE)
    faults = file_faults(tmp_path, result)
    assert "left out; bring back a copy" in str(faults[STEPS_FILE])
    assert whole_scores(result, faults) == result


def test_status_reads_those_files_alone_that_changed_since_the_result(
    tmp_path: Path, result: CellResult
) -> None:
    time.sleep(0.05)  # a file system's clock may stand still for so long
    write_result(tmp_path, result)
    assert file_faults(tmp_path, result, thorough=False) == {}
    name = str(items_path(Path(), "arc_easy", "k"))
    for change in CHANGES:
        change(tmp_path / name)
        assert list(file_faults(tmp_path, result, thorough=False)) == [name]
        if (tmp_path / name).is_dir():
            (tmp_path / name).rmdir()
        else:
            (tmp_path / name).unlink(missing_ok=True)
        write_frame(tmp_path / name, FRAME)


def test_a_copy_with_the_old_time_is_read_all_the_same(tmp_path: Path, result: CellResult) -> None:
    time.sleep(0.05)
    write_result(tmp_path, result)
    path = tmp_path / STEPS_FILE
    before = path.stat()
    one_bit(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert list(file_faults(tmp_path, result, thorough=False)) == [STEPS_FILE]


def test_what_was_written_before_the_result_is_not_read_for_status(
    tmp_path: Path, result: CellResult
) -> None:
    """Not even where it is damaged: that is what `verify` and `run-grid` are for."""
    half(tmp_path / STEPS_FILE)
    time.sleep(0.05)
    write_result(tmp_path, result)
    assert file_faults(tmp_path, result, thorough=False) == {}
    assert list(file_faults(tmp_path, result)) == [STEPS_FILE]


def test_a_file_that_cannot_be_opened_is_told_and_taken_for_nothing(
    tmp_path: Path, result: CellResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("harness.grid.cell_files.sha256_of_file", refuse)
    faults = file_faults(tmp_path, result)
    assert all("Permission denied" in str(fault) for fault in faults.values())
    assert whole_scores(result, faults) is result


@pytest.mark.parametrize("change", [half, lambda path: path.write_bytes(b"PAR1"), Path.mkdir])
def test_a_file_of_an_older_version_that_is_no_parquet_is_told(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    """Pyarrow raises errors of many kinds for such bytes; none of them gets through."""
    path = tmp_path / "items" / "a.parquet"
    if change is Path.mkdir:
        path.parent.mkdir()
    else:
        write_frame(path, FRAME)
    change(path)
    with pytest.raises(StorageError, match=r"a\.parquet: damaged"):
        read_table(path, None)


def test_a_table_that_claims_to_be_huge_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.grid.cell_files.MAX_BYTES", 1000)
    pq.write_table(pa.table({"a": pa.array([0] * 100_000)}), tmp_path / "a.parquet")
    with pytest.raises(StorageError, match="claims more than any cell writes"):
        read_table(tmp_path / "a.parquet", None)
