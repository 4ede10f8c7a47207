"""What a method is: its options, how it changes a model, and how many parameters it trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

from harness.models.shape import ModelShape
from harness.spec import Spec

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from torch import Tensor, nn
    from transformers import PreTrainedModel


class MethodOptions(Spec):
    """Options of a method; this class itself is for methods that have none."""

    def identity(self) -> dict[str, Any]:
        """The options that decide the trained weights; part of a cell's id."""
        return self.model_dump()

    def size_options(self) -> tuple[str, ...]:
        """The options, whole numbers, that say how many parameters are trained; for `match`."""
        return ()

    def states(self, name: str) -> bool:
        """Whether an option was given, so that `match` leaves it as it is."""
        return name in self.model_fields_set

    def stated(self, name: str) -> Any:
        """The value of an option."""
        return getattr(self, name)

    def resized(self, name: str, value: int) -> Self:
        """The same options with another size.

        Raises:
            ValueError: it is beyond the option's bounds.
        """
        return self.model_validate({**self.model_dump(exclude_unset=True), name: value})


PROBE_TEXTS = 16
"""Training examples that telemetry gets to run the model on: the first ones of a cell."""


@dataclass(frozen=True)
class Workload:
    """What a method makes a model compute beside its own forward pass; estimates are made of it."""

    adapted_layers: int | None = None
    """Layers that gradients pass through, from the first adapted one to the last; None: all."""
    trains_base: bool = False
    """Whether the model's own weights are trained, so that each has a gradient."""
    added_weights: int = 0
    """Weights of the added matrices that every token passes."""
    frozen_weights: int = 0
    """Weights of frozen matrices that every token passes beside the model's own pass."""
    virtual_keys: int = 0
    """Keys that every token attends to beside those of the text."""
    virtual_tokens: int = 0
    """Tokens before each row that pass all layers like its own."""
    shares_prefix: bool = True
    """Whether the template's shared prefix can be computed once for several rows: not with dropout,
    which draws anew for each row, nor behind virtual tokens."""
    padded: bool = False
    """Whether its sequences are padded to the longest of a pass, not laid end to end."""
    kept_values: float = 0.0
    """Values in the compute precision that its additions keep of each token until the backward
    pass, over all layers."""
    kept_floats: float = 0.0
    """Such values that are kept in fp32, in any precision."""
    kept_by_sequence: float = 0.0
    """Values in the compute precision that are kept for each sequence, beside those of its tokens,
    over all layers."""
    kept_copies: float = 0.0
    """Values in the compute precision that are kept of a pass, whatever its tokens."""
    transient_bytes: float = 0.0
    """What its additions make at once of a layer, whatever the number of tokens."""


class TelemetryCallback(Protocol):
    """Follows one training run of a model without changing it: its bits stay the same.

    `MethodStatistics` of `harness.training.method_statistics` calls it. `observe_gradients` and
    `collect` are called at the steps that are read only: the first, the last and every tenth. A
    checkpoint holds its `state`; a resumed run begins with `load_state` instead of `start`.
    """

    def start(self, token_ids: Sequence[Sequence[int]]) -> None:
        """Called before the first step, in evaluation mode, with a few token sequences."""

    def observe_gradients(self) -> None:
        """Called with the gradients before the optimizer step; must not sync with the device."""

    def collect(self, step: int) -> dict[str, float]:
        """Metrics after the optimizer step, by their names in MLflow; one host-device sync."""

    def finish(self, token_ids: Sequence[Sequence[int]]) -> None:
        """Called after the last step, as `start` is before the first."""

    def statistics(self) -> dict[str, float]:
        """Metrics of the whole run: those last read, and those from its start and finish."""

    def frames(self) -> dict[str, pd.DataFrame]:
        """Frames to keep beside the result, by the names of their parquet files."""

    def state(self) -> dict[str, np.ndarray]:
        """All that a resumed run must know of it, by names of its own."""

    def load_state(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Puts back what `state` gave."""


class TrainingHook:
    """What a method does of its own between two optimizer steps; nothing, unless it is overridden.

    `harness.training.step` calls it. A checkpoint holds its `state`.
    """

    parallel = True
    """Whether several devices may train a cell together."""

    def prepare(self, tokenizer: Any, num_steps: int) -> None:
        """Called before the first step of a training, not of one that is resumed.

        Args:
            tokenizer: the base model's.
            num_steps: optimizer steps of the whole training.
        """

    def penalty(self) -> Tensor | None:
        """A term that is added to the mean loss of an optimizer batch, before clipping."""
        return None

    def change_gradients(self) -> None:
        """Called after clipping, before the optimizer's step."""

    def after_step(self) -> None:
        """Called after the optimizer's step, with the gradients that it has used."""

    def state(self) -> dict[str, Tensor]:
        """All that a resumed run must know of it, by names of its own."""
        return {}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
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
    apply_before_sharding: Callable[[PreTrainedModel, Any, int], Any] | None = None
    """As `apply`, where several devices are about to share the model out among them: what is
    trained may be in the base's precision, and every device makes its shard of it fp32. None where
    `apply` does."""
    statistics: Callable[[nn.Module], dict[str, float]] | None = None
    """Metrics of the method's own state, logged during training; None where it has none."""
    telemetry: Callable[[nn.Module], TelemetryCallback] | None = None
    """Makes the telemetry of a run of the adapted model; it is used instead of `statistics`."""
    hook: Callable[[nn.Module, Any], TrainingHook | None] | None = None
    """`hook(model, options)` is what the method does between the steps of a training of the adapted
    model; None where it does nothing."""
    trains: bool = True
    """False for methods that train nothing: `base`, `adapter`."""
    workload: Callable[[ModelShape, Any], Workload] | None = None
    """`workload(shape, options)` is what the method makes a model compute, for `zbench plan`.

    Where None, every layer is adapted, dropout is the option `dropout`, and a method that trains
    more than half of the parameters trains the model's own.
    """

    def apply_on(self, num_devices: int, model: PreTrainedModel, options: Any, seed: int) -> Any:
        """The model as `apply` leaves it, to be trained by a number of devices."""
        if num_devices > 1 and self.apply_before_sharding is not None:
            return self.apply_before_sharding(model, options, seed)
        return self.apply(model, options, seed)

    def hook_of(self, model: nn.Module, options: MethodOptions) -> TrainingHook | None:
        """What the method does between the steps of a training, if anything."""
        return None if self.hook is None else self.hook(model, options)

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
