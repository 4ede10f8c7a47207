"""LoRA (Hu et al., 2021, arXiv 2106.09685) through stock PEFT, with Alpaca-LoRA's defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from harness.errors import MethodError
from harness.methods.method import Method, MethodOptions, Workload
from harness.methods.targets import Targets, check_layers, target_sizes
from harness.models.adapters import insert_adapter
from harness.models.shape import ModelShape, shape_of

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


ALPACA_LORA: dict[str, object] = {
    "epochs": 3,
    "batch_size": 128,
    "learning_rate": 3e-4,
    "schedule": "linear",
    "warmup_steps": 100,
    "max_gradient_norm": 1.0,
    "max_length": 256,
}
"""Alpaca-LoRA's defaults (github.com/tloen/alpaca-lora): transformers' linear schedule after 100
warm-up steps, and the gradient norm of 1 that its Trainer clips at where nothing else is said."""


class LoraOptions(MethodOptions):
    """Alpaca-LoRA's published settings (github.com/tloen/alpaca-lora) are the defaults."""

    rank: Annotated[int, Field(ge=1)] = 8
    """Rank of the two added matrices of each target."""
    alpha: Annotated[float, Field(gt=0)] = 16
    """The added product is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """On the input of the added matrices, in training."""
    targets: Targets = ("q_proj", "v_proj")
    """The linear layers that are adapted, in every layer of the model."""

    def size_options(self) -> tuple[str, ...]:
        """The rank."""
        return ("rank",)


def apply_lora(
    model: PreTrainedModel, options: LoraOptions, seed: int, *, use_dora: bool = False
) -> PeftModel:
    """Freezes the model, inserts PEFT's LoRA layers, with DoRA's magnitudes if asked, and wraps it.

    Raises:
        MethodError: the rank is too high for a target, or the model has no such layers.
    """
    from peft import LoraConfig

    from harness.methods.row_dropout import replace_dropouts

    count_lora(shape_of(model.config), options)
    check_layers(model, options.targets)
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,  # type: ignore[arg-type]  # PEFT only divides it by the rank
        lora_dropout=options.dropout,
        target_modules=list(options.targets),
        bias="none",
        use_dora=use_dora,
    )
    adapted = insert_adapter(model, config, seed)
    replace_dropouts(adapted)
    if not use_dora:  # whose norms of weights are computed in the input's precision
        _keep_input_precision(adapted)
    return adapted


def _keep_input_precision(model: PeftModel) -> None:
    """Spares autocast a copy of each layer's input in fp32, which PEFT makes for its weights.

    Autocast would round the copy, after dropout, to the precision it came from; dropout rounds once
    either way, so that every bit stays. PEFT's layers on quantized weights do the same.
    """
    from peft.tuners.lora import LoraLayer

    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.register_forward_pre_hook(_cast_without_autocast)


def _cast_without_autocast(layer: Any, inputs: tuple[Any, ...]) -> None:
    import torch

    layer.cast_input_dtype_enabled = not torch.is_autocast_enabled(inputs[0].device.type)


def count_lora(shape: ModelShape, options: LoraOptions) -> int:
    """Two matrices per target, of rank · inputs and outputs · rank.

    Raises:
        MethodError: the rank is higher than a target's own, or the model has no such target.
    """
    sizes = target_sizes(shape, options.targets)
    for target, size in zip(options.targets, sizes, strict=True):
        if options.rank > min(size):
            raise MethodError(
                f"rank: must be at most {min(size)}, the smaller side of {target} in this "
                f"model (got {options.rank})"
            )
    return shape.num_hidden_layers * options.rank * sum(sum(size) for size in sizes)


def lora_workload(shape: ModelShape, options: LoraOptions) -> Workload:
    """Every token passes the two added matrices of each target.

    Of a target's input what is multiplied is kept, cast to the compute precision; dropout's mask is
    drawn again in the backward pass.
    """
    inputs = shape.num_hidden_layers * sum(size[0] for size in target_sizes(shape, options.targets))
    return Workload(
        added_weights=count_lora(shape, options),
        shares_prefix=not options.dropout,
        kept_values=inputs,
    )


LORA = Method(
    name="lora",
    title="LoRA",
    options=LoraOptions,
    recipe=ALPACA_LORA,
    apply=apply_lora,
    count_parameters=count_lora,
    workload=lora_workload,
)
