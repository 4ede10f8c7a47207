"""What a method is: its options, how it changes a model, and how many parameters it trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.shape import ModelShape
from harness.spec import Spec

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


class MethodOptions(Spec):
    """Options of a method; this class itself is for methods that have none."""


@dataclass(frozen=True)
class Method:
    """One way to adapt a model; what its `apply` leaves trainable is trained, counted and saved."""

    name: str
    """The name in grids, results and MLflow."""
    title: str
    """The name on pages and figures."""
    options: type[MethodOptions]
    recipe: Mapping[str, object]
    """Defaults of the training settings, by field of `harness.recipe.TrainSpec`."""
    apply: Callable[[PreTrainedModel, Any, int], PreTrainedModel]
    """`apply(model, options, seed)` freezes the model, inserts what is trained, and returns it.

    It changes the model that it is given. A trained cell is rebuilt by applying again to a fresh
    base and then loading the trained tensors. Raises MethodError for a model it cannot handle.
    """
    count_parameters: Callable[[ModelShape, Any], int]
    """`count_parameters(shape, options)` is the number of trained parameters, found without torch.

    Raises MethodError for options that do not fit the shape.
    """
    statistics: Callable[[nn.Module], dict[str, float]] | None = None
    """Figures of the method's own state, logged during training; None where it has none."""
    trains: bool = True
    """False for the untrained base model."""
