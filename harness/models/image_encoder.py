"""The frozen image encoder of a picture-conditioned prompt: what a grid says of it."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from harness.spec import Spec, UserPath


class ImageEncoderSpec(Spec):
    """A CLIP vision encoder, and the projection of its features: a hub repository or a folder.

    A picture's features are its class tokens after some layers, F = len(scales) * width numbers;
    the trained projection is a bottleneck without biases, F -> hidden_size -> D. LLaMA-Adapter
    (arXiv 2303.16199, sections 3.3 and 4.2) says of its encoder only that it is a pre-trained CLIP
    with features of several scales and "a simple bottleneck MLP layer" of 0.6M parameters: the
    defaults are zbench's choice, and give its total of 1.79M with LLaMA-7B.
    """

    source: str | None = None
    """Hub repository, such as `openai/clip-vit-base-patch16`."""
    path: UserPath | None = None
    """Checkpoint folder: absolute, under the data root, or beside the grid file. It takes
    precedence over `source`."""
    revision: str = "main"
    """Branch, tag or commit of the hub repository."""
    width: Annotated[int, Field(ge=1, le=65536)] = 768
    """Hidden size of the encoder; stated, so that parameters are counted without loading it."""
    scales: Annotated[tuple[Annotated[int, Field(ge=1, le=1000)], ...], Field(min_length=1)] = (
        2, 4, 6, 8, 10, 12,
    )  # fmt: skip
    """Layers after which the class token is taken, counted from 1."""
    hidden_size: Annotated[int, Field(ge=1, le=65536)] = 64
    """Width of the projection's bottleneck."""
    pretrained: bool = Field(default=True, exclude_if=lambda value: value is True)
    """False: the encoder's weights are drawn anew, as a control; its configuration stays."""

    @property
    def num_features(self) -> int:
        """F, the numbers that it gives of a picture."""
        return len(self.scales) * self.width

    def count_projection(self, model_size: int) -> int:
        """Trained parameters of the projection to a model of hidden size `model_size`."""
        return self.num_features * self.hidden_size + self.hidden_size * model_size

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.source is None and self.path is None:
            raise ValueError("give `source` (a hub repository) or `path` (a folder)")
        if list(self.scales) != sorted(set(self.scales)):
            raise ValueError("scales: name each layer once, in ascending order")
        return self
