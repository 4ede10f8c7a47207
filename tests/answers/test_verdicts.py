"""The log of verdicts: what was written is found again, also after a kill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.answers.verdicts import Judge, Verdict, VerdictLog, identity_of
from harness.errors import StorageError

JUDGE = Judge("m", "m-1", "f" * 64, "temperature 0")
VERDICT = Verdict(JUDGE, identity_of("i", "a", "b"), "A", "so\n[[A]] \ud800é", "stop", "2026", 5, 6)


def test_what_is_added_is_found_again(tmp_path: Path) -> None:
    log = VerdictLog(tmp_path)
    other = replace(VERDICT, judge=replace(JUDGE, reported="m-2"), choice=None)
    log.add(VERDICT)
    log.add(other)
    found = VerdictLog(tmp_path)
    for one in (log, found):
        assert one.of(VERDICT.shown) == {JUDGE: VERDICT, other.judge: other}
        assert one.judges == [JUDGE, other.judge]
        assert one.newest("m", JUDGE.prompt_sha256, JUDGE.settings) == other.judge
    assert found.of("?") == {}
    assert found.newest("x", JUDGE.prompt_sha256, JUDGE.settings) is None


def test_who_answered_last_is_told_by_the_time_not_by_the_line(tmp_path: Path) -> None:
    log = VerdictLog(tmp_path)
    earlier = replace(VERDICT, judge=replace(JUDGE, reported="m-0"), made_at="2025")
    log.add(VERDICT)
    log.add(earlier)
    for one in (log, VerdictLog(tmp_path)):
        assert one.newest("m", JUDGE.prompt_sha256, JUDGE.settings) == JUDGE


def test_order_and_texts_are_in_the_identity() -> None:
    assert identity_of("i", "a", "b") != identity_of("i", "b", "a")
    assert identity_of("i", "ab", "") != identity_of("i", "a", "b")


def test_half_a_line_is_skipped_and_the_next_is_whole(tmp_path: Path) -> None:
    log = VerdictLog(tmp_path)
    log.add(VERDICT)
    content = log.path.read_bytes()
    log.path.write_bytes(content + content[: len(content) // 2])
    again = VerdictLog(tmp_path)
    assert again.num_damaged == 1
    later = replace(VERDICT, shown=identity_of("j", "a", "b"))
    again.add(later)
    found = VerdictLog(tmp_path)
    assert (found.num_damaged, set(found.of(VERDICT.shown)), set(found.of(later.shown))) == (
        1,
        {JUDGE},
        {JUDGE},
    )


@pytest.mark.parametrize(
    "line", [b"[]", b"{}", b'{"judge": 1}', b"\xff\xfe", b"[" * 100_000, b'{"judge": {}}']
)
def test_lines_that_hold_no_verdict_are_counted(tmp_path: Path, line: bytes) -> None:
    log = VerdictLog(tmp_path)
    log.add(VERDICT)
    log.path.write_bytes(line + b"\n" + log.path.read_bytes())
    found = VerdictLog(tmp_path)
    assert (found.num_damaged, len(found.judges)) == (1, 1)


def test_a_log_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    log = VerdictLog(tmp_path)
    log.path.mkdir(parents=True)
    with pytest.raises(StorageError, match="cannot be written"):
        log.add(VERDICT)
    with pytest.raises(StorageError, match="verdicts.jsonl"):
        VerdictLog(tmp_path)
