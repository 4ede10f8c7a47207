"""Asking a judge: both orders, each once, whatever happens in between."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.answers.endpoint import Endpoint, EndpointError, Patience
from harness.answers.judge_prompt import judge_prompt
from harness.answers.judging import Asker, Pair, ask, missing_showings, tokens_of
from harness.answers.verdicts import VerdictLog
from harness.errors import EvaluationError, StorageError
from tests.fixtures.judge_server import (
    MODEL,
    JudgeServer,
    Scripted,
    Shown,
    always_first,
    garbled,
    longer,
    serving,
)

KEY = "sk-test-0123456789abcdef"
ASKER = Asker("judge", judge_prompt())
QUICK = Patience(connect=5, answer=2, first_wait=0.01, longest_wait=0.02, longest_asked=1)
PAIRS = [Pair(f"question {n}", "a" * (n + 1), "b" * 4) for n in range(8)]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def ask_all(
    server: JudgeServer, log: VerdictLog, pairs: list[Pair] = PAIRS, parallel: int = 3
) -> int:
    """Asks for what is missing, as the command does; returns how many verdicts came."""
    missing = missing_showings(pairs, log, ASKER.current(log))
    endpoint = Endpoint(server.url, KEY, "OPENAI_API_KEY", patience=QUICK)
    return ask(missing, endpoint, ASKER, log, parallel=parallel).num_verdicts


def test_both_orders_are_asked_once_and_a_rerun_costs_nothing(tmp_path: Path) -> None:
    alike = Pair("question", "same", "same")
    pairs = [*PAIRS, alike, PAIRS[0]]
    with serving(longer) as server:
        assert ask_all(server, VerdictLog(tmp_path), pairs) == server.num_requests == 16
        assert ask_all(server, VerdictLog(tmp_path), pairs) == 0
        assert server.num_requests == 16
        shown = {(one.instruction, one.first, one.second) for one in server.shown}
    assert shown == {
        texts
        for pair in PAIRS
        for texts in [
            (pair.instruction, pair.answer, pair.reference),
            (pair.instruction, pair.reference, pair.answer),
        ]
    }
    log = VerdictLog(tmp_path)
    (judge,) = log.judges
    assert (judge.model, judge.reported) == ("judge", MODEL)
    assert judge.prompt_sha256 == judge_prompt().sha256
    first, second = PAIRS[7].showings  # the answer is the longer one
    assert log.of(first.identity)[judge].choice == "A"
    assert log.of(second.identity)[judge].choice == "B"


def test_unreadable_verdicts_are_stored_as_such(tmp_path: Path) -> None:
    with serving(garbled) as server:
        ask_all(server, VerdictLog(tmp_path))
        assert ask_all(server, VerdictLog(tmp_path)) == 0
    log = VerdictLog(tmp_path)
    assert {log.of(s.identity)[log.judges[0]].choice for s in PAIRS[0].showings} == {None}


def down_after(num: int, fault: Scripted) -> Callable[[Shown], Scripted]:
    return lambda shown: always_first(shown) if shown.number < num else fault


@pytest.mark.parametrize(
    "fault",
    [Scripted(status=500), Scripted(hang_up=True), Scripted(raw=b"?"), Scripted(status=401)],
)
def test_what_is_judged_is_kept_when_the_endpoint_goes_down(
    tmp_path: Path, fault: Scripted
) -> None:
    with serving(down_after(6, fault)) as server:
        with pytest.raises(EndpointError):
            ask_all(server, VerdictLog(tmp_path))
        log = VerdictLog(tmp_path)
        missing = missing_showings(PAIRS, log, ASKER.current(log))
        assert len(missing) == 16 - 6
        server.script = always_first
        before = server.num_requests
        assert ask_all(server, log) == 10
        assert server.num_requests == before + 10


def test_one_refused_request_stops_no_other(tmp_path: Path) -> None:
    def script(shown: Shown) -> Scripted:
        if shown.instruction == "question 3":
            return Scripted("longer than my context", status=400)
        return always_first(shown)

    with serving(script) as server:
        log = VerdictLog(tmp_path)
        missing = missing_showings(PAIRS, log, None)
        asked = ask(missing, Endpoint(server.url, patience=QUICK), ASKER, log, parallel=2)
    assert asked.num_verdicts == 14
    assert len(asked.refused) == 2
    assert "longer than my context" in asked.refused[0]


def test_a_judge_that_refuses_the_first_requests_is_given_up(tmp_path: Path) -> None:
    with serving(lambda shown: Scripted("no such model", status=400)) as server:
        with pytest.raises(EndpointError, match="no such model"):
            ask_all(server, VerdictLog(tmp_path))
        assert server.num_requests == 3


def test_a_first_request_that_is_too_long_stops_no_other_nor_a_rerun(tmp_path: Path) -> None:
    def script(shown: Shown) -> Scripted:
        if shown.instruction in ("question 0", "question 5"):
            return Scripted("longer than my context", status=400)
        return always_first(shown)

    log = VerdictLog(tmp_path)
    with serving(script) as server:
        endpoint = Endpoint(server.url, patience=QUICK)
        asked = ask(missing_showings(PAIRS, log, None), endpoint, ASKER, log, parallel=2)
        assert (asked.num_verdicts, len(asked.refused)) == (12, 4)
        # What was refused is all that is left, and is refused again.
        left = missing_showings(PAIRS, log, ASKER.current(log))
        endpoint = Endpoint(server.url, patience=QUICK)
        again = ask(left, endpoint, ASKER, log, parallel=2)
        assert (again.num_verdicts, len(again.refused)) == (0, 4)


def test_a_key_that_is_a_word_of_the_verdict_costs_none(tmp_path: Path) -> None:
    log = VerdictLog(tmp_path)
    with serving(lambda shown: Scripted("[[A]]")) as server:
        endpoint = Endpoint(server.url, "A", "OPENAI_API_KEY", patience=QUICK)
        ask(PAIRS[0].showings, endpoint, ASKER, log, parallel=1)
    (verdict,) = log.of(PAIRS[0].showings[0].identity).values()
    assert (verdict.choice, verdict.text) == ("A", "[[***]]")


def test_another_model_behind_the_name_is_told_and_judges_all_anew(tmp_path: Path) -> None:
    with serving(always_first) as server:
        ask_all(server, VerdictLog(tmp_path), PAIRS[:4])
        server.script = lambda shown: Scripted("[[B]]", model="stub-judge-3")
        with pytest.raises(EvaluationError, match="'stub-judge-3' now, and was 'stub-judge-2'"):
            ask_all(server, VerdictLog(tmp_path), PAIRS)
        assert server.num_requests == 9
        assert ask_all(server, VerdictLog(tmp_path), PAIRS) == 15
    log = VerdictLog(tmp_path)
    current = ASKER.current(log)
    assert current is not None
    assert current.reported == "stub-judge-3"
    assert missing_showings(PAIRS, log, current) == []


def test_a_full_disk_stops_the_asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = VerdictLog(tmp_path)
    log.path.mkdir(parents=True)
    with serving(always_first) as server, pytest.raises(StorageError, match="cannot be written"):
        ask(
            missing_showings(PAIRS, log, None),
            Endpoint(server.url, patience=QUICK),
            ASKER,
            log,
            parallel=2,
        )


def test_the_key_is_in_no_file(tmp_path: Path) -> None:
    def echo(shown: Shown) -> Scripted:
        return Scripted(f"{shown.headers['Authorization']} [[A]]")

    with serving(echo) as server:
        ask_all(server, VerdictLog(tmp_path))
        assert {one.headers["Authorization"] for one in server.shown} == {f"Bearer {KEY}"}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not any(KEY.encode() in path.read_bytes() for path in files)


def test_tokens_are_told_before() -> None:
    showings = missing_showings(PAIRS, VerdictLog(Path("nowhere")), None)
    assert len(showings) == 16
    prompt = judge_prompt()
    texts = sum(
        len(one["content"])
        for s in showings
        for one in prompt.messages(s.instruction, s.first, s.second)
    )
    assert tokens_of(showings, prompt) == pytest.approx(texts / 4, rel=0.05)
