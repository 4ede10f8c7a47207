"""Converts checkpoints (.pth) of LLaMA-Adapter, the paper's authors' included, to PEFT's format.

The layout is that of the files themselves: `adapter_query.weight` (K·L, D) with the rows of the
adapted layers one after another, `layers.{i}.attention.gate` (1, H, 1, 1) for every layer, and for
the non-linear method the parts of `hyperAdapter`. A file does not say which method it holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from harness.errors import ModelError, UsageError
from harness.methods.zero_init.options import PROMPT_METHODS, PromptOptions
from harness.models.adapter_folder import dimensions
from harness.models.shape import ModelShape
from harness.readers.tensor_files import read_pth, shown_name
from harness.spec import describe_faults

if TYPE_CHECKING:
    from torch import Tensor

ROWS = "adapter_query.weight"
GATE = re.compile(r"layers\.(\d{1,6})\.attention\.gate")
GENERATOR = {
    "hyperAdapter.layer_embed.weight": "prompt_embedding",
    "hyperAdapter.decoder.linear1.weight": "prompt_hidden.weight",
    "hyperAdapter.decoder.linear1.bias": "prompt_hidden.bias",
    "hyperAdapter.decoder.prompt.weight": "prompt_output.weight",
    "hyperAdapter.decoder.prompt.bias": "prompt_output.bias",
}
"""Names in a file, and those in an adapter folder."""
DECODER = "base_model.model.model."


@dataclass(frozen=True)
class LlamaAdapter:
    """A LLaMA-Adapter checkpoint in the form of an adapter folder."""

    method: str
    options: PromptOptions
    tensors: dict[str, Tensor]
    """By PEFT's names, fp32."""


def read_llama_adapter(
    file: Path, shape: ModelShape, *, method: str | None, options: Mapping[str, Any]
) -> LlamaAdapter:
    """Reads a LLaMA-Adapter checkpoint.

    Args:
        file: a .pth dictionary of tensors; nothing in it is executed.
        shape: of the base model that it was trained on.
        method: one of the prompt methods; needed where the file does not determine it.
        options: of the method, as in a grid, where they differ from its defaults.

    Raises:
        Unreadable: the file is missing or damaged, or holds other than tensors of finite numbers.
        ModelError: it is of another layout or of another base model.
        UsageError: the method must be given, or contradicts the file; or an option is wrong.
    """
    if shape.model_type != "llama":
        raise ModelError(
            f"{file}: LLaMA-Adapter checkpoints are for llama; the model is {shape.model_type}"
        )
    tensors = _read(file)
    gates = _gates(file, tensors, shape)
    found = _method(file, tensors, gates, method)
    try:
        parsed = PROMPT_METHODS[found].model_validate(dict(options))
    except ValidationError as error:
        raise UsageError(describe_faults(error, "--option", PROMPT_METHODS[found])[0]) from error
    if parsed.image_encoder is not None:
        raise UsageError(
            f"{file}: --option image_encoder: LLaMA-Adapter's files of prompts hold no projection "
            "of pictures; leave it out"
        )
    convert = _generator if found == "zero-init-nonlinear" else _rows
    converted, parsed = convert(file, tensors, shape, parsed)
    if found != "random-init":
        for index in parsed.adapted_layers(shape):
            converted[f"{DECODER}layers.{index}.self_attn.prompt.prompt_gate"] = gates[index]
    return LlamaAdapter(found, parsed, converted)


def _read(file: Path) -> dict[str, Tensor]:
    tensors = read_pth(file)
    for name in tensors:
        if name != ROWS and name not in GENERATOR and not GATE.fullmatch(name):
            raise ModelError(
                f"{file}: {shown_name(name)} is no part of a prompt adapter; known are {ROWS}, "
                "layers.*.attention.gate and hyperAdapter.*"
            )
    return {name: value.float() for name, value in tensors.items()}


def _gates(file: Path, tensors: dict[str, Tensor], shape: ModelShape) -> dict[int, Tensor]:
    """Each layer's gates, (H, 1, 1) for H attention heads."""
    heads, gates = shape.num_attention_heads, {}
    for name, value in tensors.items():
        match = GATE.fullmatch(name)
        if match is None:
            continue
        if tuple(value.shape) != (1, heads, 1, 1):
            raise ModelError(
                f"{file}: {name} is {dimensions(value.shape)}, this model has {heads} "
                f"heads (1x{heads}x1x1); give the file's own base model"
            )
        gates[int(match[1])] = value.reshape(heads, 1, 1).clone()
    if sorted(gates) != list(range(shape.num_hidden_layers)):
        raise ModelError(
            f"{file}: has gates of {len(gates)} layers, this model has "
            f"{shape.num_hidden_layers} layers; give the file's own base model"
        )
    return gates


def _method(
    file: Path, tensors: dict[str, Tensor], gates: dict[int, Tensor], stated: str | None
) -> str:
    """The method that the tensors determine, or the stated one where several are possible."""
    generated = [name for name in GENERATOR if name in tensors]
    gated = any(bool(gate.any()) for gate in gates.values())
    if generated and ROWS in tensors:
        raise ModelError(f"{file}: has both {ROWS} and hyperAdapter; a method has one of them")
    if generated:
        missing = [name for name in GENERATOR if name not in tensors]
        if missing:
            raise ModelError(f"{file}: {missing[0]} is missing; give the whole file")
        possible = ["zero-init-nonlinear"]
    elif ROWS not in tensors:
        raise ModelError(f"{file}: has neither {ROWS} nor hyperAdapter; it holds no prompts")
    else:
        # Only random-init leaves every gate at its start; so does a linear one never trained.
        possible = ["zero-init-linear"] if gated else ["random-init", "zero-init-linear"]
    if stated is None and len(possible) == 1:
        return possible[0]
    if stated is None:
        raise UsageError(
            f"{file}: all gates are zero, which leaves the method open; give --method "
            f"{' or --method '.join(possible)}"
        )
    if stated not in possible:
        raise UsageError(f"{file}: holds {' or '.join(possible)}, not {stated}; correct --method")
    return stated


def _rows(
    file: Path, tensors: dict[str, Tensor], shape: ModelShape, options: PromptOptions
) -> tuple[dict[str, Tensor], PromptOptions]:
    """The prompts (K, D) of each adapted layer, and the options that they determine."""
    rows, length = tensors[ROWS], options.prompt_length
    if rows.ndim != 2 or rows.shape[1] != shape.hidden_size:
        raise ModelError(
            f"{file}: {ROWS} is {dimensions(rows.shape)}, this model's hidden size is "
            f"{shape.hidden_size}; give the file's own base model"
        )
    layers, rest = divmod(rows.shape[0], length)
    if rest or not 1 <= layers <= shape.num_hidden_layers:
        raise UsageError(
            f"{file}: {rows.shape[0]} rows are no prompts of {length} rows for at most "
            f"{shape.num_hidden_layers} layers; give --option prompt_length=..."
        )
    options = _with_layers(file, options, layers)
    return {
        f"{DECODER}layers.{index}.self_attn.prompt.prompt_rows": part.clone()
        for index, part in zip(options.adapted_layers(shape), rows.split(length), strict=True)
    }, options


def _generator(
    file: Path, tensors: dict[str, Tensor], shape: ModelShape, options: Any
) -> tuple[dict[str, Tensor], PromptOptions]:
    """The weights of the prompt generator, and the options that they determine."""
    embedding = tensors["hyperAdapter.layer_embed.weight"]
    layers, hidden = embedding.shape if embedding.ndim == 2 else (0, 0)
    length, rest = divmod(tensors["hyperAdapter.decoder.prompt.bias"].numel(), shape.hidden_size)
    if layers != shape.num_hidden_layers or rest or length < 1 or hidden < 1:
        raise ModelError(
            f"{file}: its generator is for {layers} layers and prompts of "
            f"{tensors['hyperAdapter.decoder.prompt.bias'].numel()} numbers, this model has "
            f"{shape.num_hidden_layers} layers of size {shape.hidden_size}; give the file's own "
            "base model"
        )
    for name, value in (("prompt_length", length), ("hidden_size", hidden)):
        if name in options.model_fields_set and getattr(options, name) != value:
            raise UsageError(f"{file}: its {name} is {value}, not {getattr(options, name)}; leave "
                             f"out --option {name}=...")  # fmt: skip
    options = _with(file, options, prompt_length=length, hidden_size=hidden)
    expected = {
        "prompt_embedding": (layers, hidden),
        "prompt_hidden.weight": (hidden, hidden),
        "prompt_hidden.bias": (hidden,),
        "prompt_output.weight": (length * shape.hidden_size, hidden),
        "prompt_output.bias": (length * shape.hidden_size,),
    }
    converted = {}
    for name, part in GENERATOR.items():
        if tuple(tensors[name].shape) != expected[part]:
            raise ModelError(
                f"{file}: {name} is {dimensions(tensors[name].shape)}, its other parts "
                f"ask for {dimensions(expected[part])}; give the file as it was trained"
            )
        converted[f"{DECODER}generator.{part}"] = tensors[name].clone()
    return converted, _with_layers(file, options, len(options.adapted_layers(shape)))


def _with_layers(file: Path, options: PromptOptions, layers: int) -> PromptOptions:
    if options.num_layers not in (None, layers):
        raise UsageError(
            f"{file}: holds prompts of {layers} layers, not {options.num_layers}; correct --option "
            "num_layers=..."
        )
    return _with(file, options, num_layers=layers)


def _with(file: Path, options: PromptOptions, **found: int) -> PromptOptions:
    """The options with what a file determines of them.

    Raises:
        ModelError: an option cannot be so.
    """
    try:
        return type(options).model_validate(options.model_dump() | found)
    except ValidationError as error:
        raise ModelError(
            describe_faults(error, f"{file}: its options", type(options))[0]
        ) from error


def adapter_config(adapter: LlamaAdapter, shape: ModelShape, base_name: str | None) -> str:
    """The text of the folder's adapter_config.json."""
    record = {
        "base_model_name_or_path": base_name,
        "base_shape": shape.model_dump(),
        "inference_mode": True,
        "method": adapter.method,
        "options": adapter.options.model_dump(),
        "peft_type": "ZERO_INIT_PROMPT",
        "seed": 0,
        "task_type": "CAUSAL_LM",
    }
    return json.dumps(record, indent=2, sort_keys=True) + "\n"
