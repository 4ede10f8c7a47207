"""The hypernetwork that makes the prompts of `zero-init-nonlinear` (arXiv 2502.03029, section 3).

From the embedding e_i of layer i: P_i = W_2 σ(W_1 e_i + b_1) + b_2, reshaped to (L, D), with an
activation σ. All layers share W_1, b_1, W_2 and b_2. L is the prompt length, D the hidden size of
the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "relu": functional.relu,
    "leaky_relu": lambda x: functional.leaky_relu(x, negative_slope=0.1),
    "gelu": functional.gelu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


class PromptGenerator(nn.Module):
    """Hypernetwork that makes the prompts of all layers from their embeddings; one per adapter.

    Args:
        model_size: D.
        num_layers: layers of the model; each has an embedding, also those without a prompt.
    """

    def __init__(self, *, num_layers: int, model_size: int) -> None:
        super().__init__()
        self.num_layers = num_layers
        self.model_size = model_size
        self.prompt_embedding = nn.ParameterDict()
        self.prompt_hidden = nn.ModuleDict()
        self.prompt_output = nn.ModuleDict()
        self._activations: dict[str, str] = {}

    def add(
        self,
        adapter: str,
        *,
        prompt_length: int,
        hidden_size: int,
        activation: str,
        rng: torch.Generator,
        device: torch.device,
    ) -> None:
        """Adds an adapter's generator, whose initial values `rng` draws on the CPU.

        `hidden_size` is that of the embedding and of the hidden layer.
        """
        embedding = torch.randn(self.num_layers, hidden_size, generator=rng)
        # skip_init draws nothing from the global generator; every value is drawn below.
        hidden = nn.utils.skip_init(nn.Linear, hidden_size, hidden_size)
        output = nn.utils.skip_init(nn.Linear, hidden_size, prompt_length * self.model_size)
        usual = 1 / math.sqrt(hidden_size)
        # Generated prompts start near zero.
        small = 1e-3 * math.sqrt(3 / (hidden_size * self.model_size))
        with torch.no_grad():
            hidden.weight.uniform_(-usual, usual, generator=rng)
            hidden.bias.uniform_(-usual, usual, generator=rng)
            output.weight.uniform_(-small, small, generator=rng)
            output.bias.zero_()
        self.prompt_embedding[adapter] = nn.Parameter(embedding.to(device))
        self.prompt_hidden[adapter] = hidden.to(device)
        self.prompt_output[adapter] = output.to(device)
        self._activations[adapter] = activation

    def forward(self, adapter: str, layer_index: int) -> Tensor:
        """The prompt of a layer, (L, D)."""
        embedding = self.prompt_embedding[adapter]
        # In fp32 under autocast too: the prompts start at the size of bf16's rounding errors.
        with torch.autocast(embedding.device.type, enabled=False):
            hidden = self.prompt_hidden[adapter](embedding[layer_index])
            activated = ACTIVATIONS[self._activations[adapter]](hidden)
            return self.prompt_output[adapter](activated).view(-1, self.model_size)
