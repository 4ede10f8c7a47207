"""A judge's verdicts as records, for files that a machine reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from harness.analysis.judgements import Judgement
from harness.report.judging import JudgedGrid


def win_records(judged: JudgedGrid) -> Iterator[dict[str, object]]:
    """Yields a record per judge and method; rates are 0..1."""
    for judgement in judged.judgements:
        for line in judgement.methods:
            win, controlled = line.win, line.controlled
            yield {
                "judge": judgement.judge,
                "set": judged.set_name,
                "reference": judged.reference,
                "model": line.model,
                "method": line.method,
                "data": line.share,
                "num_seeds": line.num_seeds,
                "win_rate": win.value,
                "stderr": win.stderr,
                "length_controlled": controlled.value,
                "length_controlled_stderr": controlled.stderr,
                "length_coefficient": controlled.coefficient,
                "extrapolates": controlled.extrapolates,
                "num_questions": win.num_questions,
                "num_wins": win.num_wins,
                "num_ties": win.num_ties,
                "num_losses": win.num_losses,
                "num_missing": line.num_unjudged,
                "num_alike": line.num_alike,
                "mean_length": line.mean_length,
                "mean_reference_length": line.mean_reference_length,
            }


def paired_records(judgement: Judgement) -> list[dict[str, object]]:
    """A record per pair of methods; differences are 0..1."""
    return [
        {
            "model": one.model,
            "data": one.share,
            "first": one.first,
            "second": one.second,
            "difference": one.estimate.value,
            "stderr": one.estimate.stderr,
            "interval": one.estimate.interval,
            "p_value": one.estimate.p_value,
            "p_holm": one.p_holm,
            "num_questions": one.estimate.num_items,
            "num_seeds": one.estimate.num_seeds,
            "scope": one.estimate.scope,
        }
        for one in judgement.paired
    ]


def judge_record(judged: JudgedGrid) -> dict[str, object]:
    """All numbers as plain values, for a machine to read."""
    rates = list(win_records(judged))
    return {
        "grid": judged.grid_name,
        "set": judged.set_name,
        "reference": judged.reference,
        "num_questions": len(judged.questions),
        "notes": list(judged.notes),
        "judges": [
            {
                "judge": one.judge,
                "win_rates": [rate for rate in rates if rate["judge"] == one.judge],
                "paired": paired_records(one),
                "position_bias": asdict(one.bias) | {"share": one.bias.share},
                "num_unreadable": one.num_unreadable,
                "num_not_judged": one.num_unasked,
            }
            for one in judged.judgements
        ],
    }
