"""VeRA (Kopiczko et al., 2024, arXiv 2310.11454) through stock PEFT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from harness.methods.method import Method, MethodOptions, Workload
from harness.methods.targets import LLAMA_LINEAR, Targets, check_layers, target_sizes
from harness.models.adapters import insert_adapter
from harness.models.shape import ModelShape

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

VERA_ALPACA: dict[str, object] = {
    "epochs": 1,
    "batch_size": 16,
    "learning_rate": 4e-3,
    "warmup_ratio": 0.1,
    "max_length": 512,
}
"""VeRA's table 9: Llama on cleaned Alpaca, batches of 4 times 4 accumulated, half a cosine. It
gives no length; 512 is that of the paper's methods [choice]."""


class VeraOptions(MethodOptions):
    """VeRA (Kopiczko et al., 2024, arXiv 2310.11454): scaled copies of one random pair of matrices.

    Defaults: its section 4.3 and table 9, Llama on cleaned Alpaca: rank 1024 on all linear layers
    but the head, 1.6M parameters in 7B. The pair is drawn from the cell's seed and saved.
    """

    rank: Annotated[int, Field(ge=1, le=65536)] = 1024
    """Rank of the shared pair; it may exceed a layer's size [choice]."""
    initial_scale: Annotated[float, Field(gt=0)] = 0.1
    """First value of the rank's scales (d in the paper); those of the outputs (b) start at zero."""
    targets: Targets = LLAMA_LINEAR

    def size_options(self) -> tuple[str, ...]:
        """The rank, a scale of which every target has."""
        return ("rank",)


def apply_vera(model: PreTrainedModel, options: VeraOptions, seed: int) -> PeftModel:
    """Freezes the model, inserts PEFT's VeRA layers, and wraps it.

    Raises:
        MethodError: the model has no such layers.
    """
    from peft import VeraConfig

    check_layers(model, options.targets)
    config = VeraConfig(
        r=options.rank,
        target_modules=list(options.targets),
        d_initial=options.initial_scale,
        projection_prng_key=seed,
        save_projection=True,
        bias="none",
    )
    return insert_adapter(model, config, seed)


def count_vera(shape: ModelShape, options: VeraOptions) -> int:
    """A scale for each rank and each output of every target.

    Raises:
        MethodError: the model has no such target.
    """
    sizes = target_sizes(shape, options.targets)
    return shape.num_hidden_layers * sum(options.rank + outputs for _, outputs in sizes)


def vera_workload(shape: ModelShape, options: VeraOptions) -> Workload:
    """Every token passes the shared pair behind each target; what is scaled is kept: the rank's
    values in fp32 and the outputs. Autocast keeps a copy of the pair for each target.
    """
    sizes = target_sizes(shape, options.targets)
    layers, outputs = shape.num_hidden_layers, sum(size[1] for size in sizes)
    pairs = layers * options.rank * sum(sum(size) for size in sizes)
    return Workload(
        frozen_weights=pairs,
        kept_values=layers * outputs,
        kept_floats=layers * options.rank * len(sizes),
        kept_copies=pairs,
    )


VERA = Method(
    name="vera",
    title="VeRA",
    options=VeraOptions,
    recipe=VERA_ALPACA,
    apply=apply_vera,
    count_parameters=count_vera,
    workload=vera_workload,
)
