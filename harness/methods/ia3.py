"""(IA)³ (Liu et al., 2022, arXiv 2205.05638) through stock PEFT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.methods.lora import ALPACA_LORA
from harness.methods.method import Method, MethodOptions, Workload
from harness.methods.targets import FEED_FORWARD_OUTPUTS, Targets, check_layers, target_sizes
from harness.models.adapters import insert_adapter
from harness.models.shape import ModelShape

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

IA3_RATE: dict[str, object] = ALPACA_LORA | {"learning_rate": 3e-3, "warmup_steps": 60}
"""The rate, the line to zero and the 60 steps of warm-up are (IA)³'s own (section 3.5, with
Adafactor on T0). No setting for instruction tuning of LLaMA is published; the rest is Alpaca-LoRA's
[choice]."""


class Ia3Options(MethodOptions):
    """(IA)³ (Liu et al., 2022, arXiv 2205.05638): keys, values and inner activations are rescaled.

    Defaults: the paper's three layers (its section 3.3), which are PEFT's own for Llama.
    """

    targets: Targets = ("k_proj", "v_proj", "down_proj")
    """Linear layers whose outputs are rescaled; the last one of a feed-forward network has its
    inputs rescaled."""


def apply_ia3(model: PreTrainedModel, options: Ia3Options, seed: int) -> PeftModel:
    """Freezes the model, inserts PEFT's (IA)³ vectors, all ones, and wraps it.

    Raises:
        MethodError: the model has no such layers.
    """
    from peft import IA3Config

    check_layers(model, options.targets)
    inner: list[str] = [target for target in options.targets if target in FEED_FORWARD_OUTPUTS]
    config = IA3Config(target_modules=list(options.targets), feedforward_modules=inner)
    return insert_adapter(model, config, seed)


def count_ia3(shape: ModelShape, options: Ia3Options) -> int:
    """A scale for each output of every target, or for each input of a feed-forward network's last.

    Raises:
        MethodError: the model has no such target.
    """
    sizes = target_sizes(shape, options.targets)
    scaled = [
        inputs if target in FEED_FORWARD_OUTPUTS else outputs
        for target, (inputs, outputs) in zip(options.targets, sizes, strict=True)
    ]
    return shape.num_hidden_layers * sum(scaled)


def ia3_workload(shape: ModelShape, options: Ia3Options) -> Workload:
    """What is rescaled is kept for the scales' gradients: outputs in the compute precision, the
    inputs of a feed-forward network's last layer in fp32.
    """
    sizes = dict(zip(options.targets, target_sizes(shape, options.targets), strict=True))
    inner = sum(size[0] for name, size in sizes.items() if name in FEED_FORWARD_OUTPUTS)
    outer = sum(size[1] for name, size in sizes.items() if name not in FEED_FORWARD_OUTPUTS)
    layers = shape.num_hidden_layers
    return Workload(kept_values=layers * outer, kept_floats=layers * inner)


IA3 = Method(
    name="ia3",
    title="(IA)³",
    options=Ia3Options,
    recipe=IA3_RATE,
    apply=apply_ia3,
    count_parameters=count_ia3,
    workload=ia3_workload,
)
