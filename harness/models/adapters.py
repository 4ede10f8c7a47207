"""Inserts a PEFT adapter into a model; every method of PEFT goes through here."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import MethodError, ModelError, did_you_mean, one_line
from harness.models.adapter_folder import (
    _IMPORTED_BY_NAME,
    ADAPTER,
    CONFIG_FILE,
    load_adapter,
    read_adapter_config,
)

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel


def insert_adapter(model: PreTrainedModel, config: PeftConfig, seed: int) -> PeftModel:
    """Freezes a model, inserts the adapter of a PEFT configuration, and wraps the model.

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
    gpus = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=gpus), warnings.catch_warnings():
        # Most methods draw on the CPU and then move the tensors to their layer's device.
        torch.default_generator.manual_seed(seed)
        for gpu in gpus:
            torch.cuda.default_generators[gpu].manual_seed(seed)
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


def attach_adapter(model: PreTrainedModel, folder: Path, *, advice: str) -> PeftModel:
    """Inserts a stored adapter, of any type that PEFT knows, into a model, which it changes.

    Raises:
        ModelError: the folder is damaged, or holds an adapter of another base.
        MethodError: PEFT finds that the adapter's settings do not fit the model.
    """
    from peft import PeftType
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    stored = read_adapter_config(folder, advice=advice)
    kind = stored["peft_type"]
    if kind not in PEFT_TYPE_TO_CONFIG_MAPPING:
        raise ModelError(
            f"{folder / CONFIG_FILE}: unknown peft_type {kind!r}"
            f"{did_you_mean(kind, [member.value for member in PeftType])}"
        )
    settings = {key: value for key, value in stored.items() if key not in _IMPORTED_BY_NAME}
    try:
        config = PEFT_TYPE_TO_CONFIG_MAPPING[kind](**settings | {"base_model_name_or_path": None})
    except (TypeError, ValueError) as fault:
        raise ModelError(f"{folder / CONFIG_FILE}: {one_line(fault)}; {advice}") from fault
    # An encoder of prompts is stored as what it gives; only that is built in inference mode.
    config.inference_mode = config.is_prompt_learning
    adapted = insert_adapter(model, config, 0)
    load_adapter(adapted, folder, advice=advice)
    return adapted
