"""The methods of a grid: one entry each in METHODS; their code is in the files beside this one.

Importing this package imports neither torch nor peft: a method's `apply` does, when it is called.
Another package adds a method through the entry point group `zbench.methods`: see
docs/adding-a-method.md.
"""

from __future__ import annotations

from importlib.metadata import entry_points

from harness.errors import MethodError
from harness.methods.full import STANFORD_ALPACA, apply_full, count_full
from harness.methods.imported import AdapterOptions, apply_imported, count_imported
from harness.methods.lora import ALPACA_LORA, LoraOptions, apply_lora, count_lora
from harness.methods.method import Method, MethodOptions
from harness.methods.neighbours import NEIGHBOURS
from harness.methods.untrained import apply_nothing, count_nothing
from harness.methods.zero_init.apply import (
    apply_random_init,
    apply_zero_init_linear,
    apply_zero_init_nonlinear,
)
from harness.methods.zero_init.options import (
    PAPER_PROMPTS,
    GatedPromptOptions,
    GeneratedPromptOptions,
    PromptOptions,
    count_random_init,
    count_zero_init_linear,
    count_zero_init_nonlinear,
)
from harness.methods.zero_init.telemetry import PromptTelemetry, gate_statistics
from harness.models.shape import ModelShape

__all__ = ["METHODS", "Method", "MethodOptions", "check_options"]

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
    ),
    Method(
        name="lora",
        title="LoRA",
        options=LoraOptions,
        recipe=ALPACA_LORA,
        apply=apply_lora,
        count_parameters=count_lora,
    ),
    *NEIGHBOURS,
    Method(
        name="random-init",
        title="Random-init",
        options=PromptOptions,
        recipe=PAPER_PROMPTS,
        apply=apply_random_init,
        count_parameters=count_random_init,
        telemetry=PromptTelemetry,
    ),
    Method(
        name="zero-init-linear",
        title="Zero-init + linear",
        options=GatedPromptOptions,
        recipe=PAPER_PROMPTS,
        apply=apply_zero_init_linear,
        count_parameters=count_zero_init_linear,
        statistics=gate_statistics,
        telemetry=PromptTelemetry,
    ),
    Method(
        name="zero-init-nonlinear",
        title="Zero-init + non-linear",
        options=GeneratedPromptOptions,
        recipe=PAPER_PROMPTS,
        apply=apply_zero_init_nonlinear,
        count_parameters=count_zero_init_nonlinear,
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

ENTRY_POINTS = "zbench.methods"
"""Group of the entry points by which other packages add methods; each names a `Method`."""


def _methods_of_other_packages() -> list[Method]:
    """Returns the methods that installed packages add, in the order of their names.

    Raises:
        MethodError: one cannot be imported, is no `Method`, or takes a name that is taken.
    """
    found: dict[str, Method] = {method.name: method for method in _ALL}
    added = []
    for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda entry: entry.name):
        package = entry.dist.name if entry.dist else "a package"
        where = f"{package}: entry point '{entry.name}' of {ENTRY_POINTS}"
        advice = "correct the package, or uninstall it"
        try:
            method = entry.load()
        except Exception as fault:
            raise MethodError(
                f"{where}: {entry.value} cannot be imported ({type(fault).__name__}: {fault}); "
                f"{advice}"
            ) from fault
        if not isinstance(method, Method):
            raise MethodError(
                f"{where}: {entry.value} is {type(method).__name__}, not a "
                f"harness.methods.Method; {advice}"
            )
        if method.name in found:
            raise MethodError(f"{where}: there is a method '{method.name}' already; {advice}")
        found[method.name] = method
        added.append(method)
    return added


METHODS: dict[str, Method] = {
    method.name: method for method in (*_ALL, *_methods_of_other_packages())
}
"""All methods by name, in the order of tables and figures."""


def check_options(method: Method, options: MethodOptions, shape: ModelShape) -> None:
    """Checks that a method's options fit a model, without loading anything.

    Raises:
        MethodError: they do not; the line says which option, and its bound.
    """
    assert isinstance(options, method.options)
    method.count_parameters(shape, options)
