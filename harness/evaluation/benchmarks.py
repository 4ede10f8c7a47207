"""The benchmarks with an entry of their own; every other task of lm-eval is in `own_benchmarks`.

What the YAML of an lm-eval task says (shots, metrics, splits, data set, decoding) comes from there;
an entry adds what it does not say, and what this package sets otherwise. Imports nothing heavy, so
that planning stays quick.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from harness.evaluation.benchmark import Benchmark, Decoding, Form
from harness.evaluation.metric_kinds import MetricKind
from harness.evaluation.protocols import LM_EVAL, PAPER, SCIENCEQA, Protocol
from harness.evaluation.task_files import find_task

MACRO_METRIC = "acc_macro"
"""Mean of acc over the subjects of a group; ours, beside lm-eval's own mean over all items."""

HELLASWAG_SAMPLE = "hellaswag/train_sample_no_activity_label.parquet"
"""Stands in for HellaSwag's training split, for few-shot examples only; see `fallback_note`."""


def _entry(name: str, folder: str, like: Benchmark | None = None, **own: Any) -> Benchmark:
    """A benchmark as the YAML of its task in a folder (`package:folder`) defines it.

    `own` are fields that the YAML does not decide, or that this package sets otherwise; all others
    are those of `like`.
    """
    inherited = vars(like) if like else {}
    fields: dict[str, Any] = {"data_folder": name, "protocol": LM_EVAL} | inherited | own
    protocol: Protocol = fields["protocol"]
    task = find_task(folder, name)
    assert task is not None, f"{folder} has no task '{name}'"
    kinds = ("training_split", "validation_split", "test_split", "fewshot_split")
    metrics = [one["metric"] for one in task["metric_list"]]
    if fields.get("subject_column"):
        metrics.append(MACRO_METRIC)
    takes_examples = task.get("num_fewshot") != 0  # lm-eval: 0 says that the prompt is fixed
    examples = task.get("fewshot_split") or task.get("training_split")
    primary = fields.get("primary_metric", "acc")
    directions = {one["metric"]: one.get("higher_is_better", True) for one in task["metric_list"]}
    path, generation = task.get("dataset_path"), task.get("generation_kwargs", {})
    decoding = None
    if protocol.generates:
        limit = generation["max_gen_toks"]
        decoding = Decoding(generation["temperature"], generation["top_p"], limit)
    defined = {
        "name": name,
        "task_folder": folder,
        "shots": task.get("num_fewshot") or 0,
        "metrics": tuple(one for one in metrics if one not in protocol.response_flags),
        "splits": tuple(dict.fromkeys(task[kind] for kind in kinds if task.get(kind))),
        "eval_split": task.get("test_split") or task["validation_split"],
        "few_shot_split": examples if takes_examples else None,
        "higher_is_better": directions.get(primary, True),
        "kinds": {name: MetricKind(better) for name, better in directions.items()},
        "hub": (path, task.get("dataset_name")) if path else None,
        "decoding": decoding,
    }
    return Benchmark(**fields | defined | own)


_ARC: dict[str, Any] = {
    "columns": ("id", "question", "choices", "answerKey"),
    "form": Form("choices.text", "answerKey", labels="choices.label"),
    "id_column": "id",
    # The mean of 1 / number of options over the items.
    "chance": 0.2502,
}
_TRUTHFULQA: dict[str, Any] = {"data_folder": "truthfulqa_mc", "shares_requests": "truthfulqa"}

_SCIENCEQA: dict[str, Any] = {
    "data_folder": "scienceqa",
    "column": "ScienceQA",
    "columns": ("question", "choices", "answer", "hint"),
    "optional_columns": ("image", "has_image", "pid", "subject", "grade"),
    "picture_column": "image",
    "item_function": "harness.evaluation.scienceqa.documents:item_columns",
    "form": Form("choices", "answer"),
    "id_column": "pid",
    # The mean of 1 / number of options over the items.
    "chance": 0.4,
    "fallbacks": {"test": "scienceqa/test_text.parquet"},
    "fallback_note": "the items come from test_text.parquet, which has no pictures",
}

_REAL: tuple[Benchmark, ...] = (
    _entry("arc_easy", "lm_eval:tasks/arc", title="ARC-Easy", column="ARC-e", **_ARC),
    _entry("arc_challenge", "lm_eval:tasks/arc", title="ARC-Challenge", column="ARC-c", **_ARC),
    _entry(
        "mmlu",
        "lm_eval:tasks/mmlu/default",
        title="MMLU",
        column="MMLU",
        columns=("question", "subject", "choices", "answer"),
        form=Form("choices", "answer", num_options=4),
        subject_column="subject",
        chance=0.25,
    ),
    _entry(
        "hellaswag",
        "lm_eval:tasks/hellaswag",
        title="HellaSwag",
        column="HellaSwag",
        shots=10,
        # Only acc_norm can give the published 76.79 of a LLaMA-7B.
        primary_metric="acc_norm",
        columns=("activity_label", "ctx_a", "ctx_b", "endings", "label"),
        form=Form("endings", "label", number_as_text=True),
        chance=0.25,
        fallbacks={"train": HELLASWAG_SAMPLE},
        fallback_note=(
            "few-shot examples come from a 1000-row sample of the training split whose activity "
            "labels are missing, so they lack the 'Activity: ' opening"
        ),
    ),
    _entry(
        "truthfulqa_mc1",
        "lm_eval:tasks/truthfulqa",
        title="TruthfulQA MC1",
        column="TruthfulQA",
        columns=("question", "mc1_targets"),
        form=Form("mc1_targets.choices", truths="mc1_targets.labels", first_is_true=True),
        chance=0.2261,
        **_TRUTHFULQA,
    ),
    _entry(
        "truthfulqa_mc2",
        "lm_eval:tasks/truthfulqa",
        title="TruthfulQA MC2",
        column=None,
        columns=("question", "mc2_targets"),
        form=Form("mc2_targets.choices", truths="mc2_targets.labels"),
        true_labels="mc2_targets",
        # The mean probability of the true answers, not a share of right ones: chance stays None.
        **_TRUTHFULQA,
    ),
    _entry("scienceqa", "harness:evaluation/scienceqa/tasks", title="ScienceQA", **_SCIENCEQA),
)


def _generated(real: str, name: str, title: str, **own: Any) -> Benchmark:
    """A benchmark's items under the paper's protocol."""
    return _entry(
        name,
        "harness:evaluation/paper/tasks",
        next(entry for entry in _REAL if entry.name == real),
        protocol=PAPER,
        title=f"{title} (generated)",
        # A response is no choice at random: it may name none.
        chance=None,
        shares_requests=None,
        **own,
    )


_PAPER = (
    _generated("arc_easy", "paper_arc_easy", "ARC-Easy"),
    _generated("arc_challenge", "paper_arc_challenge", "ARC-Challenge"),
    _generated("mmlu", "paper_mmlu", "MMLU"),
    _generated("truthfulqa_mc1", "paper_truthfulqa", "TruthfulQA"),
    _generated(
        "truthfulqa_mc1",
        "paper_truthfulqa_shuffled",
        "TruthfulQA, options shuffled",
        column=None,
    ),
    _entry(
        "paper_scienceqa",
        "harness:evaluation/scienceqa/tasks",
        title="ScienceQA (generated)",
        protocol=SCIENCEQA,
        **_SCIENCEQA,
    ),
)


def _demo(real: Benchmark) -> Benchmark | None:
    """A benchmark's analogue in the embedded world; None where there is no YAML of one."""
    name = f"demo_{real.name}"
    folder = "harness:demo/tasks"
    if real.protocol is not LM_EVAL:  # a protocol of this package has its tasks in its own folder
        folder = real.task_folder.removesuffix("tasks") + "demo_tasks"
    if find_task(folder, name) is None:
        return None
    analogue = _entry(
        name,
        folder,
        real,
        world="demo",
        title=f"Demo {real.title}",
        shares_requests=real.shares_requests and f"demo_{real.shares_requests}",
        # All of its questions have four options.
        chance=None if real.chance is None else 0.25,
        fallbacks={},
        fallback_note=None,
    )
    if analogue.decoding is not None:
        limit = f", at most {analogue.decoding.max_new_tokens} tokens)"
        return replace(analogue, title=analogue.title[:-1] + limit)
    if real.name == "hellaswag":
        return replace(analogue, columns=("activity_label", "ctx", "endings", "label"))
    return analogue


_ASKED: dict[str, Any] = {
    "world": "demo",
    "data_folder": "pictures",
    "column": None,
    "columns": ("id", "question", "choices", "answerKey", "image", "asked", "pair"),
    "form": Form("choices.text", "answerKey", labels="choices.label"),
    "id_column": "id",
    "picture_column": "image",
    "item_columns": ("asked", "pair"),
    "chance": 0.25,
}
_PICTURES = tuple(
    _entry(
        f"demo_pictures{control}",
        "harness:demo/tasks",
        title=f"Demo pictures{how}",
        is_control=bool(control),
        **_ASKED,
    )  # fmt: skip
    for control, how in (
        ("", ""),
        ("_shuffled", ", of another item"),
        ("_removed", ", not shown"),
    )
)

BENCHMARKS: dict[str, Benchmark] = {
    entry.name: entry
    for entry in (*_REAL, *_PAPER, *map(_demo, (*_REAL, *_PAPER)), *_PICTURES)
    if entry is not None
}
