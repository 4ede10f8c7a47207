"""The JSON schemas: what ships and what the documents show is accepted, a misspelt key is not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator

from harness.errors import GridError, UsageError
from harness.execution.site import Site
from harness.grid.loader import shipped_grids
from harness.grid.resolver import GridFile, resolve_grid
from harness.grid.sound_part import as_mapping
from harness.prepare.schema import SHIPPED, field_docs, schema_of, schema_text
from harness.readers.yaml_files import parse_yaml

ROOT = Path(__file__).parent.parent.parent
GRIDS = ROOT / "harness" / "grids"
LINE = "# yaml-language-server: $schema=./grid.schema.json"
GRID = schema_of("grid")

WHOLE = """
name: whole
title: Every part of a grid
notes: [a]
models: {a: {path: a, shape: {num_hidden_layers: 2, hidden_size: 64, intermediate_size: 64,
  num_attention_heads: 4, vocab_size: 9}}}
data: {path: train.jsonl, columns: {instruction: q, output: a}, validation: {fraction: 0.1}}
train: {learning_rate: 1e-4, optimizer: {name: muon}}
methods:
  lora: {rank: 4, train: {epochs: 2}}
  narrow: {method: lora, alpha: 8, match: {params: 2K, tolerance: 0.2}}
  oft: {peft: {peft_type: OFT, oft_block_size: 4}}
tasks: [arc_easy, {name: hellaswag, shots: 1, limit: 5}]
tables: [{title: T, columns: [arc_easy, {name: hellaswag, metric: acc_norm},
  {average: {arc_easy: 2, hellaswag: 1}, title: Mean}], rows: [lora], bold: all}]
claims: [{better: lora, than: oft, on: arc_easy, margin: 2}]
noise: {repeats: 2}
seed_sd: {points: 1.2, source: earlier}
tracking: {experiment: e}
blocks:
  - {methods: [base, lora], fractions: [0.1, 1], seeds: [0, 1], vary: [order]}
  - methods: [narrow, {peft: {peft_type: OFT}}, {method: lora, rank: 8, label: wide}]
    tune: {trials: 2, on: {benchmark: mmlu, shots: 0}, pruner: median, space: {
      narrow: {learning_rate: [1e-3, 1e-4]}, oft: {learning_rate: [1e-3, 1e-4]},
      wide: {learning_rate: {low: 1e-4, high: 1e-3, log: true}}}}
"""


def content_of(text: str) -> Any:
    """Returns what zbench reads of a YAML text, which has no fault of YAML."""
    found = parse_yaml(text, Path("g.yaml"))
    assert not found.faults
    return found.content


def faults(schema: dict[str, Any], text: str) -> list[str]:
    """Returns what both drafts of JSON schema find in a YAML text, as zbench reads it."""
    content = content_of(text)
    first, second = (
        [error.json_path for error in draft(schema).iter_errors(content)]
        for draft in (Draft7Validator, Draft202012Validator)
    )
    assert first == second
    return first


def fragments() -> list[tuple[str, str]]:
    """Returns the YAML of the documents that is of a grid, each with its page."""
    pages = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
    found = [
        (page.name, text)
        for page in pages
        for text in re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    ]
    keys = set(GridFile.model_fields)
    return [(page, text) for page, text in found if keys & as_mapping(content_of(text)).keys()]


@pytest.mark.parametrize("kind", sorted(SHIPPED))
def test_the_shipped_schema_is_what_the_command_prints(kind: str) -> None:
    text = (GRIDS / SHIPPED[kind]).read_text(encoding="utf-8")
    assert text == schema_text(kind), f"run: zbench schema {kind} > harness/grids/{SHIPPED[kind]}"
    Draft7Validator.check_schema(json.loads(text))


def test_every_definition_is_there_and_is_used() -> None:
    named = re.findall(r'"#/\$defs/([^"]+)"', json.dumps(GRID))
    assert set(named) == GRID["$defs"].keys()


def test_another_kind_is_refused() -> None:
    with pytest.raises(UsageError, match=r"grd: no such kind of file; did you mean 'grid'"):
        schema_text("grd")


@pytest.mark.parametrize("path", shipped_grids().values(), ids=lambda path: path.stem)
def test_every_shipped_grid_names_the_schema_and_fits_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith(f"{LINE}\n")
    assert (path.parent / LINE.partition("=")[2]).is_file()
    assert faults(GRID, text) == []


def test_what_the_documents_show_fits_the_schema() -> None:
    shown = fragments()
    assert len(shown) > 15
    part = {key: value for key, value in GRID.items() if key != "required"}
    assert [(page, found) for page, text in shown if (found := faults(part, text))] == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("notes: [a]", "note: [a]"),
        ("num_hidden_layers: 2", "num_hidden_layer: 2"),
        ("{path: a, shape", "{pth: a, shape"),
        ("{path: train.jsonl", "{paths: train.jsonl"),
        ("{instruction: q,", "{instructions: q,"),
        ("validation: {fraction: 0.1}", "validation: {fractions: 0.1}"),
        ("train: {learning_rate", "train: {learning_rates"),
        ("lora: {rank: 4", "lora: {rnak: 4"),
        ("train: {epochs: 2}", "train: {epoch: 2}"),
        ("method: lora, alpha: 8, match", "method: lora, alhpa: 8, match"),
        ("params: 2K", "param: 4.2M"),
        ("tolerance: 0.2", "tolerances: 0.2"),
        ("{peft_type: OFT, oft", "{peft_typ: OFT, oft"),
        ("shots: 1, limit: 5", "shot: 1, limit: 5"),
        ("metric: acc_norm", "metrics: acc_norm"),
        ("bold: all", "bolds: all"),
        ("title: Mean", "titles: Mean"),
        ("margin: 2", "margins: 2"),
        ("repeats: 2", "repeat: 2"),
        ("points: 1.2, source", "points: 1.2, sorce"),
        ("experiment: e", "experiments: e"),
        ("seeds: [0, 1]", "seed: [0, 1]"),
        ("method: lora, rank: 8", "method: lora, rnak: 8"),
        ("trials: 2", "trial: 2"),
        ("benchmark: mmlu, shots", "benchmark: mmlu, shot"),
        ("low: 1e-4", "lower: 1e-4"),
        ("fractions: [0.1, 1]", "fractions: [0.1, 2]"),
        ("rank: 4", "rank: 0"),
        ("vary: [order]", "vary: [ordr]"),
    ],
)
def test_what_is_misspelt_or_out_of_bounds_is_refused(old: str, new: str) -> None:
    assert WHOLE.count(old) == 1
    assert faults(GRID, WHOLE) == []
    wrong = WHOLE.replace(old, new)
    changed = next(word for word in re.findall(r"\w+", new) if word not in re.findall(r"\w+", old))
    assert faults(GRID, wrong)
    with pytest.raises(GridError, match=changed):
        resolve_grid(content_of(wrong), place="g.yaml")


def test_the_grid_of_these_tests_has_no_fault() -> None:
    assert resolve_grid(content_of(WHOLE), place="g.yaml").blocks


def test_numbers_may_be_text_and_truth_values_are_none() -> None:
    assert faults(GRID, WHOLE.replace("learning_rate: 1e-4,", 'learning_rate: "0.01",')) == []
    assert faults(GRID, WHOLE.replace("epochs: 2", "epochs: two")) == [
        "$.methods.lora.train.epochs"
    ]
    assert faults(GRID, WHOLE.replace("epochs: 2", "epochs: true"))


def test_methods_of_other_packages_pass() -> None:
    assert faults(GRID, WHOLE.replace("lora: {rank: 4", "norms: {whatever: 4")) == []


def test_what_no_grid_says_stands_in_no_schema() -> None:
    defs = GRID["$defs"]
    assert not {"include", "files", "draw"} & defs["TaskSpec"]["properties"].keys()
    assert "sha256" not in defs["ValidationSpec"]["properties"]
    assert "sha256" not in defs["method.adapter"]["properties"]


def test_every_key_is_described_by_its_docstring() -> None:
    lacking = [name for name, entry in GRID["properties"].items() if not entry.get("description")]
    assert lacking == []
    assert field_docs(Site).keys() == Site.model_fields.keys()
    block = GRID["$defs"]["BlockFile"]["properties"]["data"]["description"]
    assert block == "Name in the grid's `datasets`; the grid's `data` where absent."


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("{executor: slurm, sbatch: '--partition gpu', setup: [module load cuda]}", True),
        ("{executor: slurm, max_parallel: 4, warn_seconds: 60, max_requeues: 0}", True),
        ("{sbtach: '--partition gpu'}", False),
        ("{max_parallel: 0}", False),
    ],
)
def test_site_files(text: str, fits: bool) -> None:
    assert (faults(schema_of("site"), text) == []) is fits
