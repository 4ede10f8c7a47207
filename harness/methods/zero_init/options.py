"""Options, recipe and parameter counts of the paper's three prompt methods (arXiv 2502.03029).

The formulas are in `attention.py`; section 3 of the paper describes the methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from harness.errors import MethodError, ModelError
from harness.methods.method import MethodOptions, Workload
from harness.models.image_encoder import ImageEncoderSpec
from harness.models.shape import ModelShape

PAPER_PROMPTS: dict[str, object] = {
    "epochs": 5,
    "batch_size": 64,
    "base_learning_rate": 0.009,
    "warmup_epochs": 2.0,
    "weight_decay": 0.02,
    "beta2": 0.95,
    "max_length": 512,
}
"""The paper's recipe for all prompt methods (arXiv 2502.03029, appendix; LLaMA-Adapter's code):
0.009 is the reference learning rate at a batch of 256: lr = 0.009 · batch / 256, 2.25e-3 at 64."""

FIRST_LAYERS_LEFT_OUT = 2
"""The paper adapts 30 of 32 and 38 of 40 layers."""
FEWEST_LAYERS_FOR_DEFAULT = 4
"""Below this, leaving out two layers leaves out half of the model or more."""


class PromptOptions(MethodOptions):
    """Options of `random-init`, and those that all prompt methods share."""

    prompt_length: Annotated[int, Field(ge=1, le=1024)] = 10
    """L, the number of virtual tokens in each adapted layer."""
    num_layers: Annotated[int, Field(ge=1)] | None = None
    """How many of the last layers carry a prompt; all but the first two where absent."""
    image_encoder: ImageEncoderSpec | None = Field(
        default=None, exclude_if=lambda value: value is None
    )
    """The frozen encoder of pictures, a projection of which is added to the prompts; without one
    the prompts are those of the text alone."""

    def identity(self) -> dict[str, Any]:
        """All options; of an encoder of pictures what decides its features, not where it lies."""
        whole = self.model_dump()
        if self.image_encoder is not None:
            whole["image_encoder"] = self.image_encoder.identity()
        return whole

    def size_options(self) -> tuple[str, ...]:
        """The prompt's rows, then the layers that have one."""
        return ("prompt_length", "num_layers")

    def adapted_layers(self, shape: ModelShape) -> range:
        """Indices of the layers that carry a prompt.

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
    """Applied to a gate before it scales the prompt's term; the paper's formula has tanh, the
    authors' generation code none."""


class GeneratedPromptOptions(GatedPromptOptions):
    """Options of `zero-init-nonlinear`."""

    activation: Literal["relu", "leaky_relu", "gelu", "tanh", "sigmoid"] = "relu"
    """Activation between the two linear layers of the hypernetwork; leaky_relu has slope 0.1."""
    hidden_size: Annotated[int, Field(ge=1, le=65536)] = 64
    """Hidden size of the hypernetwork's linear layers, and of its layer embeddings."""

    def size_options(self) -> tuple[str, ...]:
        """The hypernetwork's hidden size, then the prompt's rows."""
        return ("hidden_size", "prompt_length")


def image_encoder_of(options: MethodOptions) -> ImageEncoderSpec | None:
    """The image encoder of any method's options; None where it looks at no pictures."""
    found: ImageEncoderSpec | None = getattr(options, "image_encoder", None)
    return found


PROMPT_METHODS: dict[str, type[PromptOptions]] = {
    "random-init": PromptOptions,
    "zero-init-linear": GatedPromptOptions,
    "zero-init-nonlinear": GeneratedPromptOptions,
}
"""The options of each prompt method, by its name in grids."""


def check_base(stated: Mapping[str, Any], found: ModelShape) -> None:
    """Checks that an adapter's `base_shape` is that of a model.

    The sizes of the vocabulary and of the feed-forward layers may differ, and tie_word_embeddings.

    Raises:
        ModelError: it is not; every size that differs is named.
    """
    try:
        there = ModelShape.model_validate(dict(stated))
    except ValidationError as fault:
        raise ModelError("adapter_config.json: base_shape: is no shape of a model") from fault
    differing = [
        f"{name} {own}, this base has {others}"
        for name, (own, others) in there.differences(found).items()
        if name not in ("vocab_size", "intermediate_size", "tie_word_embeddings")
    ]
    if differing:
        raise ModelError(
            f"the adapter is for another base model: it was made for {'; '.join(differing)}; load "
            "it onto its own base"
        )


def count_prompts(shape: ModelShape, options: PromptOptions) -> int:
    """The parameters of the free prompts, or of their generator, of the gates, and of the
    projection of pictures.

    Raises:
        MethodError: the model has too few layers.
    """
    layers = len(options.adapted_layers(shape))
    prompt_size = options.prompt_length * shape.hidden_size
    others = layers * shape.num_attention_heads if isinstance(options, GatedPromptOptions) else 0
    if options.image_encoder is not None:
        others += options.image_encoder.count_projection(shape.hidden_size)
    if not isinstance(options, GeneratedPromptOptions):
        return layers * prompt_size + others
    hidden = options.hidden_size
    embeddings = shape.num_hidden_layers * hidden  # of all layers, also those without a prompt
    return embeddings + (hidden + 1) * hidden + (hidden + 1) * prompt_size + others


def prompt_workload(shape: ModelShape, options: PromptOptions) -> Workload:
    """Gradients stop at the first layer with a prompt; each token attends to the virtual tokens.

    Pictures are not counted: their projection is one small matrix product for each distinct picture
    of a pass, and what it adds in a layer one vector per head, or the prompt's keys and values.

    Raises:
        MethodError: the model has too few layers.
    """
    layers, length = len(options.adapted_layers(shape)), options.prompt_length
    # A gate: what the prompt gives is kept, token by token, beside the queries. One softmax:
    # each sequence has the prompt's keys and values before its own, and as many empty queries.
    gated = isinstance(options, GatedPromptOptions)
    joint = 2 * length * (shape.query_size + shape.key_value_size)
    return Workload(
        adapted_layers=layers,
        virtual_keys=length,
        kept_values=layers * shape.query_size if gated else 0,
        kept_by_sequence=0 if gated else layers * joint,
    )
