"""What was measured survives its file, and a file is whole or absent."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import StorageError
from harness.records.files import write_bytes
from harness.records.results import (
    CellError,
    CellResult,
    DamagedResult,
    TrainResult,
    read_result,
    write_result,
)
from harness.records.scores import TaskScore
from harness.records.seal import sealed

TRAIN = TrainResult(
    steps=3, examples=2, tokens=30, epoch_losses=(2.0, 1.5), trainable_parameters=5,
    total_parameters=50, seconds=1.5, tokens_per_second=20.0, peak_memory_bytes=1000,
    peak_learning_rate=0.01, precision="fp32", device="cpu", data_sha256="d",
    final_statistics={"gate/mean_abs": 0.1},
)  # fmt: skip
SCORE = TaskScore(
    key="k", protocol="lm-eval", benchmark="arc_easy", task="arc_easy", metric="acc", value=0.5,
    stderr=0.1, n=10, shots=0, limit=None, task_version="1.0", lm_eval_version="0.4.13",
    data_source="arc_easy/test.parquet", data_sha256="s", tokenizer_sha256="t", precision="fp32",
)  # fmt: skip
RESULT = CellResult(
    cell={"method": "full"}, cell_id="0123456789ab", train=TRAIN, base={"source": "m"},
    scores=(SCORE,), environment={"host": "h"}, evaluation_seconds={"arc_easy": 2.0},
)  # fmt: skip


def test_a_result_survives_its_file(tmp_path: Path) -> None:
    write_result(tmp_path, RESULT)
    assert read_result(tmp_path) == RESULT
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_a_result_of_before_estimates_is_read(tmp_path: Path) -> None:
    raw = json.loads(CellResult(cell={}, cell_id="a").to_json())
    del raw["estimate"]
    assert CellResult.from_json(json.dumps(raw)).estimate == {}


def test_a_result_of_the_last_version_is_read_and_written_with_the_same_bytes() -> None:
    text = (Path(__file__).parent / "result-0.1.0.json").read_text()
    result = CellResult.from_json(text)
    assert (result.cell_id, result.cell["method"]) == ("f6f9354dfb57", "zero-init-linear")
    assert result.train is not None
    assert result.train.epoch_losses[-1] == 0.9971261024475098
    assert [(score.task, score.metric, score.value, score.n) for score in result.scores] == [
        ("demo_arc_easy", "acc", 0.295, 400),
        ("demo_arc_easy", "acc_norm", 0.2775, 400),
        ("demo_paper_arc_easy", "acc", 0.3025, 400),
    ]
    assert result.scores[-1].response_flags["gold_first"] == 100
    assert result.to_json() == text


def test_keys_of_another_version_are_left_out() -> None:
    raw = json.loads(RESULT.to_json())
    raw["later"] = raw["train"]["later"] = raw["scores"][0]["later"] = {"a": 1}
    assert CellResult.from_json(json.dumps(raw)) == RESULT


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"cell_id": 5}, "cell_id"),
        ({"train": {"steps": 3}}, "train.examples"),
        ({"scores": [{"key": "k"}]}, "scores.0.protocol"),
        ({"evaluation_seconds": {"arc_easy": "soon"}}, "evaluation_seconds.arc_easy"),
    ],
)
def test_a_value_of_another_type_is_refused_with_its_place(
    change: dict[str, object], place: str
) -> None:
    with pytest.raises(ValueError, match=f"not a cell's result: {place}: "):
        CellResult.from_json(json.dumps(json.loads(RESULT.to_json()) | change))
    with pytest.raises(ValueError, match="steps"):
        replace(TRAIN, steps="many")  # type: ignore[arg-type]


def test_no_file_is_no_result(tmp_path: Path) -> None:
    assert read_result(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", json.dumps({"cell": {}})])
def test_a_broken_file_is_told_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(StorageError, match=r"result\.json: cannot be read"):
        read_result(tmp_path)


def content(**change: object) -> bytes:
    return json.dumps(json.loads(RESULT.to_json()) | change).encode()


DAMAGED = {
    "a score of 7.5": content(scores=[json.loads(RESULT.to_json())["scores"][0] | {"value": 7.5}]),
    "a score of nan": RESULT.to_json().replace('"value": 0.5', '"value": NaN').encode(),
    "a score as text": RESULT.to_json().replace('"value": 0.5', '"value": "much"').encode(),
    "items below none": RESULT.to_json().replace('"n": 10', '"n": -1').encode(),
    "items beyond counting": RESULT.to_json().replace('"n": 10', f'"n": 1{"0" * 30}').encode(),
    "no base": content(base=None),
    "an error as text": content(error="x"),
    "an estimate as text": content(estimate={"training_seconds": "soon"}),
    "another id": content(cell_id="0" * 12),
    "no losses": RESULT.to_json().replace('"epoch_losses": [\n   2.0,\n   1.5\n  ]',
                                         '"epoch_losses": []').encode(),
    "a list": b"[]",
    "a number": b"5",
    "deep": b"[" * 100_000,
    "deep inside": b'{"cell": {"a": ' + b"[" * 900 + b"]" * 900 + b'}, "cell_id": "a"}',
    "no UTF-8": b'{"cell_id": "\xff"}',
    "another byte": sealed(RESULT.to_json()).replace(b"0.5", b"0.6"),
    "another byte, and another form": json.dumps(
        json.loads(sealed(RESULT.to_json())) | {"evaluation_seconds": {"arc_easy": 3.0}}
    ).encode(),
    "half": sealed(RESULT.to_json())[:-300],
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_whatever_is_no_result_of_the_cell_is_damaged(tmp_path: Path, name: str) -> None:
    (tmp_path / "result.json").write_bytes(DAMAGED[name])
    with pytest.raises(DamagedResult, match=r"result\.json: cannot be read .*runs the cell again"):
        read_result(tmp_path, RESULT.cell_id)


def test_a_folder_or_a_pipe_is_no_result_either(tmp_path: Path) -> None:
    for make in (Path.mkdir, os.mkfifo):
        (tmp_path / make.__name__).mkdir()
        make(tmp_path / make.__name__ / "result.json")
        with pytest.raises(DamagedResult, match=r"result\.json: cannot be read"):
            read_result(tmp_path / make.__name__)


def test_a_file_that_cannot_be_opened_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_result(tmp_path, RESULT)

    def refuse(*_: object, **_options: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("harness.readers.files.open", refuse, raising=False)
    with pytest.raises(StorageError, match="Input/output error") as caught:
        read_result(tmp_path)
    assert not isinstance(caught.value, DamagedResult)


def test_a_result_in_another_form_is_the_same(tmp_path: Path) -> None:
    write_result(tmp_path, RESULT)
    path = tmp_path / "result.json"
    path.write_text(json.dumps(dict(reversed(json.loads(path.read_text()).items()))))
    assert read_result(tmp_path, RESULT.cell_id) == RESULT


def test_a_result_of_before_seals_is_read(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(RESULT.to_json())
    assert read_result(tmp_path, RESULT.cell_id) == RESULT


def test_new_scores_replace_those_of_the_same_request_only() -> None:
    newer = replace(SCORE, value=0.7)
    other = replace(SCORE, key="k2", limit=5)
    result = RESULT.with_scores((newer,), 3.0).with_scores((other,), 1.0)
    assert result.scores == (newer, other)
    assert RESULT.scores == (SCORE,)


def test_the_environment_of_each_evaluation_is_kept_as_long_as_its_scores(tmp_path: Path) -> None:
    other = replace(SCORE, key="k2", limit=5, scored_with=("mmlu",))
    result = RESULT.with_scores((SCORE,), 1.0, {"torch": "2.11"})
    result = result.with_scores((other,), 1.0, {"torch": "2.13"})
    assert result.evaluation_environments == {"k": {"torch": "2.11"}, "k2": {"torch": "2.13"}}
    write_result(tmp_path, result)
    assert read_result(tmp_path) == result
    again = replace(result, scores=()).with_scores((other,), 1.0, {"torch": "2.14"})
    assert again.evaluation_environments == {"k2": {"torch": "2.14"}}


def test_a_result_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    record = json.loads(RESULT.to_json())
    del record["evaluation_environments"]
    del record["train"]["data_content_sha256"]
    for name in ("prompts_sha256", "token_budget", "fallback", "scored_with", "bos"):
        del record["scores"][0][name]
    (tmp_path / "result.json").write_text(json.dumps(record))
    assert read_result(tmp_path) == RESULT


def test_a_note_stands_beside_every_score_once() -> None:
    noted = replace(RESULT, scores=(SCORE, replace(SCORE, key="k2", note="cut"))).with_note("odd")
    assert [score.note for score in noted.scores] == ["odd", "cut; odd"]
    assert noted.with_note("odd") == noted
    assert noted.with_note(None) == noted


def test_an_error_survives_beside_scores(tmp_path: Path) -> None:
    failed = replace(RESULT, error=CellError("DataError", "no file", "log.txt"))
    write_result(tmp_path, failed)
    assert read_result(tmp_path) == failed


def test_a_number_that_is_none_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="value"):
        replace(SCORE, value=float("nan"))
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_result(tmp_path, replace(RESULT, environment={"load": float("nan")}))
    assert read_result(tmp_path) is None


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_result(tmp_path, RESULT)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match=r"No space left on device.*run the same command again"):
        write_bytes(tmp_path / "result.json", b"half")
    assert read_result(tmp_path) == RESULT
    assert len(list(tmp_path.iterdir())) == 1
