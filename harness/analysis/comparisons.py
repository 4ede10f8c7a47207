"""The comparisons that a grid asks for: paired by item and seed, corrected for their number.

What is tested is decided before the results: of each pair one column, that which its claim names,
or else the average of the most benchmarks, which is not counted beside its parts; without an
average each benchmark. All other columns describe: they have their p, and no star.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Literal

from harness.analysis.columns import Group
from harness.analysis.measurements import Measurements
from harness.analysis.published import Published
from harness.analysis.stats import Estimate, holm
from harness.analysis.variants import BASE, Variant, label_of, name_of, named, representatives
from harness.analysis.verdicts import ALPHA, equivalence_p
from harness.evaluation.task_index import FORGETTING
from harness.grid.questions import ALL, ClaimSpec

Family = Literal["claim", "compare", "setting", "context"]
"""What the grid claims, which was asked before any result; what it compares; a method's other
settings against its own; trained methods against the base model."""


@dataclass(frozen=True)
class Comparison:
    """One difference in one column; `estimate` is None where it is unknown."""

    group: Group
    model: str
    left: str
    """Title of the minuend."""
    right: str
    """Title of the subtrahend."""
    column: str
    estimate: Estimate | None
    p_value: float | None = None
    """Of the methods; None where nothing is known of their seeds."""
    p_models: float | None = None
    """Of these two trained models alone, where that is all that is known: of no method, and never
    tested."""
    p_holm: float | None = None
    """Adjusted over what is tested of the same family, model and protocol (see `corrected`); None
    of a description."""
    test: str = ""
    family: Family | None = None
    """What it is asked for; None for a difference from a published value."""
    is_tested: bool = False
    """Whether it is what its pair is tested on; else it describes."""
    margin: float | None = None
    """The largest difference that counts as none, in the unit of the scores (0..1 of shares)."""
    p_margin: float | None = None
    """The larger p of the two one-sided tests at the margin, adjusted as its verdict's; None
    without a margin, or where nothing can be tested."""

    @property
    def is_asked(self) -> bool:
        """Whether the grid asks for it: it is what the page says first."""
        return self.family in ("claim", "compare") and self.is_tested

    @property
    def is_of_models(self) -> bool:
        """Whether it speaks of two trained models, not of their methods: see `Estimate.scope`."""
        return self.estimate is not None and self.estimate.scope == "models"

    @property
    def is_significant(self) -> bool:
        """Whether its adjusted p is below ALPHA."""
        return self.p_holm is not None and self.p_holm < ALPHA

    @property
    def is_within_margin(self) -> bool | None:
        """Whether the difference is shown to be smaller than the margin; None where that is not
        tested."""
        return None if self.p_margin is None else self.p_margin < ALPHA

    @property
    def is_left_better(self) -> bool | None:
        """Whether the left one is better; None where neither is, or nothing is known."""
        if self.estimate is None or self.estimate.value == 0:
            return None
        return (self.estimate.value < 0) == self.group.is_lower_better(self.column)

    @property
    def label(self) -> str:
        """`left − right`."""
        return f"{self.left} − {self.right}"


@dataclass(frozen=True)
class _Pair:
    """Two variants to be compared."""

    left: Variant
    right: Variant
    family: Family
    claims: tuple[ClaimSpec, ...] = ()
    """What the grid claims of them; of the other families nothing."""


def compare(measured: Measurements, group: Group, model: str) -> list[Comparison]:
    """Comparisons of a model: the claims first, then what else is asked, settings, and base."""
    found = []
    # Of the benchmarks in no table none is tested beside an average of the tables.
    describes = group.is_rest and any(g.averages for g in measured.groups if not g.is_rest)
    for pair in _pairs(measured, model):
        left, right = pair.left, pair.right
        # Of a setting the label says enough: its own method is what it stands against.
        names = label_of(left) if pair.family == "setting" else name_of(left), name_of(right)
        tested = tested_margins(group, pair.claims, describes=describes)
        for column in group.columns:
            difference = measured.difference(left, right, group, column)
            numbers = vars(difference) if difference is not None else {"estimate": None}
            margin = tested.get(column)
            entry = Comparison(group, model, *names, column, **numbers, family=pair.family)
            found.append(replace(entry, is_tested=column in tested, margin=margin))
    return found


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same with Holm's correction over what is tested of one family, model and protocol.

    The claims are one family in all models and protocols: a grid asks them together, and their
    verdicts are read together. Whether a benchmark stands in a table of the grid or in none makes
    no other family of it.
    """
    families: dict[object, list[int]] = {}
    for number, entry in enumerate(comparisons):
        if entry.is_tested:
            place = entry.model, entry.group.protocol, entry.group.rank
            key = (entry.family, *(() if entry.family == "claim" else place))
            families.setdefault(key, []).append(number)
    adjusted: dict[int, float | None] = {}
    margins: dict[int, float | None] = {}
    for numbers in families.values():
        mine = [comparisons[n] for n in numbers]
        adjusted |= dict(zip(numbers, holm([_zero_p(one) for one in mine]), strict=True))
        margins |= dict(zip(numbers, holm([_margin_p(one) for one in mine]), strict=True))
    return [
        replace(one, p_holm=adjusted.get(n), p_margin=margins.get(n))
        for n, one in enumerate(comparisons)
    ]


def _zero_p(one: Comparison) -> float | None:
    """The p to be corrected: equal answers to all items tell no error, and are no test."""
    return one.p_value if one.estimate is not None and one.estimate.stderr else None


def _margin_p(one: Comparison) -> float | None:
    if one.margin is None or one.estimate is None or one.is_of_models:
        return None
    return equivalence_p(one.estimate, one.margin)


def tested_margins(
    group: Group, claims: Sequence[ClaimSpec], *, describes: bool
) -> dict[str, float | None]:
    """The columns that a pair is tested on, with their margins; `describes`: but for a claim that
    names one, none."""
    found: dict[str, float | None] = {}
    usual = () if describes else tested_columns(group)
    if not claims:
        return dict.fromkeys(usual)
    for claim in claims:
        on = usual if claim.on is None else _column(group, claim.on)
        for column in on:
            margin = claim.margin
            shares = margin is not None and group.unit(column) is None
            found[column] = margin / 100 if margin is not None and shares else margin
    return found


def tested_columns(group: Group) -> tuple[str, ...]:
    """What a pair is tested on where nothing else is said.

    That is the average of the most benchmarks (of several the last); without one each benchmark, by
    the first of its columns. What tells forgetting is no benchmark of what was learned, nor is a
    control: a claim on it names it.
    """
    if averages := group.averages:
        return (max(reversed(averages), key=lambda column: len(group.weights_of(column))),)
    chosen = group.by_benchmark(controls=False).items()
    return tuple(column for name, column in chosen if name not in FORGETTING)


def _column(group: Group, name: str) -> tuple[str, ...]:
    """The column that a claim names, by its title or by its benchmark; none of another group."""
    if name in group.columns:
        return (name,)
    mine = group.by_benchmark().get(name)
    return () if mine is None else (mine,)


def headlines(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """What the grid asks for, in its order: each claim and comparison that was tested."""
    return tuple(entry for entry in comparisons if entry.is_asked and entry.estimate is not None)


def untested_claims(measured: Measurements, comparisons: Sequence[Comparison]) -> Iterator[str]:
    """Yields a line for each claim of which nothing is compared, and why, by model."""
    tested = [entry for entry in comparisons if entry.family == "claim"]
    for claim, model in product(measured.data.claims, measured.models):
        variants = measured.table_variants(model)
        planned = [v for v in measured.cells if v.model == model]
        said = f"{claim.better} − {claim.than}" + ("" if claim.on is None else f", {claim.on}")
        waiting = [
            one.method
            for one in measured.data.tunings
            if (one.model, one.chosen) == (model, None) and one.winner in (claim.better, claim.than)
        ]
        if waiting:
            why = f"no setting of {' and '.join(dict.fromkeys(waiting))} is chosen yet"
            yield f"{model}: {said}: the grid's claim is not tested, as {why}."
            continue
        if not any(named(name, planned) for name in (claim.better, claim.than)):
            continue  # a model of other blocks
        left, right = ({name_of(v) for v in named(n, variants)} for n in (claim.better, claim.than))
        pairs = [e for e in tested if e.model == model and e.left in left and e.right in right]
        on = claim.on
        if any(e.is_tested and (on is None or e.column in _column(e.group, on)) for e in pairs):
            continue
        why = "the two have no rows of one data set at its largest share"
        if pairs:
            why = f"'{on}' is not measured"
        elif left == right:
            why = "both names are of one method"
        elif _one_training(measured, claim, variants):
            why = "both are the same trainings: the tuning chose the published recipe"
        yield f"{model}: {said}: the grid's claim is not tested, as {why}."


def asked_pairs(measured: Measurements, model: str) -> list[tuple[Variant, Variant]]:
    """The pairs of a model that the grid claims or compares, each once."""
    asked = ("claim", "compare")
    return [(one.left, one.right) for one in _pairs(measured, model) if one.family in asked]


def _one_training(measured: Measurements, claim: ClaimSpec, variants: Sequence[Variant]) -> bool:
    sides = product(named(claim.better, variants), named(claim.than, variants))
    return any(left != right and measured.are_same(left, right) for left, right in sides)


def _pairs(measured: Measurements, model: str) -> Iterator[_Pair]:
    """The pairs of a model, each once, within one data set; base stands against each."""
    variants = measured.table_variants(model)
    sets = [
        [v for v in variants if v.data == data or v.method_name == BASE]
        for data in measured.data_sets(model) or (None,)
    ]
    told: set[frozenset[Variant]] = set()
    for mine in sets:
        claimed: dict[tuple[Variant, Variant], list[ClaimSpec]] = {}
        for claim in measured.data.claims:
            for left in named(claim.better, mine):
                for right in named(claim.than, mine):
                    if left != right:
                        claimed.setdefault((left, right), []).append(claim)
        for (left, right), claims in claimed.items():
            told.add(frozenset((left, right)))
            if not measured.are_same(left, right):
                yield _Pair(left, right, "claim", tuple(claims))
    kinds: tuple[tuple[Family, Callable[..., list[tuple[Variant, Variant]]]], ...] = (
        ("compare", _asked),
        ("setting", _settings),
        ("context", _context),
    )
    for family, pairs in kinds:
        for mine in sets:
            for left, right in pairs(mine, measured.data.compare):
                if frozenset((left, right)) not in told and not measured.are_same(left, right):
                    told.add(frozenset((left, right)))
                    yield _Pair(left, right, family)


def _asked(variants: Sequence[Variant], asked: str | None) -> list[tuple[Variant, Variant]]:
    """What `compare` asks for: a later method minus an earlier one, or all minus one."""
    trained = [variant for variant in variants if variant.method_name != BASE]
    if asked is None:
        return []
    if asked == ALL:
        return [(later, earlier) for earlier, later in combinations(trained, 2)]
    return [(v, one) for one in named(asked, variants) for v in trained if v != one]


def _settings(variants: Sequence[Variant], _asked: str | None) -> list[tuple[Variant, Variant]]:
    standing = representatives(variants)
    return [
        (setting, own)
        for setting in variants
        if setting not in standing
        for own in standing
        if own.method_name == setting.method_name
    ]


def _context(variants: Sequence[Variant], _asked: str | None) -> list[tuple[Variant, Variant]]:
    standing = representatives(variants)
    bases = [variant for variant in standing if variant.method_name == BASE]
    return [(v, base) for base in bases for v in standing if v.method_name != BASE]


def compare_with_published(
    measured: Measurements, published: Published, group: Group, model: str
) -> list[Comparison]:
    """Ours minus the published value wherever both were measured in the same way."""
    found = []
    for variant in measured.table_variants(model):
        if variant.fraction != 1.0 or variant.data is not None:
            continue
        for column in group.columns:
            row = published.row(variant, column)
            if row is None:
                continue
            ours = measured.estimate(variant, group, column)
            if ours is None or not published.matches(column, group, ours.num_items):
                continue
            difference = published.difference(ours, row, column)
            entry = Comparison(
                group, model, name_of(variant), "published", column, difference,
                test="t, unpaired",
            )  # fmt: skip
            p_value, of_models = difference.p_value, entry.is_of_models
            ps = (None, p_value) if of_models else (p_value, None)
            found.append(replace(entry, p_value=ps[0], p_models=ps[1]))
    return found
