"""What a user wrote: numbers within reason, and faults of one short printable line."""

from __future__ import annotations

import datetime
from typing import Annotated

import pytest
from pydantic import Field, ValidationError

from harness.spec import Spec, describe_faults
from tests.grid.test_loader import GRID, faults_of, grid_with


class Settings(Spec):
    count: Annotated[int, Field(ge=0)] = 1
    rate: float | None = None
    several: tuple[int, ...] = ()
    flag: bool = False
    name: str = "x"


def fault_of(**settings: object) -> str:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate(settings)
    (line,) = describe_faults(caught.value, "s.yaml", Settings)
    assert line.isprintable()
    assert len(line) < 300
    return line


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("count", True, "count: must be a number (got true)"),
        ("count", 10**16, "count: must be a number within reason"),
        ("count", 10**4000, "count: must be a number within reason (got a number of 4001 digits"),
        ("count", "9" * 30, "count: must be a number within reason"),
        ("count", "9" * 6000, "count: must be a"),
        ("count", float("inf"), "count: must be a number within reason (got inf)"),
        ("count", float("nan"), "count: must be a"),
        ("count", 2.5, "count: must be a whole number (got 2.5)"),
        ("count", 1e300, "count: must be a number within reason (got 1e+300)"),
        ("rate", False, "rate: must be a number (got false)"),
        ("rate", 10**400, "rate: must be a number within reason (got a number of 401 digits"),
        ("rate", "1e400", "rate: must be a number within reason (got '1e400')"),
        ("rate", "10%", "rate: must be a number (got '10%')"),
        ("several", [1, True], "several[1]: must be a number (got true)"),
        ("several", [1, 10**30], "several[1]: must be a number within reason"),
        ("flag", "maybe", "flag: must be true or false (got 'maybe')"),
        ("name", False, "name: must be text (got false); put it in quotes"),
        ("name", 3, "name: must be text (got 3); put it in quotes"),
        ("name", datetime.date(2024, 1, 2), "name: must be text (got 2024-01-02); put it in"),
        ("k\x1b[31m" + "x" * 500, 1, "k\\x1b[31mxxxx"),
    ],
)
def test_a_value_beyond_reason_is_told_in_one_short_line(
    key: str, value: object, said: str
) -> None:
    assert f"s.yaml: {said}" in fault_of(**{key: value})


@pytest.mark.parametrize(("value", "number"), [("1e-4", 1e-4), (1, 1.0), ("3", 3.0), (1e30, 1e30)])
def test_numbers_may_be_written_as_text(value: object, number: float) -> None:
    assert Settings.model_validate({"rate": value}).rate == number


SHAPE = grid_with({})["models"]["a"]["shape"]  # type: ignore[index]  # it is a mapping


@pytest.mark.parametrize("value", [True, -1, 0, 10**9, 10**30, "x", [], {}, 1.5])
@pytest.mark.parametrize(
    "key",
    ["train.epochs", "train.max_length", "models.a.shape.num_hidden_layers", "gpus_per_cell",
     "models.a.shape.num_attention_heads", "models.a.shape.hidden_size", "tasks[0].shots",
     "blocks[0].seeds[0]", "blocks[0].fractions[0]", "blocks[0].methods[0].rank"],
)  # fmt: skip
def test_every_number_of_a_grid_has_bounds(key: str, value: object) -> None:
    name = key.rpartition(".")[2]
    changes: dict[str, dict[str, object]] = {
        "train": {"train": {name: value}},
        "models": {"models": {"a": {"path": "a", "shape": {**SHAPE, name: value}}}},
        "gpus_per_cell": {"gpus_per_cell": value},
        "tasks[0]": {"tasks": [{"name": "arc_easy", "shots": value}]},
        "blocks[0]": {
            "blocks": [
                {"methods": [{"method": "lora", "rank": value if name == "rank" else 4}]}
                | ({name[:-3]: [value]} if name.endswith("[0]") else {})
            ]
        },
    }
    if (name, value) in [("shots", 0), ("seeds[0]", 0), ("seeds[0]", 10**9)]:
        return  # these are good ones
    (fault, *others) = faults_of(grid_with(changes[key.partition(".")[0]]))
    assert fault.startswith("g.yaml: ")
    assert name.removesuffix("[0]") in fault
    assert others == []
    assert len(fault) < 300
    assert "Input should" not in fault
    assert "rank" in GRID


class Inner(Spec):
    margin: float = 1.0


class Outer(Spec):
    claims: list[Inner] = []
    settings: Settings = Settings()


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("margin", "unknown key here; it stands in `claims`"),
        ("rate", "unknown key here; it stands in `settings`"),
        ("claim", "unknown key; did you mean 'claims'?"),
    ],
)
def test_a_key_that_stands_elsewhere_is_told_where(key: str, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate({key: 1})
    assert f"o.yaml: {key}: {said}" in describe_faults(caught.value, "o.yaml", Outer)[0]
