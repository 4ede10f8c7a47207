"""`seed_sd` of a grid: its forms, its meaning, and every fault with its place."""

from __future__ import annotations

import pytest
import yaml

from harness.errors import GridError
from harness.grid.resolver import resolve_grid
from harness.grid.schema import expand
from harness.grid.seed_sd import SeedSd, SeedSds

GRID = """
name: mine
models: {tiny: {path: tiny, shape: {num_hidden_layers: 2, hidden_size: 8, intermediate_size: 16,
  num_attention_heads: 2, vocab_size: 32}}}
tasks: [arc_easy, hellaswag]
tables: [{columns: [arc_easy, {average: [arc_easy, hellaswag], title: Mean}]}]
blocks: [{methods: [base, lora]}]
"""


def read(part: str = "{}"):
    return resolve_grid(yaml.safe_load(GRID) | yaml.safe_load(part), place="m.yaml")


@pytest.mark.parametrize(
    ("part", "found"),
    [
        ("seed_sd: 1.2", SeedSds(every=SeedSd(points=1.2))),
        ("seed_sd: 1e-1", SeedSds(every=SeedSd(points=0.1))),
        (
            "seed_sd: {points: 1.2, source: re-runs of PEFT}",
            SeedSds(every=SeedSd(points=1.2, source="re-runs of PEFT")),
        ),
        (
            "seed_sd: {Mean: 0.8, hellaswag: {points: 2, source: x}}",
            SeedSds(
                by_column={"Mean": SeedSd(points=0.8), "hellaswag": SeedSd(points=2, source="x")}
            ),
        ),
        ("{}", None),
    ],
)
def test_its_forms(part: str, found: SeedSds | None) -> None:
    assert read(part).seed_sd == found


def test_a_column_has_its_own_value_and_else_a_share_the_common_one() -> None:
    every = SeedSds(every=SeedSd(points=1))
    assert every.of("Mean", is_share=True) == SeedSd(points=1)
    assert every.of("wikitext", is_share=False) is None
    own = SeedSds(by_column={"wikitext": SeedSd(points=0.3)})
    assert own.of("Perplexity", "wikitext", is_share=False) == SeedSd(points=0.3)
    assert own.of("Mean", is_share=True) is None


def test_it_is_no_part_of_a_cell() -> None:
    assert [cell.id for cell in expand(read("seed_sd: 3"))] == [c.id for c in expand(read())]


NO_NUMBER = "seed_sd: must be a number of points above 0, such as 1.2 (got "


@pytest.mark.parametrize(
    ("part", "line"),
    [
        ("seed_sd: 0", NO_NUMBER + "0)"),
        ("seed_sd: -1", NO_NUMBER + "-1)"),
        ("seed_sd: true", NO_NUMBER + "true)"),
        ("seed_sd: wide", NO_NUMBER + "wide)"),
        ("seed_sd: .inf", NO_NUMBER + "inf)"),
        ("seed_sd: [1.2]", NO_NUMBER + "[1.2])"),
        ("seed_sd: 1200", "seed_sd: no share varies by more than 50 points (got 1200)"),
        ("seed_sd: {}", "seed_sd: is empty; add a number of points"),
        ("seed_sd: {source: x}", "seed_sd: 'points' is missing; add it"),
        ("seed_sd: {points: -1}", "seed_sd.points: must be more than 0"),
        ("seed_sd: {points: 1, sauce: x}", "seed_sd.sauce: unknown key; did you mean 'source'?"),
        ("seed_sd: {Mean: 0}", "seed_sd.Mean: must be a number of points above 0"),
        ("seed_sd: {Mean: {point: 1}}", "seed_sd.Mean"),
        ("seed_sd: {Meen: 1}", "seed_sd: no column 'Meen' is measured; did you mean 'Mean'?"),
    ],
)
def test_a_fault_is_one_line_with_its_place(part: str, line: str) -> None:
    with pytest.raises(GridError) as told:
        read(part)
    first, *others = str(told.value).splitlines()
    assert first.startswith(f"m.yaml: {line}")
    assert all("seed_sd" in other for other in others)


def test_faults_of_several_columns_come_at_once() -> None:
    with pytest.raises(GridError) as told:
        read("seed_sd: {Mean: 0, arc_easy: -2}")
    assert len(str(told.value).splitlines()) == 2
