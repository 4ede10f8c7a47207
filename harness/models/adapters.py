"""Inserts a PEFT adapter into a model; every method of PEFT goes through here."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import MethodError, ModelError, ZbenchError, plain_message, printable
from harness.models.adapter_folder import (
    ADAPTER,
    CONFIG_FILE,
    find_weights,
    load_adapter,
    read_adapter_config,
)
from harness.models.adapter_settings import IMPORTED_BY_NAME
from harness.models.devices import is_out_of_memory

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel


_NOT_FOR_LOADING = IMPORTED_BY_NAME | {
    # How the prompts began: from a text, by a tokenizer of the hub, or from a pickled file.
    *("prompt_tuning_init", "prompt_tuning_init_text", "prompt_tuning_init_state_dict_path"),
    *("tokenizer_name_or_path", "tokenizer_kwargs"),
}


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

    if getattr(config, "use_dora", False):
        _check_dora(model)
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


def _check_dora(model: PreTrainedModel) -> None:
    """Refuses DoRA where PEFT loses the scales of 8-bit weights: it "moves them back" on a CPU.

    Raises:
        MethodError: the base is in 8 bits and on the CPU.
    """
    for parameter in model.parameters():
        if type(parameter).__name__ == "Int8Params" and parameter.device.type == "cpu":
            raise MethodError(
                "DoRA on a base in int8 runs on CUDA alone (PEFT loses the scales on a CPU); take "
                "nf4, or another method"
            )


def attach_adapter(model: PreTrainedModel, folder: Path, *, advice: str | None = None) -> PeftModel:
    """Inserts a stored adapter, of any type that PEFT knows, into a model, which it changes.

    Raises:
        Unreadable: a file of the folder is missing or damaged, or holds no weights.
        ModelError: the folder holds an adapter of another base, or settings that cannot be.
        MethodError: PEFT finds that the adapter's settings do not fit the model.
    """
    from peft import __version__
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    file = folder / CONFIG_FILE
    stored = read_adapter_config(folder, advice=advice)
    find_weights(folder)
    kind = PEFT_TYPE_TO_CONFIG_MAPPING[stored["peft_type"]]
    settings = {key: value for key, value in stored.items() if key not in _NOT_FOR_LOADING}
    unknown = settings.keys() - {field.name for field in dataclasses.fields(kind)}
    if unknown:
        raise ModelError(
            f"{file}: {printable(', '.join(sorted(unknown)))[:100]}: no setting of {kind.__name__} "
            f"in PEFT {__version__}; install the version of PEFT that wrote the folder, or remove "
            "the setting if it says nothing"
        )
    try:
        config = kind(**settings | {"base_model_name_or_path": None})
    except ZbenchError as fault:  # the prompt methods' own, which begins with the file's name
        raise ModelError(f"{folder}/{fault}") from fault
    except Exception as fault:  # of any kind: PEFT compares and converts unchecked
        raise ModelError(f"{file}: PEFT refuses its settings ({plain_message(fault)})") from fault
    # An encoder of prompts is stored as what it gives; only that is built in inference mode.
    config.inference_mode = config.is_prompt_learning
    try:
        adapted = insert_adapter(model, config, 0)
    except ZbenchError as fault:
        raise type(fault)(f"{file}: {fault}") from fault
    except Exception as fault:  # the settings are a stranger's, and PEFT uses them unchecked
        if is_out_of_memory(fault):
            raise
        raise MethodError(
            f"{file}: PEFT cannot make this adapter of its settings ({plain_message(fault)})"
        ) from fault
    load_adapter(adapted, folder, advice=advice)
    return adapted
