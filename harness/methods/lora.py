"""LoRA (Hu et al., 2021, arXiv 2106.09685) through stock PEFT, with Alpaca-LoRA's defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator

from harness.checkpoint import shape_of
from harness.errors import MethodError
from harness.methods.method import MethodOptions
from harness.shape import ModelShape

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Target = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_ORDER = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class LoraOptions(MethodOptions):
    """Alpaca-LoRA's published settings (github.com/tloen/alpaca-lora) are the defaults."""

    rank: Annotated[int, Field(ge=1)] = 8
    """Rank of the two added matrices of each target."""
    alpha: Annotated[float, Field(gt=0)] = 16
    """The added product is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """On the input of the added matrices, in training."""
    targets: Annotated[tuple[Target, ...], Field(min_length=1)] = ("q_proj", "v_proj")
    """The linear layers that are adapted, in every layer of the model."""

    @field_validator("targets")
    @classmethod
    def _order_targets(cls, targets: tuple[Target, ...]) -> tuple[Target, ...]:
        if len(set(targets)) < len(targets):
            raise ValueError("names a layer twice")
        # One order, so that the order in which a user lists them does not change a cell's id.
        return tuple(sorted(targets, key=_ORDER.index))


def apply_lora(model: PreTrainedModel, options: LoraOptions, seed: int) -> PreTrainedModel:
    """Freezes the model, puts PEFT's LoRA layers into it, and returns it.

    Raises:
        MethodError: the rank is too high for a target, or the model has no such layers.
    """
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    from harness.methods.row_dropout import replace_dropouts

    count_lora(shape_of(model.config), options)
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,  # type: ignore[arg-type]  # PEFT only divides it by the rank
        lora_dropout=options.dropout,
        target_modules=list(options.targets),
        bias="none",
    )
    # PEFT draws from the CPU's global generator, then moves the tensors to their layer's device.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            inject_adapter_in_model(config, model)
        except ValueError as fault:
            raise MethodError(
                f"lora: {type(model).__name__} has no layers named {', '.join(options.targets)} "
                f"({fault})"
            ) from fault
    replace_dropouts(model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    # New modules begin in training mode, where their dropout works.
    return model.train(model.training)


def count_lora(shape: ModelShape, options: LoraOptions) -> int:
    """Returns the number of trained parameters.

    Raises:
        MethodError: the rank is higher than a target's own.
    """
    sizes = {
        "q_proj": (shape.hidden_size, shape.query_size),
        "k_proj": (shape.hidden_size, shape.key_value_size),
        "v_proj": (shape.hidden_size, shape.key_value_size),
        "o_proj": (shape.query_size, shape.hidden_size),
        "gate_proj": (shape.hidden_size, shape.intermediate_size),
        "up_proj": (shape.hidden_size, shape.intermediate_size),
        "down_proj": (shape.intermediate_size, shape.hidden_size),
    }
    for target in options.targets:
        if options.rank > min(sizes[target]):
            raise MethodError(
                f"rank: must be at most {min(sizes[target])}, the smaller side of {target} in this "
                f"model (got {options.rank})"
            )
    return shape.num_hidden_layers * options.rank * sum(sum(sizes[t]) for t in options.targets)
