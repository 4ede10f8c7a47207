"""The tables of noise: its floor, and sampled draws."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from harness.analysis.columns import Group
from harness.analysis.comparisons import Comparison
from harness.analysis.findings import Findings
from harness.analysis.layout import listed
from harness.analysis.noise import Floor, NoiseRuns
from harness.analysis.noise_study import NoiseStudy
from harness.analysis.prediction_noise import DrawLine
from harness.analysis.scales import Scale, scale_of
from harness.analysis.variants import name_of
from harness.report.numbers import number, scaled, share_text, signed
from harness.report.records import head_record
from harness.report.render import Entry, Table, blocks, by_group

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


def floor_table(findings: Findings) -> list[Table]:
    """The noise floor of each model and column, once per group."""
    return [_floors(*own) for own in by_group(findings.noise.floors.values()).items()]


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
            **head_record(one.group, one.runs.variant.model, one.runs.variant.data),
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
    return [_draws(*own) for own in by_group(found).items()]


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
    lines = list(findings.noise.cluster_problems)
    for group in dict.fromkeys(one.group for one in once):
        columns = listed(dict.fromkeys(one.column for one in once if one.group is group))
        lines.append(
            f"Sampled responses ({group.title}), {columns}: one draw per item, so that prediction "
            "noise and item noise cannot be told apart. Repeats (`noise` in the grid) draw several "
            "times."
        )
    return lines
