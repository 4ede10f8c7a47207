"""The model card of a trained cell: its origin, its scores, and the grid that trains it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from harness.evaluation.shown import shown_result
from harness.evaluation.tasks import TaskSpec
from harness.grid.cells import SOURCES
from harness.grid.schema import Cell
from harness.methods.zero_init.options import image_encoder_of
from harness.models.image_encoder import ImageEncoderSpec
from harness.records.results import CellResult

CARD_FILE = "README.md"


def model_card(cell: Cell, result: CellResult, *, whole_model: bool = False) -> str:
    """The card of a cell's weights, in the hub's form: YAML head and Markdown.

    `whole_model` says whether the folder holds a full model rather than an adapter.
    """
    base = cell.model.source or cell.model.path or cell.model_name
    head: dict[str, Any] = {
        "base_model": base,
        "library_name": "transformers" if whole_model else "peft",
        "tags": ["zbench", cell.method],
    }
    parts = [
        "---\n" + yaml.safe_dump(head, sort_keys=False) + "---",
        f"# {cell.method_title} on {cell.model_name}",
        _origin(cell, result),
        _usage(base, whole_model, image_encoder_of(cell.options)),
        "## Scores\n\n" + _scores(result),
        "## The grid that trains it again\n\n"
        "`zbench run-grid` on this file makes a cell of the same id, "
        f"`{cell.id}`.\n\n```yaml\n{cell_grid(cell)}```",
    ]
    return "\n\n".join(parts) + "\n"


def _origin(cell: Cell, result: CellResult) -> str:
    lines = [f"Trained by zbench; cell `{cell.label}` (`{cell.id}`)."]
    if result.train is not None:
        train = result.train
        lines.append(
            f"{train.trainable_parameters:,} trained parameters, {train.examples:,} examples, "
            f"{train.steps:,} steps, mean loss of the last epoch {train.epoch_losses[-1]:.4f} nats."
        )
    commit = result.base.get("commit") or result.base.get("weights_sha256")
    if commit:
        lines.append(f"Base weights: `{str(commit)[:12]}`.")
    return " ".join(lines)


def _usage(base: str, whole_model: bool, encoder: ImageEncoderSpec | None) -> str:
    if whole_model:
        return "Load it with `transformers.AutoModelForCausalLM.from_pretrained(folder)`."
    pictured = encoded = ""
    if encoder is not None:
        pictured = "with harness.pictures(model, images):\n    model.generate(...)\n"
        layers = ", ".join(map(str, encoder.scales))
        encoded = (
            f"\n\nIt looks at pictures by `{encoder.source or encoder.path}`, frozen: the class "
            f"tokens after layers {layers}. adapter_config.json states which weights those are; "
            "other ones are refused."
        )
    return (
        "```python\n"
        "import harness  # of zbench: makes PEFT know its methods\n"
        "from peft import PeftModel\n"
        "from transformers import AutoModelForCausalLM\n\n"
        f"base = AutoModelForCausalLM.from_pretrained({base!r})\n"
        "model = PeftModel.from_pretrained(base, folder)\n"
        f"{pictured}```{encoded}"
    )


def _scores(result: CellResult) -> str:
    shown = [score for score in shown_result(result).scores if score.task == score.benchmark]
    if not shown:
        return "None yet."
    rows = [
        "| benchmark | protocol | shots | metric | score, % | standard error | items |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for score in shown:
        error = "-" if score.stderr is None else f"{100 * score.stderr:.2f}"
        rows.append(
            f"| {score.benchmark} | {score.protocol} | {score.shots} | {score.metric} | "
            f"{100 * score.value:.2f} | {error} | {score.n} |"
        )
    return "\n".join(rows)


def cell_grid(cell: Cell) -> str:
    """A grid file whose one cell is this one, with every setting written out.

    A cell that is trained for what noise does stands beside the one that it belongs to.
    """
    method: dict[str, Any] = {"method": cell.method, **_written(cell.options)}
    block: dict[str, Any] = {"methods": [cell.method_label]}
    if cell.train is not None:
        # None is kept: it may override a recipe's number.
        method["train"] = cell.train.model_dump(mode="json")
        block |= {"fractions": [cell.fraction], "seeds": [cell.seed]}
        if fixed := cell.fixed_seeds.model_dump():
            varied = [source for source in SOURCES if source not in fixed]
            block |= {"seeds": [next(iter(fixed.values())), cell.seed], "vary": varied}
    grid: dict[str, Any] = {"name": f"cell {cell.id}"}
    if cell.world is not None:
        grid["world"] = cell.world.partition("-")[0]
    grid |= {
        "models": {cell.model_name: _written(cell.model)},
        "data": cell.data.model_dump(mode="json"),
        **_tasks(cell.tasks),
        "methods": {cell.method_label: method},
        "blocks": [block],
    }
    if cell.repeat is not None:
        grid["noise"] = {"repeats": cell.repeat + 1}
    return yaml.safe_dump(grid, sort_keys=False, allow_unicode=True, width=100)


def _tasks(tasks: Sequence[TaskSpec]) -> dict[str, Any]:
    """Benchmarks as a grid file has them, with its keys that say something of all of them."""
    own = {"include", "files", "allow_code_execution", "draw"}
    keys: dict[str, Any] = {}
    for task in tasks:
        if task.include is not None:
            keys["include"] = task.include
        if task.allow_code_execution:
            keys["allow_code_execution"] = True
        for file in task.files:
            files = keys.setdefault("local_data", {}).setdefault(file.task, {})
            files[file.split] = file.path
    once = dict.fromkeys(task.model_copy(update={"draw": None}) for task in tasks)
    listed = [task.model_dump(mode="json", exclude_none=True, exclude=own) for task in once]
    return {**keys, "tasks": listed}


def _written(spec: Any) -> dict[str, Any]:
    """A spec's settings as a grid file has them, without those that are None."""
    settings: dict[str, Any] = spec.model_dump(mode="json", exclude_none=True)
    settings.get("image_encoder", {}).pop("sha256", None)  # found with the files again
    return settings
