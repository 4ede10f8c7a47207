"""The linear layers that a method adapts: their names in grids, their sizes, and checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, get_args

from pydantic import AfterValidator, Field

from harness.errors import MethodError
from harness.models.shape import ModelShape, shape_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_Llama = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_Phi3 = Literal["qkv_proj", "gate_up_proj"]  # fused; the others are Llama's
_GptNeoX = Literal["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]
Target = Literal[_Llama, _Phi3, _GptNeoX]
_ORDER: tuple[Target, ...] = get_args(Target)
LLAMA_LINEAR: tuple[Target, ...] = get_args(_Llama)
"""All linear layers of a Llama layer."""
FEED_FORWARD_OUTPUTS: frozenset[Target] = frozenset({"down_proj", "dense_4h_to_h"})
"""Their inputs are the inner activations of the feed-forward network."""


def _in_order(targets: tuple[Target, ...]) -> tuple[Target, ...]:
    if len(set(targets)) < len(targets):
        raise ValueError("names a layer twice")
    # A cell's id does not depend on the order in which a user lists them.
    return tuple(sorted(targets, key=_ORDER.index))


Targets = Annotated[tuple[Target, ...], Field(min_length=1), AfterValidator(_in_order)]


def target_sizes(shape: ModelShape, targets: tuple[Target, ...]) -> list[tuple[int, int]]:
    """Sizes (inputs, outputs) of each target in one layer of the model.

    Raises:
        MethodError: the model has no layer of that name.
    """
    sizes = shape.linear_layers
    for target in targets:
        if target not in sizes:
            raise MethodError(
                f"targets: a model of type {shape.model_type} has no {target}; "
                f"it has {', '.join(sizes)}"
            )
    return [sizes[target] for target in targets]


def check_layers(model: PreTrainedModel, targets: tuple[Target, ...]) -> None:
    """Refuses a model that lacks a target in one of its layers, which PEFT would ignore silently.

    Raises:
        MethodError: it does.
    """
    target_sizes(shape_of(model.config), targets)
    names = [name.rpartition(".")[2] for name, _ in model.named_modules()]
    lacking = [t for t in targets if names.count(t) != model.config.num_hidden_layers]
    if lacking:
        raise MethodError(
            f"targets: {type(model).__name__} does not have one layer named {', '.join(lacking)} "
            "in each of its layers"
        )
