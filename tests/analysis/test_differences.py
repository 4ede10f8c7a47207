"""Everything that can move a score is told, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.analysis.differences import (
    Difference,
    Request,
    cell_differences,
    merge,
    pair_requests,
    request_differences,
    requests_of,
    unknown_of,
)
from harness.records.results import CellResult
from harness.records.scores import TaskScore
from tests.records.test_results import RESULT, SCORE, TRAIN

ENVIRONMENT = {
    "lm_eval": "0.4.13", "transformers": "5.23.0", "tokenizers": "0.22", "peft": "0.21.2",
    "torch": "2.13", "device": "cpu, 1 threads", "host": "one", "time": "now",
}  # fmt: skip
WHOLE = replace(
    SCORE, prompts_sha256="a" * 64, token_budget=4096, bos="token 1", content_sha256="b" * 64
)
CELL = {
    "recipe": 1, "world": None, "model": {"source": "x/llama", "revision": "main"},
    "method": "lora", "options": {"rank": 8}, "fraction": 0.1, "seed": 0,
    "data": {"source": "tatsu-lab/alpaca", "revision": "main"},
    "train": {"epochs": 3, "learning_rate": 1e-4},
}  # fmt: skip
BASE = {"weights_sha256": "c" * 64, "tokenizer_sha256": "t" * 64, "precision": "fp32"}
CELL_RESULT = replace(RESULT, cell=CELL, base=BASE, environment=ENVIRONMENT)


def request(*, key: str = "k", environment: object = None, **change: object) -> Request:
    made_in = ENVIRONMENT if environment is None else environment
    return Request(key, (replace(WHOLE, key=key, **change),), made_in)  # type: ignore[arg-type]


def told(first: Request, second: Request) -> list[str]:
    return [difference.what for difference in request_differences((first, second))]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"protocol": "paper"}, "protocol"),
        ({"task_version": "2.0"}, "task version"),
        ({"shots": 5}, "shots"),
        ({"limit": 7}, "limit"),
        ({"metric": "acc_norm"}, "metrics"),
        ({"prompts_sha256": "f" * 64}, "prompts"),
        ({"tokenizer_sha256": "f" * 64}, "tokenizer"),
        ({"bos": "none"}, "BOS"),
        ({"temperature": 0.1}, "temperature"),
        ({"precision": "bf16"}, "precision"),
        ({"token_budget": 8192}, "token budget"),
        ({"fallback": "no mask"}, "not over the trie, because"),
        ({"scored_with": ("mmlu",)}, "scored together with"),
        ({"lm_eval_version": "0.4.12"}, "lm-eval"),
        ({"content_sha256": "f" * 64}, "data"),
        ({"note": "cut"}, "note"),
    ],
)
def test_each_field_that_can_move_a_score_is_told(change: dict[str, object], what: str) -> None:
    assert told(request(), request()) == []
    assert told(request(), request(**change)) == [what]


@pytest.mark.parametrize("name", ["transformers", "tokenizers", "peft", "torch", "device"])
def test_each_part_of_the_environment_that_can_move_a_score_is_told(name: str) -> None:
    other = request(environment=ENVIRONMENT | {name: "another"})
    assert told(request(), other) == [name]


def test_host_and_time_move_nothing() -> None:
    other = request(environment=ENVIRONMENT | {"host": "two", "time": "later"})
    assert told(request(), other) == []


def test_two_copies_of_the_same_rows_are_no_difference() -> None:
    other = request(data_sha256="another file", data_source="hub@main")
    assert told(request(), other) == []
    old = request(content_sha256=None)
    assert told(old, request(data_sha256="another file")) == ["data"]
    assert told(old, request()) == []


def test_a_request_key_that_nothing_else_explains_is_another_recipe() -> None:
    assert told(request(), request(key="k2")) == ["zbench's evaluation recipe (request key)"]
    assert told(request(), request(key="k2", limit=5)) == ["limit"]


def test_low_bits_are_told_apart() -> None:
    other = request(token_budget=8192, shots=5)
    moves = {d.what: d.moves for d in request_differences((request(), other))}
    assert moves == {"shots": "score", "token budget": "low bits"}


def test_what_one_lacks_is_a_difference_and_what_both_lack_is_unknown() -> None:
    old = request(bos=None, prompts_sha256=None, environment={})
    (bos,) = (d for d in request_differences((old, request())) if d.what == "BOS")
    assert (bos.first, bos.second) == ("not recorded", "token 1")
    unknown = unknown_of([(old, old)])
    assert {"BOS", "prompts", "transformers", "device"} <= set(unknown)
    assert "limit" not in unknown
    assert unknown_of([(request(), request())]) == []


def test_responses_are_generated_without_a_token_budget() -> None:
    generated = request(temperature=0.1, token_budget=None)
    assert "token budget" not in unknown_of([(generated, generated)])
    scored = request(token_budget=None)
    assert "token budget" in unknown_of([(scored, scored)])


def changed(**change: object) -> CellResult:
    return replace(CELL_RESULT, cell=CELL | change)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (CELL_RESULT, []),
        (changed(options={"rank": 16}), [("cell", "rank")]),
        (changed(seed=1), [("cell", "seed")]),
        (changed(fraction=1.0), [("cell", "fraction")]),
        (changed(train={"epochs": 5, "learning_rate": 1e-4}), [("cell", "train.epochs")]),
        (changed(data={"source": "mine", "revision": "main"}), [("cell", "data.source")]),
        (changed(method="dora", options={"rank": 4}), [("cell", "method")]),
        (changed(method="base", options={}, train=None, data=None), [("cell", "method")]),
        (
            replace(CELL_RESULT, base=BASE | {"weights_sha256": "d" * 64}),
            [("base model", "weights")],
        ),
        (replace(CELL_RESULT, base=BASE | {"precision": "bf16"}), [("base model", "precision")]),
        (
            replace(CELL_RESULT, train=replace(TRAIN, data_sha256="e")),
            [("training", "rows trained on")],
        ),
        (
            replace(CELL_RESULT, environment=ENVIRONMENT | {"torch": "2.11"}),
            [("training", "torch")],
        ),
    ],
)
def test_each_part_of_a_cell_that_can_move_a_score_is_told(
    other: CellResult, expected: list[tuple[str, str]]
) -> None:
    found = cell_differences(CELL_RESULT, other)
    assert [(difference.part, difference.what) for difference in found] == expected


def test_weights_of_a_folder_and_of_the_hub_cannot_be_called_equal() -> None:
    hub = replace(CELL_RESULT, base=BASE | {"weights_sha256": None, "commit": "e" * 40})
    (weights,) = cell_differences(CELL_RESULT, hub)
    assert (weights.first, weights.second) == ("SHA-256 cccccccccccc", "commit eeeeeeeeeeee")


def test_requests_are_paired_by_key_then_settings_then_benchmark() -> None:
    same, limited, other = request(), request(key="l", limit=5), request(key="m", benchmark="mmlu")
    newer = request(key="n", limit=5)
    pairs, left, right = pair_requests([limited, same], [same, newer])
    assert pairs == [(limited, newer), (same, same)]
    assert (left, right) == ([], [])
    pairs, left, right = pair_requests([limited, other], [same])
    assert pairs == [(limited, same)]
    assert (left, right) == ([other], [])


def test_what_several_benchmarks_share_is_told_once() -> None:
    one = Difference("evaluation", "BOS", "none", "token 1", benchmarks=("a",))
    (merged,) = merge([one, replace(one, benchmarks=("b",))])
    assert merged.benchmarks == ("a", "b")


def test_scores_of_an_earlier_version_take_what_the_cell_knew() -> None:
    def scored(train: object, made_in: dict[str, dict[str, str]]) -> Request:
        score: TaskScore = SCORE
        found = replace(CELL_RESULT, train=train, scores=(score,), evaluation_environments=made_in)  # type: ignore[arg-type]
        return requests_of(found)[0]

    assert scored(None, {}).environment == ENVIRONMENT
    assert scored(TRAIN, {}).environment == {}  # scores may have been added later
    assert scored(TRAIN, {"k": {"torch": "2.11"}}).environment == {"torch": "2.11"}
