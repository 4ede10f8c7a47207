"""The tables of noise: its floor, where variance comes from, clustered errors, sampled draws."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from harness.analysis.clusters import FEW_CLUSTERS, MUCH_LARGER, ClusterLine
from harness.analysis.columns import Group
from harness.analysis.comparisons import Comparison
from harness.analysis.findings import Findings
from harness.analysis.layout import listed
from harness.analysis.noise import Floor, NoiseRuns
from harness.analysis.noise_study import NoiseStudy
from harness.analysis.prediction_noise import DrawLine
from harness.analysis.scales import Scale, scale_of
from harness.analysis.variance import VarianceLine
from harness.analysis.variants import name_of
from harness.report.numbers import MISSING, number, scaled, share_text, signed
from harness.report.render import Entry, Table, blocks

BELOW = "‖"
"""Marks a difference that is smaller than the noise floor."""
BELOW_NOTE = (
    f"{BELOW} Below the noise floor: smaller than what training the same thing again moved, for so "
    "many seeds. It is not told from noise; what has no such mark may still be noise."
)


def difference_entry(entry: Comparison, scale: Scale, noise: NoiseStudy, star: str = "") -> Entry:
    """A difference, grey where it is below the noise floor."""
    below, value = noise.is_below(entry), entry.estimate.value if entry.estimate else None
    return Entry(signed(value, scale) + star + BELOW * below, grey=below)


def _groups(lines: Iterable[object]) -> list[Group]:
    return list(dict.fromkeys(line.group for line in lines))  # type: ignore[attr-defined]


def floor_table(findings: Findings) -> list[Table]:
    """The noise floor of each model and column, once per group."""
    floors = list(findings.noise.floors.values())
    return [_floors(group, [one for one in floors if one.group is group])
            for group in _groups(floors)]  # fmt: skip


def _floors(group: Group, floors: Sequence[Floor]) -> Table:
    lines = []
    for one in floors:
        scale, variant = _scale(one), one.runs.variant
        lines.append(
            [
                *(variant.model, f"{name_of(variant)}, {share_text(variant.fraction)}"),
                *(group.head(one.column), str(len(one.scores))),
                *(scaled(one.same_seed, scale), scaled(one.same_seed_sd, scale)),
                *(scaled(one.other_seed, scale), scaled(one.largest, scale)),
            ]
        )
    return Table(
        name="noise" + group.suffix(),
        title="Noise floor",
        subtitle=group.title,
        header=(
            *("Model", "Trained again", "Column", "Trainings", "Same seed", "SD"),
            *("Other seed", "Floor"),
        ),
        rows=blocks(lines, 2),
        notes=tuple(_same_bits(dict.fromkeys(one.runs for one in floors))),
        caption=(
            "Points (of what is no share: its own unit). Same seed: the largest difference between "
            "two of so many trainings of one configuration with one seed, with their standard "
            "deviation (SD). Other seed: how far one training with another seed is from the first; "
            "a seed draws the initial values, the order and the subset of the rows. Floor: the "
            "larger of the two.",
            "A difference of two means over k seeds is below the floor where it is smaller than "
            "floor/√k, from the untrained base model floor/√(2k). This describes, and tests "
            "nothing: of two trainings a new pair differs by more half of the time.",
        ),
        num_text_columns=3,
    )


def _scale(floor: Floor) -> Scale:
    return scale_of(floor.group.unit(floor.column), [floor.largest])


def _same_bits(runs: Iterable[NoiseRuns]) -> Iterator[str]:
    for one in runs:
        name = f"{one.variant.model}: {name_of(one.variant)}, seed {one.seed}"
        if one.same_weights:
            yield (
                f"{name}: the repeats have the same bits, as they must on a CPU: what differs "
                "between them are draws of sampled responses alone."
            )
        elif one.same_weights is False:
            yield (
                f"{name}: the repeats have other bits, as on GPUs, whose sums have no fixed order, "
                "or on devices or versions that differ; rounding grows in training."
            )


def floor_records(findings: Findings) -> list[dict[str, object]]:
    """The noise floor as tidy records for its CSV; differences 0..1, or in their unit."""
    return [
        {
            "protocol": one.group.protocol,
            "columns_measured": one.group.title,
            "model": one.runs.variant.model,
            "method": one.runs.variant.method,
            "fraction": one.runs.variant.fraction,
            "seed": one.runs.seed,
            "column": one.column,
            "num_trainings": len(one.scores),
            "same_seed_largest_difference": one.same_seed,
            "same_seed_sd": one.same_seed_sd,
            "other_seed_difference": one.other_seed,
            "floor": one.largest,
            "same_weights": one.runs.same_weights,
            **({"unit": unit} if (unit := one.group.unit(one.column)) else {}),
        }
        for one in findings.noise.floors.values()
    ]


def draw_tables(findings: Findings) -> list[Table]:
    """Item noise and prediction noise of sampled responses, once per group."""
    found = [one for one in findings.noise.draws if one.runs is not None]
    return [_draws(group, [one for one in found if one.group is group]) for group in _groups(found)]


def _draws(group: Group, draws: Sequence[DrawLine]) -> Table:
    lines = []
    for one in draws:
        assert one.runs is not None
        variant, share = one.runs.variant, one.prediction_share
        shares = (None if share is None else 1 - share, share)
        lines.append(
            [
                *(variant.model, name_of(variant), group.head(one.column)),
                *(str(one.num_draws), str(one.num_items)),
                *(number(each, ".1f", 100) for each in shares),
            ]
        )
    return Table(
        name="draws" + group.suffix(),
        title="Items and draws of sampled responses",
        subtitle=group.title,
        header=("Model", "Method", "Column", "Draws", "Items", "Items %", "Draws %"),
        rows=blocks(lines, 2),
        caption=(
            "Shares of the variance of one item's score, of several draws by the same weights "
            "(2512.21326): Var(E[x|i]), item noise, and E Var(x|i), prediction noise, which is "
            "what another draw of the response changes. More items reduce both, more draws the "
            "second alone.",
        ),
        num_text_columns=3,
    )


def noise_sentences(findings: Findings) -> list[str]:
    """What is not known of noise, and why."""
    once = [one for one in findings.noise.draws if one.runs is None]
    columns = listed(dict.fromkeys(f"{one.column} ({one.group.title})" for one in once))
    lines = list(findings.noise.cluster_problems)
    if once:
        lines.append(
            f"Sampled responses, {columns}: one draw per item, so that prediction noise and item "
            "noise cannot be told apart. Repeats (`noise` in the grid) draw several times."
        )
    return lines


def variance_tables(findings: Findings) -> list[Table]:
    """Where the variance of each printed mean comes from, once per group."""
    found = findings.noise.variance
    return [_variance(group, [one for one in found if one.group is group])
            for group in _groups(found)]  # fmt: skip


def _variance(group: Group, found: Sequence[VarianceLine]) -> Table:
    sources = list(dict.fromkeys(name for one in found for name in one.sources))
    lines = []
    for one in found:
        parts, variant = one.parts, one.variant
        apart = (one.sources.get(name) for name in sources)
        lines.append(
            [
                *(variant.model, f"{name_of(variant)}, {share_text(variant.fraction)}"),
                *(group.head(one.column), str(one.num_seeds), str(one.num_items)),
                number(parts.total**0.5, ".2f", 100),
                *(number(parts.share(name), ".0f", 100) for name in ("items", "seeds", "rest")),
                *(MISSING if own is None else f"{100 * own.sd:.2f} ({own.df})" for own in apart),
            ]
        )
    below = sum((one.parts.seeds or 0) < 0 or one.parts.items < 0 for one in found)
    negative = (
        f" In {below} of {len(found)} rows a part was estimated below 0, where chance made it so: "
        "it is printed as 0 and counts as 0; the CSV has the estimates."
    )
    varied = (
        "Last columns: standard deviation, in points, of trainings that differ in this source "
        "alone, with its degrees of freedom; it is 0 where they differ by less than the rest "
        "alone makes them.",
    )
    return Table(
        name="variance" + group.suffix(),
        title="Where the variance of a mean comes from",
        subtitle=group.title,
        header=(
            *("Model", "Method", "Column", "Seeds", "Items", "SE"),
            *("Items %", "Seeds %", "Rest %", *map(str.capitalize, sources)),
        ),
        rows=blocks(lines, 2),
        caption=(
            "Shares of Var(mean) = Var(seed)/k + Var(item)/n + Var(rest)/(k·n) of k seeds and n "
            "items, estimated from each row alone; SE is its root, in points. More items reduce "
            "the first, more seeds the second, both the rest. Of one seed the items' part holds "
            f"the rest, and of the seeds nothing is known ({MISSING})." + negative * bool(below),
            *(varied * bool(sources)),
        ),
        num_text_columns=3,
    )


def variance_records(findings: Findings) -> list[dict[str, object]]:
    """The parts of the variance as tidy records for their CSV: variances of scores of 0..1."""
    return [
        {
            "protocol": one.group.protocol,
            "columns_measured": one.group.title,
            "model": one.variant.model,
            "method": one.variant.method,
            "fraction": one.variant.fraction,
            **({} if one.variant.data is None else {"data": one.variant.data}),
            "column": one.column,
            "num_seeds": one.num_seeds,
            "num_items": one.num_items,
            "from_items": one.parts.items,
            "from_seeds": one.parts.seeds,
            "from_rest": one.parts.rest,
            **_apart(one),
        }
        for one in findings.noise.variance
    ]


def _apart(line: VarianceLine) -> Mapping[str, object]:
    return {
        key: value
        for name, own in line.sources.items()
        for key, value in (
            (f"one_training_{name.replace(', ', '_and_')}", own.variance),
            (f"df_{name.replace(', ', '_and_')}", own.df),
        )
    }


def cluster_tables(findings: Findings) -> list[Table]:
    """Clustered standard errors beside the plain ones, once per group."""
    found = findings.noise.clusters
    return [_clusters(group, [one for one in found if one.group is group])
            for group in _groups(found)]  # fmt: skip


def _clusters(group: Group, found: Sequence[ClusterLine]) -> Table:
    lines = [
        [
            *(one.model, one.name, group.head(one.column), one.source),
            *(str(one.num_clusters), str(one.num_items), str(one.num_seeds)),
            *(number(error, ".2f", 100) for error in (one.plain, one.clustered)),
            number(one.ratio, ".2f") + " !" * one.is_much_larger,
        ]
        for one in found
    ]
    few = any(one.num_clusters < FEW_CLUSTERS for one in found)
    return Table(
        name="clusters" + group.suffix(),
        title="Errors of items that share a source",
        subtitle=group.title,
        header=(
            *("Model", "Score or difference", "Column", "Shared"),
            *("Clusters", "Items", "Seeds", "SE", "Clustered SE", "Ratio"),
        ),
        rows=blocks(lines, 2),
        notes=tuple(cluster_warnings(found)),
        caption=(
            "Points. Clustered: the sums of squares are those of clusters of items (Miller, "
            "2411.00640), of k seeds for the items' means and for the rest alike; SE: each item "
            "its own cluster. Both are of these seeds alone, without what other comparisons tell "
            "of the seeds. Of an average an item that shares nothing is a cluster of its own."
            + f" Fewer than {FEW_CLUSTERS} clusters: the clustered error comes out "
            "too small." * few,
        ),
        num_text_columns=4,
    )


def cluster_warnings(lines: Iterable[ClusterLine]) -> list[str]:
    """What a reader of the plain errors must know."""
    found: dict[str, list[float]] = {}
    for one in lines:
        if one.is_much_larger and one.ratio:
            found.setdefault(one.column, []).append(one.ratio)
    return [
        f"! {column}: errors of items that share a source are up to {max(ratios):.2f} times the "
        f"plain ones in {len(ratios)} rows (more than {MUCH_LARGER:g} times): the plain intervals "
        "there are too narrow."
        for column, ratios in found.items()
    ]


def cluster_records(findings: Findings) -> list[dict[str, object]]:
    """Plain and clustered errors as tidy records for their CSV; errors of scores of 0..1."""
    return [
        {
            "protocol": one.group.protocol,
            "columns_measured": one.group.title,
            "model": one.model,
            "name": one.name,
            "column": one.column,
            "shared": one.source,
            "num_clusters": one.num_clusters,
            "num_items": one.num_items,
            "num_seeds": one.num_seeds,
            "stderr": one.plain,
            "clustered_stderr": one.clustered,
        }
        for one in findings.noise.clusters
    ]
