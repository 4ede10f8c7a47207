"""What is checked of tunings as a grid is read: what they are chosen on, and what fits a model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.evaluation.benchmark import Source
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
    for task in dict.fromkeys(task for one in grid.blocks for task in one.tasks):
        if shares_items(tune.on.task, task):
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


ONE_SET = {"gsm8k", "truthful_qa"}
"""Data sets whose configurations hold the same questions."""


def shares_items(one: TaskSpec, other: TaskSpec) -> bool:
    """Whether two benchmarks have items in common, by their tasks, files, and splits of data sets.

    A copy of items in another file or data set is not recognised.
    """
    theirs = item_sources(other)
    return any(_overlap(mine, their) for mine in item_sources(one) for their in theirs)


def item_sources(task: TaskSpec) -> frozenset[Source]:
    """Where a benchmark's items come from, all that is known of it."""
    known = task.benchmark
    found: set[Source] = {(known.name, None, None)}
    if not known.members:
        place, part = known.hub or (known.data_folder, None)
        found.add((place, part, known.eval_split))
    splits = {known.name: known.eval_split}
    for member in known.members:
        found |= {(member.name, None, None), *member.sources}
        splits[member.name] = member.eval_split
    given = (task.file(name, split) for name, split in splits.items())
    found |= {(str(Path(path).expanduser().absolute()), None, None) for path in given if path}
    return frozenset(found)


def _overlap(one: Source, other: Source) -> bool:
    (place, part, split), (its_place, its_part, its_split) = one, other
    # The hub's oldest data sets have lost their owner's name in some tasks: `ai2_arc`.
    owners = {place.rpartition("/")[0], its_place.rpartition("/")[0]}
    is_same = place == its_place or (
        split is not None
        and "" in owners
        and place.rpartition("/")[2] == its_place.rpartition("/")[2]
    )
    is_one_set = place.rpartition("/")[2] in ONE_SET
    same_part = is_one_set or part == its_part or None in (part, its_part)
    return is_same and split == its_split and same_part


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
