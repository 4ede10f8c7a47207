"""How equal a grid's methods are: what `match` chose, and the budgets that are not the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from harness.grid.choices import matched, options_on
from harness.grid.optimizer_parts import optimizer_of, part_notes
from harness.grid.schema import GridSpec, MethodChoice
from harness.methods import METHODS
from harness.training.spec import TrainSpec


def budget_notes(grid: GridSpec) -> list[str]:
    """What a reader of a comparison must know of its budgets, a line each.

    What `match` chose and Muon's part are always told; the rest with `budgets: true`.
    """
    unequal = _unequal(grid) if grid.budgets else ()
    return [*_matched_sizes(grid), *part_notes(grid), *unequal]


def _matched_sizes(grid: GridSpec) -> Iterator[str]:
    choices = list(grid.choices)
    for model, choice in grid.pairs:
        if choice.match is not None:
            found = matched(choice, grid.models[model].shape, choices)
            yield f"{model}/{choice.label}: matched to {found}"


def _unequal(grid: GridSpec) -> Iterator[str]:
    """The trained methods' parameters on each model, and the settings in which they differ."""
    choices = list(grid.choices)
    counts: dict[str, dict[str, int]] = {}
    trained: dict[str, MethodChoice] = {}
    for model, choice in grid.pairs:
        if choice.train is not None:
            shape = grid.models[model].shape
            options = options_on(choice, shape, choices)
            count = METHODS[choice.method].count_parameters(shape, options)
            counts.setdefault(model, {})[choice.label] = count
            trained[choice.label] = choice
    if len(trained) < 2:
        return
    for model, found in counts.items():
        low, high = min(found, key=found.__getitem__), max(found, key=found.__getitem__)
        yield (
            f"Budgets on {model}: {found[low]:,} trained parameters ({low}) to {found[high]:,} "
            f"({high}), {found[high] / found[low]:,.2f} times as many"
        )
    differing = [
        text
        for name, title in _SETTINGS.items()
        if (text := _values(title, {label: _setting(choice.train, name)
                                    for label, choice in trained.items()}))
    ]  # fmt: skip
    optimizers = _values("optimizer", {k: optimizer_of(choice) for k, choice in trained.items()})
    differing += [optimizers] if optimizers else []
    if differing:
        yield f"Training is not the same for all methods: {'; '.join(differing)}"
    else:
        steps = {choice.train.max_steps for choice in trained.values() if choice.train}
        length = "epochs" if steps == {None} else "steps"
        yield (
            f"Training is the same for all methods: {length}, batch, longest sequence, precision "
            "and optimizer"
        )


_SETTINGS = {
    "epochs": "epochs",
    "batch_size": "batch",
    "max_length": "longest sequence",
    "precision": "precision",
}
"""The settings that are a part of a method's budget, by their fields."""


def _setting(train: TrainSpec | None, name: str) -> object:
    """A setting of a budget; a length in steps stands where epochs would."""
    if name == "epochs" and train is not None and train.max_steps is not None:
        return f"max_steps {train.max_steps}"
    return getattr(train, name)


def _values(title: str, by_method: Mapping[str, object]) -> str | None:
    """`epochs 1 (dora, vera), 3 (lora)`; None where all are the same."""
    labels: dict[object, list[str]] = {}
    for label, value in by_method.items():
        labels.setdefault(value, []).append(label)
    if len(labels) < 2:
        return None
    parts = [f"{value} ({', '.join(named)})" for value, named in
             sorted(labels.items(), key=lambda one: (str(type(one[0])), one[0]))]  # fmt: skip
    return f"{title} {', '.join(parts)}"
