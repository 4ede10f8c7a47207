"""`zbench judge`, against a judge on the loopback that is biased, garbled, busy, down or killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness.answers.instructions import read_set
from harness.answers.store import (
    Output,
    read_responses,
    set_key,
    write_outputs,
    write_responses,
)
from harness.answers.verdicts import Verdict, VerdictLog
from harness.cli import app
from harness.errors import UsageError, ZbenchError
from harness.grid.folders import VERDICTS_LOG
from harness.grid.workspace import OpenGrid, open_grid
from tests.fixtures.judge_server import (
    JudgeServer,
    Scripted,
    Shown,
    always_first,
    garbled,
    longer,
    serving,
)
from tests.integration.test_end_to_end import PACKAGE, grid_text

KEY = "sk-test-0123456789abcdef"
QUESTIONS = [{"instruction": f"Say {n}.", "category": "c"} for n in range(6)]
BLOCK = "  - methods: [base, zero-init-linear]\n    fractions: [0.1]\n"
BLOCKS = "  - methods: [base, zero-init-linear, lora]\n    fractions: [0.1]\n    seeds: [0, 1]\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    text = grid_text().replace(BLOCK, BLOCKS)
    assert BLOCKS in text
    Path("g.yaml").write_text(text)
    Path("q.json").write_text(json.dumps(QUESTIONS))
    return tmp_path


def answer_all(answer: Callable[[str, int | None, int], str]) -> OpenGrid:
    """Writes answers of all cells: by method, seed and number of the question."""
    grid = open_grid("g.yaml", Path("runs"), None, None, results_alone=True)
    instructions = read_set("q.json", None)
    for state in grid.states:
        cell = state.cell
        rows = [
            {
                "id": entry.id,
                "category": entry.category,
                "instruction": entry.instruction,
                "input": entry.input,
                "output": answer(cell.method, cell.seed, number),
                "num_tokens": 3,
                "stop_reason": "eos",
                "dataset": entry.dataset,
            }
            for number, entry in enumerate(instructions.entries)
        ]
        write_responses(state.folder, set_key(instructions), pd.DataFrame(rows), {})
    return grid


def lengthy(method: str, seed: int | None, number: int) -> str:
    """LoRA's answers are longer than zero-init's, which are longer than the base model's."""
    size = {"base": 1, "zero-init-linear": 4, "lora": 8}[method] + (seed or 0)
    return f"{method} {'word ' * (size + number % 3)}"


@pytest.fixture
def answered(folder: Path) -> OpenGrid:
    return answer_all(lengthy)


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with serving(longer) as server:
        yield server


def judge(server: JudgeServer | None, *arguments: str, against: str = "base") -> int:
    words = ["judge", "g.yaml", "--against", against, "--judge-model", "stub"]
    words += ["--instructions", "q.json", "--json", *arguments]
    words += ["--judge-url", server.url] if server else []
    return int(app(words, standalone_mode=False) or 0)


def record(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def rates(found: dict[str, Any]) -> dict[str, float]:
    (one,) = found["judges"]
    return {rate["method"]: rate["win_rate"] for rate in one["win_rates"]}


def files() -> list[Path]:
    return [path for path in Path().rglob("*") if path.is_file()]


def test_longer_answers_win_with_a_judge_that_likes_them(
    answered: OpenGrid, server: JudgeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judge(server, "--yes") == 0
    found = record(capsys)
    assert rates(found) == {"zero-init-linear": 1.0, "lora": 1.0}
    assert found["judges"][0]["position_bias"]["num_turned"] == 0
    # two methods, two seeds, six questions, both orders
    assert server.num_requests == found["plan"]["num_requests"] == 48
    page = next(path for path in files() if path.name == "judge.html")
    assert page.parent.name == "base"
    text = page.read_text()
    assert "This is not AlpacaEval" in text
    assert "stub (stub-judge-2), prompt " in text
    frame = pd.read_parquet(page.with_name("verdicts.parquet"))
    assert len(frame) == 48
    assert set(frame["judge_reported"]) == {"stub-judge-2"}
    assert set(frame["shown_first"]) == {"answer", "reference"}
    table = page.with_name("win-rates.md").read_text()
    assert "Position bias: of 24 pairs with both verdicts none turns" in table
    assert len(pd.read_csv(page.with_name("win-rates.csv"))) == 2


def test_a_rerun_costs_nothing_and_gives_the_same_files(
    answered: OpenGrid, server: JudgeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    judge(server, "--yes")
    before = {path: path.read_bytes() for path in files()}
    capsys.readouterr()
    assert judge(None) == 0  # neither an address nor a yes is needed
    assert record(capsys)["plan"]["num_requests"] == 0
    assert server.num_requests == 48
    assert {path: path.read_bytes() for path in files()} == before


def test_what_a_judge_has_judged_needs_no_other_that_answers_to_its_name_elsewhere(
    answered: OpenGrid, server: JudgeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    judge(server, "--yes")
    log = VerdictLog(Path("runs"))
    (known,) = log.judges
    elsewhere = replace(known, reported="stub-judge-3")
    log.add(Verdict(elsewhere, "of another grid", "A", "[[A]]", "stop", "2999"))
    capsys.readouterr()
    assert judge(None) == 0
    found = record(capsys)
    assert found["plan"]["num_requests"] == 0
    assert [one["judge"] for one in found["judges"]] == [known.name]


def test_a_method_is_judged_against_its_own_seed(
    answered: OpenGrid, server: JudgeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judge(server, "--yes", against="lora") == 0
    found = record(capsys)
    # The base model, which has no seed, stands against each of LoRA's.
    assert rates(found) == {"zero-init-linear": 0.0, "base": 0.0}
    (paired,) = found["judges"][0]["paired"]
    assert (paired["num_questions"], paired["num_seeds"]) == (6, 2)
    assert server.num_requests == 48


def test_a_cell_may_be_the_reference(
    answered: OpenGrid, server: JudgeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judge(server, "--yes", against="tiny-llama/lora/10%/seed0") == 0
    assert rates(record(capsys)) == {"base": 0.0, "zero-init-linear": 0.0, "lora": 1.0}


def test_published_outputs_may_be_the_reference(
    answered: OpenGrid, server: JudgeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = [Output(f"Say  {n}.\n", "word " * 8, "alpaca-7b") for n in range(5)]
    write_outputs(Path("outputs.json"), outputs)
    assert judge(server, "--yes", against="outputs.json") == 0
    found = record(capsys)
    assert found["reference"] == "alpaca-7b"
    assert {rate["num_questions"] for rate in found["judges"][0]["win_rates"]} == {5}
    assert any("no answer to 1 of 6 instructions, the first is 'Say 5.'" in n
               for n in found["notes"])  # fmt: skip
    assert rates(found)["base"] == 0.0


def test_a_biased_judge_gives_ties_and_is_told(
    answered: OpenGrid, server: JudgeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.script = always_first
    judge(server, "--yes")
    found = record(capsys)
    assert set(rates(found).values()) == {0.5}
    bias = found["judges"][0]["position_bias"]
    assert (bias["share"], bias["num_first"]) == (1.0, 24)


def test_a_garbled_judge_gives_no_number(
    answered: OpenGrid, server: JudgeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.script = garbled
    assert judge(server, "--yes") == 0
    found = record(capsys)
    assert set(rates(found).values()) == {None}
    assert found["judges"][0]["num_unreadable"] == 48
    page = next(path for path in files() if path.name == "win-rates.md").read_text()
    assert "Unreadable: 48 of 48 verdicts (100.0%)" in page


def test_a_judge_that_is_cut_is_told_and_may_write_more(
    answered: OpenGrid, server: JudgeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    def thinking(shown: Shown) -> Scripted:
        if shown.body["max_tokens"] < 4000:
            return Scripted("<think>Let me see", finish_reason="length")
        return Scripted("<think>[[B]]? No.</think>[[A]]")

    server.script = thinking
    assert judge(server, "--yes") == 0
    notes = record(capsys)["notes"]
    assert any("48 of 48 verdicts were cut" in note for note in notes)
    assert judge(server, "--yes", "--judge-max-tokens", "4000") == 0  # another judge
    first, second = record(capsys)["judges"]
    assert (first["num_unreadable"], second["num_unreadable"]) == (0, 48)
    assert first["judge"].endswith("at most 4000 tokens")


def test_equal_answers_are_ties_without_a_request(
    folder: Path, server: JudgeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    answer_all(lambda method, seed, number: "the same")
    assert judge(server, "--yes") == 0
    assert set(rates(record(capsys)).values()) == {0.5}
    assert server.num_requests == 0


def test_a_dry_run_sends_and_writes_nothing(
    answered: OpenGrid, server: JudgeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files()
    assert judge(server, "--dry-run") == 0
    found = record(capsys)
    assert (found["num_pairs"], found["num_requests"]) == (24, 48)
    assert found["prompt_tokens"] > 48 * 150
    assert server.num_requests == 0
    assert files() == before


def test_nothing_is_sent_without_a_yes(answered: OpenGrid, server: JudgeServer) -> None:
    with pytest.raises(UsageError, match="nothing was sent: 48 requests wait for --yes"):
        judge(server)
    assert server.num_requests == 0
    with pytest.raises(UsageError, match="--judge-url: 48 requests are left"):
        judge(None, "--yes")


def test_what_is_judged_is_kept_and_told_when_the_judge_goes_down(
    answered: OpenGrid, server: JudgeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.script = lambda shown: longer(shown) if shown.number < 20 else Scripted(status=401)
    assert judge(server, "--yes", "--parallel", "1") == 1
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert "status 401" in found["broke_off"]
    assert found["judges"][0]["num_not_judged"] == 28
    assert "broke off: " in told.err
    server.script = longer
    assert judge(server, "--yes") == 0
    assert record(capsys)["plan"]["num_requests"] == 28
    assert server.num_requests == 49


def test_a_judge_that_is_down_from_the_start_is_one_line(
    answered: OpenGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.answers.endpoint.TRIES", {"unreachable": 1})
    with serving(longer) as server:
        pass
    with pytest.raises(ZbenchError, match="cannot be reached") as fault:
        judge(server, "--yes")
    assert "\n" not in str(fault.value)
    assert not any(path.name == "judge.html" for path in files())


def test_verdicts_of_two_judges_share_no_table(
    answered: OpenGrid, server: JudgeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    judge(server, "--yes")
    server.script = lambda shown: Scripted("[[C]]", model="stub-judge-3")
    capsys.readouterr()
    # Another name for the judge, another answer to the question who it is: another judge.
    assert judge(server, "--yes", "--judge-model", "other") == 0
    told = capsys.readouterr()
    first, second = json.loads(told.out)["judges"]
    assert first["judge"].startswith("other (stub-judge-3), prompt ")
    assert {rate["win_rate"] for rate in first["win_rates"]} == {0.5}
    assert second["judge"].startswith("stub (stub-judge-2), prompt ")
    assert {rate["win_rate"] for rate in second["win_rates"]} == {1.0}
    assert "judged by others too" in told.err


def test_the_key_stands_in_no_file_and_no_line(
    answered: OpenGrid,
    server: JudgeServer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def echo(shown: Shown) -> Scripted:
        said = f"{shown.headers['Authorization']} [[A]]"
        return Scripted(said, status=400 if shown.number == 9 else 200)

    server.script = echo
    assert judge(server, "--yes") == 0
    told = capsys.readouterr()
    assert {one.headers["Authorization"] for one in server.shown} == {f"Bearer {KEY}"}
    assert "1 requests were refused" in told.err
    assert KEY not in told.out + told.err
    assert not any(KEY.encode() in path.read_bytes() for path in files())


def test_cells_without_answers_are_told_with_the_command_that_makes_them(
    answered: OpenGrid, server: JudgeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    state = next(one for one in answered.states if one.cell.label.endswith("lora/10%/seed1"))
    key = set_key(read_set("q.json", None))
    assert read_responses(state.folder, key) is not None
    (state.folder / "responses" / f"{key}.parquet").unlink()
    assert judge(server, "--yes") == 0
    (note,) = record(capsys)["notes"]
    assert note == (
        "tiny-llama/lora/10%/seed1: the cell has no answers to q; `zbench generate g.yaml "
        "--instructions q.json --only tiny-llama/lora/10%/seed1` makes them; not finished yet: 1 "
        "(`zbench run-grid g.yaml` comes first)"
    )


def test_no_answers_at_all_are_one_line(folder: Path, server: JudgeServer) -> None:
    with pytest.raises(UsageError, match="nothing to compare: .*`zbench generate g.yaml --instr"):
        judge(server, "--yes")


def test_a_judge_without_a_name_is_one_line(answered: OpenGrid, server: JudgeServer) -> None:
    with pytest.raises(UsageError, match="--judge-model: is empty"):
        judge(server, "--yes", "--judge-model", " ")


def test_a_key_that_cannot_be_sent_stops_nothing_that_sends_nothing(
    answered: OpenGrid, server: JudgeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "two words")
    assert judge(None, "--dry-run") == 0
    with pytest.raises(UsageError, match="the key in OPENAI_API_KEY has characters"):
        judge(server, "--yes")
    assert server.num_requests == 0


@pytest.mark.parametrize("against", ["lorra", "nothing.json", "tiny-llama/lora/10%"])
def test_an_unknown_reference_is_one_line(
    answered: OpenGrid, server: JudgeServer, against: str
) -> None:
    with pytest.raises(ZbenchError, match=against) as fault:
        judge(server, "--yes", against=against)
    assert "\n" not in str(fault.value)


def test_a_kill_loses_the_request_in_flight_alone(answered: OpenGrid, server: JudgeServer) -> None:
    def slow(shown: Shown) -> Scripted:
        found = longer(shown)
        return Scripted(found.text, delay_seconds=0.1 if shown.number < 15 else 30.0)

    server.script = slow
    words = [sys.executable, "-m", "harness.cli", "judge", "g.yaml", "--against", "base"]
    words += ["--judge-model", "stub", "--judge-url", server.url, "--instructions", "q.json"]
    words += ["--yes", "--parallel", "1"]
    process = subprocess.Popen(
        words,
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while server.num_requests < 16 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    lines = (Path("runs") / VERDICTS_LOG).read_text().splitlines()
    assert len(lines) == 15
    server.script = longer
    before = {(one.instruction, one.first, one.second) for one in server.shown[:15]}
    assert judge(server, "--yes") == 0
    after = [(one.instruction, one.first, one.second) for one in server.shown[16:]]
    assert len(after) == 48 - 15
    assert not before & set(after)
