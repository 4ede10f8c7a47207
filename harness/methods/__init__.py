"""The methods of a grid: one entry each in METHODS; their code is in the files beside this one.

What stands in `__all__` is the public surface: all that a method of another package needs (see
docs/adding-a-method.md). Importing this package imports neither torch nor peft: a method's `apply`
does, when it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.errors import MethodError, ModelError
from harness.methods.full import STANFORD_ALPACA, apply_full, count_full, full_workload
from harness.methods.imported import AdapterOptions, apply_imported, count_imported
from harness.methods.lora import ALPACA_LORA, LoraOptions, apply_lora, count_lora, lora_workload
from harness.methods.method import Method, MethodOptions, Workload
from harness.methods.neighbours import NEIGHBOURS
from harness.methods.plug_ins import Registry
from harness.methods.untrained import apply_nothing, count_nothing
from harness.methods.zero_init.apply import apply_prompts
from harness.methods.zero_init.options import (
    PAPER_PROMPTS,
    GatedPromptOptions,
    GeneratedPromptOptions,
    PromptOptions,
    count_prompts,
    prompt_workload,
)
from harness.methods.zero_init.telemetry import PromptTelemetry, gate_statistics
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
    "Workload",
    "attach_adapter",
    "check_options",
    "insert_adapter",
    "replace_dropouts",
    "shape_of",
]

_ALL = (
    Method(
        name="base",
        title="Base model",
        options=MethodOptions,
        recipe={},
        apply=apply_nothing,
        count_parameters=count_nothing,
        trains=False,
    ),
    Method(
        name="full",
        title="Full fine-tuning",
        options=MethodOptions,
        recipe=STANFORD_ALPACA,
        apply=apply_full,
        count_parameters=count_full,
        workload=full_workload,
    ),
    Method(
        name="lora",
        title="LoRA",
        options=LoraOptions,
        recipe=ALPACA_LORA,
        apply=apply_lora,
        count_parameters=count_lora,
        workload=lora_workload,
    ),
    *NEIGHBOURS,
    Method(
        name="random-init",
        title="Random-init",
        options=PromptOptions,
        recipe=PAPER_PROMPTS,
        apply=apply_prompts,
        count_parameters=count_prompts,
        workload=prompt_workload,
        telemetry=PromptTelemetry,
    ),
    Method(
        name="zero-init-linear",
        title="Zero-init + linear",
        options=GatedPromptOptions,
        recipe=PAPER_PROMPTS,
        apply=apply_prompts,
        count_parameters=count_prompts,
        workload=prompt_workload,
        statistics=gate_statistics,
        telemetry=PromptTelemetry,
    ),
    Method(
        name="zero-init-nonlinear",
        title="Zero-init + non-linear",
        options=GeneratedPromptOptions,
        recipe=PAPER_PROMPTS,
        apply=apply_prompts,
        count_parameters=count_prompts,
        workload=prompt_workload,
        statistics=gate_statistics,
        telemetry=PromptTelemetry,
    ),
    Method(
        name="adapter",
        title="Imported adapter",
        options=AdapterOptions,
        recipe={},
        apply=apply_imported,
        count_parameters=count_imported,
        trains=False,
    ),
)

METHODS = Registry(_ALL)
"""All methods by name, in the order of tables and figures."""


def __getattr__(name: str) -> Any:
    """Imports the public names whose modules import torch at their first use."""
    if name == "replace_dropouts":
        from harness.methods.row_dropout import replace_dropouts

        return replace_dropouts
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def check_options(method: Method, options: MethodOptions, shape: ModelShape) -> None:
    """Checks that a method's options fit a model, without loading anything.

    Raises:
        MethodError: they do not; the line says which option, and its bound.
    """
    assert isinstance(options, method.options)
    method.count_parameters(shape, options)
