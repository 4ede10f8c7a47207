"""What another picture changes: the names of what a training measures, and when that is nothing."""

from __future__ import annotations

EFFECT, CHANGES = "picture_effect", "picture_changes"
"""Names of the two metrics, see `harness.training.picture_effect`."""
NO_EFFECT_NATS, NO_CHANGES = 0.05, 0.1
"""Below both of them pictures are said to do nothing. In the grid demo-pictures they are 3.6 and
0.97 after a training in which the projection has a rate of 0.003; with the prompts' rate of 0.1 it
saturates, and they are 0.015 and 0.06."""


def does_nothing(effect: float, changes: float) -> bool:
    """Whether pictures are said to do nothing, by the two metrics."""
    return effect < NO_EFFECT_NATS and changes < NO_CHANGES
