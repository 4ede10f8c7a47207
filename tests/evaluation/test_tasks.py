from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError

from harness.errors import DataError
from harness.evaluation import tasks
from harness.evaluation.benchmarks import HELLASWAG_SAMPLE
from harness.evaluation.own_benchmarks import find_benchmark
from harness.evaluation.task_data import data_fingerprint, local_files
from harness.evaluation.task_data import uses_fallback as stands_in
from harness.evaluation.tasks import TaskSpec, request_key, scored_together
from harness.spec import describe_faults


def fault_of(**values: object) -> str:
    with pytest.raises(ValidationError) as caught:
        TaskSpec(**values)  # type: ignore[arg-type]
    (line,) = describe_faults(caught.value, "g.yaml: tasks[0]", TaskSpec)
    return line


def test_shots_default_to_the_benchmarks_own() -> None:
    assert TaskSpec(name="hellaswag").num_shots == 10
    assert TaskSpec(name="hellaswag", shots=0).num_shots == 0
    assert TaskSpec(name="mmlu").num_shots == 0


def test_a_misspelt_benchmark_offers_the_nearest() -> None:
    line = fault_of(name="arc_esy")
    said = "g.yaml: tasks[0].name: no such task 'arc_esy'; did you mean 'arc_easy'?"
    assert line.startswith(said)


@pytest.mark.parametrize("name", ["winogrande", "mmlu_anatomy", "mmlu_stem", "gsm8k", "wikitext"])
def test_any_task_or_group_of_lm_eval_is_a_benchmark(name: str) -> None:
    spec = TaskSpec(name=name)
    assert spec.benchmark.name == name
    assert spec.benchmark.primary_metric in spec.benchmark.metrics


def test_a_name_near_one_of_lm_evals_offers_it() -> None:
    assert "no such task 'winogrand'; did you mean 'winogrande'" in fault_of(name="winogrand")


def test_shots_are_refused_where_the_prompt_is_fixed() -> None:
    assert "truthfulqa_mc1 takes no few-shot examples" in fault_of(name="truthfulqa_mc1", shots=2)
    assert TaskSpec(name="truthfulqa_mc1", shots=0).num_shots == 0


@pytest.mark.parametrize(("field", "value"), [("limit", 0), ("shots", -1), ("limit", 2.5)])
def test_bounds(field: str, value: object) -> None:
    assert f"tasks[0].{field}: must be" in fault_of(name="mmlu", **{field: value})


def test_key_tells_apart_all_that_can_move_a_score(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [
        TaskSpec(name="hellaswag"),
        TaskSpec(name="hellaswag", shots=5),
        TaskSpec(name="hellaswag", limit=5),
        TaskSpec(name="demo_hellaswag", shots=10),
        TaskSpec(name="mmlu", shots=10),
    ]
    keys = [request_key(spec) for spec in specs]
    keys.append(request_key(specs[0], token_budget=512))
    monkeypatch.setattr(tasks, "lm_eval_version", lambda: "0.0.1")
    keys.append(request_key(specs[0]))
    monkeypatch.undo()
    monkeypatch.setattr(tasks, "EVALUATION_RECIPE", 99)
    keys.append(request_key(specs[0]))
    assert len(set(keys)) == len(keys)


def test_key_is_the_same_for_a_default_and_for_its_value() -> None:
    assert request_key(TaskSpec(name="hellaswag")) == request_key(
        TaskSpec(name="hellaswag", shots=10)
    )


def test_tasks_that_share_requests_are_scored_together() -> None:
    names = ("truthfulqa_mc1", "arc_easy", "truthfulqa_mc2", "demo_truthfulqa_mc2", "mmlu")
    tasks = [TaskSpec(name=name) for name in names]
    limited = TaskSpec(name="truthfulqa_mc2", limit=3)
    groups = scored_together([*tasks, limited])
    assert [[task.name for task in group] for group in groups] == [
        ["truthfulqa_mc1", "truthfulqa_mc2"],
        ["arc_easy"],
        ["demo_truthfulqa_mc2"],
        ["mmlu"],
        ["truthfulqa_mc2"],
    ]
    assert groups[-1] == (limited,)


def test_fingerprint_of_one_file_is_its_sha256(shared_root: Path) -> None:
    content = (shared_root / "arc_easy" / "test.parquet").read_bytes()
    spec = TaskSpec(name="arc_easy")
    assert data_fingerprint(spec, shared_root) == hashlib.sha256(content).hexdigest()
    assert data_fingerprint(spec, None) is None


def test_fingerprint_covers_few_shot_data_only_where_it_is_used(
    shared_root: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(shared_root, tmp_path / "data")
    zero, few = TaskSpec(name="arc_easy"), TaskSpec(name="arc_easy", shots=2)
    before = [data_fingerprint(spec, root) for spec in (zero, few)]
    shutil.copy(root / "arc_challenge" / "train.parquet", root / "arc_easy" / "train.parquet")
    after = [data_fingerprint(spec, root) for spec in (zero, few)]
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mmlu/test\.parquet: no such file; mmlu reads its test"):
        data_fingerprint(TaskSpec(name="mmlu"), tmp_path)


def test_hellaswags_sample_stands_in_only_for_an_absent_train_split(
    shared_root: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(shared_root, tmp_path / "data")
    spec = TaskSpec(name="hellaswag")
    shutil.copy(root / "hellaswag" / "train.parquet", root / HELLASWAG_SAMPLE)
    assert not stands_in(spec, local_files(spec, root))
    (root / "hellaswag" / "train.parquet").unlink()
    assert local_files(spec, root)["train"] == root / HELLASWAG_SAMPLE
    assert stands_in(spec, local_files(spec, root))


OWN = "test_split: test\noutput_type: loglikelihood\ndoc_to_text: '{{a}}'\ndoc_to_target: '{{b}}'\n"


def test_a_groups_own_numbers_of_examples_are_another_request_than_one_for_all(
    tmp_path: Path,
) -> None:
    for name, shots in (("a", 1), ("b", 3)):
        text = f"task: {name}\ntraining_split: train\nnum_fewshot: {shots}\n{OWN}"
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "g.yaml").write_text(
        "group: g\ntask: [a, b]\naggregate_metric_list: [{metric: acc}]\n"
    )
    own, all_alike = (TaskSpec(include=str(tmp_path), name="g", shots=shots) for shots in (None, 3))
    assert own.num_shots == all_alike.num_shots == 3
    assert request_key(own) != request_key(all_alike)


def test_an_own_task_with_the_name_of_a_benchmark_with_an_entry_is_refused(tmp_path: Path) -> None:
    (tmp_path / "arc_easy.yaml").write_text(f"task: arc_easy\n{OWN}")
    said = "has the name of a benchmark of zbench: give it another one"
    assert said in fault_of(include=str(tmp_path), name="arc_easy")


def test_a_group_of_lm_eval_with_a_member_of_ones_own_is_another_request(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(f"task: minerva_math_algebra\n{OWN}")
    theirs = TaskSpec(name="minerva_math")
    changed = TaskSpec(include=str(tmp_path), name="minerva_math")
    assert request_key(theirs) != request_key(changed)


def test_rows_that_a_tasks_own_yaml_names_are_part_of_the_request(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    keys = []
    for text in ('{"a": "x", "b": "y"}', '{"a": "x", "b": "z"}'):
        rows.write_text(text)
        (tmp_path / "t.yaml").write_text(
            f"task: t\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {rows}}}}}\n{OWN}"
        )
        find_benchmark.cache_clear()
        keys.append(request_key(TaskSpec(include=str(tmp_path), name="t")))
    assert keys[0] != keys[1]
