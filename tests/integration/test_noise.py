"""A grid that trains for its noise, as a user walks it: planned, run, reported."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pandas as pd
import pytest

from tests.integration.test_end_to_end import shape, zbench

pytestmark = pytest.mark.slow  # whole processes, of six cells

GRID = """
name: noisy
world: demo
models:
  tiny-llama:
    path: model
    shape: {num_hidden_layers: 5, hidden_size: 128, intermediate_size: 344,
            num_attention_heads: 4, vocab_size: %(vocabulary)d, tie_word_embeddings: true}
data: {source: null, path: alpaca/train.parquet, num_rows: 600}
tasks:
  - {name: demo_arc_easy, limit: 6}
  - {name: demo_hellaswag, limit: 12, cluster: %(cluster)s}
  - {name: demo_paper_arc_easy, limit: 4, temperature: 1.0}
train: {epochs: 1, batch_size: 8, learning_rate: 1e-2}
noise: {repeats: 2}
blocks:
  - {methods: [lora], fractions: [0.05]}
  - {methods: [lora], fractions: [0.05], seeds: [0, 1], vary: [order]}
  - {methods: [lora], fractions: [0.05], seeds: [0, 1], vary: [initialization]}
  - {methods: [lora], fractions: [0.05], seeds: [0, 1], vary: [subset]}
"""


VARIED = {
    "order": "seed1-initialization0-subset0",
    "initialization": "seed1-order0-subset0",
    "subset": "seed1-initialization0-order0",
}
"""The folder of the cell that varies a source alone."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("noisy")
    (folder / "g.yaml").write_text(GRID % {**shape(), "cluster": "activity_label"})
    done = zbench(folder, "run-grid", "g.yaml", "--workers", "1")
    assert done.returncode == 0, done.stderr
    return folder


def cells(folder: Path) -> dict[str, dict]:
    """Returns what `result.json` holds by the end of the cell's label."""
    return {
        path.parent.name.rpartition("--")[0].partition("5pct-")[2]: json.loads(path.read_text())
        for path in (folder / "runs" / "cells").glob("*/result.json")
    }


def test_a_repeat_has_the_same_bits_and_draws_its_responses_anew(folder: Path) -> None:
    found = cells(folder)
    assert sorted(found) == sorted(["seed0", "seed0-repeat1", "seed1", *VARIED.values()])
    first, again = found["seed0"], found["seed0-repeat1"]
    assert first["train"]["weights_sha256"] == again["train"]["weights_sha256"]
    assert first["train"]["epoch_losses"] == again["train"]["epoch_losses"]
    values = [{s["benchmark"]: s for s in one["scores"]} for one in (first, again)]
    assert values[0]["demo_arc_easy"]["value"] == values[1]["demo_arc_easy"]["value"]
    drawn = [{s["key"] for s in one["scores"] if s["benchmark"] == "demo_paper_arc_easy"}
             for one in (first, again)]  # fmt: skip
    assert list(map(len, drawn)) == [1, 2]
    assert not drawn[0] & drawn[1]
    assert values[0]["demo_arc_easy"]["key"] == values[1]["demo_arc_easy"]["key"]


def test_each_source_takes_the_seed_alone(folder: Path) -> None:
    found = cells(folder)
    first, other = found["seed0"]["train"], found["seed1"]["train"]
    varied = {name: found[label]["train"] for name, label in VARIED.items()}
    everything = [first, other, *varied.values()]
    assert len({one["weights_sha256"] for one in everything}) == 5
    rows = {name: one["prompts_sha256"] for name, one in varied.items()}
    assert rows["order"] == rows["initialization"] == first["prompts_sha256"]
    assert rows["subset"] == other["prompts_sha256"] != first["prompts_sha256"]
    # Before its first step LoRA is the base model, whatever its initial values.
    begun = {name: first_loss(folder, label) for name, label in VARIED.items()}
    assert begun["initialization"] == first_loss(folder, "seed0") != begun["order"]


def first_loss(folder: Path, label: str) -> float:
    """Returns the loss of a cell's first step."""
    (path,) = (folder / "runs" / "cells").glob(f"*-{label}--*/steps.parquet")
    return float(pd.read_parquet(path)["loss"].iloc[0])


def test_the_report_has_the_floor_and_no_noise_in_its_scores(folder: Path) -> None:
    done = zbench(folder, "report", "g.yaml")
    assert done.returncode == 0, done.stderr
    place = folder / "reports" / "noisy"
    floors = list(csv.DictReader((place / "noise.csv").open(encoding="utf-8")))
    by_likelihood = [row for row in floors if row["protocol"] == "lm-eval"]
    assert {float(row["same_seed_largest_difference"]) for row in by_likelihood} == {0.0}
    assert {row["same_weights"] for row in floors} == {"True"}
    scores = list(csv.DictReader((place / "scores.csv").open(encoding="utf-8")))
    assert {row["seed"] for row in scores if not row["noise"]} == {"0"}
    assert {row["noise"] for row in scores} == {"", "repeat", "seed", "varied"}
    means = list(csv.DictReader((place / "table1.csv").open(encoding="utf-8")))
    assert {row["num_seeds"] for row in means} == {"1"}
    clusters = list(csv.DictReader((place / "clusters.csv").open(encoding="utf-8")))
    assert {row["shared"] for row in clusters} == {"activity_label"}
    variance = list(csv.DictReader((place / "variance.csv").open(encoding="utf-8")))
    for source in VARIED:
        assert {row[f"df_{source}"] for row in variance} == {"1"}
    kept = sorted((folder / "runs" / "cells").glob("*-repeat1--*/items/demo_paper_arc_easy--*"))
    assert len(kept) == 2  # each draw by itself
    page = (place / "index.html").read_text(encoding="utf-8")
    assert "Noise floor" in page
    assert "the repeats have the same bits" in page
    assert "Items and draws of sampled responses" in page


def test_status_and_plan_list_the_cells(folder: Path) -> None:
    status = json.loads(zbench(folder, "status", "g.yaml", "--json").stdout)
    assert [cell["status"] for cell in status["cells"]] == ["done"] * 6
    plan = json.loads(zbench(folder, "plan", "g.yaml", "--json").stdout)
    assert sum("repeat1" in cell["label"] for cell in plan["cells"]) == 1


def test_a_cluster_that_is_no_column_is_refused_in_one_line(folder: Path) -> None:
    (folder / "wrong.yaml").write_text(GRID % {**shape(), "cluster": "activity_labell"})
    done = zbench(folder, "plan", "wrong.yaml")
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.strip()]
    assert "has no column 'activity_labell', the `cluster` of demo_hellaswag" in line
    assert "did you mean 'activity_label'?" in line


def test_naming_a_cluster_scores_nothing_again(folder: Path) -> None:
    (folder / "other.yaml").write_text(GRID % {**shape(), "cluster": "ind"})
    status = json.loads(zbench(folder, "status", "other.yaml", "--json").stdout)
    assert [cell["status"] for cell in status["cells"]] == ["done"] * 6
