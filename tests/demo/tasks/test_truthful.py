"""The score of the mc2 analogue, against lm-eval's formula written out."""

from __future__ import annotations

import math

import pytest

from harness.demo.world import TASKS


def test_mc2_is_the_true_options_share_of_the_probability() -> None:
    from lm_eval.tasks._yaml_loader import load_yaml

    score = load_yaml(TASKS / "demo_truthfulqa_mc2.yaml")["process_results"]
    doc = {"mc2_targets": {"choices": list("abcd"), "labels": [1, 0, 1, 0]}}
    probabilities = [0.1, 0.3, 0.05, 0.2]
    results = [(math.log(probability), False) for probability in probabilities]
    assert score(doc, results)["acc"] == pytest.approx(0.15 / 0.65)


def test_mc2_of_very_unlikely_options_is_a_number() -> None:
    from lm_eval.tasks._yaml_loader import load_yaml

    score = load_yaml(TASKS / "demo_truthfulqa_mc2.yaml")["process_results"]
    doc = {"mc2_targets": {"choices": ["a", "b"], "labels": [0, 1]}}
    assert score(doc, [(-2000.0, False), (-2000.0 + math.log(3), False)])["acc"] == pytest.approx(
        0.75
    )
