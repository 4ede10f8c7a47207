"""What a merge adds of answers: nothing that is there is lost or counts otherwise than before."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

from harness.answers.verdicts import Judge, Verdict, VerdictLog
from harness.commands.merge import merge_command
from harness.errors import StorageError
from harness.grid import merging_answers
from harness.grid.folders import RESPONSES_FOLDER, VERDICTS_LOG, cell_folder
from harness.grid.merging import merge_cells, merge_rest
from harness.grid.merging_answers import merge_verdicts
from harness.grid.resolver import resolve_grid
from harness.grid.schema import expand
from harness.records.files import write_frame
from harness.records.results import read_result, write_result
from tests.grid.test_loader import GRID
from tests.grid.test_upkeep import finish
from tests.records.test_results import SCORE

JUDGE = Judge("m", "m-1", "f" * 64, "temperature 0")
OTHER = replace(JUDGE, reported="m-2")


def verdict(shown: str, text: str, judge: Judge = JUDGE) -> Verdict:
    return Verdict(judge, shown, "A", text, "stop", "2026-01-01T00:00:00+00:00")


def log_of(runs: Path, *verdicts: Verdict) -> VerdictLog:
    log = VerdictLog(runs)
    for one in verdicts:
        log.add(one)
    return log


def test_verdicts_are_joined_and_those_that_are_there_count_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging_answers, "PIECE_BYTES", 300)
    source, target = tmp_path / "from", tmp_path / "to"
    further = [verdict(f"s{n}", "further") for n in range(9)]
    log = log_of(source, verdict("x", "theirs"), verdict("x", "mine", OTHER), *further)
    with log.path.open("ab") as file:
        file.write(b'{"judge": 1}\n[]\n{"half')
    own = log_of(target, verdict("x", "own"))
    with own.path.open("ab") as file:
        file.write(b'{"half')
    size = merge_verdicts(source, target, dry_run=True)
    assert len(VerdictLog(target).judges) == 1
    assert merge_verdicts(source, target, dry_run=False) == size > 0
    found = VerdictLog(target)
    assert {judge: one.text for judge, one in found.of("x").items()} == {
        JUDGE: "own",
        OTHER: "mine",
    }
    assert [found.of(one.shown) for one in further] == [{JUDGE: one} for one in further]
    assert found.num_damaged == 1, "the half line of the target"
    content = found.path.read_bytes()
    assert merge_verdicts(source, target, dry_run=False) == 0
    assert found.path.read_bytes() == content


def test_verdicts_come_along_with_the_rest(tmp_path: Path) -> None:
    source, target = tmp_path / "from", tmp_path / "to"
    assert list(merge_rest(source, target)) == []
    log = log_of(source, verdict("x", "theirs"))
    (one,) = merge_rest(source, target)
    assert (one.kind, one.size_bytes) == ("copied", log.path.stat().st_size)
    assert (target / VERDICTS_LOG).read_bytes() == log.path.read_bytes()


def test_a_log_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "from" / VERDICTS_LOG).mkdir(parents=True)
    with pytest.raises(StorageError, match=r"verdicts\.jsonl"):
        merge_verdicts(tmp_path / "from", tmp_path / "to", dry_run=False)


def answer(folder: Path, name: str, text: str) -> Path:
    path = folder / RESPONSES_FOLDER / f"{name}.parquet"
    write_frame(path, pd.DataFrame({"output": [text]}))
    return path


@pytest.mark.parametrize("is_further", [False, True])
def test_a_cell_that_is_there_is_given_the_answers_that_it_lacks(
    tmp_path: Path, is_further: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "from", tmp_path / "to"
    cell = expand(resolve_grid({**yaml.safe_load(GRID), "tasks": ["arc_easy"]}, place="g"))[1]
    folder, own = finish(cell, source), finish(cell, target)
    if is_further:  # the target lacks a score: the whole cell is copied over it
        result = read_result(folder)
        assert result is not None
        write_result(folder, replace(result, scores=(SCORE, replace(SCORE, key="further"))))
    new = answer(folder, "new-1", "new")
    answer(folder, "both-1", "theirs")
    answer(own, "both-1", "own")
    answer(own, "own-1", "own")
    if not is_further:
        new.with_name("cut-1.parquet").write_bytes(new.read_bytes()[:-9])
    (one,) = merge_cells(source, target, dry_run=True)
    assert one.kind == ("copied" if is_further else "there")
    assert merge_command([source], target, None, dry_run=False, as_json=False) == 0
    if not is_further:
        assert one.size_bytes == new.stat().st_size
        assert f"{cell.label}: answers" in capsys.readouterr().out
    found = {path.stem: path for path in (cell_folder(target, cell) / RESPONSES_FOLDER).iterdir()}
    assert {"new-1", "both-1", "own-1"} <= set(found)
    assert pd.read_parquet(found["new-1"])["output"].tolist() == ["new"]
    assert pd.read_parquet(found["own-1"])["output"].tolist() == ["own"]
    assert pd.read_parquet(found["both-1"])["output"].tolist() == ["own"], "verdicts are on it"
    capsys.readouterr()
    again = merge_command([source], target, None, dry_run=False, as_json=True)
    record = json.loads(capsys.readouterr().out)
    assert (again, record["bytes"], record["cells"][0]["what"]) == (0, 0, "there")
