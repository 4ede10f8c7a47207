"""Writes docs/results.md: what a cell leaves behind, field by field.

The tables of records are taken from their classes, so that page and code cannot differ; those of
parquet columns and of MLflow's names are here, and tests compare them with what is written.

    python scripts/make_schema_page.py
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "results.md"

Row = tuple[str, str, str]
"""Name, type, meaning."""

ITEMS: dict[str, tuple[str, str]] = {
    "task": ("str", "lm-eval's task, such as `mmlu_anatomy`"),
    "doc_id": ("int", "number of the item in the task"),
    "question_id": ("str", "the data set's own id, else a hash of the content"),
    "gold": ("int, or list of int", "number of the right choice; a list where several may be true"),
    "acc": ("float", "the item's score, 0..1; 0 or 1 where one choice is right"),
}
"""Columns that every protocol has."""
CHOICE_ITEMS: dict[str, tuple[str, str]] = {
    "choices_loglikelihoods": ("list of float", "nats, summed over the tokens of each choice"),
    "choice_lengths": ("list of int", "characters of each choice, what `acc_norm` divides by"),
    "prediction": ("int", "the most likely choice"),
    "prediction_norm": ("int or missing", "the most likely choice per character"),
    "acc_norm": ("float", "whether `prediction_norm` is right, 0 or 1; where the task has it"),
}
"""Further columns of the protocol `lm-eval`."""
OWN_ITEMS: dict[str, tuple[str, str]] = {
    "question": ("str", "what was asked, as the task's templates put it, at most 2,000 characters"),
    "options": ("list of str", "what there is to choose from, cut likewise"),
    "target": ("str", "the right answer where there is nothing to choose from, cut likewise"),
}
"""Further columns of the benchmarks that do not ship."""
RESPONSE_ITEMS: dict[str, tuple[str, str]] = {
    "response": ("str", "the generated text"),
    "num_tokens": ("int", "tokens of the response"),
    "ended": ("bool", "whether it ended by itself, not at the largest number of tokens"),
    "prediction": ("int or missing", "number of the option that the response is taken for"),
    "several_named": ("bool", "more than one option occurs in the response"),
    "empty": ("bool", "nothing was said"),
    "ratio_alone": ("bool", "no option occurs; the right one is the most similar text"),
    "gold_first": ("bool", "the right option is the first of the list"),
}
"""Further columns of the protocol `paper`; the last four are the response flags."""
PICTURE_ITEMS: dict[str, tuple[str, str]] = {
    "picture": ("str or missing", "SHA-256 of the bytes of the item's picture"),
    "subject": ("str or missing", "ScienceQA: such as `natural science`"),
    "grade": ("str or missing", "ScienceQA: such as `grade7`"),
    "has_text": ("bool", "ScienceQA: whether the question has a hint"),
    "has_image": ("bool", "ScienceQA: whether it has a picture, also where the data lack it"),
    "num_options": ("int", "ScienceQA: how many options it has"),
    "not_extracted": ("bool", "`paper_scienceqa`: the official pattern finds no option"),
}
"""Further columns of benchmarks with pictures."""
RESPONSES: dict[str, tuple[str, str]] = {
    "id": ("str", "of the instruction in its set"),
    "category": ("str", "as its set has it; empty where it has none"),
    "instruction": ("str", "what was asked"),
    "input": ("str", "what stood beside it; mostly empty"),
    "output": ("str", "the answer"),
    "num_tokens": ("int", "of the answer, without the token that ended it"),
    "stop_reason": ("str", "`eos`: the model ended it itself; `length`: cut at the limit"),
    "dataset": ("str", "AlpacaEval's name of where the instruction is from, else the set's"),
}
"""Columns of a cell's answers to instructions."""

PARAMS: dict[str, str] = {
    "model": "name of the base model in the grid",
    "model_source": "its hub repository or folder",
    "model_revision": "branch, tag or commit that the grid names",
    "method": "the registry key, such as `lora`",
    "method_label": "the method's name in the grid",
    "method_title": "its printed title",
    "fraction": "share of the training rows",
    "seed": "of the cell",
    "repeat": "which further training of one configuration and seed it is",
    "seed.*": "what it draws by another seed, such as `seed.order`",
    "data": "hub data set or file of the training rows",
    "world": "the embedded world, such as `demo-1`",
    "method.*": "each option of the method",
    "train.*": "each training setting; `train.resolved_learning_rate` is the peak that they give",
}
METRICS: dict[str, str] = {
    "train/loss": "mean per label token of an optimizer step, in nats; by step",
    "train/learning_rate": "by step",
    "train/tokens_per_second": "by step",
    "train/epoch_loss": "mean per label token of an epoch; by epoch",
    "validation/epoch_loss": "mean per label token of the validation rows after an epoch; by epoch",
    "gate/*": "the method's own statistics, such as `gate/mean_abs`; by step",
    "prompt/*": "the method's own statistics, such as `prompt/gradient_norm`; by step",
    "probe/*": "what the method probed before and after the training",
    "picture_effect": "mean absolute change of a label token's log-likelihood, in nats, when the "
    "picture is replaced by another, on a few training examples; by step, after each epoch",
    "picture_changes": "share of these examples of which a most likely label token changes then",
    "eval/<protocol>/<task>/<metric>": "a score (0..1, or in its unit); with `_stderr`, its error",
    "eval/<protocol>/<task>/responses/<flag>": "number of items whose response raises a flag",
    "cost/train_seconds": "wall-clock time of the training loop",
    "cost/tokens_per_second": "mean over the training",
    "cost/peak_memory_bytes": "peak of the device's allocator, or of the process on a CPU",
    "cost/trainable_parameters": "number of trained parameters",
    "cost/evaluation_seconds/<benchmark>": "wall-clock time of its scoring",
}
TAGS: dict[str, str] = {
    "zbench.kind": "`grid` for the parent run, `cell` for its children, `theory` for a simulation",
    "zbench.grid": "name of the grid",
    "zbench.git_commit": "commit of the checkout that logged the parent run",
    "zbench.cell_id": "id of the cell",
    "zbench.owner": "process that writes the run: host, number, start, machine",
    "zbench.creation": "one attempt to create the run, which is taken up if its answer is lost",
    "zbench.runner.*": "of the parent run: a process that runs cells of the grid",
    "zbench.training": "tells one training of a cell from another",
    "zbench.content": "SHA-256 of the `result.json` that was logged; marks the run as complete",
    "zbench.folder": "the cell's folder",
    "zbench.tuning": "`trial` or `winner`, of a cell that belongs to a tuning",
    "zbench.error": "why the cell failed; empty where it did not",
    "zbench.adapter": "where the adapter lies, if it is too large to be copied",
    "zbench.base.*": "each field of `base`",
    "zbench.image_encoder.*": "each field of `image_encoder`",
    "zbench.estimate.*": "each field of `estimate`",
    "zbench.<field of environment>": "such as `zbench.torch` and `zbench.host`",
}
ARTIFACTS: dict[str, str] = {
    "grid.yaml": "of the parent run: the grid's text, secrets masked",
    "result.json": "the result; logged last",
    "cell.json": "the cell",
    "log.txt": "the log of the process that ran it",
    "steps.parquet": "the course of the training",
    "*.parquet": "what the method kept of its training, such as the course of the gates",
    "items/": "the per-item records",
    "adapter/": "the trained tensors, where they are not too large",
}


def fields_of(file: str, name: str) -> Iterator[Row]:
    """Yields the fields of a record as its file states them.

    Args:
        file: below `harness/`.
        name: of the class.
    """
    tree = ast.parse((ROOT / "harness" / file).read_text(encoding="utf-8"))
    (record,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    for node, after in zip(record.body, [*record.body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign):
            continue
        told = after.value if isinstance(after, ast.Expr) else None
        text = told.value if isinstance(told, ast.Constant) and isinstance(told.value, str) else ""
        yield _stored_name(node), _type(node.annotation), " ".join(text.split())


def _stored_name(node: ast.AnnAssign) -> str:
    """Returns the key in the file: the field's alias where it has one."""
    for keyword in node.value.keywords if isinstance(node.value, ast.Call) else ():
        if keyword.arg == "serialization_alias" and isinstance(keyword.value, ast.Constant):
            return str(keyword.value.value)
    assert isinstance(node.target, ast.Name)
    return node.target.id


def _type(annotation: ast.expr) -> str:
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Annotated":
        assert isinstance(annotation.slice, ast.Tuple)
        annotation = annotation.slice.elts[0]
    text = ast.unparse(annotation)
    for name, kind in (("Count", "int"), ("Finite", "float"), ("Share", "float")):
        text = re.sub(rf"\b{name}\b", kind, text)  # bounds are the reader's
    return text


def table(rows: Iterable[Row]) -> str:
    """Returns rows of name, type and meaning as a table of Markdown."""
    lines = ["| field | type | meaning |", "| --- | --- | --- |"]
    for name, kind, text in rows:
        cells = (f"`{name}`", f"`{kind}`", text)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def columns(known: Mapping[str, tuple[str, str]]) -> str:
    """Returns columns of a parquet file as a table of Markdown."""
    return table((name, kind, text) for name, (kind, text) in known.items())


def names(known: Mapping[str, str]) -> str:
    """Returns names and their meaning as a table of Markdown."""
    lines = ["| name | meaning |", "| --- | --- |"]
    return "\n".join([*lines, *(f"| `{name}` | {text} |" for name, text in known.items())])


def page() -> str:
    """Returns the whole page."""
    results, progress = "records/results.py", "training/progress.py"
    steps = [row for row in fields_of(progress, "StepRecord") if row[0] != "statistics"]
    return f"""# What a cell leaves behind

<!-- Written by `python scripts/make_schema_page.py`; change the records or the script, not this
page. -->

A cell's folder, `runs/cells/<slug>--<id>/`, is the truth; MLflow is a view of it. Keys that
no record has are left out when a file is read, and fields with a default may be absent: files of
older versions stay readable.

## `result.json`

Its first key is `sha256`, the SHA-256 of the file's text without that line: a file that was changed
after it was written is damaged, and said to be.

{table(fields_of(results, "CellResult"))}

### `train`

{table(fields_of(results, "TrainResult"))}

### Each of `scores`

{table(fields_of("records/scores.py", "TaskScore"))}

### `error`

{table(fields_of(results, "CellError"))}

## `cell.json`

The cell as its grid described it. Its id is the beginning of the SHA-256 of what decides the
trained weights, which is `cell` in `result.json`.

{table(fields_of("grid/cells.py", "Cell"))}

## `items/<benchmark>--<key>.parquet`

One row per item; `key` is that of the scores. Columns of every protocol:

{columns(ITEMS)}

Further columns of the protocol `lm-eval` (one per metric; `acc_norm` is such):

{columns(CHOICE_ITEMS)}

Further columns of the protocol `paper`:

{columns(RESPONSE_ITEMS)}

Further columns of benchmarks with pictures (those of `paper_scienceqa` are otherwise the protocol
`paper`'s, without its flags):

{columns(PICTURE_ITEMS)}

Further columns of lm-eval's other tasks and of one's own, beside those of what they ask a model
(choices as above; `loglikelihood`; `response`, `filtered`):

{columns(OWN_ITEMS)}

## `responses/<set>-<hash>.parquet`

Answers to a set of instructions (`zbench generate`), one row per instruction; settings that are not
the default's stand in the name, and of what trains nothing the hash of a template that is not
Alpaca's. The parquet file's own metadata holds under `zbench`, as JSON, what they were made with:
`cell_id`, `weights_sha256`, `base`, `set_name`, `set_sha256`, `decoding`, `prompts` (the template's
identity), `template`, `max_new_tokens`, `num_cut` (prompts that lost
their beginning), `num_rows` (answers side by side), `precision`, `seconds`, `environment`.

{columns(RESPONSES)}

## `steps.parquet`

One row per optimizer step, with a column for each statistic of the method, missing in the steps
between two readings.

{table(steps)}

## `checkpoints/step-<number>/`

`state.safetensors` holds the trained tensors and the optimizer's; `checkpoint.json` is
`{{"sha256", "content"}}`, the SHA-256 being that of the canonical JSON of `content`: `format` (the
version of this file's layout), `identity` (what the training is of), `versions` (of the packages),
`tensors_sha256` (of the other file) and `progress`:

{table(fields_of(progress, "Progress"))}

## `adapter/`

PEFT's `adapter_config.json` and `adapter_model.safetensors`; `trained.safetensors` after full
fine-tuning.

## MLflow

The experiment is the grid's; its parent run is the grid, its child runs are the cells.

### Params

{names(PARAMS)}

### Metrics

{names(METRICS)}

### Tags

{names(TAGS)}

### Artifacts

{names(ARTIFACTS)}
"""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
