"""gpu-check's logic at tiny size on the CPU: every check can fail, and the others go on."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu_check import __main__ as command
from benchmarks.gpu_check import (
    agreement,
    half,
    kernels,
    machine,
    memory,
    plan,
    repeats,
    scoring,
    steps,
)
from benchmarks.gpu_check.bench import Bench, synthetic_examples
from benchmarks.gpu_check.cases import CASES, Case
from benchmarks.gpu_check.expected import Expected, StepFigures, pair_of, read_expected
from benchmarks.gpu_check.lengths import known_lengths
from benchmarks.gpu_check.profile import Kernel, profile, summary
from benchmarks.gpu_check.rows import Row, Sheet, close
from benchmarks.gpu_check.waits import Waits
from benchmarks.gpu_check.worker import AGAIN, run, work
from tests.gpu_rehearsal import shim

REHEARSED = StepFigures(1000, 1, 44.4, ("flash bfloat16",), "a test")


pytestmark = pytest.mark.long


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench("cpu", tmp_path, tiny=True)


def rows_of(bench: Bench, *cases: Callable[[Bench], Iterator[Row]], left: float = 1e9) -> list[Row]:
    """Runs functions as cases; returns all their rows."""
    listed = [Case(1, f"case {number}", each, 10) for number, each in enumerate(cases)]
    assert work(bench, lambda line: None, deadline=time.time() + left, cases=listed) == 0
    return bench.seen


def fine(bench: Bench) -> Iterator[Row]:
    yield Row(1, "fine", "pass")


def test_what_a_case_raises_is_its_verdict_and_the_others_go_on(bench: Bench) -> None:
    def fails(bench: Bench) -> Iterator[Row]:
        yield Row(1, "first half", "pass")
        raise RuntimeError("mat1 and mat2 must have the same dtype")

    def is_out_of_memory(bench: Bench) -> Iterator[Row]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        yield

    def says_nothing(bench: Bench) -> Iterator[Row]:
        yield from ()

    rows = rows_of(bench, fails, is_out_of_memory, says_nothing, fine)
    assert [row.verdict for row in rows] == ["pass", "FAIL", "FAIL", "FAIL", "pass"]
    assert rows[1].found == "RuntimeError"
    assert "same dtype" in rows[1].note
    assert "test_gpu_check.py" in rows[1].note
    assert rows[2].found == "out of memory"
    assert rows[3].note == "it said nothing"


def test_the_json_is_whole_after_every_row(tmp_path: Path) -> None:
    sheet = Sheet(tmp_path / "deep" / "out.json", {"minutes": 8}, prints=False)
    assert not sheet.passed
    for number, verdict in enumerate(("pass", "measured", "skipped", "FAIL"), 1):
        sheet.add(Row(number, f"row {number}", verdict, note="why"))  # type: ignore[arg-type]
        read = json.loads(sheet.path.read_text(encoding="utf-8"))
        assert len(read["rows"]) == number
        assert read["passed"] == (verdict != "FAIL")
    assert sheet.summary.splitlines() == [
        "1 passed, 1 failed, 1 measured, 1 skipped", "FAIL: 4 row 4", "skipped: 3 row 3",
    ]  # fmt: skip


def test_what_does_not_fit_is_skipped_by_name(tmp_path: Path) -> None:
    small = Bench("cuda", tmp_path, free_gb=15.0)
    case = Case(3, "a step", fine, seconds=30, needs_gb=24)
    assert case.reason_to_skip(small, 1000) == "needs 24 GB, 15.0 GB are free"
    large = replace(small, free_gb=80.0)
    assert case.reason_to_skip(large, 1000) is None
    assert case.reason_to_skip(large, 20) == "needs about 30 s, 20 s are left"
    assert replace(case, needs=lambda bench: "no trl").reason_to_skip(large, 99) == "no trl"
    assert (large.size(60), large.size(90)) == ("7B", "7B/2")
    assert all(case.needs_gb <= 15 for case in CASES)  # a card of 16 GB


def test_a_skipped_case_is_a_row_of_its_own(bench: Bench) -> None:
    case = Case(10, "a peer", fine, 1, needs=lambda bench: "trl is not installed")
    run(case, bench, lambda line: None, time.time() + 10)
    assert [(row.name, row.verdict, row.note) for row in bench.seen] == [
        ("a peer", "skipped", "trl is not installed")
    ]


def test_a_broken_card_ends_the_process_behind_its_case(bench: Bench) -> None:
    def breaks(bench: Bench) -> Iterator[Row]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
        yield

    told: list[Mapping[str, Any]] = []
    cases = [Case(1, "breaks", breaks, 1), Case(2, "fine", fine, 1)]
    assert work(bench, told.append, deadline=time.time() + 9, cases=cases) == AGAIN
    assert told[-1] == {"next": 1}
    assert work(bench, told.append, deadline=time.time() + 9, cases=cases, start=1) == 0
    assert told[-1] == {"end": True}


@pytest.mark.parametrize(
    ("changes", "verdict", "said"),
    [
        ({}, "pass", ""),
        ({"peak_gb": 47.5}, "FAIL", ""),
        ({"losses": [10.4, math.nan, 10.4]}, "FAIL", "losses"),
        ({"waits": Waits(["loss.py:3", "loss.py:3"])}, "FAIL", "loss.py:3"),
        ({"waits": Waits(["loss.py:3", "loss.py:4"], blocking_writes=1)}, "pass", ""),
    ],
)
def test_a_step_is_held_against_the_rehearsal(
    tmp_path: Path, changes: dict[str, Any], verdict: str, said: str
) -> None:
    bench = Bench("cuda", tmp_path, expected=Expected({"lora/7B": REHEARSED}))
    taken = steps.Taken("7B", [10.4, 10.4, 10.4], 45.0, 0.5, 8544, Waits(["step.py:1"]))
    row = steps.row_of_step(bench, "lora", replace(taken, **changes))
    assert row.verdict == verdict
    assert said in row.note


def test_a_profile_counts_launches_kernels_and_idle_time() -> None:
    kernels = [
        Kernel("flash_fwd_kernel", 0, 10), Kernel("Memcpy HtoD", 5, 12), Kernel("gemm", 20, 30),
        Kernel("fmha_cutlassF_bf16", 30, 40),
    ]  # fmt: skip
    found = summary(kernels)
    assert found.launches == 4
    assert found.attention == {"flash_fwd_kernel": 1}
    assert found.slow_attention == {"fmha_cutlassF_bf16": 1}
    assert found.idle_share == pytest.approx(8 / 40)
    assert summary([]).idle_share == 0.0
    square = torch.ones(4, 4)
    assert profile(lambda: square @ square, "cpu").launches > 0


@pytest.mark.parametrize(
    ("launches", "kernel", "verdict"),
    [(1100, "flash_bwd", "pass"), (1151, "flash_bwd", "FAIL"), (1000, "fmha_cutlassF", "FAIL"),
     (1000, "gemm", "FAIL")],
)  # fmt: skip
def test_launches_and_kernels_are_held_against_the_rehearsal(
    tmp_path: Path, launches: int, kernel: str, verdict: str
) -> None:
    bench = Bench("cuda", tmp_path, expected=Expected({"lora/7B": REHEARSED}))
    found = summary([Kernel(kernel, n, n + 1) for n in range(launches)])
    assert steps.row_of_profile(bench, "lora", "7B", found).verdict == verdict


def test_numbers_agree_or_do_not() -> None:
    assert close([1.0, 200.0], [1.00001, 200.01], 1e-4)[0]
    for wrong in ([1.0], [1.1, 200.0], [math.nan, 200.0], []):
        assert not close(wrong, [1.0, 200.0], 1e-4)[0]


def test_a_cell_that_computes_something_else_is_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    lived = []

    def other(*args: Any, **kwargs: Any) -> Any:
        found = live(*args, **kwargs)
        lived.append(found)
        return replace(found, losses=[loss + 1e-3 * (len(lived) == 2) for loss in found.losses])

    live = agreement.live
    monkeypatch.setattr(agreement, "live", other)
    (row,) = agreement.cells_agree(bench)
    assert row.verdict == "FAIL"
    assert "scores 0.0e+00" in row.found


def test_a_law_that_does_not_hold_is_named(bench: Bench) -> None:
    place = bench.folder / "test_law.py"
    place.write_text(
        "import os\ndef test_holds():\n    assert os.environ['ZBENCH_LAWS_DEVICE'] == 'cpu'\n"
        "def test_breaks():\n    assert 1 + 1 == 3\n"
    )
    row = agreement.run_tests("laws", [str(place)], ["test_"], bench)
    assert (row.verdict, row.found) == ("FAIL", "1 of 2 hold")
    assert "test_breaks" in row.note
    assert agreement.run_tests("laws", [str(place)], ["nothing"], bench).verdict == "FAIL"


@pytest.mark.parametrize(("limit", "verdict"), [(agreement.HALF_GRADIENTS, "pass"), (1e-6, "FAIL")])
def test_half_precision_that_is_far_from_fp32_is_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, limit: float, verdict: str
) -> None:
    monkeypatch.setattr(agreement, "HALF_GRADIENTS", limit)
    (row,) = agreement.half_precision_agrees(bench)
    assert row.verdict == verdict
    assert row.note == ("zero-init-nonlinear" if verdict == "FAIL" else "")


def test_a_fallback_of_scoring_is_told(bench: Bench) -> None:
    (good,) = scoring.scores_items(bench)
    (row,) = scoring.scores_items(bench, method="prompt-tuning")
    assert (good.verdict, row.verdict) == ("pass", "FAIL")
    assert "virtual tokens" in row.found


def test_a_fallback_of_generation_is_told(bench: Bench) -> None:
    (good,) = scoring.generates_responses(bench)
    (row,) = scoring.generates_responses(bench, method="prompt-tuning")
    assert (good.verdict, row.verdict) == ("pass", "FAIL")


def test_memory_that_does_not_run_out_is_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (good,) = memory.halves_and_goes_on(bench)
    assert good.verdict == "pass"
    assert len(good.figures["budgets"]) > 1
    monkeypatch.setattr(memory, "SHARE", 1e6)
    fresh = replace(bench, folder=bench.folder / "fresh")
    fresh.folder.mkdir()
    (row,) = memory.halves_and_goes_on(fresh)
    assert row.verdict == "FAIL"
    assert "did not run out" in row.note


def test_another_loss_in_smaller_passes_is_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = itertools.chain([10.0], itertools.repeat(10.1))
    plain = memory._loss
    monkeypatch.setattr(memory, "_loss", lambda *a: (next(losses), plain(*a)[1]))
    (row,) = memory.halves_and_goes_on(bench)
    assert row.verdict == "FAIL"


def test_other_bits_are_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert repeats.compared("a cell", {"losses": [1.0]}, {"losses": [1.0]}).verdict == "pass"
    row = repeats.compared("a cell", {"losses": [1.0], "items": 1}, {"losses": [1.1], "items": 1})
    assert (row.verdict, row.found) == ("FAIL", "losses differ")
    (good,) = repeats.same_gradients(bench)
    assert not torch.are_deterministic_algorithms_enabled()
    chosen = iter([1e-3, 1e-3, 1e-3, 2e-3])
    plain = steps.TrainStep.update
    monkeypatch.setattr(
        steps.TrainStep, "update", lambda self, rate, **kwargs: plain(self, next(chosen), **kwargs)
    )
    (row,) = repeats.same_gradients(bench)
    assert (good.verdict, row.verdict) == ("pass", "FAIL")


def test_a_loss_that_is_no_number_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    (good,) = half.fp16_works(bench, "zero-init-linear")
    monkeypatch.setattr(half, "take", lambda step, batch: (math.nan, 1))
    (row,) = half.fp16_works(bench, "zero-init-linear")
    assert (good.verdict, row.verdict) == ("pass", "FAIL")


def test_kernels_that_compute_something_else_are_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (good,) = kernels.kernels_agree(bench, "zero-init-linear")
    fault = "the fused norm differs: trained with transformers' norms"
    monkeypatch.setattr(steps.TrainStep, "choose_kernels", lambda *given: [fault])
    (row,) = kernels.kernels_agree(bench, "zero-init-linear")
    assert (good.verdict, row.verdict, row.note) == ("pass", "FAIL", fault)
    monkeypatch.undo()
    factors = iter([1.0, 1.2])
    plain = kernels.gradient

    def other(*given: Any) -> tuple[float, torch.Tensor]:
        loss, vector = plain(*given)
        return loss, vector * next(factors)

    monkeypatch.setattr(kernels, "gradient", other)
    (row,) = kernels.kernels_agree(bench, "zero-init-linear")
    assert row.verdict == "FAIL"


def test_the_plan_stands_beside_what_was_measured(bench: Bench) -> None:
    assert {row.verdict for row in plan.beside_the_plan(bench)} == {"skipped"}
    figures = {"tokens_per_second": 1.0, "tokens": 9000, "seconds": 0.5, "size": "7B"}
    bench.seen.append(Row(3, "lora, 7B: a step", "pass", figures=figures))
    (row,) = [row for row in plan.beside_the_plan(bench) if row.verdict == "measured"]
    assert row.figures["rate"] == 18000
    assert row.figures["planned"] > 1000


def test_synthetic_rows_have_the_lengths_of_real_ones() -> None:
    examples = synthetic_examples(known_lengths())
    assert sum(len(example.token_ids) for example in examples[:64]) == 8544
    same, other = known_lengths().alpaca[0][0], known_lengths().alpaca[1][0]
    assert same > other
    alike = [e for e, (shared, _, _) in zip(examples, known_lengths().alpaca, strict=True)
             if shared == same]  # fmt: skip
    assert len(os.path.commonprefix([one.token_ids for one in alike])) == same
    assert all(0 < one.num_prompt_tokens < len(one.token_ids) for one in examples)


def test_expected_values_are_those_of_the_rehearsal(tmp_path: Path) -> None:
    figures = {"launches": 800, "syncs": 1, "peak_gb": 1.6, "attention": ["flash bfloat16"]}
    other = {"train": "RuntimeError: not on this card"}
    stored = {
        "full | h200 bf16": other,
        "lora | h200 bf16": {"train": figures},
        "base | h200 bf16": {},
    }
    (tmp_path / "expected.json").write_text(json.dumps(stored))
    found = read_expected(tmp_path).step("lora", "7B/2")
    assert found is not None
    assert (found.launches, found.waits, found.peak_gb) == (800, 1, 1.6)
    assert read_expected(tmp_path).step("lora", "7B") is None
    assert read_expected(tmp_path).step("full", "7B/2") is None
    assert read_expected(tmp_path, pair=pair_of((8, 0))).step("lora", "7B/2") is None
    assert read_expected(tmp_path / "nowhere").step("lora", "7B/2") is None


def test_a_machine_without_a_card_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    monkeypatch.setattr(machine, "_nvidia_smi", lambda key: None)
    assert "shows no CUDA device" in str(machine.refusal())
    monkeypatch.setattr(machine, "_nvidia_smi", lambda key: "NVIDIA H200")
    said = str(machine.refusal())
    assert "\n" not in said
    if torch.version.cuda is None:
        assert "is the CPU build" in said


def stub(text: str) -> Callable[..., subprocess.Popen[bytes]]:
    """Starts a small program in the worker's place; it gets the lines' file and the start."""

    def begin(_: Any, folder: Path, lines: Path, start: int, *rest: Any) -> Any:
        (folder / "worker.log").touch()
        code = (
            "import json, os, sys, time\nstart = int(sys.argv[2])\n"
            "def tell(**line):\n    open(sys.argv[1], 'a').write(json.dumps(line) + '\\n')\n"
        )
        return subprocess.Popen([sys.executable, "-c", code + text, str(lines), str(start)])

    return begin


def test_a_process_that_dies_costs_its_case_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = """
if start == 0:
    tell(machine={"device": "a card"})
    tell(begin=0, check=1, name="first"); tell(row={"check": 1, "name": "first", "verdict": "pass"})
    tell(begin=1, check=2, name="second"); os.kill(os.getpid(), 11)
if start == 2:
    tell(begin=2, check=3, name="third"); tell(row={"check": 3, "name": "third", "verdict": "pass"})
    tell(next=3); sys.exit(75)
tell(begin=3, check=4, name="last"); tell(end=True)
"""
    monkeypatch.setattr(command, "begin", stub(text))
    assert command.main(["--out", str(tmp_path / "out.json")]) == 1
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [(row["name"], row["verdict"]) for row in rows] == [
        ("first", "pass"), ("second", "FAIL"), ("third", "pass"),
    ]  # fmt: skip
    assert rows[1]["found"] == "the process died: signal SIGSEGV"
    assert "1 failed" in capsys.readouterr().out


def test_a_case_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "GRACE", 1.0)
    monkeypatch.setattr(
        command, "begin", stub('tell(begin=0, check=5, name="hangs")\ntime.sleep(600)')
    )
    assert command.main(["--out", str(tmp_path / "out.json"), "--minutes", "0"]) == 1
    (row,) = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert (row["name"], row["verdict"]) == ("hangs", "FAIL")


def test_without_a_card_the_exit_code_is_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "begin", stub('tell(refused="gpu-check: no card")'))
    assert command.main(["--out", str(tmp_path / "out.json")]) == 2
    assert capsys.readouterr().err == "gpu-check: no card\n"
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    "given",
    [
        ["--device", "cpu"],
        ["--tiny"],
        ["--data-root", "nowhere"],
        ["--minutes", "nan"],
        ["--minutes", "-3"],
        ["--out", "."],
    ],
)
def test_a_wrong_command_line_is_refused(given: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.parse(given)


def test_a_file_that_cannot_be_written_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "check", lambda arguments, folder, sheet, deadline: sheet.write())
    (tmp_path / "file").write_text("")
    assert command.main(["--out", str(tmp_path / "file" / "out.json")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("gpu-check: ")
    assert said.count("\n") == 1


@pytest.mark.timeout(900)
def test_the_whole_command_at_tiny_size(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_check", "--device", "cpu", "--tiny",
         "--out", str(tmp_path / "out.json"), "--minutes", "14"],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((tmp_path / "out.json").read_text())
    assert {row["check"] for row in content["rows"]} == {case.check for case in CASES}
    assert content["passed"] is True
    assert {"device", "torch", "git_commit", "time", "data"} <= content.keys()
    assert "0 failed" in done.stdout


@pytest.mark.timeout(900)
def test_the_cases_run_on_the_card_that_is_not_there() -> None:
    if (reason := shim.missing()) is not None:
        pytest.skip(reason)
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.pretended_card"],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    rows = [line["row"] for line in lines]
    assert {row["check"] for row in rows} == {3, 5, 6, 7, 8, 10}
    assert [row for row in rows if row["verdict"] != "pass"] == []
