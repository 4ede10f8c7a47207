"""Laws that every method obeys, to be imported by the tests of other packages.

They need pytest and torch, and nothing of zbench's own tests.
"""

from harness.testing.gradients import token_ids
from harness.testing.method_laws import MethodLaws, perturb, tiny_model

__all__ = ["MethodLaws", "perturb", "tiny_model", "token_ids"]
