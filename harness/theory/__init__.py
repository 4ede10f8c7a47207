"""The theory beside the experiments: how fast prompts and gates can be estimated, by simulation.

It illustrates the theorems of arXiv 2502.03029; docs/theory.md derives the formulas.

world       known parts, truth, box; what makes a truth unfit
regression  the regression functions and their derivatives
sampling    exact design: counts and means instead of n observations
descent     Levenberg-Marquardt in a box, batched; fitting: starts, the best of them
losses      Voronoi cells and matchings; slopes: exponents with bootstrap intervals
scenarios   fixed truths and truths that move with n
prediction  exponents by theorem or derivation; what the Cramér-Rao bound gives over the same n
study       suites, and what measures them; summary: the results, and their file
statements  the findings as sentences, each with its interval and verdict
identity    an attention layer of the demo model as a mixture of experts
"""

from __future__ import annotations
