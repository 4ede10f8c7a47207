"""PEFT's adapter folders: written whole or not at all, and loaded strictly, from files alone.

A folder holds adapter_config.json and adapter_model.safetensors, as `PeftModel.from_pretrained`
reads them. Nothing here asks a hub, and nothing unpickles.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ModelError, one_line
from harness.records.files import atomic_file, flush, save_tensors

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from torch import Tensor

ADAPTER = "default"
"""An adapter's name in a model; it is not part of what is saved."""
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
FROZEN_TENSORS = ("base_model.vera_A", "base_model.vera_B")
"""Stored, but not trained: VeRA's shared random matrices."""

_IMPORTED_BY_NAME = frozenset({"auto_mapping", "megatron_config"})
"""Settings that make PEFT import the module that they name."""
_NOT_COMPARED = _IMPORTED_BY_NAME | frozenset(
    {
        *("base_model_name_or_path", "inference_mode", "peft_version", "revision"),
        "task_type",
        # What starts or trains an adapter has no part in what a trained one computes.
        *("init_lora_weights", "init_ia3_weights", "init_weights", "prompt_tuning_init", "seed"),
        *("d_initial", "projection_prng_key", "lora_dropout", "vera_dropout"),
    }
)


def save_adapter(model: PeftModel, folder: Path, *, base_name: str | None = None) -> None:
    """Writes the adapter's configuration and tensors to `folder`, whole or not at all.

    Other files in the folder are left alone. `base_name`, the base model's name on the hub or path,
    is for whoever loads the adapter.

    Raises:
        StorageError: the files cannot be written; what was there before is still there.
    """
    config = copy.copy(model.peft_config[ADAPTER])
    config.inference_mode = True
    config.base_model_name_or_path = base_name
    text = json.dumps(_as_json(config), indent=2, sort_keys=True) + "\n"
    tensors = {name: value.clone() for name, value in adapter_tensors(model).items()}
    # Without its configuration a folder reads as no adapter: killed between any two steps, it
    # never reads as one of old and new halves. The inner file is put in place first.
    with (
        atomic_file(folder / CONFIG_FILE) as settings,
        atomic_file(folder / WEIGHTS_FILE) as weights,
    ):
        save_tensors(weights, tensors)
        settings.write_text(text, encoding="utf-8")
        for file in (weights, settings):
            flush(file)
        (folder / CONFIG_FILE).unlink(missing_ok=True)


def load_adapter(model: PeftModel, folder: Path, *, advice: str) -> None:
    """Reads an adapter's tensors into a model that has the same adapter.

    Nothing is changed unless type, settings, names and shapes agree exactly. `advice`, what to do
    where the folder cannot be used, ends the error's line.

    Raises:
        ModelError: a file is missing or damaged, or holds another method's or model's adapter.
    """
    stored = read_adapter_config(folder, advice=advice)
    difference = _difference(stored, _as_json(model.peft_config[ADAPTER]))
    if difference:
        raise ModelError(f"{folder / CONFIG_FILE}: not of this method and model: {difference}")
    # Not by PEFT, whose older versions ignore VeRA's matrices.
    load_tensors(folder / WEIGHTS_FILE, _own_tensors(model), advice=advice)


def _own_tensors(model: PeftModel) -> dict[str, Tensor]:
    """The model's own tensors, not copies, by the names that PEFT stores them under."""
    if model.peft_config[ADAPTER].is_prompt_learning:
        encoder: Any = model.prompt_encoder[ADAPTER]
        return {"prompt_embeddings": encoder.embedding.weight}
    found = adapter_tensors(model)
    owned = {tensor.data_ptr() for tensor in model.state_dict().values()}
    assert all(tensor.data_ptr() in owned for tensor in found.values()), "PEFT gives copies"
    return found


def adapter_tensors(model: PeftModel) -> dict[str, Tensor]:
    """What is stored of a model's adapter, by the names that PEFT stores it under."""
    from peft import get_peft_model_state_dict

    # Told not to look for resized embeddings, which it would compare with the hub's configuration.
    found: dict[str, Tensor] = get_peft_model_state_dict(
        model, adapter_name=ADAPTER, save_embedding_layers=False
    )
    return found


def read_adapter_config(folder: Path, *, advice: str = "copy it again") -> dict[str, Any]:
    """The content of a folder's adapter_config.json; needs neither torch nor PEFT.

    Raises:
        ModelError: it is missing, damaged, or does not say its `peft_type`.
    """
    file = folder / CONFIG_FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as fault:
        raise ModelError(f"{file}: missing; {advice}") from fault
    except (OSError, ValueError) as fault:
        raise ModelError(f"{file}: cannot be read ({one_line(fault)}); {advice}") from fault
    if not isinstance(content, dict) or not isinstance(content.get("peft_type"), str):
        raise ModelError(f"{file}: does not say its peft_type, so it is no adapter's; {advice}")
    return content


def adapter_size(folder: Path, *, advice: str = "copy it again") -> int:
    """The number of trained parameters in a folder, by its header; needs no torch.

    Raises:
        ModelError: the file is missing or damaged.
    """
    from safetensors import safe_open

    file = folder / WEIGHTS_FILE
    with reading_tensors(file, advice=advice), safe_open(file, framework="numpy") as stored:
        return sum(
            math.prod(stored.get_slice(name).get_shape())
            for name in stored.keys()  # noqa: SIM118  # not a dictionary
            if name not in FROZEN_TENSORS
        )


def load_tensors(path: Path, own: Mapping[str, Tensor], *, advice: str) -> None:
    """Copies a safetensors file into a model's own tensors, if names and shapes agree exactly.

    Raises:
        ModelError: it is missing or damaged, or names or shapes differ.
    """
    import torch
    from safetensors.torch import load_file

    with reading_tensors(path, advice=advice):
        stored = load_file(path)
    check_tensors(path, stored, own)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(stored[name])


@contextmanager
def reading_tensors(path: Path, *, advice: str) -> Iterator[None]:
    """Runs a block that reads a safetensors file.

    Raises:
        ModelError: it is missing or damaged; the line ends with the advice.
    """
    from safetensors import SafetensorError

    try:
        yield
    except FileNotFoundError as fault:
        raise ModelError(f"{path}: missing; {advice}") from fault
    except (SafetensorError, OSError) as fault:
        raise ModelError(f"{path}: truncated or damaged ({one_line(fault)}); {advice}") from fault


def check_tensors(path: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Refuses tensors whose names or shapes are not exactly the expected ones.

    Raises:
        ModelError: they are not; the line begins with `path`.
    """
    faults = [f"{name} is missing" for name in expected if name not in found]
    faults += [f"{name} is unexpected" for name in found if name not in expected]
    faults += [
        f"{name} is {dimensions(found[name].shape)}, the model's is {dimensions(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if faults:
        raise ModelError(f"{path}: not of this method and model: {first_faults(faults)}")


def first_faults(faults: Sequence[str]) -> str:
    """The first three faults, and how many more there are."""
    more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
    return "; ".join(faults[:3]) + more


def dimensions(size: Any) -> str:
    """A tensor's shape as it is shown: 10x4096."""
    return "x".join(str(side) for side in size)


def _difference(stored: Mapping[str, Any], own: Mapping[str, Any], path: str = "") -> str | None:
    """The first setting that both state and that differs, the type of adapter before all others."""
    shared = stored.keys() & own.keys() - _NOT_COMPARED
    for key in sorted(shared, key=lambda key: (key != "peft_type", key)):
        then, now = _plain(stored[key]), _plain(own[key])
        if isinstance(then, dict) and isinstance(now, dict):
            inner = _difference(then, now, f"{path}{key}.")
            if inner:
                return inner
        elif then is not None and then != now:
            return f"{path}{key} is {then}, the model's is {now}"
    return None


def _as_json(config: PeftConfig) -> dict[str, Any]:
    """A configuration as adapter_config.json holds it."""
    content = {key: _plain(value) for key, value in config.to_dict().items()}
    decoded: dict[str, Any] = json.loads(json.dumps(content))
    return decoded


def _plain(value: Any) -> Any:
    """The value; of a set, or a list of names, whose order says nothing, the sorted list."""
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
        return sorted(value)
    return value
