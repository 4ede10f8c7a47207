"""What optimizers make of a grid's methods: the parts that Muon and AdamW take, and refusals."""

from __future__ import annotations

from collections.abc import Iterator

from harness.errors import ZbenchError
from harness.grid.choices import options_on
from harness.grid.schema import GridSpec, MethodChoice
from harness.methods import METHODS
from harness.methods.method import MethodOptions
from harness.methods.pass_through import model_of_shape
from harness.methods.peft_cache import remembered
from harness.methods.peft_types import ONE_DEVICE
from harness.models.shape import ModelShape
from harness.training.optimizer_options import UNSHARDED


def optimizer_of(choice: MethodChoice) -> str:
    """The name of a choice's optimizer in torch.optim."""
    stated = choice.train.optimizer if choice.train is not None else None
    return str(stated["name"]) if stated else "AdamW"


def muon_parts(choice: MethodChoice, options: MethodOptions, shape: ModelShape) -> tuple[int, int]:
    """The numbers of parameters that Muon trains of a method, and AdamW.

    They are counted on a model without weights, once for a shape; torch is imported for that.

    Raises:
        ZbenchError: the method cannot be applied to such a model.
    """
    question = {
        "muon": choice.method,
        "count": METHODS[choice.method].count_parameters(shape, options),
        "options": options.identity(),
        "shape": shape.model_dump(mode="json"),
    }
    muon, adamw = remembered(question, lambda: _counted(choice, options, shape))
    return muon, adamw


def _counted(choice: MethodChoice, options: MethodOptions, shape: ModelShape) -> list[int]:
    from harness.models.loading import trained_parameters
    from harness.training.optimizers import takes_muon

    model = METHODS[choice.method].apply(model_of_shape(shape, "meta"), options, 0)
    counts = [0, 0]
    for name, parameter in trained_parameters(model).items():
        counts[not takes_muon(model, name, parameter)] += parameter.numel()
    return counts


def part_notes(grid: GridSpec) -> Iterator[str]:
    """Yields how many parameters Muon trains of each of its methods, and how many AdamW."""
    choices = list(grid.choices)
    for model, choice in grid.pairs:
        if optimizer_of(choice) != "Muon":
            continue
        shape = grid.models[model].shape
        try:
            muon, adamw = muon_parts(choice, options_on(choice, shape, choices), shape)
        except ZbenchError:  # its weights are needed; known when it runs
            continue
        name = f"{model}/{choice.label}"
        yield f"{name}: Muon trains {muon:,} parameters (matrices), AdamW {adamw:,}"


def sharding_faults(grid: GridSpec) -> Iterator[str]:
    """Yields a fault for each method that several devices cannot train together."""
    for block in grid.blocks:
        for choice in block.methods if block.gpus_per_cell > 1 else ():
            if (kind := getattr(choice.options, "peft_type", None)) in ONE_DEVICE:
                yield (
                    f"{choice.label}: {kind} moves its ranks between steps, which one device does; "
                    "put it in a block with gpus_per_cell: 1"
                )
            name = optimizer_of(choice)
            if choice.method == "full" and name in UNSHARDED:
                yield (
                    f"{choice.label}: train.optimizer: {name} needs whole matrices, which full "
                    f"fine-tuning on {block.gpus_per_cell} GPUs divides; set gpus_per_cell: 1, or "
                    "take adamw"
                )
