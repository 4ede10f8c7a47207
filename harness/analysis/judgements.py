"""What a judge's verdicts say of methods: each pair in both orders, and the judge's own bias."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from harness.analysis.stats import Estimate, holm
from harness.analysis.win_rates import (
    LengthControlled,
    WinRate,
    length_controlled,
    win_rate,
    win_rate_difference,
)

if TYPE_CHECKING:
    import numpy as np

UNASKED = "unasked"
UNREADABLE = "unreadable"
"""What stands in the place of a choice that was not asked for yet, or cannot be read."""
Key = tuple[str, str, str]
"""A row of the tables: model, method and share."""
_OF_FIRST = {"A": 1.0, "C": 0.5, "B": 0.0}
"""How a choice counts for the answer that is shown first."""


@dataclass(frozen=True)
class JudgedPair:
    """A cell's answer to a question against the reference's, and what a judge made of them."""

    model: str
    method: str
    """Label in the grid."""
    share: str
    """Data set and fraction of the training rows; empty where neither side is trained."""
    cell_id: str
    label: str
    """The cell's."""
    seed: int | None
    question: str
    """Id of the instruction."""
    answer_length: int
    """Characters."""
    reference_length: int
    choices: tuple[str, str]
    """`A`, `B`, `C`, or why there is none: with the answer shown first, and with the reference."""
    is_alike: bool = False
    """Whether both answers are the same text, which is a tie without a judge."""

    @property
    def is_judged(self) -> bool:
        """Whether both orders have a verdict."""
        return all(choice in _OF_FIRST for choice in self.choices)

    @property
    def outcomes(self) -> tuple[float, float] | None:
        """Of both orders: 1 where the answer is better, 0 where the reference is, 0.5 else."""
        if not self.is_judged:
            return None
        first, second = self.choices
        return _OF_FIRST[first], 1 - _OF_FIRST[second]

    @property
    def preference(self) -> float:
        """1, 0.5 or 0; NaN without both verdicts.

        A verdict that turns with the order is a tie.
        """
        if self.is_alike:
            return 0.5
        if (found := self.outcomes) is None:
            return math.nan
        return found[0] if found[0] == found[1] else 0.5


@dataclass(frozen=True)
class PositionBias:
    """What a judge's verdicts owe to the order."""

    num_pairs: int
    """Pairs with a verdict in both orders."""
    num_turned: int
    """Of these, whose verdicts differ."""
    num_first: int
    """Where the first place won both times."""
    num_second: int
    """Where the second place did."""

    @property
    def share(self) -> float | None:
        """Share of the pairs whose verdict turns with the order; None without pairs."""
        return self.num_turned / self.num_pairs if self.num_pairs else None


@dataclass(frozen=True)
class MethodJudgement:
    """How a method did against the reference."""

    model: str
    method: str
    share: str
    num_seeds: int
    win: WinRate
    controlled: LengthControlled
    mean_length: float
    """Characters, over all answers."""
    mean_reference_length: float
    num_unjudged: int
    """Pairs of cell and question that lack a verdict."""
    num_alike: int


@dataclass(frozen=True)
class PairedJudgement:
    """The difference of two methods' win rates against the same reference."""

    model: str
    share: str
    first: str
    second: str
    estimate: Estimate
    p_holm: float | None
    """Adjusted by Holm over all pairs of the table."""


@dataclass(frozen=True)
class Judgement:
    """What one judge's verdicts say of all methods."""

    judge: str
    """Its name for tables."""
    pairs: tuple[JudgedPair, ...]
    methods: tuple[MethodJudgement, ...]
    paired: tuple[PairedJudgement, ...]
    bias: PositionBias
    num_unreadable: int
    """Verdicts that cannot be read."""
    num_unasked: int
    """Verdicts that are missing otherwise."""


def judgement_of(judge: str, pairs: Sequence[JudgedPair]) -> Judgement:
    """Win rates, paired differences and position bias of one judge's verdicts."""
    questions = list(dict.fromkeys(pair.question for pair in pairs))
    groups: dict[Key, list[JudgedPair]] = {}
    for pair in pairs:
        groups.setdefault((pair.model, pair.method, pair.share), []).append(pair)
    tables = {key: _by_seed(group, questions) for key, group in groups.items()}
    asked = [choice for pair in pairs if not pair.is_alike for choice in pair.choices]
    return Judgement(
        judge=judge,
        pairs=tuple(pairs),
        methods=tuple(_method(key, group, questions) for key, group in groups.items()),
        paired=tuple(_paired(tables)),
        bias=position_bias(pairs),
        num_unreadable=asked.count(UNREADABLE),
        num_unasked=asked.count(UNASKED),
    )


def position_bias(pairs: Sequence[JudgedPair]) -> PositionBias:
    """How often the order decided."""
    judged = [pair for pair in pairs if pair.is_judged and not pair.is_alike]
    turned = [pair for pair in judged if pair.outcomes and pair.outcomes[0] != pair.outcomes[1]]
    return PositionBias(
        len(judged),
        len(turned),
        sum(pair.choices == ("A", "A") for pair in turned),
        sum(pair.choices == ("B", "B") for pair in turned),
    )


def _by_seed(pairs: Sequence[JudgedPair], questions: Sequence[str]) -> dict[int | None, np.ndarray]:
    """(Q,) preferences of each seed, in the order of the questions; NaN where there is none."""
    return {
        seed: _row(
            {pair.question: pair.preference for pair in pairs if pair.seed == seed}, questions
        )
        for seed in dict.fromkeys(pair.seed for pair in pairs)
    }


def _row(values: dict[str, float], questions: Sequence[str]) -> np.ndarray:
    import numpy as np

    return np.array([values.get(question, math.nan) for question in questions])


def _method(key: Key, pairs: Sequence[JudgedPair], questions: Sequence[str]) -> MethodJudgement:
    import numpy as np

    table = _by_seed(pairs, questions)
    preferences = np.stack(list(table.values()))
    differences = np.stack(
        [
            _row(
                {
                    pair.question: float(pair.answer_length - pair.reference_length)
                    for pair in pairs
                    if pair.seed == seed
                },
                questions,
            )
            for seed in table
        ]
    )
    return MethodJudgement(
        *key,
        num_seeds=len(table),
        win=win_rate(preferences),
        controlled=length_controlled(preferences, differences),
        mean_length=sum(pair.answer_length for pair in pairs) / len(pairs),
        mean_reference_length=sum(pair.reference_length for pair in pairs) / len(pairs),
        num_unjudged=sum(math.isnan(pair.preference) for pair in pairs),
        num_alike=sum(pair.is_alike for pair in pairs),
    )


def _paired(
    tables: dict[Key, dict[int | None, np.ndarray]],
) -> list[PairedJudgement]:
    """All pairs of methods of one model and share; what trains nothing is in every pair."""
    found = [
        (first, second, estimate)
        for first, second in combinations(tables, 2)
        if first[0] == second[0]
        and (first[2] == second[2] or not (first[2] and second[2]))
        and (estimate := win_rate_difference(tables[first], tables[second])) is not None
    ]
    adjusted = holm([estimate.p_value for _, _, estimate in found])
    return [
        PairedJudgement(first[0], first[2] or second[2], first[1], second[1], estimate, p)
        for (first, second, estimate), p in zip(found, adjusted, strict=True)
    ]
