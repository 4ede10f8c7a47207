"""What lm-eval's metrics count: which are shares, and which way is better.

Imports nothing of lm-eval, so that planning stays quick; what its registry says stands here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.evaluation.task_files import Function

DEFAULT_METRICS: Mapping[str, tuple[str, ...]] = {
    "loglikelihood": ("perplexity", "acc"),
    "loglikelihood_rolling": ("word_perplexity", "byte_perplexity", "bits_per_byte"),
    "multiple_choice": ("acc", "acc_norm"),
    "generate_until": ("exact_match",),
}
"""By output type: lm-eval's metrics of a task that names none (DEFAULT_METRIC_REGISTRY)."""

_LOWER = frozenset(
    ("perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "brier_score", "ter")
)
"""The metrics that lm-eval registers with `higher_is_better=False`."""

_SHARE = re.compile(
    r"(.*_)?(acc|accuracy|em|exact|exact_match|math_verify|contains|recall|precision|f1)(_.*)?"
    r"|pass@\d+|pass_at_\d+|extraction_rate|acc_macro"
)
"""Names of metrics whose mean is a share of the items, or as good as one: 0 to 1."""
_AGGREGATIONS = frozenset(("mean", "f1", "nanmean"))
"""Aggregations that keep a share within 0 to 1; a task's own functions are taken to do so too."""


@dataclass(frozen=True)
class MetricKind:
    """What the values of a metric mean."""

    higher_is_better: bool = True
    unit: str | None = None
    """What it counts where it is no share; None of a share (0..1)."""


def kind_of(entry: Mapping[str, Any]) -> MetricKind:
    """The kind of a metric, from its entry in a task's `metric_list`."""
    name = metric_name(entry)
    aggregation = entry.get("aggregation", "mean")
    own = isinstance(aggregation, Function)
    share = _SHARE.fullmatch(name) and (own or aggregation in _AGGREGATIONS)
    better = entry.get("higher_is_better", name not in _LOWER)
    return MetricKind(bool(better), None if share else name)


def metric_name(entry: Mapping[str, Any]) -> str:
    """The name under which lm-eval stores a metric; that of the function where it is one."""
    name = str(entry["metric"])
    function = name.rpartition(".")[2]
    if function == "pass_at_k" and isinstance(counts := entry.get("k"), list) and counts:
        return f"pass@{counts[0]}"  # its function returns one value for each k
    return function if isinstance(entry["metric"], Function) else name
