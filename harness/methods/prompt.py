"""The three prompt methods of "On Zero-Initialized Attention" (arXiv 2502.03029), section 3:
options, insertion into a model, statistics and counts. The maths is in `zero_init_attention.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from harness.checkpoint import shape_of
from harness.errors import MethodError
from harness.methods.method import MethodOptions
from harness.shape import ModelShape

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

    from harness.methods.zero_init_attention import PromptGenerator

FIRST_LAYERS_LEFT_OUT = 2
"""The paper adapts 30 of 32 and 38 of 40 layers."""
FEWEST_LAYERS_FOR_DEFAULT = 4
"""Below this, leaving out two layers leaves out half of the model or more."""


class PromptOptions(MethodOptions):
    """Options of `random-init`, and those that all prompt methods share."""

    prompt_length: Annotated[int, Field(ge=1, le=1024)] = 10
    """Rows of the prompt of each adapted layer."""
    num_layers: Annotated[int, Field(ge=1)] | None = None
    """How many of the last layers carry a prompt; all but the first two where absent."""

    def adapted_layers(self, shape: ModelShape) -> range:
        """Returns the indices of the layers that carry a prompt.

        Raises:
            MethodError: the model has too few layers.
        """
        available = shape.num_hidden_layers
        if self.num_layers is None:
            if available < FEWEST_LAYERS_FOR_DEFAULT:
                raise MethodError(
                    f"num_layers: the default, all but the first two, is for models of at least "
                    f"{FEWEST_LAYERS_FOR_DEFAULT} layers; set num_layers to 1..{available}"
                )
            return range(FIRST_LAYERS_LEFT_OUT, available)
        if self.num_layers > available:
            raise MethodError(
                f"num_layers: must be at most {available}, the layers of this model "
                f"(got {self.num_layers})"
            )
        return range(available - self.num_layers, available)


class GatedPromptOptions(PromptOptions):
    """Options of `zero-init-linear`."""

    gate_activation: Literal["tanh", "identity"] = "tanh"
    """What is applied to a gate before it scales the prompt's part; the paper's formula has tanh,
    the authors' generation code none."""


class GeneratedPromptOptions(GatedPromptOptions):
    """Options of `zero-init-nonlinear`."""

    activation: Literal["relu", "leaky_relu", "gelu", "tanh", "sigmoid"] = "relu"
    """Between the two linear layers of the generator; leaky_relu has slope 0.1."""
    hidden_size: Annotated[int, Field(ge=1, le=65536)] = 64
    """Size of the generator's layer embedding and of its hidden layer."""


def apply_random_init(model: PreTrainedModel, options: PromptOptions, seed: int) -> PreTrainedModel:
    """Freezes the model and gives its last layers prompts in one softmax with the words.

    Raises:
        MethodError: the model or its attention implementation is not supported, or too shallow.
    """
    return _insert_prompts(model, options, seed, gate_activation=None)


def apply_zero_init_linear(
    model: PreTrainedModel, options: GatedPromptOptions, seed: int
) -> PreTrainedModel:
    """Freezes the model and gives its last layers free prompts behind zero gates.

    Raises:
        MethodError: the model or its attention implementation is not supported, or too shallow.
    """
    return _insert_prompts(model, options, seed, gate_activation=options.gate_activation)


def apply_zero_init_nonlinear(
    model: PreTrainedModel, options: GeneratedPromptOptions, seed: int
) -> PreTrainedModel:
    """Freezes the model and gives its last layers generated prompts behind zero gates.

    Raises:
        MethodError: the model or its attention implementation is not supported, or too shallow.
    """
    return _insert_prompts(model, options, seed, gate_activation=options.gate_activation)


def _insert_prompts(
    model: PreTrainedModel, options: PromptOptions, seed: int, *, gate_activation: str | None
) -> PreTrainedModel:
    import torch

    from harness.methods import zero_init_attention as attention

    implementation = _base_attention(model)
    shape = shape_of(model.config)
    layers = options.adapted_layers(shape)
    # Drawn on the CPU in fp32, whatever the model's device and precision: one seed, one start.
    random = torch.Generator().manual_seed(seed)
    model.requires_grad_(False)
    decoder = model.get_decoder()
    device = decoder.layers[layers[0]].self_attn.k_proj.weight.device
    generator = None
    if isinstance(options, GeneratedPromptOptions):
        generator = _draw_generator(options, shape, random).to(device)
        decoder.add_module(attention.GENERATOR, generator)
    for index in layers:
        module = decoder.layers[index].self_attn
        rows = None
        if generator is None:
            rows = torch.randn(options.prompt_length, shape.hidden_size, generator=random)
        prompt = attention.PromptAttention(
            layer_index=index,
            rows=rows,
            generator=generator,
            num_gates=None if gate_activation is None else shape.num_attention_heads,
            gate_activation=gate_activation or "identity",
        )
        module.add_module(attention.PROMPT, prompt.to(module.k_proj.weight.device))
    model.set_attn_implementation(attention.register_prompts(model, implementation))
    return model.train(model.training)


def _draw_generator(
    options: GeneratedPromptOptions, shape: ModelShape, random: torch.Generator
) -> PromptGenerator:
    from harness.methods.zero_init_attention import PromptGenerator

    return PromptGenerator(
        num_layers=shape.num_hidden_layers,
        prompt_length=options.prompt_length,
        model_size=shape.hidden_size,
        hidden_size=options.hidden_size,
        activation=options.activation,
        random=random,
    )


def _base_attention(model: PreTrainedModel) -> str:
    """Returns the model's attention implementation, `sdpa` or `eager`; refuses what is not known.

    Raises:
        MethodError: another architecture or attention implementation, or prompts are there.
    """
    from harness.methods.zero_init_attention import PROMPT

    family = model.config.model_type
    if family != "llama":
        raise MethodError(
            f"prompt methods know the Llama architecture; this is a {family} model "
            f"({type(model).__name__}), whose attention may differ"
        )
    if any(hasattr(layer.self_attn, PROMPT) for layer in model.get_decoder().layers):
        raise MethodError("this model carries prompts already; apply a method to a fresh base")
    implementation = model.config._attn_implementation
    if implementation not in ("sdpa", "eager"):
        raise MethodError(
            f"prompt methods run on the attention implementations sdpa and eager, not on "
            f"{implementation}; load the model with attn_implementation='sdpa'"
        )
    return str(implementation)


def count_random_init(shape: ModelShape, options: PromptOptions) -> int:
    """Returns the parameters of the free prompts.

    Raises:
        MethodError: the model has too few layers.
    """
    return len(options.adapted_layers(shape)) * options.prompt_length * shape.hidden_size


def count_zero_init_linear(shape: ModelShape, options: GatedPromptOptions) -> int:
    """Returns the parameters of the free prompts and the gates.

    Raises:
        MethodError: the model has too few layers.
    """
    return count_random_init(shape, options) + _num_gates(shape, options)


def count_zero_init_nonlinear(shape: ModelShape, options: GeneratedPromptOptions) -> int:
    """Returns the parameters of the generator and the gates.

    Raises:
        MethodError: the model has too few layers.
    """
    hidden = options.hidden_size
    prompt_size = options.prompt_length * shape.hidden_size
    embedding = shape.num_hidden_layers * hidden
    generator = embedding + (hidden + 1) * hidden + (hidden + 1) * prompt_size
    return generator + _num_gates(shape, options)


def _num_gates(shape: ModelShape, options: PromptOptions) -> int:
    return len(options.adapted_layers(shape)) * shape.num_attention_heads


def gate_statistics(model: nn.Module) -> dict[str, float]:
    """Returns mean and largest |tanh(g)| over all gates, and by layer (over its heads).

    The keys are `gate/mean_abs`, `gate/max_abs`, `gate/layer_02/mean_abs` and so on, with the
    layer's index in the model. With `gate_activation: identity` it is |g|. One copy from the
    device.
    """
    import torch

    from harness.methods.zero_init_attention import PromptAttention

    prompts = [
        module
        for module in model.modules()
        if isinstance(module, PromptAttention) and module.gate is not None
    ]
    if not prompts:
        return {}
    with torch.no_grad():
        strengths = torch.stack([prompt.gate_strength().flatten() for prompt in prompts])
        rows = strengths.abs().double().cpu()
    found = {"gate/mean_abs": rows.mean().item(), "gate/max_abs": rows.max().item()}
    for prompt, row in zip(prompts, rows, strict=True):
        place = f"gate/layer_{prompt.layer_index:02d}"
        found[f"{place}/mean_abs"] = row.mean().item()
        found[f"{place}/max_abs"] = row.max().item()
    return found
