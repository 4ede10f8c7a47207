"""What is checked of an adapter folder for a base model, by its settings and headers alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import ModelError, printable
from harness.models.adapter_folder import (
    CONFIG_FILE,
    check_version,
    differences,
    dimensions,
    find_weights,
    first_faults,
    read_adapter_config,
)
from harness.models.shape import ModelShape
from harness.readers.tensor_files import Header, check_weight_types, shown_name, tensor_header

_LINEAR = re.compile(
    r"base_model\.model\.[a-z_]+\.layers\.(\d{1,6})\.(?:[a-z_]+\.)?(\w+)\.lora_([AB])\.weight"
)
"""LoRA's matrices of a decoder's linear layers: layer, name of the linear layer, A or B."""
_LORA_PARTS = re.compile(r"\.lora_(A|B|embedding_A|embedding_B|magnitude_vector)\b")
_MAY_HOLD_MORE = (
    *("modules_to_save", "trainable_token_indices", "target_parameters", "monteclora_config"),
    *("velora_config", "kasa_config", "arrow_config"),
)
_OTHER_SIZES = ("use_qalora", "use_bdlora")
_CHOOSES_LAYERS = (
    *("layers_to_transform", "layers_pattern", "layer_replication", "exclude_modules"),
    "target_parameters",
)
_FLOATING = frozenset({"LORA", "PROMPT_TUNING", "PREFIX_TUNING", "IA3", "VERA", "ADAPTION_PROMPT"})
"""Types whose tensors are all weights; some others store indices too."""


def check_adapter(folder: Path, shape: ModelShape) -> None:
    """Checks that a folder holds an adapter that PEFT knows, for a base model of a shape.

    Reads the settings and the header of the tensors; needs neither torch nor PEFT. Of LoRA and
    prompt tuning every tensor is known; those of other types are compared when they are loaded.

    Raises:
        Unreadable: a file is missing or damaged, or holds no weights.
        ModelError: the settings cannot be, or the tensors are those of other settings or models.
    """
    settings = read_adapter_config(folder)
    file = find_weights(folder)
    header = tensor_header(file)
    kind = settings["peft_type"]
    if kind in _FLOATING:
        check_weight_types(file, header)
    faults = list(_tensor_faults(kind, settings, header, shape))
    if faults:
        check_version(file, header)
        raise ModelError(
            f"{file}: does not fit {CONFIG_FILE} and this model: {first_faults(faults)}; give the "
            "adapter's own base model, or its own two files"
        )


def _tensor_faults(
    kind: str, settings: Mapping[str, Any], header: Header, shape: ModelShape
) -> Iterator[str]:
    if kind == "PROMPT_TUNING":
        size = (settings.get("num_virtual_tokens"), shape.hidden_size)
        yield from differences(header, {"prompt_embeddings": size})
    elif kind == "LORA":
        yield from _strange_names(settings, header)
        yield from _misfits(settings, header, shape)
        yield from _missing(settings, header, shape)


def _strange_names(settings: Mapping[str, Any], header: Header) -> Iterator[str]:
    """Tensors that are no part of LoRA, where its settings name nothing else to save."""
    if settings.get("bias", "none") != "none" or any(map(settings.get, _MAY_HOLD_MORE)):
        return
    for name in header:
        if not _LORA_PARTS.search(name) or not name.startswith("base_model.model."):
            yield f"{shown_name(name)} is unexpected"


def _misfits(settings: Mapping[str, Any], header: Header, shape: ModelShape) -> Iterator[str]:
    """Matrices whose layer the model has not, or whose sizes are others."""
    if any(map(settings.get, _OTHER_SIZES)):
        return
    ranks = settings.get("rank_pattern")
    rank = None if ranks else settings.get("r", 8)
    for name, (_, found) in header.items():
        match = _LINEAR.fullmatch(name)
        if match is None:
            continue
        if int(match[1]) >= shape.num_hidden_layers and not settings.get("layer_replication"):
            yield f"{shown_name(name)}: this model has {shape.num_hidden_layers} layers"
            continue
        if match[2] not in shape.linear_layers:
            yield f"{shown_name(name)}: this model has no {printable(match[2])}"
            continue
        side = shape.linear_layers[match[2]][match[3] == "B"]
        due = (rank, side) if match[3] == "A" else (side, rank)
        if len(found) != 2 or any(
            size not in (None, own) for size, own in zip(due, found, strict=True)
        ):
            text = "x".join("r" if size is None else str(size) for size in due)
            yield f"{shown_name(name)} is {dimensions(found)}, {text} is due"
            continue
        other = name.replace(".lora_A.", ".lora_B.") if match[3] == "A" else None
        if other in header and header[other][1][-1:] != found[:1]:
            yield f"{shown_name(name)} and its lora_B are of different ranks"


def _missing(settings: Mapping[str, Any], header: Header, shape: ModelShape) -> Iterator[str]:
    """Matrices that the settings ask for and the file has not."""
    targets = settings.get("target_modules")
    if isinstance(targets, str) or any(map(settings.get, _CHOOSES_LAYERS)):
        targets = None
    found = {m.groups() for name in header if (m := _LINEAR.fullmatch(name)) is not None}
    layers = sorted({layer for layer, _, _ in found}, key=int)
    if targets is not None and set(targets) <= shape.linear_layers.keys():
        wanted = [
            (str(layer), target) for layer in range(shape.num_hidden_layers) for target in targets
        ]
    else:
        wanted = sorted({(layer, linear) for layer, linear, _ in found})
    if not layers and targets:
        yield "it holds no LoRA matrices of a decoder's layers"
        return
    for layer, linear in wanted:
        for part in "AB":
            if (layer, linear, part) not in found:
                yield f"lora_{part} of {linear} in layer {layer} is missing"
