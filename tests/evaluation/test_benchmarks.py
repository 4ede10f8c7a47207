from __future__ import annotations

from pathlib import Path

import pytest

from harness.evaluation.benchmarks import BENCHMARKS, MACRO_METRIC
from harness.evaluation.loading import load_benchmark
from harness.evaluation.tasks import TaskSpec


@pytest.mark.parametrize("name", BENCHMARKS)
def test_an_entry_says_what_lm_eval_makes_of_its_task(
    name: str, shared_root: Path, demo_root: Path
) -> None:
    benchmark = BENCHMARKS[name]
    root = demo_root if benchmark.world == "demo" else shared_root
    loaded = load_benchmark(TaskSpec(name=name, shots=0, limit=1), root)
    assert loaded.tasks
    for task in loaded.tasks.values():
        config = task.config
        counted = [one["metric"] for one in config.metric_list]
        flags = benchmark.protocol.response_flags
        assert [m for m in benchmark.metrics if m != MACRO_METRIC] + [*flags] == counted
        assert benchmark.eval_split == (config.test_split or config.validation_split)
        takes_examples = config.fewshot_split or config.training_split
        assert benchmark.few_shot_split in (takes_examples, None)
        assert (config.output_type == "generate_until") == benchmark.protocol.generates
        assert (benchmark.decoding is not None) == benchmark.protocol.generates
        if benchmark.hub is not None:
            repository, configuration = benchmark.hub
            assert config.dataset_path == repository
            assert configuration in (config.dataset_name, None)
        assert (benchmark.hub is None) == (benchmark.world == "demo")
    assert bool(loaded.groups) == (benchmark.subject_column is not None)
    assert (MACRO_METRIC in benchmark.metrics) == (benchmark.subject_column is not None)


def test_what_this_package_sets_otherwise_than_lm_eval() -> None:
    assert {name: entry.shots for name, entry in BENCHMARKS.items() if entry.shots} == {
        "hellaswag": 10
    }
    others = {name for name, entry in BENCHMARKS.items() if entry.primary_metric != "acc"}
    assert others == {"hellaswag", "demo_hellaswag"}


def test_entries_are_consistent() -> None:
    for name, benchmark in BENCHMARKS.items():
        assert benchmark.name == name
        assert benchmark.primary_metric in benchmark.metrics
        assert benchmark.eval_split in benchmark.files
        assert benchmark.few_shot_split is None or benchmark.few_shot_split in benchmark.files
        columns = {*benchmark.columns, *benchmark.optional_columns}
        assert {benchmark.id_column, benchmark.picture_column} <= {None, *columns}
        assert (benchmark.world == "demo") == name.startswith("demo_")
        own = name.startswith("demo_pictures")  # no real benchmark's analogue
        assert own or name.removeprefix("demo_") in BENCHMARKS
        assert {*benchmark.item_columns} <= {*benchmark.columns}
