"""What is checked of tunings as a grid is read: what they are chosen on, and what fits a model."""

from __future__ import annotations

from collections.abc import Iterator

from harness.evaluation.tasks import TaskSpec
from harness.grid.checks import misfit
from harness.grid.names import data_place
from harness.grid.schema import Block, GridSpec
from harness.grid.tune_entries import varied_singly
from harness.grid.tuning import TuneSpec


def tuning_faults(grid: GridSpec) -> Iterator[str]:
    """Yields one line per fault of the tunings of a grid."""
    tuned: dict[tuple[str, str, str | None], int] = {}
    for index, block in enumerate(grid.blocks):
        if block.tune is None:
            continue
        place = f"blocks[{index}].tune"
        yield from _choice_faults(grid, block, block.tune, place)
        yield from _pruner_faults(grid, block, block.tune, place)
        for choice in block.methods:
            if choice.train is None:
                continue
            for model in block.models:
                first = tuned.setdefault((model, choice.label, block.data), index)
                if first != index:
                    yield (
                        f"{place}: {choice.label} is tuned on {model} in blocks[{first}] too; keep "
                        "one, or give the method another `label`"
                    )
                for varied in varied_singly(choice, block.tune.space[choice.label]):
                    yield from misfit(grid, model, varied)
    yield from _taken_labels(grid)


def _choice_faults(grid: GridSpec, block: Block, tune: TuneSpec, place: str) -> Iterator[str]:
    """Yields what is wrong with what the settings are chosen by."""
    if tune.on == "validation":
        if block.trains and grid.data_of(block.data).validation is None:
            yield (
                f"{place}.on: validation needs rows that are held out; add "
                f"`validation: {{fraction: 0.05}}` to {data_place(block.data)}"
            )
        return
    own = item_sources(tune.on.task)
    for task in dict.fromkeys(task for one in grid.blocks for task in one.tasks):
        if own & item_sources(task):
            same = "" if task.name == tune.on.task.name else f" has items of {task.name}, which"
            said = f"{tune.on.task.name}{same or ' is a task of the study:'}"
            yield (
                f"{place}.on: {said} the chosen settings are tested on; choose on another "
                "benchmark, or on validation"
            )


def _pruner_faults(grid: GridSpec, block: Block, tune: TuneSpec, place: str) -> Iterator[str]:
    """Yields why the trials of a block cannot be stopped early."""
    if tune.pruner is None:
        return
    if tune.on != "validation" and grid.data_of(block.data).validation is None:
        yield (
            f"{place}.pruner: compares validation losses; add `validation: {{fraction: 0.05}}` to "
            f"{data_place(block.data)}"
        )
    if block.gpus_per_cell > 1:
        yield f"{place}.pruner: stops trainings on one device alone; leave it or gpus_per_cell out"
    for choice in block.methods:
        if choice.train is None:
            continue
        own = tune.space[choice.label]
        if choice.train.max_steps is not None or {"epochs", "max_steps"} & own.keys():
            said = f"give every trial of {choice.label} the same number of `epochs`"
            yield f"{place}.pruner: compares after each epoch; {said}, or leave it out"
        elif choice.train.epochs == 1:
            said = "and the pruner decides before the last one; leave it out"
            yield f"{place}.pruner: {choice.label} trains for one epoch, {said}"


def item_sources(task: TaskSpec) -> frozenset[object]:
    """What tells whether two benchmarks have items in common: their tasks, and where rows lie."""
    known = task.benchmark
    found: set[object] = {known.name}
    members = {known.name: (known.hub, known.eval_split)}
    members |= {one.name: (one.hub, one.eval_split) for one in known.members}
    for name, (hub, split) in members.items():
        found.add(name)
        if hub is not None:
            found.add((*hub, split))
        if (file := task.file(name, split)) is not None:
            found.add(file)
    if known.hub is None and not known.members:
        found.add((known.data_folder, known.eval_split))
    return frozenset(found)


def _taken_labels(grid: GridSpec) -> Iterator[str]:
    """Yields a fault for every method whose label is that of a tuning's cells."""
    tuned = [(one.tune.trials, c.label) for one in grid.blocks if one.tune for c in one.methods]
    names = {
        f"{label}[{name}]": label
        for trials, label in tuned
        for name in ("tuned", *(f"trial-{number}" for number in range(trials)))
    }
    for name in dict.fromkeys(choice.label for choice in grid.choices if choice.label in names):
        said = f"that is what the tuning of '{names[name]}' makes"
        yield f"method '{name}': {said}; give it another `label`"
