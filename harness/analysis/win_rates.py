"""Win rates of answers against a reference: over questions, length-controlled, and paired.

Preferences are 1 where the answer won, 0.5 for a tie, 0 where the reference won and NaN where there
is no verdict; tables have a row per seed and a column per question. Of several seeds the mean of
each question comes first: questions are the sample of the standard error of a win rate, and seeds
of one method answer the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.analysis.power import Spread, detectable
from harness.analysis.stats import Estimate, Sample, combine

if TYPE_CHECKING:
    import numpy as np

MOST_STEPS = 100
"""Of Newton's method: where a maximum exists it takes ten."""
STEEPEST = 15.0
"""Largest coefficient (log odds): beyond it the likelihood has no maximum, or all but none."""
EDGE = 0.05
"""Share of the questions on either side of equal lengths below which a read-off extrapolates."""


@dataclass(frozen=True)
class WinRate:
    """A win rate (0..1, ties count half) over the questions that have a verdict."""

    value: float | None
    """None without a verdict."""
    stderr: float | None
    """Sample standard deviation over questions / √n; None of fewer than two."""
    num_questions: int
    num_wins: int
    """Verdicts, over questions and seeds."""
    num_ties: int
    num_losses: int

    @property
    def stderr_at_half(self) -> float | None:
        """The standard error that so many questions give at a win rate of one half, with as large a
        share of ties; of several seeds an upper bound. None without a verdict, or of ties alone."""
        total = self.num_wins + self.num_ties + self.num_losses
        if not self.num_questions or self.num_ties == total:
            return None
        return 0.5 * math.sqrt((1 - self.num_ties / total) / self.num_questions)

    @property
    def detectable(self) -> float | None:
        """The smallest distance from one half that so many questions show in 80% of cases."""
        stderr = self.stderr_at_half
        if stderr is None or self.num_questions < 2:
            return None
        return detectable(Spread(0.0, stderr**2, num_items=self.num_questions), 1)


@dataclass(frozen=True)
class LengthControlled:
    """What the win rate would be were answers as long as the reference's, by a logistic model."""

    value: float | None
    """None where the model has no estimate: `why` says it."""
    stderr: float | None
    """By the delta method, from the sandwich covariance over questions."""
    coefficient: float | None
    """Log odds per unit of tanh(length difference / its standard deviation)."""
    extrapolates: bool = False
    """Whether nearly all answers are on one side of the reference's length, so that equal lengths
    lie at the edge of what was seen, or beyond."""
    why: str = ""


def win_rate(preferences_SQ: np.ndarray) -> WinRate:
    """The win rate of a table of preferences, with its standard error over questions."""
    means = question_means(preferences_SQ)
    known = means[means == means]
    judged = preferences_SQ[preferences_SQ == preferences_SQ]
    wins, losses = int((judged > 0.5).sum()), int((judged < 0.5).sum())
    return WinRate(
        value=float(known.mean()) if len(known) else None,
        stderr=float(known.std(ddof=1) / math.sqrt(len(known))) if len(known) > 1 else None,
        num_questions=len(known),
        num_wins=wins,
        num_ties=len(judged) - wins - losses,
        num_losses=losses,
    )


def question_means(values_SQ: np.ndarray) -> np.ndarray:
    """(Q,): the mean over the seeds that have a value; NaN where none has."""
    import numpy as np

    known = ~np.isnan(values_SQ)
    counts = known.sum(axis=0)
    sums = np.where(known, values_SQ, 0.0).sum(axis=0)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def length_controlled(preferences_SQ: np.ndarray, differences_SQ: np.ndarray) -> LengthControlled:
    """The win rate at equal lengths.

    With d the length of the answer less that of the reference's, s the standard deviation of d
    over the questions and p the preference, the two parameters of

        p = 1 / (1 + exp(-(a + b · tanh(d / s))))

    maximise the Bernoulli likelihood, where ties count half; the value is 1 / (1 + exp(-a)). This
    is the length term of AlpacaEval 2 (Dubois et al., arXiv 2404.04475) alone: its terms of the
    instructions' difficulty and of other models' results, and its regularisation, are not here.

    Args:
        preferences_SQ: see the module.
        differences_SQ: characters of the answer less those of the reference's.
    """
    import numpy as np

    known = ~np.isnan(preferences_SQ)
    preferences = question_means(preferences_SQ)
    differences = question_means(np.where(known, differences_SQ, np.nan))
    judged = ~np.isnan(preferences)
    p, d = preferences[judged], differences[judged]
    if len(p) < 3:
        return LengthControlled(None, None, None, why="fewer than three questions are judged")
    spread = float(d.std())
    if spread == 0:
        if d[0] != 0:
            said = "all answers differ from the reference's by the same length"
            return LengthControlled(None, None, None, why=said)
        plain = win_rate(preferences_SQ)
        return LengthControlled(plain.value, plain.stderr, 0.0)
    rows = np.stack([np.ones_like(d), np.tanh(d / spread)], axis=1)
    found = _fit(rows, p)
    if found is None:
        said = "lengths and verdicts are separated, so that the model has no finite estimate"
        return LengthControlled(None, None, None, why=said)
    (a, b), covariance = found
    value = 1 / (1 + math.exp(-a))
    stderr = value * (1 - value) * math.sqrt(max(0.0, float(covariance[0, 0])))
    sides = float((d <= 0).mean()), float((d >= 0).mean())
    return LengthControlled(value, stderr, float(b), extrapolates=min(sides) < EDGE)


def _fit(rows: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The coefficients and their sandwich covariance; None where there is no finite maximum."""
    import numpy as np

    coefficients = np.zeros(rows.shape[1])
    for _ in range(MOST_STEPS):
        fitted = 1 / (1 + np.exp(-rows @ coefficients))
        information = (rows.T * (fitted * (1 - fitted))) @ rows
        if np.linalg.cond(information) > 1e12:
            return None
        step = np.linalg.solve(information, rows.T @ (p - fitted))
        # Half steps where a whole one would leave the range in which a maximum can be.
        coefficients = coefficients + step * min(1.0, 5.0 / max(1e-300, float(abs(step).max())))
        if abs(coefficients).max() > STEEPEST:
            return None
        if abs(step).max() < 1e-10:
            bread = np.linalg.inv(information)
            scores = rows * (p - fitted)[:, None]
            scale = len(p) / (len(p) - rows.shape[1])
            return coefficients, scale * bread @ (scores.T @ scores) @ bread
    return None


def win_rate_difference(
    first: Mapping[int | None, np.ndarray], second: Mapping[int | None, np.ndarray]
) -> Estimate | None:
    """The difference of two methods' win rates against the same reference, paired by question.

    Of two or more common seeds it is the difference of questions × seeds that all have a verdict,
    with seeds and questions as crossed samples (see `analysis.stats`); else the difference of the
    questions' means, which speaks of these trained models alone.

    Args:
        first: (Q,) preferences of each seed.
        second: likewise; the questions are the same, in the same order.

    Returns:
        None where no question has a verdict of both.
    """
    import numpy as np

    common = [seed for seed in first if seed in second]
    if len(common) > 1:
        table = np.stack([first[seed] - second[seed] for seed in common])
    else:
        means = [question_means(np.stack(list(one.values()))) for one in (first, second)]
        table = (means[0] - means[1])[None]
    table = table[:, ~np.isnan(table).any(axis=0)]
    if not table.shape[1]:
        return None
    return combine([Sample(table.mean(axis=1), table, None, table.shape[1])])
