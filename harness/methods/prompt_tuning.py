"""Prefix-tuning and prompt tuning through stock PEFT: virtual tokens before those of the input.

In both, the virtual tokens take the first positions, and those of the input move up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from harness.methods.method import Method, MethodOptions, Workload
from harness.models.adapters import insert_adapter
from harness.models.shape import ModelShape, shape_of

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

VIRTUAL_TOKENS: dict[str, object] = {
    "epochs": 5,
    "batch_size": 64,
    "learning_rate": 1e-3,
    "weight_decay": 0.1,
    "max_gradient_norm": 1.0,
    "max_length": 512,
}
"""The rate, the decay, the cosine without warm-up and the clipping are those of PEFT's published
comparison on Llama 3.2 (github.com/huggingface/peft, method_comparison/MetaMathQA: prefixtuning
and prompt_tuning with `lr_0.001`, 5000 steps). No setting for instruction tuning of LLaMA is
published; epochs, batch and length are the paper's, 4065 steps on Alpaca [choice]."""

TokenCount = Annotated[int, Field(ge=1, le=4096)]


class PrefixTuningOptions(MethodOptions):
    """Prefix-tuning (Li and Liang, 2021, arXiv 2101.00190) without its reparametrisation.

    Keys and values of virtual tokens, free parameters, precede those of the input in every layer.
    Default: 10 tokens, the prompt length of the paper's methods [choice]. PEFT draws them from
    N(0, 1).
    """

    num_virtual_tokens: TokenCount = 10
    """Keys and values per layer and head."""

    def size_options(self) -> tuple[str, ...]:
        """The virtual tokens."""
        return ("num_virtual_tokens",)


def apply_prefix_tuning(
    model: PreTrainedModel, options: PrefixTuningOptions, seed: int
) -> PeftModel:
    """Freezes the model and wraps it with PEFT's prefix encoder."""
    from peft import PrefixTuningConfig

    shape = shape_of(model.config)
    # Stated, because older versions of PEFT overlook a `head_dim` that is not hidden / heads.
    config = PrefixTuningConfig(
        num_virtual_tokens=options.num_virtual_tokens,
        num_layers=shape.num_hidden_layers,
        num_attention_heads=shape.key_value_heads,
        token_dim=shape.key_value_size,
        num_transformer_submodules=1,
    )
    return insert_adapter(model, config, seed)


def count_prefix_tuning(shape: ModelShape, options: PrefixTuningOptions) -> int:
    """A key and a value of each virtual token in every layer and key-value head."""
    return 2 * options.num_virtual_tokens * shape.num_hidden_layers * shape.key_value_size


def prefix_tuning_workload(shape: ModelShape, options: PrefixTuningOptions) -> Workload:
    """Keys before each row's own, so that no two rows share a prefix."""
    count = options.num_virtual_tokens
    kept = 2.0 * count * shape.num_hidden_layers * shape.key_value_size
    return Workload(virtual_keys=count, shares_prefix=False, padded=True, kept_by_sequence=kept)


class PromptTuningOptions(MethodOptions):
    """Prompt tuning (Lester et al., 2021, arXiv 2104.08691): trained embeddings before the input's.

    Default: 100 tokens [choice], started from embeddings of the vocabulary. The paper draws those
    from the 5,000 most frequent tokens, PEFT from all.
    """

    num_virtual_tokens: TokenCount = 100
    start: Literal["vocabulary", "random"] = "vocabulary"
    """From the embeddings of random tokens, or from N(0, 1)."""

    def size_options(self) -> tuple[str, ...]:
        """The virtual tokens."""
        return ("num_virtual_tokens",)


def apply_prompt_tuning(
    model: PreTrainedModel, options: PromptTuningOptions, seed: int
) -> PeftModel:
    """Freezes the model and wraps it with PEFT's prompt embedding."""
    from peft import PromptTuningConfig, PromptTuningInit

    starts = {"vocabulary": PromptTuningInit.SAMPLE_VOCAB, "random": PromptTuningInit.RANDOM}
    shape = shape_of(model.config)
    config = PromptTuningConfig(
        num_virtual_tokens=options.num_virtual_tokens,
        prompt_tuning_init=starts[options.start],
        num_layers=shape.num_hidden_layers,
        num_attention_heads=shape.num_attention_heads,
        token_dim=shape.hidden_size,
        num_transformer_submodules=1,
    )
    return insert_adapter(model, config, seed)


def count_prompt_tuning(shape: ModelShape, options: PromptTuningOptions) -> int:
    """An embedding of each virtual token."""
    return options.num_virtual_tokens * shape.hidden_size


def prompt_tuning_workload(shape: ModelShape, options: PromptTuningOptions) -> Workload:
    """Tokens before each row's own, which pass the layers and are attended to."""
    count = options.num_virtual_tokens
    return Workload(virtual_keys=count, virtual_tokens=count, shares_prefix=False, padded=True)


PREFIX_TUNING = Method(
    name="prefix-tuning",
    title="Prefix-tuning",
    options=PrefixTuningOptions,
    recipe=VIRTUAL_TOKENS,
    apply=apply_prefix_tuning,
    count_parameters=count_prefix_tuning,
    workload=prefix_tuning_workload,
)
PROMPT_TUNING = Method(
    name="prompt-tuning",
    title="Prompt tuning",
    options=PromptTuningOptions,
    recipe=VIRTUAL_TOKENS,
    apply=apply_prompt_tuning,
    count_parameters=count_prompt_tuning,
    workload=prompt_tuning_workload,
)
