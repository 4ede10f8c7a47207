"""`remarks`, `left_out` and `gather` of a grid: their faults, one line each."""

from __future__ import annotations

from typing import Any

import pytest

from harness.errors import GridError
from harness.grid.remarks import remark_lines
from harness.grid.resolver import resolve_grid
from harness.grid.schema import GridSpec, expand

SHAPE = {"num_hidden_layers": 2, "hidden_size": 16, "intermediate_size": 32,
         "num_attention_heads": 2, "vocab_size": 50}  # fmt: skip


def grid(**keys: Any) -> GridSpec:
    raw = {
        "name": "mine",
        "models": {"small": {"source": "x/small", "shape": SHAPE}},
        "tasks": ["arc_easy"],
        "methods": {
            "low": {"method": "lora", "train": {"learning_rate": 1e-4}},
            "high": {"method": "lora", "train": {"learning_rate": 1e-3}, "rank": 4},
            "ia3": {},
        },
        "blocks": [{"methods": ["base", "low", "high", "ia3"]}],
    }
    return resolve_grid(raw | keys, place="mine.yaml")


def test_what_is_said_of_methods_is_told_and_changes_no_cell() -> None:
    said = grid(
        remarks={"low": "slow"}, left_out={"boft": "too large"}, gather={"LORA": ["low", "high"]}
    )
    assert remark_lines(said.remarks, said.left_out) == ["low: slow", "boft is left out: too large"]
    assert [cell.id for cell in expand(said)] == [cell.id for cell in expand(grid())]


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"remarks": {"lo": "slow"}}, "remarks.lo: no method 'lo' in the blocks of this grid; did"),
        ({"remarks": {"lora": "slow"}}, "remarks.lora: no method 'lora' in the blocks"),
        ({"left_out": {"low": "slow"}}, "left_out.low: is a method of the grid; remove one of"),
        ({"gather": {"LORA": ["low", "hih"]}}, "gather.LORA: no method 'hih' in the blocks of th"),
        ({"gather": {"LORA": ["low", "lora"]}}, "gather.LORA: no method 'lora' in the blocks"),
        ({"gather": {"LORA": ["low", "low"]}}, "gather.LORA: 'low' stands twice; keep one"),
        ({"gather": {"A": ["low", "high"], "B": ["high", "low"]}}, "gather.B: 'high' stands in"),
        ({"gather": {"LORA": ["low", "ia3"]}}, "gather.LORA: gathers different methods (ia3, lo"),
        ({"gather": {"low": ["low", "high"]}}, "gather.low: is the label of a method; give the"),
        ({"gather": {"LORA": ["low"]}}, "gather.LORA: needs two rows at least"),
        ({"gather": ["low", "high"]}, "gather: must be a mapping of keys to values"),
        ({"remarks": {"low": ""}}, "remarks.low"),
        ({"published_runs": "peft"}, "published_runs: must be one of 'peft-suite'"),
    ],
)  # fmt: skip
def test_a_fault_is_one_line(keys: dict[str, Any], line: str) -> None:
    with pytest.raises(GridError) as found:
        grid(**keys)
    told = str(found.value).splitlines()
    assert any(one.startswith(f"mine.yaml: {line}") for one in told), told


def test_rows_of_different_blocks_are_not_gathered_in_silence() -> None:
    rows, apart = {"LORA": ["low", "high"]}, [{"methods": ["low"]}, {"methods": ["high"]}]
    with pytest.raises(GridError, match="gather.LORA: its rows stand in different blocks"):
        grid(gather=rows, blocks=apart)
    more = [{"methods": ["low", "high"]}, {"methods": ["low"], "seeds": [1]}]
    assert grid(gather=rows, blocks=more).gather == rows


def test_they_are_told_with_the_other_faults_of_the_file() -> None:
    with pytest.raises(GridError) as found:
        grid(
            train={"max_steps": 0}, remarks={"lo": "slow", "ia3": ""}, left_out={"low": "slow"},
            gather={"LORA": ["low", "hih"]},
        )  # fmt: skip
    told = str(found.value)
    for place in ("train.max_steps", "remarks.lo", "remarks.ia3", "left_out.low", "gather.LORA"):
        assert f"mine.yaml: {place}: " in told, told


def test_a_row_whose_method_has_a_fault_is_not_told_twice() -> None:
    broken = {"low": {"method": "lora", "rank": 0}, "high": {"method": "lora", "rank": 4}}
    with pytest.raises(GridError) as found:
        grid(methods=broken, blocks=[{"methods": ["low", "high"]}],
             gather={"LORA": ["low", "high"]}, remarks={"low": "slow"})  # fmt: skip
    assert "gather" not in str(found.value)
    assert "remarks" not in str(found.value)
