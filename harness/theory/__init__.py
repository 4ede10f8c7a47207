"""The theory beside the experiments: how fast prompts and gates can be estimated, by simulation.

It illustrates the theorems of arXiv 2502.03029; docs/theory.md derives the formulas. It stands
alone, but for the layer of the demo model and the command.

world         known parts, truth, box; what makes a truth unfit
regression    the regression functions and their derivatives
sampling      exact design: counts and means in the place of n observations
descent       Levenberg-Marquardt in a box, batched; fitting: starts, the best of them
losses        Voronoi cells and matchings; slopes: exponents with bootstrap intervals
scenarios     fixed truths and truths that move with n; suites: how much of them
prediction    what the Cramér-Rao bound gives over the same n
expectations  exponents by theorem or derivation
study         runs a suite on one or two processes; summary: what it found, and its file
statements    the findings in words, made from the intervals
identity      an attention layer as a mixture of experts; bridge: the same plot for a grid's runs
figure, output, command              what is drawn, written and printed
"""

from __future__ import annotations
