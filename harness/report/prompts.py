"""The page's section of prompts: whether training and evaluation share a template, and examples."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis.prompts import PromptPair
from harness.report.page import html


def prompts_section(pairs: Sequence[PromptPair]) -> str:
    """Sentences on the templates, and folded below them one example of each pair, side by side."""
    if not pairs:
        return ""
    return html("paragraphs", template_sentences(pairs)) + html(
        "folded", "One example of each model and benchmark", html("prompts", pairs)
    )


def template_sentences(pairs: Sequence[PromptPair]) -> list[str]:
    """Which benchmarks are asked in the template of the training rows, and which are not."""
    sentences = []
    alike = dict.fromkeys(pair.benchmark for pair in pairs if pair.agree)
    if alike:
        names = "every benchmark" if all(pair.agree for pair in pairs) else ", ".join(alike)
        sentences.append(f"In the same template as the training rows: {names}.")
    others: dict[tuple[str, str, str], dict[str, None]] = {}
    for pair in pairs:
        if not pair.agree:
            of = f" on {pair.data}" if pair.data else ""
            key = of, pair.training.template, pair.evaluation.template
            others.setdefault(key, {})[pair.benchmark] = None
    for (of, training, evaluation), found in others.items():
        sentences.append(
            f"In another template (training{of}: {training}, evaluation: {evaluation}): "
            f"{', '.join(found)}. What is learned in one form is asked in another, which can cost "
            "an adapter more than a method gains."
        )
    return sentences
