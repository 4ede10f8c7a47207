"""Cells of several stacks never share a table in silence; those of one leave it as it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.analysis.findings import find
from harness.analysis.mixtures import mixture_of
from harness.analysis.stacks import Made, Stack, kind_of, made_of
from harness.report.contents import table_files, terminal_text
from tests.fixtures.results import GridResults
from tests.records.test_results import RESULT, SCORE

OLD = Stack("2.9.0", "4.57.1", "0.17.0", "0.4.13", "cpu", "fp32")
NEW = replace(OLD, torch="2.13.0", transformers="5.23.0")


def trained(stack: Stack) -> Stack:
    return replace(stack, lm_eval=None)


def test_versions_device_and_precision_are_those_of_each_evaluation() -> None:
    result = replace(
        RESULT,
        environment={"torch": "2.9.0", "device": "AMD EPYC, 4 threads"},
        evaluation_environments={"k": {"torch": "2.13.0", "device": "NVIDIA H200"}},
    )
    made = made_of(result, SCORE)
    assert made.trained == Stack("2.9.0", None, None, None, "cpu", "fp32")
    assert made.scored == Stack("2.13.0", None, None, "0.4.13", "NVIDIA H200", "fp32")
    assert made_of(replace(result, train=None), SCORE).trained is None


def test_the_kind_of_a_device_is_its_name_and_of_any_processor_cpu() -> None:
    named = ["Xeon, 1 threads", "AMD EPYC, 64 threads", "NVIDIA H200", None]
    assert [kind_of(name) for name in named] == ["cpu", "cpu", "NVIDIA H200", None]


def test_cells_of_one_stack_are_no_mixture() -> None:
    rows = [("m", ("Base",), Made(None, OLD)), ("m", ("LoRA",), Made(trained(OLD), OLD))]
    assert mixture_of(rows) is None
    # An untrained model scored in one stack, and trainings of another, all scored in one.
    rows = [("m", ("Base",), Made(None, NEW)), ("m", ("LoRA",), Made(trained(OLD), NEW))]
    assert mixture_of(rows) is None


@pytest.mark.parametrize("field", ["torch", "transformers", "lm_eval", "device", "precision"])
def test_each_field_makes_another_stack(field: str) -> None:
    other = replace(OLD, **{field: "another"})
    rows = [("m", ("A",), Made(None, OLD)), ("m", ("B",), Made(None, other))]
    found = mixture_of(rows)
    assert found is not None
    assert "another" in found.head
    assert (found.mark("m", "A"), found.mark("m", "B")) == (" [a]", " [b]")
    assert found.crosses("m", "A", "B")
    assert not found.crosses("m", "A", "A")


def test_training_and_scoring_are_told_apart() -> None:
    rows = [
        ("m", ("A",), Made(trained(OLD), NEW)),
        ("m", ("B",), Made(trained(NEW), NEW)),
    ]
    found = mixture_of(rows)
    assert found is not None
    assert "[a] trained with torch 2.9.0, transformers 4.57.1" in found.head
    assert "[b] trained with torch 2.13.0, transformers 5.23.0" in found.head
    assert "scored" not in found.head


def test_an_untrained_model_is_of_the_stack_that_it_was_scored_with() -> None:
    rows = [
        ("m", ("Base",), Made(None, NEW)),
        ("m", ("A",), Made(trained(NEW), NEW)),
        ("m", ("B",), Made(trained(OLD), OLD)),
    ]
    found = mixture_of(rows)
    assert found is not None
    assert found.head.startswith("Cells of 2 stacks")
    assert found.mark("m", "Base") == found.mark("m", "A") != found.mark("m", "B")
    assert not found.crosses("m", "A", "Base")
    assert found.crosses("m", "B", "Base")
    # What it was trained with does not part a method from the base model, if both are scored alike.
    rows[2] = ("m", ("B",), Made(trained(OLD), NEW))
    found = mixture_of(rows)
    assert found is not None
    assert not found.crosses("m", "B", "Base")
    assert found.crosses("m", "B", "A")


def made(results: GridResults, stacks: dict[str, Made]) -> GridResults:
    for record in results.scores:
        record["made"] = stacks[record["method"]]
    return results


def study(results: GridResults, answer, linear: Made) -> GridResults:
    for method in ("random-init", "zero-init-linear"):
        for seed in (0, 1):
            results.add(method, seed, answer("1100" if seed else "1010"))
    return made(results, {"random-init": Made(trained(OLD), OLD), "zero-init-linear": linear})


def test_a_table_of_two_stacks_says_so_in_its_head(results, answer) -> None:
    findings = find(study(results, answer, Made(trained(NEW), NEW)).input())
    files = dict(table_files(findings))
    head = (
        "Cells of 2 stacks, not comparable like those of one: [a] torch 2.9.0, transformers "
        "4.57.1; [b] torch 2.13.0, transformers 5.23.0"
    )
    for name in ("table1.md", "comparisons.md"):
        assert head in files[name].replace("\\", "")
    assert "Random-init [a]" in files["table1.md"].replace("\\", "")
    assert "Zero-init + linear [b]" in files["table1.md"].replace("\\", "")
    assert "Zero-init + linear − Random-init §" in files["comparisons.md"]
    assert "Cells of 2 stacks" in " ".join(terminal_text(findings).split())
    assert "made" not in files["scores.csv"].splitlines()[0].split(",")


def test_a_table_of_one_stack_is_as_without_any(results, answer) -> None:
    one = dict(table_files(find(study(results, answer, Made(trained(OLD), OLD)).input())))
    for record in results.scores:
        del record["made"]
    assert dict(table_files(find(results.input()))) == one
    assert "stack" not in "".join(one.values())
