"""What the task files of the embedded world cannot say in YAML."""

from __future__ import annotations

from typing import Any

import numpy as np


def process_results_mc2(doc: dict[str, Any], results: list[tuple[float, bool]]) -> dict[str, float]:
    """Returns the share of the options' total probability that falls on the true ones.

    Args:
        doc: the item; `mc2_targets.labels` holds 1 for each true option.
        results: (log-likelihood in nats, whether greedy) per option.
    """
    log_likelihoods = np.array([log_likelihood for log_likelihood, _ in results])
    # relative to the best option: the same shares, and no underflow of the long options
    probabilities = np.exp(log_likelihoods - log_likelihoods.max())
    is_true = np.array(doc["mc2_targets"]["labels"]) == 1
    return {"acc": float(probabilities[is_true].sum() / probabilities.sum())}
