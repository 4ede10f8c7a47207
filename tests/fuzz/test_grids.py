"""Mutants of a grid file: each is taken, or refused in short printable lines, and soon.

A few in `make test`, always the same ones; ZBENCH_FUZZ=2000 tries as many, new ones each time.
"""

from __future__ import annotations

import copy
import datetime
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hypothesis")

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import ZbenchError, printable
from harness.estimate.plan import plan_rows
from harness.grid.loader import read_grid
from harness.grid.workspace import open_to_run

NUM_MUTANTS = int(os.environ.get("ZBENCH_FUZZ", "0"))
LONGEST_SECONDS = 20
LONGEST_LINE = 900
GRID = """
name: small
title: A title
notes: [one, two]
world: demo
models:
  tiny:
    path: model
    shape: &shape {num_hidden_layers: 5, hidden_size: 128, intermediate_size: 344,
      num_attention_heads: 4, vocab_size: 1688, tie_word_embeddings: true}
data: {source: null, path: alpaca/train.parquet, num_rows: 600}
train: {epochs: 1, batch_size: 16}
tasks: [{name: demo_arc_easy, limit: 20}, demo_mmlu]
methods:
  x: {method: lora, rank: 4, train: {learning_rate: 3e-3}}
gpus_per_cell: 1
tracking: {experiment: e, uri: "sqlite:///x.db"}
blocks:
  - models: [tiny]
    methods: [{method: lora, label: l, train: {warmup_ratio: 0.1}}, x, base, {adapter: foo}]
    fractions: [0.1]
    seeds: [0]
    tasks: [demo_arc_easy]
"""

odd_text = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["", "~", "~no-such-user/x", "[/x]", "../..", "a\0b", "\x1b[31m", "\ufeff", "\u202e", "con",
         "theory", ".", "1e400", "9" * 60, "0x10", "x" * 300, "base", "lora", "adapter", "model"]
    ),
)  # fmt: skip
odd_value = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(min_value=10**12, max_value=10**80),
        st.floats(),
        odd_text,
        st.just(datetime.date(2024, 1, 2)),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd_text, inner, max_size=3),
    max_leaves=4,
)


def places(tree: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yields the keys and indices of every value below the root."""
    children = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in children:
        yield (*here, key)
        if isinstance(value, dict | list):
            yield from places(value, (*here, key))


@st.composite
def mutants(draw: st.DrawFn) -> str:
    """A grid with some values changed, taken out or added, as YAML."""
    tree = copy.deepcopy(yaml.safe_load(GRID))
    for _ in range(draw(st.integers(1, 4))):
        *path, last = draw(st.sampled_from(sorted(places(tree), key=str)))
        parent = tree
        for step in path:
            parent = parent[step]
        match draw(st.sampled_from(["change", "change", "remove", "add"])):
            case "change":
                parent[last] = draw(odd_value)
            case "remove" if len(tree) > 1:
                del parent[last]
            case _ if isinstance(parent, dict):
                parent[draw(odd_text)] = draw(odd_value)
            case _:
                parent.append(draw(odd_value))
    return yaml.safe_dump(tree, allow_unicode=draw(st.booleans()))


@st.composite
def typos(draw: st.DrawFn) -> str:
    """A grid's text with some characters changed, taken out or added."""
    text = list(GRID)
    odd = st.sampled_from([*"[]{}:,&*!|>%@`'\"#- \t\n\r\x00\x1b~019eE.<", "<<: *shape", "!!int "])
    for _ in range(draw(st.integers(1, 8))):
        index = draw(st.integers(0, len(text) - 1))
        width = draw(st.integers(0, 1))
        text[index : index + width] = draw(st.lists(odd, max_size=1))
    return "".join(text)


@settings(
    max_examples=NUM_MUTANTS or 60,
    derandomize=not NUM_MUTANTS,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(text=mutants() | typos())
def test_a_mutant_is_taken_or_refused_in_short_lines(
    text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "mutant.yaml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    begun = time.monotonic()
    try:
        opened = open_to_run(str(file), Path("no-runs"), None, None)
        plan_rows(opened.states, opened.num_rows)
    except ZbenchError as fault:
        for line in str(fault).split("\n"):
            assert printable(line) == line
            assert len(line) < LONGEST_LINE, line
            assert "Error" not in line, line
            assert "Input should" not in line, line
    assert time.monotonic() - begun < LONGEST_SECONDS


def test_the_grid_itself_lacks_an_adapter_alone(tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text(GRID)
    (fault,) = read_grid(str(tmp_path / "g.yaml")).faults
    assert "blocks[0].methods[3].adapter: " in fault
