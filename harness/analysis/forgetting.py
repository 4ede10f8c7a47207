"""What fine-tuning forgets: the likelihood of general text after it against before.

The measure is bits per byte, minus the log-likelihood (base 2) of all documents over all their
bytes, which different tokenizers have in common. Forgetting is after minus before, paired by
document and seed; before is the untrained base model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.analysis.bits import BITS_PER_BYTE
from harness.analysis.columns import Group, Setting
from harness.analysis.measurements import Measurements
from harness.analysis.stats import Estimate
from harness.analysis.variants import BASE, Variant

UNIT = "bits per byte"
ROLLING = "loglikelihood_rolling"
"""Output type of the tasks that score whole texts."""


@dataclass(frozen=True, eq=False)
class Change:
    """A trained row: its text after training, and what training changed."""

    variant: Variant
    after: Estimate
    """Bits per byte."""
    change: Estimate
    """After minus before, in bits per byte: above 0 the text has become less likely."""


@dataclass(frozen=True, eq=False)
class Forgetting:
    """One text, read by one model before and after each training."""

    group: Group
    column: str
    model: str
    base: Variant | None
    """The untrained model; None where it has no score."""
    before: Estimate | None
    changes: tuple[Change, ...]
    missing: str | None = None
    """What is lacking for any of it, in words."""


def forgettings(measured: Measurements) -> Iterator[Forgetting]:
    """Yields what each model forgot of each text that the grid scores."""
    seen: set[Setting] = set()
    for group in measured.groups:
        for column, setting in group.settings.items():
            if setting in seen or not _is_of_text(measured, setting):
                continue
            seen.add(setting)
            for model in measured.models:
                found = _of_model(measured, group, column, model)
                if found is not None:
                    yield found


def _is_of_text(measured: Measurements, setting: Setting) -> bool:
    """Whether a benchmark scores the likelihood of whole texts."""
    known = measured.benchmarks.get(setting.benchmark)
    members = known.members if known is not None else ()
    return bool(members) and all(member.output_type == ROLLING for member in members)


def _of_model(measured: Measurements, group: Group, column: str, model: str) -> Forgetting | None:
    group = measured.by_metric(group, column, BITS_PER_BYTE)
    scored = {
        variant: list(cells.values())
        for variant in measured.table_variants(model)
        if (cells := measured.seeds_with(variant, group, column))
    }
    trained = [variant for variant in scored if variant.method_name != BASE]
    base = next((variant for variant in scored if variant.method_name == BASE), None)
    if not trained:
        return None
    if base is None:
        missing = (
            f"{model}: the untrained base model has no score of {column}, so that nothing is known "
            "of before; add `base` to the grid's methods"
        )
        return Forgetting(group, column, model, base, None, (), missing)
    setting = group.settings[column]
    if measured.table(scored[base], setting) is None:
        missing = f"{model}: the base model's records of {column} by document are missing"
        return Forgetting(group, column, model, base, None, (), missing)
    changes = {
        variant: change
        for variant in trained
        if measured.table([*scored[base], *scored[variant]], setting) is not None
        and (change := _change(measured, group, column, variant, base)) is not None
    }
    lost = [variant.method for variant in trained if variant not in changes]
    return Forgetting(
        group=group,
        column=column,
        model=model,
        base=base,
        before=measured.estimate(base, group, column),
        changes=tuple(changes.values()),
        missing=f"{model}: of {', '.join(lost)} the records of {column} by document are missing, "
        "or are of other documents than the base model's"
        if lost
        else None,
    )


def _change(
    measured: Measurements, group: Group, column: str, variant: Variant, base: Variant
) -> Change | None:
    after = measured.estimate(variant, group, column)
    change = measured.difference(variant, base, group, column)
    return Change(variant, after, change.estimate) if after and change else None
