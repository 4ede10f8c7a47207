"""What a method is: its options, how it changes a model, and how many parameters it trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from harness.models.shape import ModelShape
from harness.spec import Spec

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from torch import nn
    from transformers import PreTrainedModel


class MethodOptions(Spec):
    """Options of a method; this class itself is for methods that have none."""

    def identity(self) -> dict[str, Any]:
        """Returns what of them decides the trained weights; part of a cell's id."""
        return self.model_dump()


@dataclass(frozen=True)
class Workload:
    """What a method makes a model compute beside its own forward pass; estimates are made of it."""

    adapted_layers: int | None = None
    """Layers that gradients pass through, from the first adapted one to the last; None: all."""
    trains_base: bool = False
    """Whether the model's own weights are trained, so that each has a gradient."""
    added_weights: int = 0
    """Weights of the added matrices that every token passes."""
    virtual_keys: int = 0
    """Keys that every token attends to beside those of the text."""
    virtual_tokens: int = 0
    """Tokens before each row that pass all layers like its own."""
    shares_prefix: bool = True
    """Whether the template's shared prefix can be computed once for several rows: not with dropout,
    which draws anew for each row, nor behind virtual tokens."""


class Trace(Protocol):
    """Follows one training of a model, and changes nothing by it: the training's bits stay.

    `harness.training.loop.fit` calls `probe` once before and once after the training, and around
    every step that is read `observe`, then `read`. A checkpoint holds its `state`; a training that
    resumes from one begins with `load_state` in the place of the first `probe`.
    """

    def probe(self, when: Literal["before", "after"], texts: Sequence[Sequence[int]]) -> None:
        """Looks at the model on a few token sequences: in evaluation mode, without gradients."""

    def observe(self) -> None:
        """Looks at the gradients that the optimizer is about to take; waits for no device."""

    def read(self, step: int) -> dict[str, float]:
        """Returns the figures of a step that is taken, by MLflow's name for them; waits once."""

    def statistics(self) -> dict[str, float]:
        """Returns the figures of the whole training: the last ones read, and those probed."""

    def frames(self) -> dict[str, pd.DataFrame]:
        """Returns what is kept beside the result: a frame by the name of its parquet file."""

    def state(self) -> dict[str, np.ndarray]:
        """Returns all that was seen so far, by names of its own."""

    def load_state(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Puts back what `state` gave."""


@dataclass(frozen=True)
class Method:
    """One way to adapt a model; what its `apply` leaves trainable is trained, counted and saved."""

    name: str
    """The name in grids, results and MLflow."""
    title: str
    """The name on pages and figures."""
    options: type[MethodOptions]
    recipe: Mapping[str, object]
    """Defaults of the training settings, by field of `harness.training.spec.TrainSpec`."""
    apply: Callable[[PreTrainedModel, Any, int], Any]
    """`apply(model, options, seed)` freezes the model, inserts what is trained, and returns it:
    the model itself, or PEFT's wrapper around it.

    It changes the model that it is given. A trained cell is rebuilt by applying again to a fresh
    base and then loading the trained tensors. Raises MethodError for a model it cannot handle.
    """
    count_parameters: Callable[[ModelShape, Any], int]
    """`count_parameters(shape, options)` is the number of trained parameters, found without torch.

    Raises MethodError for options that do not fit the shape.
    """
    statistics: Callable[[nn.Module], dict[str, float]] | None = None
    """Figures of the method's own state, logged during training; None where it has none."""
    trace: Callable[[nn.Module], Trace] | None = None
    """Begins to follow a training of the adapted model; its figures replace `statistics`."""
    trains: bool = True
    """False for the untrained base model."""
    workload: Callable[[ModelShape, Any], Workload] | None = None
    """`workload(shape, options)` is what the method makes a model compute, for `zbench plan`.

    Where None, every layer is adapted, dropout is the option `dropout`, and a method that trains
    more than half of the parameters trains the model's own.
    """

    def workload_on(self, shape: ModelShape, options: MethodOptions) -> Workload:
        """What the method makes a model of this shape compute.

        Raises:
            MethodError: the options do not fit the shape.
        """
        if self.workload is not None:
            return self.workload(shape, options)
        return Workload(
            trains_base=self.count_parameters(shape, options) > shape.num_parameters / 2,
            shares_prefix=not getattr(options, "dropout", 0),
        )
