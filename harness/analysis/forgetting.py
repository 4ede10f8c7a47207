"""What fine-tuning forgets: the likelihood of general text after it against before.

The measure is bits per byte, minus the log-likelihood (base 2) of all documents over all their
bytes, which different tokenizers have in common. Forgetting is after minus before, paired by
document and seed; before is the untrained base model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.analysis.answers import LOGLIKELIHOOD
from harness.analysis.columns import Group, Setting
from harness.analysis.measurements import Measurements
from harness.analysis.moderation import single_pool
from harness.analysis.stats import Estimate, Sample, Terms, terms_of
from harness.analysis.variants import BASE, Variant

if TYPE_CHECKING:
    import pandas as pd

UNIT = "bits per byte"
BYTES = "num_bytes"
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
    setting = group.settings[column]
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
    texts = {variant: _texts(measured, scored[variant], setting) for variant in (base, *trained)}
    (before,) = texts[base] or (None,)
    if before is None:
        missing = f"{model}: the base model's records of {column} by document are missing"
        return Forgetting(group, column, model, base, None, (), missing)
    known = {
        variant: found
        for variant in trained
        if (found := texts[variant]) and all(_same(before, one) for one in found)
    }
    lost = [variant.method for variant in trained if variant not in known]
    return Forgetting(
        group=group,
        column=column,
        model=model,
        base=base,
        before=replace(_terms([before]).estimate(None), scope="methods"),
        changes=tuple(_changes(measured, group, column, before, known)),
        missing=f"{model}: of {', '.join(lost)} the records of {column} by document are missing, "
        "or are of other documents than the base model's"
        if lost
        else None,
    )


def _changes(
    measured: Measurements,
    group: Group,
    column: str,
    before: pd.DataFrame,
    known: Mapping[Variant, Sequence[pd.DataFrame]],
) -> Iterator[Change]:
    seeds = {v: list(measured.seeds_with(v, group, column)) for v in known}
    after = {variant: _terms(texts) for variant, texts in known.items()}
    change = {variant: _terms(texts, before) for variant, texts in known.items()}
    spread = {
        variant: {
            seed: float(value)
            for seed, value in zip(seeds[variant], _sample(texts, before).scores, strict=True)
            if seed is not None
        }
        for variant, texts in known.items()
    }
    # The base has no seeds: after and change vary by the same ones.
    pool = single_pool(spread)

    def estimate(terms: Terms) -> Estimate:
        own = terms.own
        if pool is None:
            return terms.estimate(own)
        if own is None:
            return terms.estimate(pool.borrow())
        moderated = pool.moderate(own.variance, terms.num_seeds - 1)
        return terms.estimate(replace(moderated, rest=own.rest))

    for variant in known:
        yield Change(variant, estimate(after[variant]), estimate(change[variant]))


def _texts(
    measured: Measurements, cell_ids: Sequence[str], setting: Setting
) -> list[pd.DataFrame] | None:
    """Log-likelihood and bytes of each document, cell by cell; None where any has no records."""
    keys = ["task", "doc_id", "question_id"]
    found = []
    for cell_id in cell_ids:
        frame = measured.data.items(cell_id, setting.benchmark)
        if frame is None or not {*keys, LOGLIKELIHOOD, BYTES} <= set(frame):
            return None
        table = frame.set_index(keys)[[LOGLIKELIHOOD, BYTES]].sort_index().astype(float)
        if not table.index.is_unique or not table.notna().all(axis=None) or not table[BYTES].sum():
            return None
        found.append(table)
    return found


def _same(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Whether two cells were scored on the same documents."""
    return bool(one.index.equals(other.index) and (one[BYTES] == other[BYTES]).all())


def _terms(texts: Sequence[pd.DataFrame], before: pd.DataFrame | None = None) -> Terms:
    return terms_of([_sample(texts, before)])


def _sample(texts: Sequence[pd.DataFrame], before: pd.DataFrame | None) -> Sample:
    """Bits per byte, or what they have risen by, of each cell and document.

    Bits per byte is a ratio of sums, R = Σ bits / Σ bytes. Its value on a document is the ratio's
    linear form, R + (bits - R · bytes) · n / Σ bytes (Cochran, Sampling Techniques, section 6.3):
    its mean over the documents is R, and its variance that of R.
    """
    import numpy as np

    size = texts[0][BYTES].to_numpy()
    bits = np.stack([-one[LOGLIKELIHOOD].to_numpy() / math.log(2) for one in texts])
    if before is not None:
        bits = bits + before[LOGLIKELIHOOD].to_numpy() / math.log(2)
    ratio = bits.sum(axis=1) / size.sum()
    items = ratio[:, None] + (bits - ratio[:, None] * size) * len(size) / size.sum()
    return Sample(ratio, items, None, len(size))
