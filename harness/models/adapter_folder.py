"""PEFT's adapter folders: written whole or not at all, and loaded strictly, from files alone.

A folder holds adapter_config.json and adapter_model.safetensors, as `PeftModel.from_pretrained`
reads them. Nothing here asks a hub, and nothing unpickles.
"""

from __future__ import annotations

import copy
import json
import math
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ModelError, one_line, printable
from harness.models.adapter_settings import (
    first_difference,
    plain,
    setting_faults,
    type_fault,
)
from harness.readers.files import Unreadable
from harness.readers.json_files import read_json_object
from harness.readers.tensor_files import (
    WEIGHT_TYPES,
    Header,
    check_finite,
    shown_name,
    tensor_header,
)
from harness.records.files import atomic_file, flush, save_tensors

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from torch import Tensor

ADAPTER = "default"
"""An adapter's name in a model; it is not part of what is saved."""
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PICKLED_FILE = "adapter_model.bin"
"""What PEFT wrote until 2023; unpickling can run code, so that it is never read."""
MAX_CONFIG_BYTES = 16 * 2**20
FROZEN_TENSORS = ("base_model.vera_A", "base_model.vera_B")
"""Stored, but not trained: VeRA's shared random matrices."""

_NAMED_ADAPTER = re.compile(r"\.lora_[AB]\.(\w+)\.weight$")


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


def load_adapter(model: PeftModel, folder: Path, *, advice: str | None = None) -> None:
    """Reads an adapter's tensors into a model that has the same adapter.

    Nothing is changed unless type, settings, names, types and shapes agree exactly, and all numbers
    are finite. `advice`, where there is a better one than the file's fault asks for, ends the line.

    Raises:
        Unreadable: a file is missing or damaged, or holds no weights.
        ModelError: it holds another method's or model's adapter.
    """
    stored = read_adapter_config(folder, advice=advice)
    difference = first_difference(stored, _as_json(model.peft_config[ADAPTER]))
    if difference:
        raise ModelError(f"{folder / CONFIG_FILE}: not of this method and model: {difference}")
    # Not by PEFT, whose older versions ignore VeRA's matrices.
    with advising(advice):
        file = find_weights(folder)
    if model.peft_config[ADAPTER].is_prompt_learning:
        _load_prompts(model, file, advice)
    else:
        load_tensors(file, _own_tensors(model), advice=advice)


def _load_prompts(model: PeftModel, file: Path, advice: str | None) -> None:
    """Reads virtual tokens. What an encoder makes of its parameters is all that is stored of it,
    so that the model has that, and no longer trains the encoder."""
    from torch import nn

    encoder: Any = model.prompt_encoder[ADAPTER]
    if model.peft_config[ADAPTER].inference_mode:
        prompts = encoder.embedding.weight.detach().clone()
    else:
        prompts = model.get_prompt_embedding_to_save(ADAPTER)
    load_tensors(file, {"prompt_embeddings": prompts}, advice=advice)
    plain = isinstance(encoder.embedding, nn.Embedding) and len(list(encoder.parameters())) == 1
    if hasattr(encoder, "frozen_embedding"):  # a cartridge, in two parts
        encoder.load_prompt_embeddings(prompts)
    elif plain:
        encoder.embedding.weight.data.copy_(prompts)
    else:
        device = encoder.embedding.weight.device
        encoder.embedding = nn.Embedding.from_pretrained(prompts.to(device), freeze=False)
        model.peft_config[ADAPTER].inference_mode = True


def _own_tensors(model: PeftModel) -> dict[str, Tensor]:
    """The model's own tensors, not copies, by the names that PEFT stores them under."""
    found = adapter_tensors(model)
    owned = {tensor.data_ptr() for tensor in model.state_dict().values()}
    for module in model.modules():  # SHiRA's places of weights, which are no buffers
        owned |= {tensor.data_ptr() for tensor in getattr(module, "shira_indices", {}).values()}
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


def read_adapter_config(folder: Path, *, advice: str | None = None) -> dict[str, Any]:
    """The content of a folder's adapter_config.json; needs neither torch nor PEFT.

    Raises:
        Unreadable: it is missing or damaged, or does not say its `peft_type`.
        ModelError: PEFT has no such type, or a setting is of another kind than PEFT's.
    """
    file = folder / CONFIG_FILE
    with advising(advice):
        content = read_json_object(file, max_bytes=MAX_CONFIG_BYTES)
        kind = content.get("peft_type")
        if not isinstance(kind, str):
            found = "does not say its peft_type, so it is no adapter's"
            raise Unreadable(file, "content", found)
    if (fault := type_fault(kind)) is not None:
        raise ModelError(f"{file}: {fault}")
    if faults := setting_faults(content):
        raise ModelError(
            f"{file}: {first_faults(faults)}; {advice or 'write what the adapter was trained with'}"
        )
    return content


def find_weights(folder: Path) -> Path:
    """The file of a folder's tensors.

    Raises:
        Unreadable: there is none; where PEFT's old format is there, the line says how to convert.
    """
    file, pickled = folder / WEIGHTS_FILE, folder / PICKLED_FILE
    if pickled.exists() and not file.exists():
        found = f"is not read, because unpickling can run code, and there is no {WEIGHTS_FILE}"
        raise Unreadable(pickled, "other format", found, f"convert it: {conversion(folder)}")
    return file


def conversion(folder: Path) -> str:
    """The command that writes a folder's tensors as safetensors, by the names of today's PEFT.

    It unpickles tensors alone, and takes an adapter's name out of those of its tensors.
    """
    return (
        f'(cd {shlex.quote(str(folder))} && python -c "import os, re, torch, safetensors.torch as '
        f"s; t = torch.load('{PICKLED_FILE}', 'cpu', weights_only=True) if "
        f"os.path.exists('{PICKLED_FILE}') else s.load_file('{WEIGHTS_FILE}'); "
        "s.save_file({re.sub(r'(lora_[AB])\\.\\w+\\.weight', r'\\1.weight', "
        "re.sub('^model', 'base_model.model.model', k)): "
        f"v.contiguous().clone() for k, v in t.items()}}, '{WEIGHTS_FILE}')\")"
    )


def adapter_size(folder: Path, *, advice: str | None = None) -> int:
    """The number of trained parameters in a folder, by its header; needs no torch.

    Raises:
        Unreadable: the file is missing or damaged.
    """
    with advising(advice):
        header = tensor_header(find_weights(folder))
    return sum(math.prod(size) for name, (_, size) in header.items() if name not in FROZEN_TENSORS)


def load_tensors(path: Path, own: Mapping[str, Tensor], *, advice: str | None = None) -> None:
    """Copies a safetensors file into a model's own tensors.

    Nothing is changed unless names, types and shapes agree exactly, and all numbers are finite.

    Raises:
        Unreadable: it is missing or damaged, or holds no weights.
        ModelError: names or shapes differ.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    with advising(advice):
        header = tensor_header(path)
        check_names(path, header, own)
        check_types(path, header, own)
        try:
            stored = load_file(path)
        except (SafetensorError, OSError) as fault:  # changed since its header was read
            raise Unreadable(path, "damaged", f"cannot be loaded ({one_line(fault)})") from fault
        for name, tensor in own.items():  # as the model's numbers, which may be of smaller range
            check_finite(path, {name: stored[name].to(tensor.dtype)})
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(stored[name])


@contextmanager
def advising(advice: str | None) -> Iterator[None]:
    """Runs a block that reads a file, for which the caller may know a better advice.

    Raises:
        Unreadable: the block's, with that advice.
    """
    try:
        yield
    except Unreadable as fault:
        if advice is None:
            raise
        raise Unreadable(fault.path, fault.cause, fault.found, advice) from fault


def check_names(path: Path, found: Header, expected: Mapping[str, Tensor]) -> None:
    """Refuses tensors whose names or shapes are not exactly the expected ones.

    Raises:
        Unreadable: the names are those of another version of PEFT.
        ModelError: they are others; the line begins with `path`.
    """
    faults = list(differences(found, {name: tuple(own.shape) for name, own in expected.items()}))
    if faults:
        check_version(path, found)
        raise ModelError(f"{path}: not of this method and model: {first_faults(faults)}")


def differences(found: Header, due: Mapping[str, tuple[Any, ...]]) -> Iterator[str]:
    """Yields how tensors are not those of a model, by their names and shapes."""
    yield from (f"{name} is missing" for name in due if name not in found)
    yield from (f"{shown_name(name)} is unexpected" for name in found if name not in due)
    for name, size in due.items():
        if name in found and found[name][1] != size:
            yield f"{name} is {dimensions(found[name][1])}, the model's is {dimensions(size)}"


def check_version(path: Path, found: Iterable[str]) -> None:
    """Refuses tensors whose names tell that another program than today's PEFT saved them.

    Raises:
        Unreadable: they do; the line says how to rename them.
    """
    names = list(found)
    if not names:
        raise Unreadable(
            path,
            "content",
            "holds no tensor",
            "save the adapter again, with save_pretrained of the PEFT model that was trained",
        )
    for name in names:
        if match := _NAMED_ADAPTER.search(name):
            raise Unreadable(
                path,
                "other format",
                f"{shown_name(name)} holds the adapter's name ({printable(match[1])[:40]}), as "
                "another version of PEFT saved it",
                f"rename its tensors: {conversion(path.parent)}",
            )
    if all(name.startswith("model.") and ".lora_" in name for name in names):
        raise Unreadable(
            path,
            "other format",
            f"{shown_name(names[0])} does not begin with base_model.model, as in PEFT's files",
            f"rename its tensors: {conversion(path.parent)}",
        )


def check_types(path: Path, found: Header, expected: Mapping[str, Tensor]) -> None:
    """Refuses integers where a model has floating-point numbers, or the other way round.

    Raises:
        Unreadable: there are some; the first is named.
    """
    for name, tensor in expected.items():
        if tensor.is_floating_point() != (found[name][0] in WEIGHT_TYPES):
            said = f"{shown_name(name)} is of type {found[name][0]}, the model's is {tensor.dtype}"
            raise Unreadable(path, "no weights", said)


def first_faults(faults: Sequence[str]) -> str:
    """The first three faults, and how many more there are."""
    more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
    return "; ".join(faults[:3]) + more


def dimensions(size: Any) -> str:
    """A tensor's shape as it is shown: 10x4096."""
    return "x".join(str(side) for side in size) or "one number"


def _as_json(config: PeftConfig) -> dict[str, Any]:
    """A configuration as adapter_config.json holds it."""
    content = {key: plain(value) for key, value in config.to_dict().items()}
    return dict(json.loads(json.dumps(content)))
