"""Writes harness/grids/peft-suite.yaml: PEFT's published comparison as a grid.

Its cells are the rows of harness/analysis/peft_suite.json, with the options that the installed PEFT
takes; what it does not take, and what is trained otherwise, is named beside them.

    python scripts/make_peft_suite.py
"""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from harness.analysis.peft_suite import (
    TORCH_WEIGHT_DECAY,
    SuiteRow,
    ranks_told_apart,
    suite_table,
)
from harness.methods.pass_through import PeftOptions
from harness.methods.peft_settings import config_class
from harness.methods.peft_types import REFUSED_TYPES, SET_HERE

ROOT = Path(__file__).resolve().parent.parent
GRID = ROOT / "harness" / "grids" / "peft-suite.yaml"

LEARNING_RATE, WEIGHT_DECAY = 1e-4, 0.1
"""The suite's defaults."""
STARTS = ("init_weights", "prompt_tuning_init")
"""Options that say how an adapter begins: rows that differ in these and in their training alone are
one method's tuning."""

HEAD = """\
# yaml-language-server: $schema=./grid.schema.json
# Written by scripts/make_peft_suite.py from harness/analysis/peft_suite.json; change these instead.
name: peft-suite
title: PEFT's method comparison on MetaMathQA and GSM8K, with error bars
notes:
{notes}

models:
  llama-3.2-3b:
    source: meta-llama/Llama-3.2-3B
    revision: {model}
    shape: {{num_hidden_layers: 28, hidden_size: 3072, intermediate_size: 8192,
            num_attention_heads: 24, num_key_value_heads: 8, head_dim: 128, vocab_size: 128256,
            tie_word_embeddings: true}}

data:
  source: meta-math/MetaMathQA
  revision: {data}
  columns: {{prompt: query, completion: response}}
  # The suite's filter: at most 1,300 characters, with a blank between the two.
  where: query|length + response|length < 1300
  template: "Question: {{{{ prompt }}}} Think step by step.\\n\\
    Answer:{{% generation %}}{{{{ completion }}}}{{% endgeneration %}}"
  loss: all                          # the query too, as in the suite
  validation: {{fraction: 0.001}}      # to choose by; its loss is measured once, at the end

include: ../evaluation/peft_suite/tasks
tasks: [peft_gsm8k, forgetting]

train:
  {{max_steps: 5000, batch_size: 4, max_length: 768, learning_rate: 1e-4, weight_decay: 0.1,
   schedule: cosine, warmup_ratio: 0.1, max_gradient_norm: 1.0, precision: bf16}}

compare: lora-rank32
published_runs: peft-suite
seed_sd:
  peft_gsm8k:
    {{points: 1.2, source: "51 configurations of the suite, each run again with the same seed"}}
"""


def notes() -> list[str]:
    """Caveats of the whole grid."""
    table = suite_table()
    apart = ranks_told_apart(table.rows, table.num_items)
    return [
        f"Published rows: {table.source}; {table.software}.",
        f"Every published row is one training with seed 0. Of {len(table.rows) - 1} pairs of "
        f"neighbours in the ranking the {table.num_items:,} test items alone tell {len(apart)} "
        f"apart, behind ranks {', '.join(map(str, apart))} (Fisher's exact test, each at 5%).",
        "The suite trains on the first 20,000 rows in the order of the file, bucketed by length; "
        "here the seed draws the order of all rows, of which as many are seen, and a thousandth is "
        "held out. EOS is learned of every row; in the suite not of a batch's longest.",
        "Adapters are trained in fp32 on a base in bf16 under autocast; the suite computes them in "
        "fp32 without. Biases and norms have no weight decay here, in the suite they have.",
        "The suite leaves sampling open, and transformers 5 takes it from the checkpoint's "
        "generation_config.json: where that samples, the published answers were drawn. Here they "
        "are the likeliest ones; `peft_gsm8k_sampled` draws them at temperature 0.6 and top_p 0.9.",
        "As in the suite, an answer of 1000 is wrong where the right one is written 1,000: 14 of "
        "GSM8K's test items are.",
    ]


def settings_of(row: SuiteRow) -> tuple[dict[str, Any], list[str]]:
    """A row's options as a grid has them, and those that the installed PEFT does not take."""
    assert row.adapter is not None
    kind = row.adapter["peft_type"]
    fields = {field.name: field for field in dataclasses.fields(config_class(kind)) if field.init}
    stated = {
        name: value
        for name, value in row.adapter.items()
        if name not in SET_HERE and name != "peft_type"
    }
    gone = sorted(name for name in stated if name not in fields)
    kept = {
        name: value
        for name, value in stated.items()
        if name in fields and value != fields[name].default
    }
    return {"peft_type": kind, **kept}, gone


def entry_of(row: SuiteRow) -> tuple[dict[str, Any] | None, str | None]:
    """A row's entry of a grid's methods, and what a reader must know of it; no entry where zbench
    refuses it."""
    told: list[str] = []
    entry: dict[str, Any] = {"method": "full"}
    if row.adapter is not None:
        settings, gone = settings_of(row)
        if settings["peft_type"] in REFUSED_TYPES:
            return None, f"{settings['peft_type']} {REFUSED_TYPES[settings['peft_type']]}"
        entry = {"peft": settings}
        if gone:
            told.append(f"the installed PEFT takes no {', '.join(gone)} of this type any more")
        told += DIFFERENT.get(settings["peft_type"], [])
    else:
        told.append("trained in fp32 masters, in the suite in bf16")
    if row.training["optimizer_type"] == "lora-fa":
        entry["lora_fa"] = True
        told.append("LoRA-FA projects in fp32, in the suite in bf16; epsilon 1e-8, there 1e-6")
    if (text := row.training["init_kv_cache_prefix"]) is not None:
        entry["init_text"] = text
    if not row.training["autocast_adapter_dtype"]:
        told.append(
            "trained in fp32, in the suite in the base's bf16 (autocast_adapter_dtype: false)"
        )
    if train := training_of(row):
        entry["train"] = train
    _check(entry)
    return entry, "; ".join(told) or None


DIFFERENT = {
    "ADALORA": ["matrices keep the ranks that were taken away, as zeros"],
    "PVERA": ["its noise is drawn for each sequence, in the suite for each batch"],
    "BEFT": ["no weight decay on biases"],
    "LN_TUNING": ["no weight decay on norms"],
}
"""What of a type is trained otherwise than the suite does."""


def training_of(row: SuiteRow) -> dict[str, Any]:
    """The training settings of a row that differ from the grid's."""
    options = row.training["optimizer_kwargs"]
    train: dict[str, Any] = {}
    if options["lr"] != LEARNING_RATE:
        train["learning_rate"] = options["lr"]
    decay = options.get("weight_decay", TORCH_WEIGHT_DECAY)
    if decay != WEIGHT_DECAY:
        train["weight_decay"] = decay
    return train


def _check(entry: Mapping[str, Any]) -> None:
    """Fails where zbench does not take an entry after all."""
    if "peft" in entry:
        options = {key: entry[key] for key in ("peft", "lora_fa", "init_text") if key in entry}
        try:
            PeftOptions.model_validate(options)
        except ValidationError as fault:
            raise SystemExit(f"{entry}: {fault}") from fault


def gathered() -> Iterator[tuple[str, list[str]]]:
    """Yields the rows of one method that differ in their training and start alone."""
    groups: dict[str, list[str]] = {}
    kinds: dict[str, str] = {}
    for row in suite_table().rows:
        if row.adapter is not None and row.training["init_kv_cache_prefix"] is None:
            same = {key: value for key, value in row.adapter.items() if key not in STARTS}
            if row.training["optimizer_type"] == "AdamW" and same["peft_type"] != "LORA":
                key = json.dumps(same, sort_keys=True)
                groups.setdefault(key, []).append(row.label)
                kinds[key] = same["peft_type"]
    for key, labels in groups.items():
        if len(labels) > 1 and kinds[key] not in REFUSED_TYPES and kinds[key] != "MISS":
            yield kinds[key], labels


def _in_line(entry: Mapping[str, Any]) -> str:
    """An entry as YAML of one line."""
    return str(yaml.safe_dump(entry, default_flow_style=True, sort_keys=False, width=10**6)).strip()


def grid_text() -> str:
    """The grid file."""
    table = suite_table()
    fill = partial(textwrap.fill, width=100, initial_indent="    ", subsequent_indent="    ",
                   break_on_hyphens=False)  # fmt: skip
    lines = [f"  - >-\n{fill(note)}" for note in notes()]
    text = HEAD.format(
        notes="\n".join(lines),
        model=table.revisions["model"],
        data=table.revisions["meta-math/MetaMathQA"],
    )
    entries = {row.label: entry_of(row) for row in table.rows}
    text += "\nmethods:\n"
    for label, (entry, _) in entries.items():
        if entry is not None:
            text += f"  {label}: {_in_line(entry)}\n"
    text += "\ngather:    # one method under several rates and starts\n"
    text += "".join(f"  {name}: [{', '.join(labels)}]\n" for name, labels in gathered())
    text += "\nremarks:\n"
    for label, (entry, told) in entries.items():
        if entry is not None and told:
            text += f"  {label}: {json.dumps(told)}\n"
    text += "\nleft_out:\n"
    for label, (entry, told) in entries.items():
        if entry is None:
            text += f"  {label}: {json.dumps(told)}\n"
    labels = [label for label, (entry, _) in entries.items() if entry is not None]
    text += "\nblocks:\n  - methods: [base]\n  - methods:\n"
    text += "".join(f"      - {label}\n" for label in labels)
    return text + "    seeds: [0]    # the suite's one; more seeds: [0, 1, 2]\n"


if __name__ == "__main__":
    GRID.write_text(grid_text(), encoding="utf-8")
