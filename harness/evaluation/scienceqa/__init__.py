"""ScienceQA: the prompts, pictures and items of its two benchmarks, and the official extraction.

`documents` makes them of rows, and `matching` reads the letter off a generated answer; `tasks`
holds lm-eval's definitions. `scienceqa` is scored by log-likelihoods, `paper_scienceqa` is
generated as the paper's benchmarks are (`harness.evaluation.paper`).
"""

from __future__ import annotations
