"""The modules of the prompt methods as PEFT's layers, which it switches, moves and saves."""

from __future__ import annotations

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from harness.methods.zero_init.attention import PromptAttention
from harness.methods.zero_init.generator import PromptGenerator
from harness.methods.zero_init.projection import ImageProjection


class _Layer(BaseTunerLayer):
    """BaseTunerLayer glue for modules that wrap no base layer."""

    # PEFT reads a base layer's, and there is none.
    weight = bias = None  # type: ignore[assignment]
    device: torch.device
    """Device of the module that the layer is added to."""

    def _move_adapter_to_device_of_base_layer(
        self, adapter_name: str, device: torch.device | None = None
    ) -> None:
        for name in self.adapter_layer_names:
            adapters = getattr(self, name)
            if adapter_name in adapters:
                part = adapters[adapter_name]
                for tensor in [part] if isinstance(part, nn.Parameter) else part.parameters():
                    tensor.data = tensor.data.to(device or self.device)


class PromptLayer(PromptAttention, _Layer):
    """Zero-initialised attention (not PEFT's prompt tuning): the prompts of one attention layer."""

    adapter_layer_names = ("prompt_rows", "prompt_gate")
    other_param_names = ("_gate_activations", "_generators", "_takes_pictures")


class GeneratorLayer(PromptGenerator, _Layer):
    """The generators of a model, one for each adapter, as PEFT switches and saves them."""

    adapter_layer_names = ("prompt_embedding", "prompt_hidden", "prompt_output")
    other_param_names = ("_activations",)


class ProjectionLayer(ImageProjection, _Layer):
    """The projections of pictures of a model, one for each adapter that takes any."""

    adapter_layer_names = ("prompt_image_down", "prompt_image_up")
    other_param_names = ()
