"""The shape of a decoder: enough to count parameters without loading anything."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from harness import families
from harness.spec import Spec

Size = Annotated[int, Field(ge=1)]


class ModelShape(Spec):
    """Sizes as in a checkpoint's `config.json`; checked against it when the model is loaded."""

    model_type: str = "llama"
    """The family, as in config.json: one of `harness.families.FAMILIES`."""
    num_hidden_layers: Size
    hidden_size: Size
    intermediate_size: Size
    num_attention_heads: Size
    num_key_value_heads: Size | None = None
    """Heads of keys and values; as many as attention heads where absent."""
    head_dim: Size | None = None
    """Size of one head; hidden_size / num_attention_heads where absent."""
    vocab_size: Size
    tie_word_embeddings: bool = False

    @field_validator("model_type")
    @classmethod
    def _known_family(cls, model_type: str) -> str:
        if model_type not in families.FAMILIES:
            raise ValueError(families.refusal(model_type))
        return model_type

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.head_dim is None and self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is no multiple of num_attention_heads "
                f"{self.num_attention_heads}; state head_dim"
            )
        if self.num_attention_heads % self.key_value_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} is no multiple of "
                f"num_key_value_heads {self.key_value_heads}"
            )
        return self

    @property
    def key_value_heads(self) -> int:
        """Number of key and value heads."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def head_size(self) -> int:
        """Size of one head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def query_size(self) -> int:
        """Rows of q_proj."""
        return self.num_attention_heads * self.head_size

    @property
    def key_value_size(self) -> int:
        """Rows of k_proj and of v_proj."""
        return self.key_value_heads * self.head_size

    @property
    def linear_layers(self) -> dict[str, tuple[int, int]]:
        """The linear layers of one decoder layer: name to (inputs, outputs)."""
        return families.linear_layers(self)

    @property
    def num_parameters(self) -> int:
        """Parameters of the whole model."""
        return families.count_parameters(self)

    def identity(self) -> dict[str, Any]:
        """Returns the sizes for a cell's id; the Llama family, which ids began with, is unnamed."""
        sizes = self.model_dump()
        if self.model_type == "llama":
            del sizes["model_type"]
        return sizes
