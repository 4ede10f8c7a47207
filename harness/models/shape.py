"""The shape of a decoder: enough to count parameters without loading anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from harness.errors import ModelError
from harness.models.families import FAMILIES, refusal
from harness.spec import Spec

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

Size = Annotated[int, Field(ge=1, le=10**7)]
Layers = Annotated[int, Field(ge=1, le=10_000)]


class ModelShape(Spec):
    """Sizes as in a checkpoint's `config.json`; checked against it when the model is loaded."""

    model_type: str = "llama"
    """The family, as in config.json: one of `harness.models.families.FAMILIES`."""
    num_hidden_layers: Layers
    hidden_size: Size
    intermediate_size: Size
    num_attention_heads: Size
    num_key_value_heads: Size | None = None
    """Heads of keys and values; as many as attention heads where absent."""
    head_dim: Size | None = None
    """Size of one head; hidden_size / num_attention_heads where absent."""
    vocab_size: Annotated[int, Field(ge=1, le=10**8)]
    tie_word_embeddings: bool = False

    @field_validator("model_type")
    @classmethod
    def _known_family(cls, model_type: str) -> str:
        if model_type not in FAMILIES:
            raise ValueError(refusal(model_type))
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
        """The linear layers of one decoder layer, in model order: name to (inputs, outputs)."""
        hidden, inner = self.hidden_size, self.intermediate_size
        query, key = self.query_size, self.key_value_size
        layout = FAMILIES[self.model_type].layout
        if layout == "interleaved":
            return {
                "query_key_value": (hidden, 3 * hidden),
                "dense": (hidden, hidden),
                "dense_h_to_4h": (hidden, inner),
                "dense_4h_to_h": (inner, hidden),
            }
        if layout == "fused":
            return {
                "qkv_proj": (hidden, query + 2 * key),
                "o_proj": (query, hidden),
                "gate_up_proj": (hidden, 2 * inner),
                "down_proj": (inner, hidden),
            }
        return {
            "q_proj": (hidden, query),
            "k_proj": (hidden, key),
            "v_proj": (hidden, key),
            "o_proj": (query, hidden),
            "gate_proj": (hidden, inner),
            "up_proj": (hidden, inner),
            "down_proj": (inner, hidden),
        }

    @property
    def num_parameters(self) -> int:
        """Parameters of the whole model."""
        family = FAMILIES[self.model_type]
        biases = int(family.layout == "interleaved")  # of linear layers and norms
        norm = (1 + biases) * self.hidden_size
        layer = sum((inputs + biases) * outputs for inputs, outputs in self.linear_layers.values())
        layer += family.norms_per_layer * norm
        if family.projection_biases:
            layer += self.query_size + 2 * self.key_value_size
        if family.key_norm == "head":
            layer += 2 * self.head_size
        elif family.key_norm == "all heads":
            layer += self.query_size + self.key_value_size
        last_norm = norm if family.norms_per_layer else 0
        embeddings = (1 if self.tie_word_embeddings else 2) * self.vocab_size * self.hidden_size
        return self.num_hidden_layers * layer + last_norm + embeddings

    def differences(self, other: ModelShape) -> dict[str, tuple[object, object]]:
        """Own and other value of each field that differs; heads are compared by their real size."""
        real = {"num_key_value_heads": "key_value_heads", "head_dim": "head_size"}
        pairs = {
            name: (getattr(self, real.get(name, name)), getattr(other, real.get(name, name)))
            for name in ModelShape.model_fields
        }
        return {name: (own, others) for name, (own, others) in pairs.items() if own != others}

    def identity(self) -> dict[str, Any]:
        """The sizes for a cell's id; `model_type` is left out for the Llama family."""
        sizes = self.model_dump()
        if self.model_type == "llama":
            del sizes["model_type"]
        return sizes


def shape_of(config: PreTrainedConfig) -> ModelShape:
    """The shape that a transformers configuration describes.

    Raises:
        ModelError: a size is missing or impossible.
    """
    sizes = {name: getattr(config, name, None) for name in ModelShape.model_fields}
    try:
        return ModelShape.model_validate(sizes)
    except ValidationError as fault:
        first = fault.errors()[0]
        place = ".".join(str(step) for step in first["loc"])
        raise ModelError(f"config.json: {place}: {first['msg']}; not a usable model") from fault
