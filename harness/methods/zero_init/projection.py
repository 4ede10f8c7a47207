"""The trained projection of pictures: LLaMA-Adapter (arXiv 2303.16199, section 3.3, eq. 9).

From the features of a picture, the class tokens of several layers of a frozen encoder (see
harness/models/image_encoder.py): I_p = W_up GELU(W_down features), without biases, so that zero
features would give zero, the text-only prompt. One I_p serves all adapted layers. The paper says no
more of the shape than "a simple bottleneck MLP layer"; activation, biases and initial values are
zbench's choice.

Shapes: P pictures, F features, h hidden size of the bottleneck, D hidden size of the model.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.methods.zero_init.switched import Switched


class ImageProjection(Switched):
    """The projections of a model's adapters; of the active one, features become I_p.

    PEFT switches one adapter on, or none; see `tuner.ProjectionLayer`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.prompt_image_down = nn.ModuleDict()
        self.prompt_image_up = nn.ModuleDict()

    def add(
        self,
        adapter: str,
        *,
        num_features: int,
        hidden_size: int,
        model_size: int,
        rng: torch.Generator,
        device: torch.device,
    ) -> None:
        """Adds an adapter's projection, whose initial values `rng` draws on the CPU."""
        # skip_init draws nothing from the global generator; every value is drawn below.
        down = nn.utils.skip_init(nn.Linear, num_features, hidden_size, bias=False)
        up = nn.utils.skip_init(nn.Linear, hidden_size, model_size, bias=False)
        with torch.no_grad():
            for linear in (down, up):  # as nn.Linear begins
                bound = 1 / math.sqrt(linear.in_features)
                linear.weight.uniform_(-bound, bound, generator=rng)
        self.prompt_image_down[adapter] = down.to(device)
        self.prompt_image_up[adapter] = up.to(device)

    def adapters(self) -> Collection[str]:
        """Names of the adapters that take pictures."""
        return self.prompt_image_down.keys()

    @property
    def takes_pictures(self) -> bool:
        """Whether the active adapter is conditioned on pictures."""
        return self.active is not None

    def forward(self, features_PF: Tensor) -> Tensor:
        """I_p of the active adapter, (P, D); in fp32 under autocast too."""
        assert self.active is not None
        down: Any = self.prompt_image_down[self.active]
        up: Any = self.prompt_image_up[self.active]
        with torch.autocast(features_PF.device.type, enabled=False):
            hidden_Ph = functional.gelu(down(features_PF.to(down.weight.dtype)))
            projected_PD: Tensor = up(hidden_Ph)
            return projected_PD
