"""The shape of a LLaMA-architecture model: enough to count parameters without loading anything."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from harness.spec import Spec

Size = Annotated[int, Field(ge=1)]


class ModelShape(Spec):
    """Sizes as in a checkpoint's `config.json`; checked against it when the model is loaded."""

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
    def num_parameters(self) -> int:
        """Parameters of the whole model, without biases (LLaMA has none)."""
        attention = 2 * self.hidden_size * (self.query_size + self.key_value_size)
        mlp = 3 * self.hidden_size * self.intermediate_size
        layer = attention + mlp + 2 * self.hidden_size
        embeddings = (1 if self.tie_word_embeddings else 2) * self.vocab_size * self.hidden_size
        return self.num_hidden_layers * layer + embeddings + self.hidden_size
