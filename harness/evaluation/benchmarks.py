"""The benchmarks that a grid may list: lm-eval's own tasks, and what they read.

A new benchmark is one entry here. Imports nothing heavy, so that planning stays quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

MACRO_METRIC = "acc_macro"
"""Mean of acc over the subjects of a group; ours, beside lm-eval's own mean over all items."""

HELLASWAG_SAMPLE = "hellaswag/train_sample_no_activity_label.parquet"
"""Stands in for HellaSwag's training split, for few-shot examples only; see `fallback_note`."""


@dataclass(frozen=True)
class Decoding:
    """How responses are generated."""

    temperature: float
    """Logits are divided by it; 0 takes the likeliest token."""
    top_p: float
    """Of each step's tokens the likeliest are kept, until their probability reaches it."""
    max_new_tokens: int
    seed: int


@dataclass(frozen=True)
class Benchmark:
    """One benchmark under one protocol."""

    name: str
    """The word in a grid."""
    title: str
    column: str | None
    """The column of the paper's tables that it fills, or None."""
    lm_eval_tasks: str
    """The task or group of lm-eval (or of `task_folder`) that is run."""
    task_folder: str
    """Where its YAML lies: `lm_eval:` and a folder of lm_eval/tasks, or `harness:` and one of
    this package."""
    shots: int
    """The number of few-shot examples by definition."""
    metrics: tuple[str, ...]
    primary_metric: str
    """The metric that tables show and averages use."""
    eval_split: str
    files: Mapping[str, str]
    """Local parquet file by split, relative to the data root."""
    columns: tuple[str, ...]
    """What the task reads of each row."""
    hub: tuple[str, str | None] | None
    """Repository and configuration of the data set on the hub; None where it is only local."""
    few_shot_split: str | None = None
    """Where few-shot examples come from; None where the task cannot take any."""
    subject_column: str | None = None
    """In a group of one task per subject: the column that tells the subjects apart."""
    id_column: str | None = None
    """The data set's own name of an item."""
    true_labels: str | None = None
    """Column whose `labels` tell which options are true, where several may be."""
    chance: float | None = None
    """Expected primary metric of a uniformly random answer; None where that is not defined."""
    protocol: str = "lm-eval"
    shares_requests: str | None = None
    """Benchmarks of one name here have requests in common: asked for together, they are scored
    together."""
    fallbacks: Mapping[str, str] = field(default_factory=dict)
    """By split: a local file to read instead where the one in `files` is absent."""
    fallback_note: str | None = None
    """The deviation to print beside a score that was measured with a fallback."""
    decoding: Decoding | None = None
    """Of free generation; None where log-likelihoods are scored."""
    pathologies: tuple[str, ...] = ()
    """What the task counts of its responses beside the metrics."""

    def split_files(self, shots: int) -> dict[str, str]:
        """Returns the files that a run with `shots` reads, by split: few-shot data only if used."""
        splits = [self.eval_split]
        if shots and self.few_shot_split:
            splits.append(self.few_shot_split)
        return {split: self.files[split] for split in splits}


def _arc(name: str, title: str, column: str, configuration: str, *, chance: float) -> Benchmark:
    return Benchmark(
        name=name,
        title=title,
        column=column,
        lm_eval_tasks=name,
        task_folder="lm_eval:arc",
        shots=0,
        metrics=("acc", "acc_norm"),
        primary_metric="acc",
        eval_split="test",
        few_shot_split="train",
        files={split: f"{name}/{split}.parquet" for split in ("train", "validation", "test")},
        columns=("id", "question", "choices", "answerKey"),
        hub=("allenai/ai2_arc", configuration),
        id_column="id",
        chance=chance,
    )


def _truthfulqa(name: str, title: str, column: str | None, *, chance: float | None) -> Benchmark:
    targets = "mc1_targets" if name.endswith("mc1") else "mc2_targets"
    return Benchmark(
        name=name,
        title=title,
        column=column,
        lm_eval_tasks=name,
        task_folder="lm_eval:truthfulqa",
        shots=0,
        metrics=("acc",),
        primary_metric="acc",
        eval_split="validation",
        files={"validation": "truthfulqa_mc/validation.parquet"},
        columns=("question", targets),
        hub=("truthfulqa/truthful_qa", "multiple_choice"),
        true_labels=targets if targets == "mc2_targets" else None,
        shares_requests="truthfulqa",
        chance=chance,
    )


_REAL = (
    # Chance is the mean of 1 / number of options over the items, as far as options vary.
    _arc("arc_easy", "ARC-Easy", "ARC-e", "ARC-Easy", chance=0.2502),
    _arc("arc_challenge", "ARC-Challenge", "ARC-c", "ARC-Challenge", chance=0.2502),
    Benchmark(
        name="mmlu",
        title="MMLU",
        column="MMLU",
        lm_eval_tasks="mmlu",
        task_folder="lm_eval:mmlu/default",
        shots=0,
        metrics=("acc", MACRO_METRIC),
        primary_metric="acc",
        eval_split="test",
        few_shot_split="dev",
        files={"test": "mmlu/test.parquet", "dev": "mmlu/dev.parquet"},
        columns=("question", "subject", "choices", "answer"),
        hub=("cais/mmlu", None),
        subject_column="subject",
        chance=0.25,
    ),
    Benchmark(
        name="hellaswag",
        title="HellaSwag",
        column="HellaSwag",
        lm_eval_tasks="hellaswag",
        task_folder="lm_eval:hellaswag",
        shots=10,
        metrics=("acc", "acc_norm"),
        # Only acc_norm can give the published 76.79 of a LLaMA-7B.
        primary_metric="acc_norm",
        eval_split="validation",
        few_shot_split="train",
        files={
            "train": "hellaswag/train.parquet",
            "validation": "hellaswag/validation.parquet",
        },
        columns=("activity_label", "ctx_a", "ctx_b", "endings", "label"),
        hub=("Rowan/hellaswag", None),
        chance=0.25,
        fallbacks={"train": HELLASWAG_SAMPLE},
        fallback_note=(
            "few-shot examples come from a 1000-row sample of the training split whose activity "
            "labels are missing, so they lack the 'Activity: ' opening"
        ),
    ),
    _truthfulqa("truthfulqa_mc1", "TruthfulQA MC1", "TruthfulQA", chance=0.2261),
    # mc2 is the mean probability of the true answers, not a share of right ones.
    _truthfulqa("truthfulqa_mc2", "TruthfulQA MC2", None, chance=None),
)

PAPER = "paper"
"""The protocol of the published ARC, MMLU and TruthfulQA numbers: see docs/paper-protocol.md."""

PAPER_DECODING = Decoding(temperature=0.1, top_p=0.75, max_new_tokens=512, seed=1)


def _generated(real: Benchmark, name: str, title: str, **changes: Any) -> Benchmark:
    """Returns a benchmark's items under the paper's protocol."""
    generated = replace(
        real,
        name=name,
        title=f"{title} (generated)",
        lm_eval_tasks=name,
        task_folder="harness:evaluation/paper/tasks",
        shots=0,
        few_shot_split=None,
        metrics=("acc", MACRO_METRIC) if real.subject_column else ("acc",),
        primary_metric="acc",
        # A response is no choice at random: it may name none.
        chance=None,
        protocol=PAPER,
        shares_requests=None,
        decoding=PAPER_DECODING,
        pathologies=("several_named", "empty", "ratio_alone", "gold_first"),
    )
    return replace(generated, **changes)


_OF_NAME = {entry.name: entry for entry in _REAL}
_PAPER = (
    _generated(_OF_NAME["arc_easy"], "paper_arc_easy", "ARC-Easy"),
    _generated(_OF_NAME["arc_challenge"], "paper_arc_challenge", "ARC-Challenge"),
    _generated(_OF_NAME["mmlu"], "paper_mmlu", "MMLU"),
    _generated(_OF_NAME["truthfulqa_mc1"], "paper_truthfulqa", "TruthfulQA"),
    _generated(
        _OF_NAME["truthfulqa_mc1"],
        "paper_truthfulqa_shuffled",
        "TruthfulQA, options shuffled",
        column=None,
    ),
)

_DEMO_TOKENS = 32
"""What the demo's models may generate: its answers have 1 to 16 tokens."""

_DEMO_DIFFERENCES: dict[str, dict[str, Any]] = {
    # Options are scored by their text, as in lm-eval's mmlu_continuation.
    "mmlu": {"metrics": ("acc", "acc_norm", MACRO_METRIC)},
    "hellaswag": {"columns": ("activity_label", "ctx", "endings", "label")},
}


def _demo(real: Benchmark) -> Benchmark:
    """Returns the embedded world's analogue: another YAML, the same file layout and code path."""
    analogue = replace(
        real,
        name=f"demo_{real.name}",
        shares_requests=real.shares_requests and f"demo_{real.shares_requests}",
        title=f"Demo {real.title}",
        lm_eval_tasks=f"demo_{real.name}",
        task_folder="harness:demo/tasks",
        shots=0,
        hub=None,
        # All of its questions have four options.
        chance=None if real.chance is None else 0.25,
        fallbacks={},
        fallback_note=None,
    )
    if real.decoding is not None:
        analogue = replace(
            analogue,
            title=f"{analogue.title[:-1]}, at most {_DEMO_TOKENS} tokens)",
            task_folder="harness:evaluation/paper/demo_tasks",
            decoding=replace(real.decoding, max_new_tokens=_DEMO_TOKENS),
        )
    return replace(analogue, **_DEMO_DIFFERENCES.get(real.name, {}))


BENCHMARKS: dict[str, Benchmark] = {
    entry.name: entry for entry in (*_REAL, *_PAPER, *map(_demo, (*_REAL, *_PAPER)))
}
