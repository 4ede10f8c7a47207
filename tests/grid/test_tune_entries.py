"""A block's `tune` is validated as a method's entry is: all faults at once, each at its place."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.evaluation.tasks import TaskSpec
from harness.grid.resolver import resolve, resolve_grid
from harness.grid.schema import GridSpec
from harness.grid.tune_checks import shares_items
from harness.grid.tuning import Range
from tests.integration.test_end_to_end import grid_text

SPACE = {
    "lora": {"learning_rate": ["1e-4", "3e-4", 1e-3], "rank": [4, 8]},
    "zero-init-linear": {"learning_rate": {"low": "1e-3", "high": 1e-1, "log": True}},
}


def raw_grid(block: dict[str, Any] | None = None, **tune: Any) -> dict[str, Any]:
    raw = yaml.safe_load(grid_text())
    del raw["methods"]
    raw["data"]["validation"] = {"fraction": 0.05}
    methods = ["base", "lora", {"method": "zero-init-linear", "num_layers": 5,
                                "label": "zero-init-linear"}]  # fmt: skip
    own = {"trials": 6, "space": copy.deepcopy(SPACE)} | tune
    raw["blocks"] = [{"methods": methods, "seeds": [0, 1], "tune": own} | (block or {})]
    return raw


def grid_of(block: dict[str, Any] | None = None, **tune: Any) -> GridSpec:
    return resolve_grid(raw_grid(block, **tune), place="g.yaml")


def faults_of(block: dict[str, Any] | None = None, **tune: Any) -> list[str]:
    found = resolve(raw_grid(block, **tune), place="g.yaml").faults
    return [fault.removeprefix("g.yaml: blocks[0].tune") for fault in found]


def test_values_are_those_that_the_method_has() -> None:
    tune = grid_of().blocks[0].tune
    assert tune is not None
    assert tune.space["lora"] == {"learning_rate": (1e-4, 3e-4, 1e-3), "rank": (4, 8)}
    rates = tune.space["zero-init-linear"]["learning_rate"]
    assert rates == Range(low=1e-3, high=0.1, log=True)
    assert (tune.seeds, tune.on, tune.sampler) == (1, "validation", "grid")
    whole = grid_of(space={**SPACE, "lora": {"rank": {"low": 2, "high": 9}}}).blocks[0].tune
    assert whole is not None
    assert whole.space["lora"]["rank"] == Range(low=2, high=9)
    one = whole.space["lora"]["rank"]
    assert isinstance(one, Range)
    assert one.is_whole


def lora(**settings: Any) -> dict[str, Any]:
    return {"trials": 2, "space": {**SPACE, "lora": settings}}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"trials": 1}, ".trials: must be at least 2 (got 1)"),
    ({"trials": 9}, ".space.lora: holds 6 settings, fewer than the 9 trials"),
    ({"seeds": 0}, ".seeds: must be at least 1 (got 0)"),
    ({"sampler": "grit"}, ".sampler: must be one of 'grid', 'random', 'qmc' or 'tpe' (got 'grit')"),
    ({"pruner": "mean"}, ".pruner: must be median, or {percentile: P} (got mean)"),
    ({"pruner": 3}, ".pruner: must be median, or {percentile: P} (got 3)"),
    ({"on": {"benchmark": "boolq", "metric": 3}}, ".on.metric: boolq has no metric '3'"),
    ({"on": {"benchmark": 3}}, ".on"),
    ({"pruner": {"percentile": 0}}, ".pruner.percentile: must be more than 0"),
    ({"trails": 3}, ".trails: unknown key; did you mean 'trials'?"),
    ({"space": {}}, ".space: is empty; add at least one"),
    ({"space": [1]}, ".space: must be a mapping"),
    ({"space": {"lora": SPACE["lora"]}}, ".space: 'zero-init-linear' has none; add"),
    ({"space": {**SPACE, "base": {}}}, ".space.base: trains nothing; leave it out"),
    ({"space": {**SPACE, "lorra": {}}}, ".space.lorra: no such method in this block; did you mean"),
    (lora(rank=[4, 0]), ".space.lora.rank[1]: must be at least 1 (got 0)"),
    (lora(rank=[4, True]), ".space.lora.rank[1]: must be a number (got true)"),
    (lora(rank=[4, "4"]), ".space.lora.rank[1]: 4 stands twice; keep one"),
    (lora(rank=[]), ".space.lora.rank: must be a list of values, or a range"),
    (lora(rank=4), ".space.lora.rank: must be a list of values, or a range"),
    (lora(), ".space.lora: must be a mapping of settings"),
    (lora(rnk=[4]), ".space.lora.rnk: is no option of lora and no training setting; did you mean"),
    (lora(rank={"low": None, "high": 8}), ".space.lora.rank.low: must be a number (got None)"),
    (lora(rank={"low": 4, "high": "x"}), ".space.lora.rank.high: must be a number (got x)"),
    (lora(dropout={"low": 0, "high": math.nan}), ".space.lora.dropout.high: must be a number"),
    (lora(rank={"low": 4, "high": 0}), ".space.lora.rank: low must be less than high"),
    (lora(dropout={"low": 0, "high": 2}), ".space.lora.dropout.high: must be less than 1.0"),
    (lora(rank={"low": 4, "high": 8, "lg": 1}), ".space.lora.rank.lg: unknown key; did you mean"),
    (lora(schedule=["cosine", "cosin"]), ".space.lora.schedule[1]: must be one of 'cosine'"),
    (lora(schedule={"low": 1, "high": 2}), ".space.lora.schedule.low: must be one of"),
    (lora(targets=[["q_proj"], ["q"]]), ".space.lora.targets[1][0]: must be one of 'q_proj'"),
    (lora(seed=[1]), ".space.lora.seed: is the block's"),
    (lora(token_budget=[64, 128]), ".space.lora.token_budget: never changes what is trained"),
    (lora(max_length=[64, 128]), ".space.lora.max_length: decides which tokens"),
    (
        lora(learning_rate=[1e-3, 1e-4], base_learning_rate=[1e-3]),
        ".space.lora: learning_rate and base_learning_rate exclude each other; keep one",
    ),
    (
        lora(schedule=["cosine", "wsd"], decay_ratio=[0.1, 0.2]),
        ".space.lora: schedule cosine, decay_ratio 0.1: decay_ratio and decay_steps are wsd's",
    ),
    ({"on": "validaton"}, ".on: no such task 'validaton'; did you mean 'validation'?"),
    ({"on": "arc_esy"}, ".on: no such task 'arc_esy'; did you mean 'arc_easy'?"),
    ({"on": 3}, ".on: must be validation, a benchmark's name, or"),
    ({"on": {"benchmark": "boolq", "limt": 3}}, ".on.limt: unknown key; did you mean 'limit'?"),
    ({"on": {"benchmark": "boolq", "metric": "ac"}}, ".on.metric: boolq has no metric 'ac'"),
    ({"on": "demo_arc_easy"}, ".on: demo_arc_easy is a task of the study: the chosen"),
]


@pytest.mark.parametrize(("tune", "said"), WRONG, ids=[said for _, said in WRONG])
def test_a_fault_is_one_line_at_its_place(tune: dict[str, Any], said: str) -> None:
    fault, *others = faults_of(**tune)
    assert fault.startswith(said)
    place = said.partition(": ")[0].rstrip("[0]").rpartition(".")[0]
    assert len(others) <= 1
    assert all(other.startswith(place) for other in others)


def test_all_faults_come_at_once() -> None:
    found = faults_of(trials=0, sampler="x", on="nope", space={"lora": {"rank": [0], "x": [1]}})
    assert [fault.partition(": ")[0] for fault in found] == [
        *(".trials", ".sampler", ".on", ".space"),
        *(".space.lora.rank[0]", ".space.lora.x"),
    ]


def test_a_choice_on_validation_needs_rows_that_are_held_out() -> None:
    raw = raw_grid()
    del raw["data"]["validation"]
    (fault,) = resolve(raw, place="g.yaml").faults
    assert fault == (
        "g.yaml: blocks[0].tune.on: validation needs rows that are held out; add `validation: "
        "{fraction: 0.05}` to data"
    )
    raw["blocks"][0]["tune"]["on"] = "demo_hellaswag"
    assert not resolve(raw, place="g.yaml").faults


SAME_ITEMS = [
    ("arc_challenge_chat", "arc_challenge"),
    ("mmlu_anatomy", "mmlu"),
    ("mmlu", "mmlu_anatomy"),
    ("mmlu_stem", "mmlu"),
    ("mmlu_generative", "mmlu_stem"),
    ("paper_arc_easy", "arc_easy"),
    ("gsm8k_cot", "gsm8k"),
    ("truthfulqa_gen", "truthfulqa_mc1"),
]


@pytest.mark.parametrize(("on", "task"), SAME_ITEMS)
def test_items_of_the_study_are_known_by_their_data_too(on: str, task: str) -> None:
    assert shares_items(TaskSpec(name=on), TaskSpec(name=task))
    assert not shares_items(TaskSpec(name=on), TaskSpec(name="hellaswag"))


def test_a_choice_by_a_part_of_what_is_tested_is_refused() -> None:
    raw = raw_grid(on="mmlu_anatomy")
    raw["tasks"] = ["arc_easy", "mmlu"]
    (fault,) = resolve(raw, place="g.yaml").faults
    assert "mmlu_anatomy has items of mmlu, which the chosen settings are tested on" in fault


def test_other_configurations_and_splits_have_other_items() -> None:
    for one, other in (("mmlu_anatomy", "mmlu_astronomy"), ("arc_easy", "arc_challenge")):
        assert not shares_items(TaskSpec(name=one), TaskSpec(name=other))


OWN = """
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{options}}"
doc_to_target: "{{gold}}"
"""


@pytest.mark.parametrize(
    ("validation", "test", "same"),
    [
        ("{data_files: rows.jsonl}", "{data_files: ./rows.jsonl}", True),
        ("{data_files: rows.jsonl}", "{data_files: more.jsonl}", False),
        ("{data_files: {test: rows.jsonl}}", "{data_files: '*.jsonl'}", True),
        (
            "{data_files: {train: rows.jsonl, test: more.jsonl}}",
            "{data_files: {train: rows.jsonl, test: rows.jsonl}}",
            False,  # they share the rows of the examples alone
        ),
    ],
)
def test_tasks_of_ones_own_are_known_by_their_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, validation: str, test: str, same: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, settings in (("mine", validation), ("yours", test)):
        own = f"task: {name}\ndataset_path: json\ndataset_kwargs: {settings}\ntest_split: test\n"
        (tmp_path / f"{name}.yaml").write_text(own + OWN)
    for name in ("rows", "more"):
        (tmp_path / f"{name}.jsonl").write_text("{}\n")
    mine, yours = (TaskSpec(name=name, include=str(tmp_path)) for name in ("mine", "yours"))
    assert shares_items(mine, yours) is same


def test_tasks_of_ones_own_are_known_by_their_folder_and_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows").mkdir()
    for name, split in (("mine", "validation"), ("yours", "test"), ("theirs", "test[:9]")):
        own = f"task: {name}\ndataset_path: rows\ntest_split: {split}\n"
        (tmp_path / f"{name}.yaml").write_text(own + OWN)
    mine, yours, theirs = (
        TaskSpec(name=name, include=str(tmp_path)) for name in ("mine", "yours", "theirs")
    )
    assert shares_items(yours, theirs)
    assert not shares_items(mine, yours)


def test_seeds_labels_and_methods_that_the_trials_need_are_refused_elsewhere() -> None:
    (fault,) = faults_of({"seeds": [0, 1_000_000]})
    assert fault.startswith(".seeds: seeds from 1,000,000 on are those of the trials")
    raw = raw_grid()
    raw["blocks"].append(copy.deepcopy(raw["blocks"][0]))
    assert all("is tuned on tiny-llama in blocks[0] too" in f
               for f in resolve(raw, place="g.yaml").faults)  # fmt: skip
    raw = raw_grid()
    raw["blocks"].append({"methods": [{"method": "lora", "rank": 3, "label": "lora[tuned]"}]})
    (fault,) = resolve(raw, place="g.yaml").faults
    assert fault.startswith("g.yaml: method 'lora[tuned]': that is what the tuning of 'lora' makes")


def test_every_value_is_held_against_the_model() -> None:
    (fault,) = resolve(raw_grid(**lora(rank=[4, 9999])), place="g.yaml").faults
    assert fault.startswith("g.yaml: tiny-llama with lora: rank: must be at most 128")


def test_the_tuned_method_may_be_claimed_and_compared() -> None:
    raw = raw_grid()
    raw["compare"] = "lora[tuned]"
    assert not resolve(raw, place="g.yaml").faults
    raw["compare"] = "lora[tunt]"
    assert "did you mean 'lora[tuned]'" in resolve(raw, place="g.yaml").faults[0]


def test_a_fault_elsewhere_or_in_the_tuning_is_no_fault_of_what_names_the_tuned_method() -> None:
    raw = raw_grid() | {"compare": "lora[tuned]", "titel": "misspelt"}
    (fault,) = resolve(raw, place="g.yaml").faults
    assert fault.startswith("g.yaml: titel: unknown key")
    raw = raw_grid() | {"compare": "lora[tuned]"}
    raw["blocks"][0]["tune"]["trials"] = 0
    (fault,) = resolve(raw, place="g.yaml").faults
    assert "tune.trials" in fault
