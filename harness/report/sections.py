"""The sections of a report's page, and what stands in the place of those that would be empty."""

from __future__ import annotations

from harness.report.bridge import BRIDGE

SECTIONS = {
    "tables": "Tables",
    "comparisons": "Paired comparisons",
    "runs": "Published runs beside measured ones",
    "tuning": "Tuning",
    "aggregates": "Over all benchmarks",
    "forgetting": "Forgetting",
    "pareto": "Scores against costs",
    "noise": "Noise",
    "items": "Item by item",
    "pictures": "Pictures, questions and answers",
    "responses": "Generated responses",
    "sample-efficiency": "Sample efficiency",
    "training-loss": "Training loss",
    "gates": "Gates and prompts",
    BRIDGE: "Error and examples",
    "theory": "Convergence rates (our simulation)",
    "reading": "What may be read from this",
    "protocol": "Protocol",
    "prompts": "Prompts of training and evaluation",
    "overlap": "Training rows and test items",
    "published": "Published values",
    "costs": "Costs and cells",
    "scores": "All scores",
    "grid": "Grid",
    "environment": "Environment",
    "files": "Files beside this page",
}
"""Titles by anchor, in order. A figure stands in the section that its name begins with; a section
that would be empty is left out."""

NOTHING = {
    "tables": "No cell has a score yet. The failed cells, and why each failed, are named below.",
    "comparisons": "Nothing to compare: it needs scores of two methods that the grid compares "
    "(`claims`, `compare: all` or `compare: METHOD` in its file), of two settings of a method, or "
    "of a method and the untrained base model.",
    "sample-efficiency": "Nothing to draw: it needs scores of cells that are trained on "
    "several fractions of the data, or an average.",
    "training-loss": "Nothing to draw yet: no cell is trained, or too many for one epoch.",
}
"""What stands in the place of a section's tables or figures."""
