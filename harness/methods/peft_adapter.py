"""Puts a PEFT adapter into a model: the one door through which every method of PEFT is applied."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from harness.adapters import ADAPTER
from harness.errors import MethodError

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel


def insert_adapter(model: PreTrainedModel, config: PeftConfig, seed: int) -> PeftModel:
    """Freezes a model, puts the adapter of a PEFT configuration into it, and wraps it.

    The adapter's trained tensors are fp32 whatever the base's precision, the mode (training or
    evaluation) stays the base's, and the global generators are left as they were.

    Args:
        model: changed in place.
        config: of any type that PEFT knows; its `task_type` becomes CAUSAL_LM.
        seed: decides all that PEFT draws.

    Raises:
        MethodError: PEFT finds that the configuration does not fit the model.
    """
    import torch
    from peft import TaskType, get_peft_model

    config.task_type = TaskType.CAUSAL_LM
    training = model.training
    cards = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=cards), warnings.catch_warnings():
        # Most methods draw on the CPU and then move the tensors to their layer's device.
        torch.default_generator.manual_seed(seed)
        for card in cards:
            torch.cuda.default_generators[card].manual_seed(seed)
        # PEFT reads a property that transformers renames in its next major version.
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
        try:
            adapted = get_peft_model(model, config, adapter_name=ADAPTER)
        except (ValueError, NotImplementedError) as fault:
            raise MethodError(
                f"{type(config).__name__} does not fit {type(model).__name__} "
                f"({' '.join(str(fault).split())})"
            ) from fault
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    # New modules begin in training mode, where their dropout works.
    adapted.train(training)
    return adapted
