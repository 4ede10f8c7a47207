"""The methods of a grid: each is a file beside this one, and a line of METHODS.

Every options class and recipe names its source; [choice] marks what no source says. All are trained
by AdamW where a grid names no other optimizer, also where a paper used one.

What stands in `__all__` is the public surface: all that a method of another package needs (see
docs/adding-a-method.md). Importing this package imports neither torch nor peft: a method's `apply`
does, when it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.errors import MethodError, ModelError
from harness.methods.adaption_prompt import ADAPTION_PROMPT
from harness.methods.dora import DORA
from harness.methods.full import BASE, FULL, STANFORD_ALPACA
from harness.methods.ia3 import IA3
from harness.methods.imported import ADAPTER
from harness.methods.lora import ALPACA_LORA, LORA
from harness.methods.method import Method, MethodOptions, TelemetryCallback, Workload
from harness.methods.pass_through import PEFT
from harness.methods.plug_ins import Registry
from harness.methods.prompt_tuning import PREFIX_TUNING, PROMPT_TUNING
from harness.methods.vera import VERA
from harness.methods.zero_init import PAPER_METHODS
from harness.methods.zero_init.options import PAPER_PROMPTS
from harness.models.adapters import attach_adapter, insert_adapter
from harness.models.families import FAMILIES, Family
from harness.models.shape import ModelShape, shape_of

if TYPE_CHECKING:
    from harness.methods.row_dropout import replace_dropouts

__all__ = [
    "ALPACA_LORA",
    "FAMILIES",
    "METHODS",
    "PAPER_PROMPTS",
    "STANFORD_ALPACA",
    "Family",
    "Method",
    "MethodError",
    "MethodOptions",
    "ModelError",
    "ModelShape",
    "PromptConfig",
    "TelemetryCallback",
    "Workload",
    "attach_adapter",
    "check_options",
    "insert_adapter",
    "replace_dropouts",
    "shape_of",
]

METHODS = Registry(
    (
        *(BASE, FULL, LORA),
        *(DORA, IA3, VERA, PREFIX_TUNING, PROMPT_TUNING, ADAPTION_PROMPT),
        *PAPER_METHODS,
        PEFT,
        ADAPTER,
    )
)
"""All methods by name, in the order of tables and figures."""


def __getattr__(name: str) -> Any:
    """Imports the public names whose modules import torch at their first use."""
    if name == "replace_dropouts":
        from harness.methods.row_dropout import replace_dropouts

        return replace_dropouts
    if name == "PromptConfig":
        from harness.methods.zero_init.tuner import PromptConfig

        return PromptConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def check_options(method: Method, options: MethodOptions, shape: ModelShape) -> None:
    """Checks that a method's options fit a model, without loading anything.

    Raises:
        MethodError: they do not; the line says which option, and its bound.
    """
    assert isinstance(options, method.options)
    method.count_parameters(shape, options)
