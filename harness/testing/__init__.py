"""Laws that every method and every executor obeys, to be imported by the tests of other packages.

They need pytest and torch, and nothing of zbench's own tests.
"""

from harness.testing.engines import CellAtWork, Engine
from harness.testing.executor_laws import ExecutorLaws
from harness.testing.gradients import token_ids
from harness.testing.method_laws import MethodLaws, perturb, tiny_model
from harness.testing.picture_laws import PictureLaws
from harness.testing.quantised_laws import QuantisedLaws

__all__ = [
    "CellAtWork",
    "Engine",
    "ExecutorLaws",
    "MethodLaws",
    "PictureLaws",
    "QuantisedLaws",
    "perturb",
    "tiny_model",
    "token_ids",
]
